//! What a recipe leaves open is settled by what is here: who exports, and who answers for the original model.

use super::{Build, Error, carried};
use crate::export::{self, Python};
use crate::family;
use crate::names::{Exporter, Oracle, Word as _};
use crate::runtime::{Takes, Traits};
use crate::source::Source;

/// What a call asks for, whatever its recipe says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The exporter of every graph.
    pub exporter: Option<Exporter>,
    /// What answers for the original model.
    pub references: Option<Oracle>,
    /// No format but ONNX.
    pub onnx_only: bool,
    /// The checkpoint was named by this call: none other will do.
    pub source_named: bool,
    /// The other formats were asked for by this call: none may be left out.
    pub formats_asked: bool,
}

/// Settles what the recipe of a build leaves open, and says how, a line each; the first is about the exporter.
///
/// # Errors
/// [`Error::Exporter`] where a graph has no such exporter; [`Error::Export`] where an interpreter was named, and is not
/// one.
pub fn settle(build: &mut Build<'_>, wishes: Wishes) -> Result<Vec<String>, Error> {
    let environment = family::of(&build.recipe).environment;
    let python = Python::find(build.python.as_deref(), environment, build.cache.root());
    if let (Err(_), Some(named)) = (&python, build.python.as_deref()) {
        // Somebody means it.
        Python::find(Some(named), environment, build.cache.root())?;
    }
    let mut said = vec![exporters(build, wishes, &python)?];
    said.extend(checkpoint(build, wishes, &python));
    said.push(references(build, wishes, &python));
    said.extend(formats(build, wishes, &python));
    said.extend(clock(build, &python));
    Ok(said)
}

type Found = Result<Python, export::Error>;

fn exporters(build: &mut Build<'_>, wishes: Wishes, python: &Found) -> Result<String, Error> {
    let family = family::of(&build.recipe);
    let mut lines = Vec::new();
    for (name, graph) in &mut build.recipe.graphs.0 {
        let native = family.front(name, graph.role()).is_some();
        let known: Vec<Exporter> = match family.shape.graph(name) {
            Some(shape) => shape.exporters.to_vec(),
            None => [Exporter::Torch].into_iter().chain(native.then_some(Exporter::Native)).collect(),
        };
        let (exporter, why) = match (wishes.exporter, graph.chosen_exporter(), python) {
            (Some(asked), _, _) => (asked, "as asked".to_owned()),
            (None, Some(chosen), _) => (chosen, "as the recipe says".to_owned()),
            (None, None, Ok(python)) => (
                Exporter::Torch,
                format!("for its Python environment is here: {}", python.interpreter().display()),
            ),
            (None, None, Err(error)) if native => (Exporter::Native, format!("for {error}")),
            (None, None, Err(_)) => (Exporter::Torch, "for nothing else exports this graph".to_owned()),
        };
        if !known.contains(&exporter) {
            let known = known.iter().map(|word| word.name()).collect::<Vec<_>>().join(", ");
            return Err(Error::Exporter { graph: name.clone(), exporter, known });
        }
        *graph.exporter_mut() = Some(exporter);
        lines.push((exporter, why, name.clone()));
    }
    // One line where it is one answer.
    let (first, why, _) = lines.first().cloned().expect("a checked recipe names a graph");
    if lines.iter().all(|(exporter, other, _)| (*exporter, other) == (first, &why)) {
        return Ok(format!("exporter {first}, {why}"));
    }
    let each = lines.iter().map(|(exporter, why, name)| format!("{exporter} for {name}, {why}"));
    Ok(format!("exporter {}", each.collect::<Vec<_>>().join("; ")))
}

/// Takes the weights that are drawn here where PyTorch, which draws the recipe's, is not.
fn checkpoint(build: &mut Build<'_>, wishes: Wishes, python: &Found) -> Option<String> {
    let Source::Synthetic { preset, seed } = build.source.clone() else { return None };
    if python.is_ok() || wishes.source_named {
        return None;
    }
    let drawn = Source::Seeded { preset, seed };
    let said = format!("checkpoint {drawn}, for PyTorch, which draws {}, is not here", build.source);
    build.source = drawn;
    Some(said)
}

fn references(build: &mut Build<'_>, wishes: Wishes, python: &Found) -> String {
    let carried = carried::has_all(build);
    let (oracle, why) = match (wishes.references, build.recipe.references) {
        (Some(asked), _) => (asked, "as asked"),
        (None, Some(chosen)) => (chosen, "as the recipe says"),
        (None, None) if carried.is_ok() => {
            (Oracle::PyTorch, "whose recorded answers the checkpoint carries")
        }
        (None, None) if python.is_ok() => (Oracle::PyTorch, "which is here"),
        (None, None) => (Oracle::Float64, "for PyTorch is not here"),
    };
    // PyTorch's go without saying.
    build.recipe.references = (oracle != Oracle::PyTorch).then_some(oracle);
    match carried {
        // Answers that are there and not taken are told.
        Err(Some(unfit)) => {
            format!("references {oracle}, {why}; the checkpoint's references.json {unfit}")
        }
        _ => format!("references {oracle}, {why}"),
    }
}

/// Leaves out what only a Python package converts to, where there is none.
fn formats(build: &mut Build<'_>, wishes: Wishes, python: &Found) -> Option<String> {
    let left_out = wishes.onnx_only || (python.is_err() && !wishes.formats_asked);
    let has_none = build.recipe.graphs.iter().all(|(_, graph)| graph.targets().is_empty());
    if !left_out || has_none {
        return None;
    }
    build.recipe.graphs.values_mut().for_each(|graph| *graph.targets_mut() = Default::default());
    let why = match wishes.onnx_only {
        true => "as asked",
        false => "for their converter is a Python package, and no Python environment is here",
    };
    Some(format!("formats other than ONNX are left out, {why}"))
}

/// Doesn't ask for the speed of an int8 file where neither Python is here nor anything to time it in.
fn clock(build: &mut Build<'_>, python: &Found) -> Option<String> {
    let times = build.runtimes.iter().any(|runtime| runtime.takes(&Traits::INT8) == Takes::Well);
    let asks = build.recipe.graphs.iter().any(|(_, graph)| graph.int8().is_some());
    if python.is_ok() || times || !asks || !build.speed_gate {
        return None;
    }
    build.speed_gate = false;
    Some("the speed of int8 is not asked, for no runtime is here that is fast in 8 bits".to_owned())
}
