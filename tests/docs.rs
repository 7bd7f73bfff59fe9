//! What the pages of `docs/` say of the types, held to the types: the tables of `recipes.md` and
//! `manifest.schema.json`, which `UPDATE_DOCS=1 cargo test --release --test docs` writes again; the recipes that
//! pages show; and the links between pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use soprano_export::bundle::Manifest;
use soprano_export::digest::Digest;
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

/// The definitions that a schema refers to: itself, or one for each form of a value.
fn targets(schema: &Value) -> Vec<&str> {
    let any = schema["anyOf"].as_array().into_iter().flatten();
    let refs = std::iter::once(schema).chain(any).filter_map(|schema| schema["$ref"].as_str());
    refs.filter_map(|path| path.rsplit('/').next()).collect()
}

/// The closed words that a value is one of, and what each means.
fn words(schema: &Value) -> Vec<(&str, Option<&str>)> {
    let described = schema["oneOf"].as_array().into_iter().flatten();
    let described = described.map(|one| (one, one["description"].as_str()));
    let all = described.chain([(schema, None)]);
    all.flat_map(|(one, about)| {
        let words = one["enum"].as_array().into_iter().flatten().chain([&one["const"]]);
        words.filter_map(Value::as_str).map(move |word| (word, about))
    })
    .collect()
}

/// One section of the reference: an object of the schema and where it stands in a recipe.
struct Section {
    def: String,
    path: String,
    roles: BTreeSet<&'static str>,
}

struct Reference<'a> {
    defs: &'a Map<String, Value>,
    sections: Vec<Section>,
}

impl<'a> Reference<'a> {
    /// The forms that a mapping has: one, or one for each word of its role.
    fn forms(&self, def: &str) -> Vec<&'a Value> {
        let schema = &self.defs[def];
        let forms = schema["oneOf"].as_array().into_iter().flatten().chain([schema]);
        forms.filter(|form| form["properties"].is_object() && def != "Graphs").collect()
    }

    fn is_section(&self, def: &str) -> bool {
        !self.forms(def).is_empty()
    }

    /// Adds an object and those inside it, in the order in which a reader meets them.
    fn walk(&mut self, def: &'a str, path: &str, role: Option<&'static str>) {
        match self.sections.iter_mut().find(|section| section.def == def) {
            Some(section) => section.roles.extend(role),
            None => {
                let (def, path) = (def.to_owned(), path.to_owned());
                self.sections.push(Section { def, path, roles: role.into_iter().collect() });
            }
        }
        for form in self.forms(def) {
            self.walk_inside(form, path, role);
        }
    }

    fn walk_inside(&mut self, object: &'a Value, path: &str, role: Option<&'static str>) {
        for (key, property) in object["properties"].as_object().unwrap() {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let inside = [
                (targets(property), at.clone()),
                (targets(&property["items"]), format!("{at}[]")),
                (targets(&property["additionalProperties"]), format!("{at}.NAME")),
            ];
            for (inner, at) in inside {
                for inner in
                    inner.into_iter().filter(|inner| self.is_section(inner)).collect::<Vec<_>>()
                {
                    self.walk(inner, &at, role);
                }
            }
        }
    }

    fn heading(&self, def: &str) -> String {
        let section = self.sections.iter().find(|section| section.def == def).unwrap();
        let roles: Vec<_> = section.roles.iter().copied().collect();
        match roles[..] {
            [role] => format!("`{}`, {role}", section.path),
            _ => format!("`{}`", section.path),
        }
    }

    /// What a value is, what bounds it, and what its words mean.
    fn cells(&self, schema: &Value) -> (String, String, String) {
        match targets(schema)[..] {
            [] => {}
            [def] if def == "Graphs" => return self.cells(&self.defs[def]["additionalProperties"]),
            [def] if !self.is_section(def) => return self.cells(&self.defs[def]),
            ref sections => {
                let link = |def: &&str| format!("[mapping](#{})", place(&self.heading(def)));
                let links: Vec<_> = sections.iter().map(link).collect();
                return (links.join(" or "), String::new(), String::new());
            }
        }
        let words = words(schema);
        if !words.is_empty() {
            let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let told =
                words.iter().filter_map(|(word, about)| Some(format!("`{word}`: {}", (*about)?)));
            return (names.join(", "), String::new(), told.collect::<Vec<_>>().join(" "));
        }
        let bounds = bounds(schema);
        let kind = schema["type"].as_array().map_or(&schema["type"], |types| &types[0]);
        match kind.as_str().unwrap_or("any") {
            "array" => {
                let (kind, each, _) = self.cells(&schema["items"]);
                let each = if each.is_empty() { each } else { format!("each {each}") };
                let both: Vec<_> = [each, bounds].into_iter().filter(|text| !text.is_empty()).collect();
                (format!("list: {kind}"), both.join("; "), String::new())
            }
            "object" if schema["additionalProperties"].is_object() => {
                let (kind, _, _) = self.cells(&schema["additionalProperties"]);
                let (_, _, keys) = self.cells(&schema["propertyNames"]);
                (format!("names, each to {kind}"), bounds, keys)
            }
            "object" => ("mapping".into(), bounds, String::new()),
            "string" => ("text".into(), bounds, String::new()),
            "boolean" => ("`true`, `false`".into(), bounds, String::new()),
            kind => (kind.to_owned(), bounds, String::new()),
        }
    }

    fn table(&self, object: &Value, into: &mut String) {
        into.push_str("| key | type | default | bounds | |\n|---|---|---|---|---|\n");
        let required: Vec<_> =
            object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in object["properties"].as_object().unwrap() {
            let (kind, bounds, meanings) = self.cells(property);
            let default = match &property["default"] {
                _ if required.contains(&key.as_str()) => "required".to_owned(),
                Value::Null | Value::Object(_) => String::new(),
                Value::String(text) => format!("`{text}`"),
                value => format!("`{value}`"),
            };
            // The word that tells a form from others says itself.
            let tag = property["const"].as_str().map(|_| "Which form it is.");
            let about = property["description"].as_str().or(tag).expect("each key has a description");
            let about = format!("{about} {meanings}").replace('\n', " ").replace('|', "\\|");
            let bounds = bounds.replace('|', "\\|");
            writeln!(into, "| `{key}` | {kind} | {default} | {bounds} | {} |", about.trim()).unwrap();
        }
    }
}

fn bounds(schema: &Value) -> String {
    let number = |key: &str| schema[key].as_f64();
    let range = |least: Option<f64>, most: Option<f64>, unit: &str| match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        // Whole numbers without a sign.
        (Some(0.0), None) | (None, None) => None,
        (Some(least), None) => Some(format!("at least {least}{unit}")),
    };
    let above = number("exclusiveMinimum").map(|least| format!("above {least}"));
    let parts = [
        above,
        range(number("minimum"), number("maximum"), ""),
        range(number("minItems"), number("maxItems"), " entries"),
        range(number("minLength"), number("maxLength"), " characters"),
        schema["pattern"].as_str().map(|pattern| format!("`{pattern}`")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl<'a> Reference<'a> {
    fn of(schema: &'a Value) -> Self {
        Self { defs: schema["$defs"].as_object().unwrap(), sections: Vec::new() }
    }

    /// The tables of all sections.
    fn write(&self, into: &mut String) {
        for section in &self.sections {
            write!(into, "\n## {}\n\n", self.heading(&section.def)).unwrap();
            if let Some(about) = self.defs[&section.def]["description"].as_str() {
                write!(into, "{}\n\n", about.replace('\n', " ")).unwrap();
            }
            for (i, form) in self.forms(&section.def).into_iter().enumerate() {
                into.push_str(if i > 0 { "\n" } else { "" });
                self.table(form, into);
            }
        }
    }
}

fn recipe_tables() -> String {
    let schema = recipes().schema();
    let mut reference = Reference::of(&schema);
    for (def, role) in [("Causal", "causal"), ("Signal", "signal")] {
        reference.walk(def, "graphs.NAME", Some(role));
    }
    for def in ["Speech", "Gate"] {
        reference.walk(def, &def.to_lowercase(), None);
    }
    let mut text = String::from("\n## The top\n\n");
    reference.table(&schema, &mut text);
    reference.write(&mut text);
    text
}

fn manifest_tables() -> String {
    let schema = manifest_schema();
    let mut reference = Reference::of(&schema);
    reference.walk_inside(&schema, "", None);
    let mut text = String::from("\n## The top\n\n");
    reference.table(&schema, &mut text);
    reference.write(&mut text);
    text
}

const MARK: &str = "<!-- From the types: UPDATE_DOCS=1 cargo test --release --test docs -->\n";

/// Holds what follows the mark of a page.
fn hold_tables(path: &str, tables: &str) {
    let text = page(path);
    let (head, _) = text.split_once(MARK).expect("the line that the tables follow");
    hold(path, &format!("{head}{MARK}{tables}"));
}

#[test]
fn the_tables_of_recipes_are_those_of_the_schema() {
    let written = recipe_tables();
    hold_tables("docs/recipes.md", &written);
    for (def, schema) in recipes().schema()["$defs"].as_object().unwrap() {
        for key in schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
            assert!(written.contains(&format!("| `{key}` |")) || def == "Graphs", "{def}.{key}");
        }
    }
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

/// Where a value departs from a schema. Every keyword that this doesn't know is refused: none is passed over.
fn departures(root: &Value, schema: &Value, value: &Value, at: &str, into: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            into.push(format!("{at}: not a key"));
        }
        return;
    };
    let fits = |schema: &Value| {
        let mut found = Vec::new();
        departures(root, schema, value, at, &mut found);
        found.is_empty()
    };
    for (keyword, said) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
            // Read with `properties`, below.
            "additionalProperties" => true,
            "$ref" => {
                let definition = &root["$defs"][said.as_str().unwrap().rsplit('/').next().unwrap()];
                departures(root, definition, value, at, into);
                true
            }
            "anyOf" => said.as_array().unwrap().iter().any(fits),
            "oneOf" => said.as_array().unwrap().iter().filter(|one| fits(one)).count() == 1,
            "const" => value == said,
            "enum" => said.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "pattern" => {
                let pattern = regex::Regex::new(said.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("{at}: the type {other}"),
                };
                said.as_array().map_or_else(|| is(said), |types| types.iter().any(is))
            }
            "required" => {
                let lacks = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                let missing =
                    said.as_array().unwrap().iter().filter(|_| value.is_object()).filter(lacks);
                into.extend(missing.map(|key| format!("{at}: without {key}")));
                true
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    departures(root, said, item, &format!("{at}[{i}]"), into);
                }
                true
            }
            "propertyNames" => {
                let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
                keys.all(|key| {
                    let mut found = Vec::new();
                    departures(root, said, &json!(key), at, &mut found);
                    found.is_empty()
                })
            }
            "properties" => true,
            other => panic!("{at}: this test doesn't know the keyword {other}"),
        };
        if !holds {
            into.push(format!("{at}: {keyword}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(key).or_else(|| keywords.get("additionalProperties"));
        if let Some(known) = known {
            departures(root, known, inner, &format!("{at}.{key}"), into);
        }
    }
}

fn manifest_schema() -> Value {
    let mut schema = schemars::schema_for!(Manifest).to_value();
    schema["title"] = "soprano-export manifest, format 2".into();
    schema["properties"]["format"]["const"] = 2.into();
    schema
}

/// A manifest that has every field once.
fn small() -> Value {
    let digest = Digest::of(b"");
    let file = json!({ "sha256": digest, "bytes": 7 });
    let port = |name: &str| json!({ "name": name, "dtype": "f32", "shape": ["batch", "8", "1..64"] });
    json!({
        "format": 2, "name": "a", "key": digest, "family": "plain",
        "tool": { "name": "soprano-export", "version": "0.1.0" },
        "checkpoint": { "source": "local", "files": [{ "name": "head.safetensors", "sha256": digest }] },
        "trusted_code": ["voices.vocoder:Head"],
        "graphs": {
            "head": {
                "interface": { "role": "signal", "frames": "features", "samples": "waveform" },
                "architecture": { "channels": 8 }, "sample_rate": 16000,
                "framing": { "per_frame": 160, "lead": 1 },
            },
            "backbone": { "interface": { "role": "causal" }, "architecture": {} },
        },
        "environment": { "python": "3.11.7" },
        "artifacts": [{
            "file": "openvino/head_int8.xml", "graph": "head", "precision": "int8", "format": "openvino",
            "sha256": digest, "bytes": 7, "stateful": true, "speed_gate": "skipped",
            "weights": { "file": "openvino/head_int8.bin", "sha256": digest, "bytes": 7 },
            "inputs": [port("features")], "outputs": [port("waveform")],
            "references": "reference/head.safetensors", "tolerance": { "snr_db": 18.0 },
        }],
        "files": { "README.md": file },
    })
}

/// Whether the program reads it, and where it departs from the schema.
fn judged(manifest: &Value) -> (bool, Vec<String>) {
    let schema = manifest_schema();
    let mut found = Vec::new();
    departures(&schema, &schema, manifest, "manifest", &mut found);
    (serde_json::from_value::<Manifest>(manifest.clone()).is_ok(), found)
}

/// Every place of a value, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    let entries: BTreeMap<String, &Value> = match value {
        Value::Object(map) => map.iter().map(|(key, inner)| (key.replace('/', "~1"), inner)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, inner)| (i.to_string(), inner)).collect()
        }
        _ => BTreeMap::new(),
    };
    for (key, inner) in entries {
        let place = format!("{at}/{key}");
        places(inner, &place, into);
        into.push(place);
    }
}

#[test]
fn the_schema_of_manifests_is_that_of_the_types() {
    let schema = manifest_schema();
    hold_tables("docs/bundle-format.md", &manifest_tables());
    hold("docs/manifest.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    assert_eq!(judged(&small()), (true, vec![]));
}

#[test]
fn schema_and_program_refuse_the_same_manifests() {
    let whole = small();
    let mut found = Vec::new();
    places(&whole, "", &mut found);
    let (mut refused, mut taken) = (0, 0);
    let mut both = |changed: &Value, what: &str| {
        let (read, departures) = judged(changed);
        assert_eq!(
            read,
            departures.is_empty(),
            "{what}: the program {read}, the schema {departures:?}"
        );
        *(if read { &mut taken } else { &mut refused }) += 1;
    };
    for place in &found {
        let (parent, key) = place.rsplit_once('/').unwrap();
        let mut without = whole.clone();
        if let Some(map) = without.pointer_mut(parent).unwrap().as_object_mut() {
            map.remove(&key.replace("~1", "/"));
            both(&without, &format!("without {place}"));
            for surplus in [json!("x"), json!(1)] {
                let mut more = whole.clone();
                more.pointer_mut(parent).unwrap()["surplus"] = surplus;
                both(&more, &format!("a surplus key next to {place}"));
            }
        }
        for other in [json!("word"), json!(-1), json!([[]]), json!({ "x": {} }), json!(true)] {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = other.clone();
            both(&changed, &format!("{place} = {other}"));
        }
    }
    assert!(refused > 100 && taken > 20, "{refused} refused, {taken} taken");
}

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
fn place(heading: &str) -> String {
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
