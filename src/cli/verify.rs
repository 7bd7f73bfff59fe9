use super::arguments::Verify;
use super::terminal::plain;
use super::{Answer, Outcome, json, publish, say};
use crate::bundle;

pub(super) fn verify(options: &Verify) -> Outcome {
    let findings = bundle::verify(&options.bundle)?;
    if options.json {
        say(&json(&findings))?;
    } else {
        let lines: String = findings.iter().map(|f| format!("{}: {}\n", f.file, f.problem)).collect();
        say(&plain(&lines))?;
    }
    let signature =
        options.key.as_deref().map(|key| publish::signature(&options.bundle, key)).transpose()?;
    let folder = options.bundle.display();
    if let Some((_, Some(problem))) = &signature {
        tellln!("{folder}: {problem}");
    }
    match (findings.len(), signature) {
        (0, Some((_, Some(_)))) => return Ok(Answer::No),
        (0, None) => tellln!("{folder} is whole"),
        (0, Some((key, None))) => tellln!("{folder} is whole, and signed by {}", key.id()),
        (1, _) => tellln!("{folder} is not whole: 1 file"),
        (count, _) => tellln!("{folder} is not whole: {count} files"),
    }
    Ok(if findings.is_empty() { Answer::Yes } else { Answer::No })
}
