//! What the pages of `docs/` say of the types, held to the types: the tables of `recipes.md` and
//! `manifest.schema.json`, which `UPDATE_DOCS=1 cargo test --release --test docs` writes again; the recipes that
//! pages show; and the links between pages.

mod links;
mod schema;
mod tables;

use std::path::Path;

use soprano_export::family::recipes;

/// Compares a page with what it should be, or writes it.
fn hold(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(&path, wanted).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let different = page.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    let line = 1 + different.unwrap_or(page.lines().count().min(wanted.lines().count()));
    assert!(
        page == wanted,
        "{}:{line}: not what the types say: UPDATE_DOCS=1 cargo test --release --test docs",
        path.display()
    );
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn recipes_on_pages_are_recipes() {
    let mut count = 0;
    for name in ["docs/recipes.md", "README.md"] {
        let text = page(name);
        for block in text.split("```yaml\n").skip(1) {
            let (recipe, _) = block.split_once("```").unwrap();
            recipes().parse(recipe, name).unwrap_or_else(|error| panic!("{error}\n{recipe}"));
            count += 1;
        }
    }
    assert!(count >= 3, "soprano, a causal graph and a signal graph");
}
