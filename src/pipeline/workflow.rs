//! A build for engines that run many: a matrix for GitHub's workflows, a Snakefile.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::cache::Key;
use super::{Error, Plan};
use crate::recipe::Recipe;

/// One recipe on its way into a workflow.
pub struct Job {
    /// How the recipe is named to `soprano-export build`.
    pub recipe: String,
    /// The bundle's name.
    pub name: String,
    /// The stages.
    pub plan: Plan,
}

/// A matrix of jobs, one for each recipe, for `fromJSON` in a GitHub workflow: a single line of JSON.
///
/// # Errors
/// [`Error::SameName`] where two recipes would write one bundle.
pub fn github_matrix(recipes: &[(String, Recipe)]) -> Result<String, Error> {
    distinct(recipes.iter().map(|(_, recipe)| recipe.name.as_str()))?;
    let job = |(named, recipe): &(String, Recipe)| {
        let graphs: Vec<&str> = recipe.graphs.iter().map(|(graph, _)| graph).collect();
        serde_json::json!({ "recipe": named, "name": recipe.name, "graphs": graphs.join(" ") })
    };
    let jobs: Vec<_> = recipes.iter().map(job).collect();
    Ok(format!("{}\n", serde_json::json!({ "include": jobs })))
}

/// A Snakefile whose rules are the stages of some builds: a stage that several recipes share is one rule.
/// `options` are those of every call, `build_options` those of `build`. Finished stages lie in the shared
/// cache; what Snakemake sees of them, and of the bundles below `bundles/`, are empty files below `stages/`: into
/// a folder that is an output it writes a file of its own, and no bundle is whole with that.
///
/// # Errors
/// [`Error::SameName`] where two recipes would write one bundle.
pub fn snakefile(jobs: &[Job], options: &[String], build_options: &[String]) -> Result<String, Error> {
    distinct(jobs.iter().map(|job| job.name.as_str()))?;
    let marker = |key: &Key| quoted(&format!("stages/{}-{}", key.stage, key.digest().short()));
    let bundle = |job: &Job| quoted(&format!("stages/bundle-{}", job.plan.bundle.short()));
    let command = |parts: &[&[String]]| {
        let words = parts.iter().copied().flatten().map(|word| shell(word));
        // Braces are Snakemake's own.
        let words = words.collect::<Vec<_>>().join(" ").replace('{', "{{").replace('}', "}}");
        quoted(&format!("RAYON_NUM_THREADS={{threads}} {{TOOL}} {words}"))
    };
    let mut text = String::from(
        "# Written by `soprano-export plan --format snakemake`; each rule makes one stage in the shared cache.\n\
         #     snakemake --cores all        on this machine; or an executor's plugin: a cluster, a cloud\n\
         #     snakemake --config tool=…    where soprano-export is not on the path\n\
         # The bundles stand below bundles/; to make one again, remove its file below stages/.\n\
         import shlex\n\n\
         TOOL = shlex.quote(config.get(\"tool\", \"soprano-export\"))\n\
         EVERY_CORE = workflow.cores or 1\n\n\n",
    );
    let all = jobs.iter().map(bundle).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "rule all:\n    input: {all}\n\n");
    let mut rule =
        |name: &str, after: &[String], output: &str, needs: (Option<u32>, u32), command: &str| {
            let _ = writeln!(text, "rule {name}:");
            if !after.is_empty() {
                let _ = writeln!(text, "    input: {}", after.join(", "));
            }
            let (threads, megabytes) = needs;
            let threads = threads.map_or("EVERY_CORE".to_owned(), |threads| threads.to_string());
            let _ = writeln!(
                text,
                "    output: {output}\n    threads: {threads}\n    resources: mem_mb={megabytes}\n    \
             shell: {command}\n\n"
            );
        };
    let word = |word: &str| word.to_owned();
    let mut known = BTreeSet::new();
    for job in jobs {
        let stages = &job.plan.stages;
        for planned in stages {
            let key = &planned.key;
            let name = format!(
                "{}_{}",
                key.stage.replace(|c: char| !c.is_alphanumeric(), "_"),
                key.digest().short()
            );
            if !known.insert(name.clone()) {
                continue;
            }
            let until = [word("build"), job.recipe.clone(), word("--until"), word(&key.stage)];
            let after: Vec<String> = planned.after.iter().map(|&at| marker(&stages[at].key)).collect();
            let output = format!("touch({})", marker(key));
            rule(
                &name,
                &after,
                &output,
                planned.work.needs(),
                &command(&[options, &until, build_options]),
            );
        }
        let every: Vec<String> = stages.iter().map(|planned| marker(&planned.key)).collect();
        let output =
            [word("build"), job.recipe.clone(), word("--output"), format!("bundles/{}", job.name)];
        let name = format!("bundle_{}", job.plan.bundle.short());
        let output_rule = format!("touch({})", bundle(job));
        rule(
            &name,
            &every,
            &output_rule,
            (Some(1), 2000),
            &command(&[options, &output, build_options]),
        );
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(Error::SameName { name: name.to_owned() });
        }
    }
    Ok(())
}

/// A text as Python writes it: JSON's form is one of Python's.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("plain text")
}

/// A word as a shell reads it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@#=,+%".contains(c);
    match !word.is_empty() && word.chars().all(plain) && !word.starts_with('#') {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell("recipes/soprano-1.1.yaml"), "recipes/soprano-1.1.yaml");
        assert_eq!(shell("my recipe.yaml"), "'my recipe.yaml'");
        assert_eq!(shell("it's; rm -rf $HOME"), r"'it'\''s; rm -rf $HOME'");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("#x"), "'#x'");
    }

    #[test]
    fn a_matrix_is_one_line() {
        let recipe = |name: &str| (name.to_owned(), crate::family::recipes().find(name).unwrap());
        let matrix = github_matrix(&[recipe("soprano-1.1"), recipe("soprano-tiny")]).unwrap();
        assert_eq!(matrix.lines().count(), 1);
        let matrix: serde_json::Value = serde_json::from_str(&matrix).unwrap();
        assert_eq!(matrix["include"][1]["recipe"], "soprano-tiny");
        assert_eq!(matrix["include"][1]["graphs"], "decoder");
        let twice = github_matrix(&[recipe("soprano-1.1"), recipe("soprano-1.1")]);
        assert!(matches!(twice, Err(Error::SameName { name }) if name == "soprano-1.1"));
    }
}
