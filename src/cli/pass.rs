use super::arguments::{PassRun, PassVerb};
use super::terminal::{row, table};
use super::{INTERRUPTED, Outcome, json, save, say, tell_sizes};
use crate::ir::Model;
use crate::passes::{self, Driver, Given};

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
    let report = driver.given(hints(options)).fuel(options.fuel).run(&mut model)?;
    if INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Box::new(crate::pipeline::Error::Interrupted));
    }
    let saved = save(&model, &options.output, &options.written)?;
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
    tell_sizes(report.nodes, report.weight_bytes, &saved);
    if options.written.json {
        return say(&json(&report));
    }
    say(&format!("{}\n", options.output.display()))
}

/// What the options tell surgeries.
fn hints(options: &PassRun) -> Given {
    let names = options.names.iter().map(|(role, name)| (role.clone(), name.as_str().into())).collect();
    Given {
        names: serde_json::from_value(serde_json::Value::Object(names)).expect("checked when parsed"),
        layers: options.hidden_states.clone(),
        last_logits: options.last_logits,
        heads: options.kv_heads.zip(options.head_size).map(<[usize; 2]>::from),
    }
}
