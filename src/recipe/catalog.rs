//! What families say of recipes, and the reading of one.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize as _;

use super::error::{self, closest, short};
use super::text::line_of;
use super::yaml::{self, Fault, Node};
use super::{Error, Misfit, Problem, Recipe};
use crate::names::{Exporter, Format, Role, Word as _};

/// The longest recipe, in bytes: fifty times the built-in ones, and too short to keep the YAML parser busy.
pub const MOST_BYTES: usize = 1 << 16;

/// What a model family says of its recipes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The family's name.
    pub family: &'static str,
    /// Its graphs, in the order of manifests and tables; none where a recipe names them.
    pub graphs: &'static [GraphShape],
}

/// What a family says of one of its graphs.
#[derive(Clone, Copy, Debug)]
pub struct GraphShape {
    /// The graph's name.
    pub name: &'static str,
    /// What kind of graph it is.
    pub role: Role,
    /// The file's name in a bundle, without `.onnx`.
    pub file: &'static str,
    /// What can turn a checkpoint into it.
    pub exporters: &'static [Exporter],
    /// The files of its weights in a checkpoint, names or patterns with one `*`, of which at least one is there. The
    /// first is the one that a hub repository must have.
    pub weights: &'static [&'static str],
    /// The graph whose weights say the sentences of its references.
    pub spoken_by: Option<&'static str>,
}

/// The exporters of a graph that a recipe names.
fn open_exporters(role: Option<Role>) -> &'static [Exporter] {
    match role {
        Some(Role::Causal) => &[Exporter::Torch, Exporter::Native],
        Some(Role::Signal) | None => &[Exporter::Torch],
    }
}

/// Every family, and the recipes inside this program.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// What each family says; the first is meant where a recipe names none.
    pub families: Vec<Shape>,
    /// Built-in recipes: name and text.
    pub builtin: Vec<(&'static str, &'static str)>,
}

impl Shape {
    /// Whether recipes name the graphs.
    pub fn is_open(&self) -> bool {
        self.graphs.is_empty()
    }

    /// What the family says of a graph.
    pub fn graph(&self, name: &str) -> Option<&GraphShape> {
        self.graphs.iter().find(|graph| graph.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.graphs.iter().map(|graph| graph.name)
    }
}

impl Catalog {
    /// What the family of a recipe says.
    pub fn family(&self, name: &str) -> Option<&Shape> {
        self.families.iter().find(|shape| shape.family == name)
    }

    /// Reads a recipe's text; `name` stands before the line in errors.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::Text`] with the place in the text.
    pub fn parse(&self, text: &str, name: &str) -> Result<Recipe, Error> {
        if text.len() > MOST_BYTES {
            return Err(Error::TooLarge { name: name.into(), most: MOST_BYTES });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut tree = yaml::tree(name, text)?;
        let misfit = |at, problem| Box::new(Misfit::new(name, text, yaml::locate(text, at), problem));
        let fault = |root: u32, fault: Fault| misfit(fault.at.unwrap_or(root), fault.problem);
        let shape = self.settle(&mut tree).map_err(|wrong| fault(tree.id, wrong))?;
        let recipe = Recipe::deserialize(&tree).map_err(|wrong| fault(tree.id, wrong))?;
        recipe
            .validate(shape)
            .map_err(|invalid| misfit(tree.nearest(&invalid.path), Problem::Value { invalid }))?;
        Ok(recipe)
    }

    /// Reads a recipe's file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotUtf8`], and those of [`Catalog::parse`].
    pub fn read(&self, path: &Path) -> Result<Recipe, Error> {
        let io = |source| Error::Io { path: path.into(), source };
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        crate::files::open(path)
            .and_then(|file| file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(io)?;
        if bytes.len() > MOST_BYTES {
            return Err(Error::TooLarge { name, most: MOST_BYTES });
        }
        match str::from_utf8(&bytes) {
            Ok(text) => self.parse(text, &name),
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                Err(Error::NotUtf8 { name, line: line_of(&good, good.len()), column })
            }
        }
    }

    /// A built-in recipe by its name, or a file by its path.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a word that is neither, and those of [`Catalog::read`].
    pub fn find(&self, name_or_path: &str) -> Result<Recipe, Error> {
        if let Some((name, text)) = self.builtin.iter().find(|(name, _)| *name == name_or_path) {
            return self.parse(text, &format!("recipes/{name}.yaml"));
        }
        let path = Path::new(name_or_path);
        let looks_like_a_path = name_or_path.contains(['/', '\\'])
            || path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if looks_like_a_path || path.is_file() {
            return self.read(path);
        }
        let names = || self.builtin.iter().map(|(name, _)| *name);
        Err(Error::Unknown {
            name: error::short(name_or_path),
            guess: error::closest(name_or_path, names()).map(str::to_owned),
            builtin: names().collect::<Vec<_>>().join(", "),
        })
    }

    /// The JSON schema of a recipe (draft 2020-12), for editors.
    pub fn schema(&self) -> serde_json::Value {
        let mut schema = schemars::schema_for!(Recipe).to_value();
        let definition = |role: Role| match role {
            Role::Causal => "Causal",
            Role::Signal => "Signal",
        };
        let by_role =
            |role: Role| serde_json::json!({ "$ref": format!("#/$defs/{}", definition(role)) });
        for role in Role::ALL {
            let properties = &mut schema["$defs"][definition(*role)]["properties"];
            // Left out, the family names the file.
            properties["file"].as_object_mut().expect("an object").remove("default");
            let about =
                "What kind of graph it is; needed where the family leaves graphs to the recipe.";
            let kind = serde_json::json!({ "const": role.name(), "description": about });
            properties.as_object_mut().expect("an object").shift_insert(0, "role".to_owned(), kind);
        }
        let named = self.families.iter().flat_map(|shape| shape.graphs);
        let named = named.map(|graph| (graph.name.to_owned(), by_role(graph.role)));
        schema["$defs"]["Graphs"]["properties"] = named.collect::<serde_json::Map<_, _>>().into();
        let families: Vec<_> = self.families.iter().map(|shape| shape.family).collect();
        schema["properties"]["family"]["enum"] = families.clone().into();
        schema["properties"]["family"]["default"] = families.first().copied().into();
        // Left out, it is the first family's.
        if let Some(required) = schema["required"].as_array_mut() {
            required.retain(|key| key != "family");
        }
        schema
    }

    /// Adds what a text leaves to the family (its name, each graph's role and file), and brings the form before format
    /// 2 (graphs at the top, `route`, `schemes`) up to date.
    fn settle(&self, tree: &mut Node) -> Result<&Shape, Fault> {
        let root = tree.id;
        let Some(entries) = tree.entries_mut() else {
            // Not a mapping: said by its type.
            return Ok(&self.families[0]);
        };
        let shape = match entries.get("family") {
            None => &self.families[0],
            Some(node) => match node.text() {
                None => return Err(Fault::expected("a name", node)),
                Some(name) => self.family(name).ok_or_else(|| self.unknown_family(name, node.id))?,
            },
        };
        entries.set_default("family", root, shape.family);
        for name in shape.names() {
            entries.move_into("graphs", name);
        }
        let gates = entries.get_mut("gate").and_then(Node::entries_mut);
        let gates: Vec<_> = gates
            .map(|gate| shape.names().filter_map(|name| Some((name, gate.take(name)?))).collect())
            .unwrap_or_default();
        let emptied = !gates.is_empty()
            && entries.get_mut("gate").and_then(Node::entries_mut).is_some_and(|gate| gate.is_empty());
        if emptied {
            entries.take("gate");
        }
        if let Some(graphs) = entries.get_mut("graphs").and_then(Node::entries_mut) {
            for (name, gate) in gates {
                match graphs.get_mut(name).map(Node::entries_or_empty) {
                    Some(Some(graph)) => graph.insert("gate", gate),
                    Some(None) => {}
                    None => return Err(Fault::from(Problem::GateOfNothing { graph: name }).at(gate.id)),
                }
            }
            settle_graphs(graphs, shape)?;
        }
        Ok(shape)
    }

    fn unknown_family(&self, name: &str, at: u32) -> Fault {
        let known = || self.families.iter().map(|shape| shape.family);
        Fault::from(Problem::Choice {
            value: short(name),
            guess: closest(name, known()),
            known: known().collect::<Vec<_>>().join(", "),
        })
        .at(at)
    }
}

fn settle_graphs(graphs: &mut yaml::Entries, shape: &Shape) -> Result<(), Fault> {
    for (name, at, node) in graphs.iter_mut() {
        let known = shape.graph(name);
        if known.is_none() && !shape.is_open() {
            let guess = closest(name, shape.names());
            let known = shape.names().collect::<Vec<_>>().join(", ");
            return Err(Fault::from(Problem::UnknownKey { key: short(name), guess, known }).at(at));
        }
        let id = node.id;
        let Some(graph) = node.entries_or_empty() else { continue };
        graph.rename("route", "exporter");
        let openvino = graph.get_mut("targets").and_then(Node::entries_mut);
        if let Some(openvino) = openvino.and_then(|t| t.get_mut(Format::OpenVino.name())?.entries_mut())
        {
            openvino.rename("schemes", "precisions");
        }
        match (known, graph.get("role")) {
            (Some(known), None) => graph.set_default("role", id, known.role.name()),
            (Some(known), Some(given)) if given.text() != Some(known.role.name()) => {
                let (value, known) = (short(given.text().unwrap_or("?")), known.role.name().to_owned());
                return Err(Fault::from(Problem::Choice { value, guess: None, known }).at(given.id));
            }
            _ => {}
        }
        graph.move_to_front("role");
        if let Some(known) = known {
            graph.set_default("file", id, known.file);
        } else if !name.is_empty() {
            graph.set_default("file", id, &format!("{name}_fp32"));
        }
        let role = graph.get("role").and_then(|node| Role::named(node.text()?));
        let exporters = known.map_or_else(|| open_exporters(role), |known| known.exporters);
        let chosen =
            graph.get("exporter").and_then(|node| Some((Exporter::named(node.text()?)?, node.id)));
        if let Some((exporter, at)) = chosen.filter(|(exporter, _)| !exporters.contains(exporter)) {
            let known = exporters.iter().map(|exporter| exporter.name()).collect::<Vec<_>>().join(", ");
            let value = exporter.name().to_owned();
            return Err(Fault::from(Problem::Choice { value, guess: None, known }).at(at));
        }
    }
    if !shape.is_open() {
        graphs.sort_by_key(|name| shape.names().position(|known| known == name));
    }
    Ok(())
}
