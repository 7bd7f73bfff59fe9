use std::path::{Path, PathBuf};

use super::page;

/// What a page's links lead to, but for the web: a file, none for the page itself, and a place in it. What stands
/// as code is not a link.
fn links(text: &str) -> Vec<(String, Option<String>)> {
    let prose: String = text.split('`').step_by(2).collect();
    let ends = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let local = ends.map(|(link, _)| link).filter(|link| !link.contains("://"));
    local
        .map(|link| match link.split_once('#') {
            Some((file, place)) => (file.to_owned(), Some(place.to_owned())),
            None => (link.to_owned(), None),
        })
        .collect()
}

/// The place of a heading, as GitHub names it.
pub fn place(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " _-".contains(*c);
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn has_place(text: &str, wanted: &str) -> bool {
    text.lines().filter(|line| line.starts_with('#')).any(|line| {
        line.trim_start_matches('#').strip_prefix(' ').is_some_and(|heading| place(heading) == wanted)
    })
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let others = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let others = others.iter().chain(&["python/README.md", "findings/README.md"]);
    let pages: Vec<PathBuf> =
        in_docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    let index = page("docs/README.md");
    for page in &pages {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("]({name})")),
            "docs/README.md lacks {name}"
        );
    }
    for page in pages.into_iter().chain(others.map(|name| root.join(name))) {
        let text = std::fs::read_to_string(&page).unwrap();
        for (file, place) in links(&text) {
            let target =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(&file) };
            assert!(target.exists(), "{}: {file}", page.display());
            let Some(place) = place else { continue };
            let there = has_place(&std::fs::read_to_string(&target).unwrap(), &place);
            assert!(there, "{}: {file}#{place}", page.display());
        }
    }
    let of = |file: &str, place: Option<&str>| (file.to_owned(), place.map(str::to_owned));
    let found = links("[a](b.md#c), [`d`](#e), [f](https://g), `[h](i)`");
    assert_eq!(found, [of("b.md", Some("c")), of("", Some("e"))]);
    assert!(has_place("# A\n## `b.C[]`, d e\n", "bc-d-e") && !has_place("a #b\n", "b"));
}
