use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use soprano_export::family::recipes;

use super::links::place;
use super::schema::manifest_schema;
use super::{hold, page};

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
            let about =
                words.iter().filter_map(|(word, about)| Some(format!("`{word}`: {}", (*about)?)));
            return (names.join(", "), String::new(), about.collect::<Vec<_>>().join(" "));
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

pub fn manifest_tables() -> String {
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
pub fn hold_tables(path: &str, tables: &str) {
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
