use super::arguments::RecipeVerb;
use super::terminal::{self, row, table};
use super::{Answer, Failure, Outcome, json, say};
use crate::{family, pipeline};

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
            let mut answer = Answer::Yes;
            for name in named {
                // An error of the text names the file itself.
                let checked = recipes.find(name).map_err(Failure::from).and_then(|recipe| {
                    pipeline::check(&recipe).inspect_err(|_| tellln!("{name}:")).map_err(Failure::from)
                });
                match checked {
                    Ok(()) => tellln!("{name}: good"),
                    Err(error) => {
                        terminal::fail(error.as_ref());
                        answer = Answer::No;
                    }
                }
            }
            Ok(answer)
        }
    }
}
