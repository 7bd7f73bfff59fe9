//! Any text is a recipe or an error; a recipe written in full reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use soprano_export::family::recipes;

fuzz_target!(|text: &str| {
    match recipes().parse(text, "fuzz.yaml") {
        Ok(recipe) => {
            let again = recipes().parse(&recipe.to_yaml(), "again.yaml").expect("the full form reads back");
            assert_eq!(again, recipe);
        }
        Err(error) => {
            let report = miette::Report::new(error);
            assert!(!format!("{report:?}").is_empty());
        }
    }
});
