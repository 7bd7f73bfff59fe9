//! Any text is a recipe or an error; a recipe written in full reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use soprano_export::recipe::Recipe;

fuzz_target!(|text: &str| {
    match Recipe::parse(text, "fuzz.yaml") {
        Ok(recipe) => {
            let again = Recipe::parse(&recipe.to_yaml(), "again.yaml").expect("the full form reads back");
            assert_eq!(again, recipe);
        }
        Err(error) => {
            let report = miette::Report::new(error);
            assert!(!format!("{report:?}").is_empty());
        }
    }
});
