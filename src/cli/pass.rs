use super::arguments::{PassRun, PassVerb};
use super::terminal::{row, table};
use super::{INTERRUPTED, Outcome, json, save, say, tell_sizes};
use crate::ir::Model;
use crate::names::misnamed;
use crate::passes::{self, Driver, Given};

pub(super) fn pass(verb: &PassVerb) -> Outcome {
    match verb {
        PassVerb::List { json: true } => say(&json(&passes::catalog().collect::<Vec<_>>())),
        PassVerb::List { .. } => {
            say(&passes::catalog().map(|entry| format!("{}\n", entry.name)).collect::<String>())
        }
        PassVerb::Explain { pass } => {
            let entry = passes::entry(pass)?;
            let brought: Vec<&str> = passes::READABLE.iter().map(|pass| pass.name()).collect();
            let brought = format!("before it run {}\n", brought.join(" and "));
            say(&format!("{pass}\n\n{}\n{}", entry.rules, if entry.surgery { &brought } else { "" }))
        }
        PassVerb::Run(options) => run(options),
    }
}

fn run(options: &PassRun) -> Outcome {
    let driver = match options.passes.as_slice() {
        [] => Driver::default(),
        names => Driver::of(names)?,
    };
    let given = given(options)?;
    let mut model = Model::open_checked(&options.model)?;
    let version = model.proto().ir_version();
    let report = driver.given(given).fuel(options.fuel).run(&mut model)?;
    if INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Box::new(crate::pipeline::Error::Interrupted));
    }
    let saved = save(&model, &options.output, &options.written)?;
    let mut rows = vec![row!["pass", "applied", "refused"]];
    rows.extend(report.passes.iter().map(|p| {
        let is_one = p.applied > 1 && passes::entry(p.pass).is_ok_and(|entry| entry.surgery);
        let applied = if is_one { format!("1 ({} places)", p.applied) } else { p.applied.to_string() };
        row![p.pass, applied, p.refused.len()]
    }));
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

/// What of the options, and of the roles of --name, each surgery reads.
const READ: [(&str, &str); 3] = [
    ("expose-hidden-states", "--hidden-states --last-logits ids logits hidden layers"),
    ("add-kv-cache", "--kv-heads ids mask positions past present logits"),
    ("canonical-mask", "ids mask"),
];

/// An option without a surgery that reads it, or names that are none.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
#[diagnostic(code(cli::pass), help("{hint}"))]
struct Misuse {
    what: String,
    hint: String,
}

/// What the options tell surgeries.
fn given(options: &PassRun) -> Result<Given, Misuse> {
    let flags = [
        (!options.hidden_states.is_empty()).then_some("--hidden-states"),
        options.last_logits.then_some("--last-logits"),
        options.kv_heads.map(|_| "--kv-heads"),
    ];
    let roles = options.names.iter().map(|(role, _)| role.as_str());
    for word in flags.into_iter().flatten().chain(roles) {
        let reads = |(_, words): &&(&str, &str)| words.split(' ').any(|read| read == word);
        let readers: Vec<&str> = READ.iter().filter(reads).map(|(surgery, _)| *surgery).collect();
        if !options.passes.iter().any(|pass| readers.contains(&pass.as_str())) {
            let name = if word.starts_with('-') { "" } else { "--name " };
            let what = format!("{name}{word} is given, and no --pass reads it");
            return Err(Misuse { what, hint: format!("--pass {}", readers.join(" or --pass ")) });
        }
    }
    let names = options.names.iter().map(|(role, name)| (role.clone(), name.as_str().into()));
    let names: serde_json::Map<String, serde_json::Value> = names.collect();
    if names.len() < options.names.len() {
        let hint = "leave one of them out".to_owned();
        return Err(Misuse { what: "--name gives a role two names".to_owned(), hint });
    }
    let names = serde_json::from_value(names.into()).expect("checked when parsed");
    if let Some((role, why, hint)) = misnamed(&names) {
        return Err(Misuse { what: format!("--name: {role} {why}"), hint: hint.to_owned() });
    }
    Ok(Given {
        names,
        layers: options.hidden_states.clone(),
        last_logits: options.last_logits,
        heads: options.kv_heads.zip(options.head_size).map(<[usize; 2]>::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_reader_that_is_a_surgery() {
        assert!(READ.iter().all(|(surgery, _)| passes::entry(surgery).unwrap().surgery));
        let names = serde_json::to_value(crate::names::Causal::default()).unwrap();
        let is_read =
            |role: &String| READ.iter().any(|(_, words)| words.split(' ').any(|word| word == role));
        assert!(names.as_object().unwrap().keys().all(is_read));
    }
}
