use super::arguments::{CacheVerb, PassRun, PassVerb, RecipeVerb};
use super::here::Here;
use super::terminal::{self, bytes, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, json, save, say};
use crate::family;
use crate::ir::Model;
use crate::passes::{self, Driver, Given};

pub(super) fn recipe(verb: &RecipeVerb) -> Outcome {
    let recipes = family::recipes();
    match verb {
        RecipeVerb::List => {
            let mut rows = vec![row!["recipe", "family", "source", "graphs"]];
            for (name, _) in &recipes.builtin {
                let recipe = recipes.find(name)?;
                let graphs: Vec<&str> = recipe.graphs.iter().map(|(graph, _)| graph).collect();
                rows.push(row![name, recipe.family, recipe.source, graphs.join(" + ")]);
            }
            say(&table(&rows))
        }
        RecipeVerb::Show { recipe } => say(&recipes.find(recipe)?.to_yaml()),
        RecipeVerb::Schema => say(&json(&recipes.schema())),
        RecipeVerb::Check { recipes: named } => {
            let mut wrong = None;
            for name in named {
                match recipes.find(name) {
                    Ok(_) => tellln!("{name}: good"),
                    Err(error) => {
                        let failure: Failure = Box::new(error);
                        terminal::fail(failure.as_ref());
                        wrong = Some(());
                    }
                }
            }
            Ok(if wrong.is_none() { Answer::Yes } else { Answer::No })
        }
    }
}

pub(super) fn pass(verb: &PassVerb) -> Outcome {
    match verb {
        PassVerb::List { json: true } => say(&json(&passes::catalog().collect::<Vec<_>>())),
        PassVerb::List { .. } => {
            say(&passes::catalog().map(|entry| format!("{}\n", entry.name)).collect::<String>())
        }
        PassVerb::Explain { pass } => say(&format!("{pass}\n\n{}\n", passes::entry(pass)?.rules)),
        PassVerb::Run(options) => run(options),
    }
}

fn run(options: &PassRun) -> Outcome {
    let driver = match options.passes.as_slice() {
        [] => Driver::default(),
        names => Driver::of(names)?,
    };
    let mut model = Model::open_checked(&options.model)?;
    let version = model.proto().ir_version();
    let report = driver.given(given(options)).fuel(options.fuel).run(&mut model)?;
    if INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Box::new(crate::pipeline::Error::Interrupted));
    }
    let saved = save(&model, &options.output, options.overwrite, options.external_data)?;
    let mut rows = vec![row!["pass", "applied", "refused"]];
    rows.extend(report.passes.iter().map(|p| row![p.pass, p.applied, p.refused.len()]));
    tell!("{}", table(&rows));
    for (pass, (node, why)) in
        report.passes.iter().flat_map(|p| p.refused.iter().map(move |r| (p.pass, r)))
    {
        tellln!("{pass} leaves {node:?}: {why}");
    }
    if model.proto().ir_version() != version {
        let raised = model.proto().ir_version();
        tellln!("ir version {version} -> {raised}, in which constants need not be inputs");
    }
    tellln!(
        "nodes {} -> {}, weights {} -> {}, sha256 {}",
        report.nodes.0,
        report.nodes.1,
        bytes(report.weight_bytes.0),
        bytes(report.weight_bytes.1),
        saved.model.digest
    );
    if options.json { say(&json(&report)) } else { say(&format!("{}\n", options.output.display())) }
}

/// What the options tell surgeries.
fn given(options: &PassRun) -> Given {
    let names = options.names.iter().map(|(role, name)| (role.clone(), name.as_str().into())).collect();
    Given {
        names: serde_json::from_value(serde_json::Value::Object(names)).expect("checked when parsed"),
        layers: options.hidden_states.clone(),
        last_logits: options.last_logits,
        heads: options.kv_heads.zip(options.head_size).map(<[usize; 2]>::from),
    }
}

pub(super) fn cache(verb: &CacheVerb, here: &Here) -> Outcome {
    let cache = here.cache();
    match verb {
        CacheVerb::Dir => say(&format!("{}\n", cache.root().display())),
        CacheVerb::Size => {
            let sizes = cache.sizes();
            let total = sizes.iter().map(|(_, n)| n).sum();
            let mut rows = vec![row!["stage", "size"]];
            rows.extend(sizes.iter().map(|(name, n)| row![name, bytes(*n)]));
            rows.push(row!["total", bytes(total)]);
            say(&table(&rows))
        }
        CacheVerb::Prune => {
            let (count, freed) = cache.prune()?;
            tellln!("{count} stages removed, {} freed", bytes(freed));
            Ok(Answer::Yes)
        }
    }
}
