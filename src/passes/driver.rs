use std::collections::BTreeSet;

use super::surgery::{Given, Refused, Surgery};
use super::{ALL, Pass, SMALL, Skip, Step, catalog};
use crate::ir::{self, Model, NodeId, PLACEHOLDER_DOMAIN};

/// Why a rewrite fails.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// No pass or surgery has the name.
    #[error("there is no pass {name:?}")]
    #[diagnostic(code(passes::unknown), help("{hint}"))]
    Unknown { name: String, hint: String },
    /// A surgery was refused.
    #[error("{surgery}: {refused}")]
    #[diagnostic(forward(refused))]
    Refused { surgery: &'static str, refused: Refused },
    /// A rewrite left the model inconsistent.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ir::Error),
    /// A placeholder of an exporter is left.
    #[error("the rewrite leaves {op} at node {node:?}, which no runtime can run: {why}")]
    #[diagnostic(code(passes::placeholder), help("soprano-export pass explain replace-istft"))]
    Placeholder { op: String, node: String, why: String },
}

/// What one pass or surgery did to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Its name.
    pub pass: &'static str,
    /// Patches applied, or places that a surgery changed.
    pub applied: usize,
    /// Nodes it refused, with reasons: `(node, reason)`. A node without a name goes by its first output's.
    pub refused: Vec<(String, String)>,
}

/// What a rewrite did to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Per pass and surgery, in their order; those that neither applied nor refused are left out.
    pub passes: Vec<Applied>,
    /// Nodes before and after.
    pub nodes: (usize, usize),
    /// Bytes of initializers before and after.
    pub weight_bytes: (u64, u64),
    /// Whether the step limit ended the run.
    pub out_of_fuel: bool,
}

/// Runs steps: passes to their common fixed point, surgeries once each.
pub struct Driver {
    steps: &'static [Step],
    /// What of the steps runs, where that is not all.
    only: Option<BTreeSet<&'static str>>,
    given: Given,
    fuel: Option<usize>,
}

impl Default for Driver {
    /// Every pass, and no surgery: those change what a model takes and gives, and are asked for by name.
    fn default() -> Self {
        Self::new(super::SIGNAL)
    }
}

/// Rounds after which passes that undo each other are stopped.
const ROUNDS: usize = 16;

impl Driver {
    /// The steps of a graph.
    pub fn new(steps: &'static [Step]) -> Self {
        Self { steps, only: None, given: Given::default(), fuel: None }
    }

    /// The named passes and surgeries, in their proper order whatever the order of the names.
    ///
    /// # Errors
    /// [`Error::Unknown`] with a suggestion.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Result<Self, Error> {
        let names = names.iter().map(AsRef::as_ref);
        let only = names.map(|name| super::entry(name).map(|entry| entry.name));
        Ok(Self { only: Some(only.collect::<Result<_, _>>()?), ..Self::new(ALL) })
    }

    /// The names of what it runs, in order.
    pub fn names(&self) -> Vec<&'static str> {
        let all = self.steps.iter().flat_map(Step::entries).map(|entry| entry.name);
        all.filter(|name| self.includes(name)).collect()
    }

    fn includes(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name))
    }

    /// Sets what surgeries need to know besides the graph.
    pub fn given(mut self, given: Given) -> Self {
        self.given = given;
        self
    }

    /// Limits the number of patches, of which a surgery is one: a bad rewrite is found by bisecting this number.
    pub fn fuel(mut self, patches: Option<usize>) -> Self {
        self.fuel = patches;
        self
    }

    /// Rewrites a model: passes until none of them finds anything to do, surgeries once. Patches that make the
    /// file larger, as where a constant that serves other nodes too is changed for one, may do so by 64 KiB in
    /// all, apart from what a pass [takes for itself](Pass::growth).
    ///
    /// # Errors
    /// [`Error::Refused`] by a surgery, and [`Error::Model`] if one leaves a model that [`Model::check`] refuses.
    /// The model is then as it was before that surgery. Passes alone never fail.
    pub fn run(&self, model: &mut Model) -> Result<Report, Error> {
        let mut run = Run {
            left: Left { patches: self.fuel.unwrap_or(usize::MAX), bytes: SMALL },
            report: Report {
                nodes: (model.graph_proto().node.len(), 0),
                weight_bytes: (model.weight_bytes(), 0),
                ..Default::default()
            },
        };
        let mut readable = false;
        for step in self.steps {
            match *step {
                Step::Passes(passes) => {
                    let passes = passes.iter().copied().filter(|pass| self.includes(pass.name()));
                    run.fixpoint(&passes.collect::<Vec<_>>(), model);
                }
                Step::Surgery(surgery) if self.includes(surgery.name()) => {
                    if !std::mem::replace(&mut readable, true) {
                        run.fixpoint(super::READABLE, model);
                    }
                    run.operate(surgery, model, &self.given)?;
                }
                Step::Surgery(_) => {}
            }
        }
        Ok(run.report(model))
    }
}

/// A rewrite of a graph that is to be run: its steps, or of all there are those that are named. Nothing that no
/// runtime has may be left.
///
/// # Errors
/// As [`Driver::of`] and [`Driver::run`]; [`Error::Placeholder`].
pub fn rewrite(
    model: &mut Model,
    steps: &'static [Step],
    names: Option<&[String]>,
    given: Given,
) -> Result<Report, Error> {
    let driver = names.map_or_else(|| Ok(Driver::new(steps)), Driver::of)?;
    let report = driver.given(given).run(model)?;
    if let Some(placeholder) =
        model.graph_proto().node.iter().find(|node| node.domain() == PLACEHOLDER_DOMAIN)
    {
        let refused = report.passes.iter().flat_map(|p| p.refused.iter().map(move |r| (p.pass, r)));
        let why = refused
            .filter(|(_, (node, _))| node == placeholder.called())
            .map(|(pass, (_, why))| format!("{pass}: {why}"))
            .next();
        return Err(Error::Placeholder {
            op: placeholder.op_type().to_owned(),
            node: placeholder.called().to_owned(),
            why: why.unwrap_or_else(|| "no pass of this recipe replaces it".to_owned()),
        });
    }
    model.proto_mut().opset_import.retain(|set| set.domain() != PLACEHOLDER_DOMAIN);
    Ok(report)
}

/// A run so far.
struct Run {
    left: Left,
    report: Report,
}

impl Run {
    fn fixpoint(&mut self, passes: &[&'static dyn Pass], model: &mut Model) {
        for _ in 0..ROUNDS {
            let mut changed = false;
            for pass in passes {
                let total = applied(&mut self.report, pass.name());
                let patches = sweep(*pass, model, &mut self.left, &mut total.refused);
                total.applied += patches;
                changed |= patches > 0;
            }
            if !changed || self.left.patches == 0 {
                break;
            }
        }
    }

    fn operate(
        &mut self,
        surgery: &dyn Surgery,
        model: &mut Model,
        given: &Given,
    ) -> Result<(), Error> {
        if self.left.patches == 0 {
            return Ok(());
        }
        let refuse = |refused| Error::Refused { surgery: surgery.name(), refused };
        let (needs, has) = (surgery.opset(given), model.graph().opset());
        if has < needs {
            return Err(refuse(Refused::Opset { needs, has }));
        }
        if !model.proto().training_info.is_empty() {
            return Err(refuse(Refused::Training));
        }
        let mut changed = model.clone();
        let places = surgery.run(&mut changed, given).map_err(refuse)?;
        if places > 0 {
            let outputs = changed.graph_proto().output.clone();
            changed.keep_outputs(outputs);
            changed.check_rewritten()?;
            *model = changed;
            applied(&mut self.report, surgery.name()).applied += places;
            self.left.patches -= 1;
        }
        Ok(())
    }

    fn report(self, model: &Model) -> Report {
        let mut report = self.report;
        report.out_of_fuel = self.left.patches == 0;
        report.nodes.1 = model.graph_proto().node.len();
        report.weight_bytes.1 = model.weight_bytes();
        report.passes.retain(|one| one.applied > 0 || !one.refused.is_empty());
        report.passes.sort_by_key(|one| catalog().position(|entry| entry.name == one.pass));
        report
    }
}

/// What a pass did so far.
fn applied<'r>(report: &'r mut Report, pass: &'static str) -> &'r mut Applied {
    let at = report.passes.iter().position(|one| one.pass == pass).unwrap_or_else(|| {
        report.passes.push(Applied { pass, ..Default::default() });
        report.passes.len() - 1
    });
    &mut report.passes[at]
}

/// What is left of a run's limits.
struct Left {
    patches: usize,
    /// By how many bytes the file may still grow.
    bytes: u64,
}

impl Left {
    /// Takes the bytes by which a patch makes the file larger.
    fn take(&mut self, growth: u64, pass: &dyn Pass) -> Result<(), String> {
        if growth > pass.growth() {
            self.bytes = self.bytes.checked_sub(growth).ok_or_else(|| {
                let left = self.bytes;
                format!(
                    "the file would become {growth} bytes larger, and {left} are left of the {SMALL} of a run"
                )
            })?;
        }
        Ok(())
    }
}

/// Visits every node once, applying what is proposed; returns the number of patches. Refusals are
/// those of this sweep alone, so that a node which a later round mends isn't reported.
fn sweep(
    pass: &dyn Pass,
    model: &mut Model,
    left: &mut Left,
    refused: &mut Vec<(String, String)>,
) -> usize {
    let mut applied = 0;
    let mut at = 0;
    refused.clear();
    loop {
        let planned = {
            let graph = model.graph();
            let nodes = graph.proto().node.len();
            loop {
                if at >= nodes || left.patches == 0 {
                    break None;
                }
                let id = NodeId(at);
                let why = match pass.visit(&graph, id) {
                    Ok(_) if graph.opset() < pass.opset() => {
                        format!("it needs opset {}, and the model has {}", pass.opset(), graph.opset())
                    }
                    Ok(patch) => match graph.plan(patch, pass.name()) {
                        Ok(change) => match left.take(change.growth(), pass) {
                            Ok(()) => break Some((change, nodes)),
                            Err(why) => why,
                        },
                        Err(why) => why.to_string(),
                    },
                    Err(Skip::Refused(why)) => why.to_owned(),
                    Err(Skip::NoMatch | Skip::NoEffect) => {
                        at += 1;
                        continue;
                    }
                };
                refused.push((graph.node(id).title(at), why));
                at += 1;
            }
        };
        let Some((change, before)) = planned else { break };
        model.commit(change);
        applied += 1;
        left.patches -= 1;
        // Nodes before `at` may be gone: step back by as many as the graph lost.
        let after = model.graph_proto().node.len();
        at = at.saturating_sub(before.saturating_sub(after));
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// Two thousand nodes, half of them to go: the work grows with nodes and patches, not with their
    /// product in copies.
    #[test]
    fn a_thousand_patches_are_quick() {
        let pairs = 1000;
        let mut graph = TestGraph::new().input("v0", &["n"]);
        for i in 0..pairs {
            graph = graph
                .initializer(f32s(&format!("layers.{i}.bias"), &[1], &[i as f32]))
                .node(node("Add", [format!("v{i}"), format!("layers.{i}.bias")], format!("s{i}")))
                .node(node("Identity", [format!("s{i}")], format!("v{}", i + 1)));
        }
        let last = format!("v{pairs}");
        let mut model = graph.node(node("Abs", [last], "y")).output("y", &["n"]).model();
        let start = std::time::Instant::now();
        let report = Driver::default().run(&mut model).unwrap();
        let took = start.elapsed();
        println!("{} nodes, {pairs} patches: {took:?}", report.nodes.0);
        assert_eq!(report.nodes, (2 * pairs + 1, pairs + 1));
        model.check().unwrap();
        // A limit for a loaded machine; it takes a tenth of this.
        assert!(took.as_secs_f64() < 3.0, "{took:?}");
    }

    /// Writes a constant anew next to the one that is there.
    struct Copies;

    impl Pass for Copies {
        fn name(&self) -> &'static str {
            "copies"
        }

        fn rules(&self) -> &'static str {
            ""
        }

        fn visit(&self, graph: &crate::ir::Graph<'_>, id: NodeId) -> Result<crate::ir::Patch, Skip> {
            let (constant, x) = graph.constant_operand(id).ok_or(Skip::NoMatch)?;
            let (shape, values) = graph.constant_f32(constant).ok_or(Skip::NoMatch)?;
            let mut patch = crate::ir::Patch::at(id).remove(id);
            let copy = patch.fresh(graph, constant);
            patch.initializer(f32s(&copy, &shape, &values));
            patch.insert(node("Add", [x, &copy], graph.node(id).output_at(0).unwrap()));
            Ok(patch)
        }
    }

    #[test]
    fn no_pass_makes_a_file_larger_by_much() {
        let model = |length: usize, shared: bool| {
            let graph = TestGraph::new()
                .input("x", &["n"])
                .initializer(f32s("w", &[length], &vec![1.0; length]))
                .node(node("Mul", ["x", "w"], "y"))
                .output("y", &["n"]);
            if shared {
                graph.node(node("Neg", ["w"], "z")).output("z", &["n"]).model()
            } else {
                graph.model()
            }
        };
        let copied = |mut model: Model| {
            let mut refused = Vec::new();
            let mut left = Left { patches: 1, bytes: SMALL };
            let applied = sweep(&Copies, &mut model, &mut left, &mut refused);
            (applied, refused.into_iter().map(|(_, why)| why).collect::<Vec<_>>())
        };
        assert_eq!(copied(model(1 << 15, false)), (1, vec![]));
        assert_eq!(copied(model(1 << 14, true)), (1, vec![]));
        let why = "the file would become 131072 bytes larger, and 65536 are left of the 65536 of a run";
        assert_eq!(copied(model(1 << 15, true)), (0, vec![why.to_owned()]));
    }

    /// Weights that are used as they are and transposed, each of them small.
    #[test]
    fn all_patches_together_make_a_file_larger_by_64_kib() {
        let (count, size) = (20, 120);
        let mut graph = TestGraph::new().input("p0", &["n", "120"]);
        for i in 0..count {
            let values: Vec<f32> = (0..size * size).map(|at| (at * count + i) as f32).collect();
            let name = |what: &str| format!("{what}{i}");
            graph = graph
                .initializer(f32s(&name("w"), &[size, size], &values))
                .node(node("MatMul", [name("p"), name("w")], name("q")))
                .node(node("Relu", [name("q")], name("r")))
                .node(node("Transpose", [name("w")], name("t")).ints("perm", [1, 0]))
                .node(node("MatMul", [name("r"), name("t")], format!("p{}", i + 1)));
        }
        let mut model = graph.output(&format!("p{count}"), &["n", "120"]).model();
        let before = model.to_bytes().len();
        let report = Driver::default().run(&mut model).unwrap();
        assert_eq!(report.weight_bytes.1 - report.weight_bytes.0, 4 * (size * size) as u64);
        assert!(model.to_bytes().len() < before + SMALL as usize);
        let folding = report.passes.iter().find(|pass| pass.pass == "constant-folding").unwrap();
        assert_eq!((folding.applied, folding.refused.len()), (1, count - 1));
        model.check().unwrap();
    }

    /// The node that goes is larger than the number that comes.
    #[test]
    fn numbers_in_place_of_nodes_take_nothing_of_what_a_file_may_grow() {
        let (count, length) = (600, 32);
        let ones = f32s("c", &[length], &vec![1.0; length]);
        let mut graph = TestGraph::new().input("x", &["32"]).initializer(ones);
        for i in 0..count {
            let sum = node("Add", [format!("c{i}"), "c".to_owned()], format!("s{i}"));
            graph = graph
                .initializer(f32s(&format!("c{i}"), &[length], &vec![i as f32; length]))
                .node(sum.named(format!("{i:0>200}")));
        }
        let used = std::iter::once("x".to_owned()).chain((0..count).map(|i| format!("s{i}")));
        let graph = graph.node(node("Sum", used, "y")).node(node("Add", ["y", "c"], "z"));
        let shared = (0..count).fold(graph, |graph, i| graph.output(&format!("c{i}"), &["32"]));
        let mut model = shared.output("z", &["32"]).model();
        assert_eq!(apply(&mut model, "constant-folding"), count);
        assert!(4 * count * length > SMALL as usize);
    }
}
