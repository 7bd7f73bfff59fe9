//! YAML recipes as plain data.
//!
//! A recipe says what to export and what the result must reach, no less than the floors in `bounds`: none switches
//! validation off. Only a [`Catalog`] makes a [`Recipe`] of text, and it points at what is unknown, repeated or out of
//! range.

mod bounds;
mod catalog;
mod checks;
mod error;
mod gate;
mod graph;
mod int8;
mod speech;
mod targets;
mod text;
mod validate;
mod yaml;

use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::Oracle;

pub(crate) use bounds::SAMPLE_RATE;
pub use catalog::{Catalog, GraphShape, MOST_BYTES, Shape};
pub use checks::{Invalid, Step};
pub(crate) use error::closest;
pub use error::{Error, Misfit, Problem};
pub use gate::{CausalGate, Gate, SignalGate};
pub use graph::{
    Causal, CausalFp32, CausalReferences, CausalTolerance, Graph, Module, Signal, SignalFp32,
    SignalReferences, SignalTolerance,
};
pub use int8::{Form, Granularity, Int8, Terms};
pub use speech::{Fp32Speech, Int8Speech, Speech};
pub use targets::{OpenVinoTarget, Targets, Via};

/// What to export, and what the result must hold up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "soprano-export recipe")]
pub struct Recipe {
    /// The bundle's folder name.
    #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$"))]
    pub name: String,
    /// The model family: which graphs there are, and which Python environment exports them.
    pub family: String,
    /// The checkpoint: a folder, a hub id with an optional `@revision`, `synthetic:PRESET` or `seeded:PRESET` (random
    /// weights, drawn by PyTorch or without Python) with an optional `#SEED`, or `builtin:NAME`, inside the program.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// The model's license in the model card, as an SPDX id.
    #[serde(default = "license")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9.+-]*$"))]
    pub license: String,
    /// The hub id of the model that this one was made from, for the model card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub base_model: Option<String>,
    /// What answers the calls that each file is held against; left out, PyTorch where it or its recorded answers are
    /// there, and the model in double precision elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Oracle>,
    /// The graphs to export, by name; `{}` takes every default.
    pub graphs: Graphs,
    /// Sentences that the whole voice says, as upstream's PyTorch does.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub speech: Option<Speech>,
    /// Speed that `bench --gate` holds the whole voice to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// Reads a key without a value as its defaults.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn license() -> String {
    "apache-2.0".into()
}

/// The graphs of a recipe: by name, in the family's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graphs(pub Vec<(String, Graph)>);

impl Graphs {
    /// Each graph with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Graph)> {
        self.0.iter().map(|(name, graph)| (name.as_str(), graph))
    }

    /// Each graph, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.0.iter_mut().map(|(_, graph)| graph)
    }

    /// The graph of a name.
    pub fn get(&self, name: &str) -> Option<&Graph> {
        self.iter().find(|(known, _)| *known == name).map(|(_, graph)| graph)
    }
}

impl Serialize for Graphs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, graph)| map.serialize_entry(name, graph))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Graphs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Graphs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Graphs, A::Error> {
                let mut graphs = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    graphs.push(entry);
                }
                Ok(Graphs(graphs))
            }
        }
        from.deserialize_map(Entries)
    }
}

/// Any graph, by its role; a catalog puts its families' own names in.
impl JsonSchema for Graphs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Graphs".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let causal = generator.subschema_for::<Causal>();
        let signal = generator.subschema_for::<Signal>();
        schemars::json_schema!({
            "type": "object",
            "additionalProperties": { "anyOf": [causal, signal] },
        })
    }
}

impl Recipe {
    /// The graph of a name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.get(name)
    }

    /// What answers the calls that each file is held against.
    pub fn oracle(&self) -> Oracle {
        self.references.unwrap_or_default()
    }

    /// The same recipe with every default written out; equal recipes give equal bytes.
    pub fn to_yaml(&self) -> String {
        let text = serde_yaml::to_string(self).expect("strings, numbers and lists have a YAML form");
        text.lines().map(|line| yaml_1_1(line) + "\n").collect()
    }
}

/// `1e-5` as `1.0e-5`: YAML 1.1, which PyYAML reads, takes a number without a point for text.
fn yaml_1_1(line: &str) -> String {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match line.rsplit_once(": ").and_then(|(key, value)| Some((key, value.split_once("e-")?))) {
        Some((key, (mantissa, exponent))) if digits(mantissa) && digits(exponent) => {
            format!("{key}: {mantissa}.0e-{exponent}")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::recipes;

    const SHORTEST: &str = "name: a\nsource: ./b\ndecoder: {}\n";

    fn refused(text: &str) -> String {
        recipes().parse(text, "t.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn the_shortest_recipe_takes_every_default() {
        let recipe = recipes().parse(SHORTEST, "t.yaml").unwrap();
        let usual = Signal { file: "soprano_decoder_fp32".into(), ..Signal::default() };
        assert_eq!(recipe.graphs.0, [("decoder".into(), Graph::Signal(Box::new(usual)))]);
        assert_eq!((recipe.family.as_str(), recipe.license.as_str()), ("soprano", "apache-2.0"));
        let newer = "name: a\nsource: ./b\ngraphs: {decoder: }\n";
        assert_eq!(recipes().parse(newer, "t.yaml").unwrap(), recipe);
        let commented_out = "name: a\nsource: ./b\ndecoder:\n#  opset: 18\n";
        assert_eq!(recipes().parse(commented_out, "t.yaml").unwrap(), recipe);
        let marked = format!("\u{feff}{SHORTEST}");
        assert_eq!(recipes().parse(&marked, "t.yaml").unwrap(), recipe);
    }

    #[test]
    fn built_in_recipes_are_found_by_the_name_they_carry() {
        for (name, _) in recipes().builtin {
            assert_eq!(recipes().find(name).unwrap().name, *name);
        }
        let missed = recipes().find("soprano-1.2").unwrap_err().to_string();
        assert_eq!(missed, "no recipe named `soprano-1.2`; did you mean `soprano-1.1`?");
        assert!(matches!(recipes().find("no/such.yaml"), Err(Error::Io { .. })));
        assert!(matches!(recipes().find("no-such.yml"), Err(Error::Io { .. })));
    }

    #[test]
    fn the_full_form_is_stable_and_reads_back() {
        let recipe = recipes().parse(SHORTEST, "t.yaml").unwrap();
        let text = recipe.to_yaml();
        assert_eq!(
            text,
            "name: a\nfamily: soprano\nsource: ./b\nlicense: apache-2.0\ngraphs:\n  decoder:\n    role: signal\n    opset: \
             17\n    file: soprano_decoder_fp32\n    time_limit_seconds: 1800\n    references:\n      \
             lengths:\n      - 2\n      - 3\n      - 4\n      - 5\n      - 16\n      - 64\n      - 100\n      - 512\n      \
             batches:\n      - 1\n      - 3\n      extreme: true\n      seed: 0\n    tolerance:\n      fp32:\n        \
             max_abs_of_peak: 0.00001\n        snr_db: 90.0\n        log_spectral_distance_db: 0.05\n"
        );
        assert_eq!(recipes().parse(&text, "t.yaml").unwrap(), recipe);
        assert_eq!(yaml_1_1("  a: 1e-6"), "  a: 1.0e-6");
        for as_it_is in ["a: '1e-5'", "a: 1.5e-5", "source: pole-5", "source: e-5", "- 1e-5x: y"] {
            assert_eq!(yaml_1_1(as_it_is), as_it_is);
        }
    }

    #[test]
    fn no_tolerance_is_looser_than_the_floor() {
        let with = |key: &str, value: &str| {
            format!("name: a\nsource: b\ndecoder: {{tolerance: {{fp32: {{{key}: {value}}}}}}}\n")
        };
        for (key, at_the_floor, beyond) in [
            ("max_abs_of_peak", "1.0e-4", "1.1e-4"),
            ("snr_db", "40", "39.9"),
            ("log_spectral_distance_db", "1", "1.01"),
        ] {
            assert!(recipes().parse(&with(key, at_the_floor), "t.yaml").is_ok(), "{key}");
            let why = refused(&with(key, beyond));
            assert!(why.contains(&format!("`decoder.tolerance.fp32.{key}` is")), "{why}");
            assert!(why.contains("looser than"), "{why}");
            for no_bound in [".nan", ".inf", "-.inf", "0", "-1"] {
                let why = refused(&with(key, no_bound));
                assert!(why.contains("not a bound"), "{why}");
            }
        }
        assert!(refused(&with("snr_db", "1.0e+308")).contains("not a bound"));
    }

    #[test]
    fn names_are_plain_file_names() {
        let named =
            |name: &str| recipes().parse(&format!("name: '{name}'\nsource: b\ndecoder:"), "t.yaml");
        for good in ["a", "0", "soprano-1.1", "a_b..c", "a-", &"x".repeat(64), "console", "com10"] {
            assert!(named(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "", ".", "..", "../a", "a/b", "a\\b", "/a", "A", "-a", ".a", "a.", "a b", "é", "nul",
            "com1.x", &long,
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_graphs_share_no_file_and_no_stage() {
        let of = |graphs: &str| {
            let text = format!("name: a\nfamily: plain\nsource: b\ngraphs:\n{graphs}");
            recipes().parse(&text, "t.yaml").map(|_| ()).map_err(|error| error.to_string())
        };
        let causal = |name: &str, more: &str| format!("  {name}: {{role: causal{more}}}\n");
        let two = |a: String, b: String| of(&(a + &b));
        let same = two(causal("a", ", file: x"), causal("b", ", file: x")).unwrap_err();
        assert!(same.ends_with("`b.file` is `x`: graph `a` can have a file `x` too"), "{same}");
        for file in ["b_fp32", "b", "b_int8"] {
            let shared = two(causal("a", &format!(", file: {file}")), causal("b", "")).unwrap_err();
            assert!(shared.contains("graph `a` can have a file `b_"), "{shared}");
        }
        assert!(two(causal("a", ", file: b_fp32_fp32"), causal("b", "")).is_ok());
        for ending in ["int8", "ir-fp32", "ir-fp16"] {
            let name = format!("b-{ending}");
            assert!(two(causal("b", ""), causal(&name, "")).unwrap_err().contains("in another form"));
            assert!(two(causal(&name, ""), causal("b", "")).is_err());
            assert!(of(&causal(&name, "")).is_ok());
        }
        let none = of("  {}\n").unwrap_err();
        assert!(none.ends_with("`graphs` names nothing to export"), "{none}");
        assert!(two(causal("b", ""), causal("b-2", "")).is_ok());
    }

    #[test]
    fn lists_hold_each_value_once_and_within_bounds() {
        let with = |lengths: &str, batches: &str| {
            let text = format!(
                "name: a\nsource: b\ndecoder: {{references: {{lengths: {lengths}, batches: {batches}}}}}"
            );
            recipes().parse(&text, "t.yaml").map_err(|e| e.to_string())
        };
        assert!(with("[2, 4096]", "[1, 64]").is_ok());
        assert!(with("[1]", "[1]").unwrap_err().contains("`decoder.references.lengths[0]` is 1"));
        assert!(with("[4097]", "[1]").is_err());
        assert!(with("[]", "[1]").unwrap_err().contains("empty list"));
        assert!(with("[2, 3, 2]", "[1]").unwrap_err().contains("lengths[2]` is 2 again"));
        assert!(with("[2]", "[0]").is_err());
        assert!(with("[2]", "[65]").is_err());
        assert!(with("2", "[1]").unwrap_err().contains("expected a list, found the number 2"));
        let many = |from, to| format!("{:?}", (from..to).collect::<Vec<u32>>());
        assert!(with(&many(2, 34), &many(1, 9)).is_ok());
        assert!(with(&many(2, 34), &many(1, 10)).unwrap_err().contains("ask for 288 recordings"));
        assert!(with(&many(2, 67), "[1]").unwrap_err().contains("has 65 entries"));
    }

    #[test]
    fn numbers_and_switches_are_not_text() {
        assert!(refused("name: 1.1\nsource: b\ndecoder: {}").starts_with("t.yaml:1:7: expected text"));
        assert!(
            refused("name: yes\nsource: true\ndecoder: {}").starts_with("t.yaml:2:9: expected text")
        );
        assert!(refused("name: a\nsource: b\ndecoder: {opset: '17'}").contains("found the text `17`"));
        assert!(refused("name: a\nsource: b\ndecoder: {opset: -17}").contains("0 or more"));
        assert!(
            refused("name: a\nsource: b\ndecoder: [17]").contains("expected a mapping, found a list")
        );
        assert!(refused("name: a\nsource: b\nfamily: [x]\ndecoder: {}").contains("expected a name"));
        assert!(refused("just text").contains("expected a mapping, found the text"));
    }

    #[test]
    fn messages_are_short_and_harmless_to_terminals() {
        let why = refused(&format!("\"\\e[31m{}\": 1", "x".repeat(5000)));
        assert!(why.len() < 300 && !why.contains('\u{1b}'), "{why:?}");
        assert!(
            refused(&format!("name: \"\\e\"\nsource: b\ndecoder: \"\\e{SHORTEST:?}\"")).len() < 300
        );
    }

    #[test]
    fn the_schema_knows_every_key_with_its_words_and_bounds() {
        let schema = recipes().schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["name", "source", "graphs"]));
        let defs = schema["$defs"].as_object().expect("definitions");
        // A family may leave the names of graphs to its recipes.
        let closed = |(name, def): &(&String, &serde_json::Value)| {
            def["properties"].is_object() && *name != "Graphs"
        };
        assert_eq!(defs["Graphs"]["properties"]["lm"]["$ref"], "#/$defs/Causal");
        for (name, def) in defs.iter().filter(closed) {
            assert_eq!(def["additionalProperties"], false, "{name}");
            for (key, property) in def["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{name}.{key}");
            }
        }
        let opset = &defs["Signal"]["properties"]["opset"];
        assert_eq!((&opset["minimum"], &opset["maximum"]), (&13.into(), &20.into()));
        assert_eq!(opset["default"], 17);
        let lengths = &defs["SignalReferences"]["properties"]["lengths"];
        assert_eq!((&lengths["items"]["minimum"], &lengths["minItems"]), (&2.into(), &1.into()));
        let peak = &defs["SignalFp32"]["properties"]["max_abs_of_peak"];
        assert_eq!((&peak["exclusiveMinimum"], &peak["maximum"]), (&0.into(), &1e-4.into()));
    }
}
