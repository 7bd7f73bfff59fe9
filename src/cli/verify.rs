use super::arguments::Verify;
use super::{Answer, Outcome, json, publish, say};
use crate::bundle;

pub(super) fn verify(options: &Verify) -> Outcome {
    let findings = bundle::verify(&options.bundle)?;
    if options.json {
        say(&json(&findings))?;
    } else {
        let lines: String = findings.iter().map(|f| format!("{}: {}\n", f.file, f.problem)).collect();
        say(&lines)?;
    }
    let signature =
        options.key.as_deref().map(|key| publish::signature(&options.bundle, key)).transpose()?;
    let folder = options.bundle.display();
    if let Some((_, Some(problem))) = &signature {
        tellln!("{folder}: {problem}");
    }
    if findings.is_empty() {
        return Ok(match signature {
            None => {
                tellln!("{folder} is whole");
                Answer::Yes
            }
            Some((key, None)) => {
                tellln!("{folder} is whole, and signed by {}", key.id());
                Answer::Yes
            }
            Some((_, Some(_))) => Answer::No,
        });
    }
    let count = findings.len();
    tellln!("{folder} is not whole: {count} {}", if count == 1 { "file" } else { "files" });
    Ok(Answer::No)
}
