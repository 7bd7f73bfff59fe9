//! The nodes and constants of a quantized model.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::Options;
use super::body::{Body, Stored, Writer};
use super::layout::Key;
use super::plan::Gemm;
use super::qdq;
use super::weights::Weight;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{GraphProto, Names, NodeProto, initializer_f32, initializer_i64, node};
use crate::recipe::{Form, Granularity, Terms};

/// What is done with a node of the old graph.
pub(super) enum Step {
    Keep,
    Drop,
    Product {
        key: Key,
        factor: f32,
        dtype: DataType,
        terms: Terms,
        gemm: Option<Gemm>,
        rank: Option<usize>,
    },
    Table {
        key: Key,
        dtype: DataType,
        rank: Option<usize>,
    },
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        names: Names,
        opset: i64,
        options: &'a Options,
        weights: HashMap<Key, Stored>,
    ) -> Self {
        let weights = Rc::new(weights);
        let (values, scales) = (HashMap::new(), HashMap::new());
        Self { names, opset, options, weights, values, scales, constants: Vec::new() }
    }

    /// Writes a graph and those inside it; `steps` are of all graphs, in the order of
    /// [`Scopes`](super::scopes::Scopes).
    pub(super) fn write(&mut self, graph: &mut GraphProto, mut steps: Vec<Vec<Step>>) {
        self.constants.resize_with(steps.len(), Vec::new);
        self.graph(graph, &mut 0, &mut steps);
        self.extend(graph, &mut 0);
    }

    fn graph(&mut self, graph: &mut GraphProto, next: &mut usize, steps: &mut [Vec<Step>]) {
        let scope = *next;
        *next += 1;
        graph.nested_mut().for_each(|inner| self.graph(inner, next, steps));
        let mut body = Body {
            scope,
            nodes: Vec::with_capacity(graph.node.len()),
            quantized: HashMap::new(),
            floats: HashMap::new(),
            fusible: fusible(graph, scope == 0),
            shared: HashMap::new(),
            writer: self,
        };
        for (old, step) in std::mem::take(&mut graph.node).into_iter().zip(steps[scope].drain(..)) {
            body.node(old, step);
        }
        graph.node = body.nodes;
    }

    fn extend(&mut self, graph: &mut GraphProto, next: &mut usize) {
        graph.initializer.append(&mut self.constants[*next]);
        *next += 1;
        graph.nested_mut().for_each(|inner| self.extend(inner, next));
    }
}

/// The values of a graph behind which no runtime finds an `Add`, whatever it simplifies: all that nothing reads, and
/// those with a reader that stays what it is. What leaves a body may be read anywhere.
fn fusible(graph: &GraphProto, is_main: bool) -> HashSet<String> {
    fn read(graph: &GraphProto, by: &mut HashMap<String, bool>) {
        for node in &graph.node {
            let stays = node.is("Split") || node.is("Reshape");
            for name in &node.input {
                *by.entry(name.clone()).or_default() |= stays;
            }
            node.nested().for_each(|inner| read(inner, by));
        }
    }
    let mut by = HashMap::new();
    read(graph, &mut by);
    if !is_main {
        by.extend(graph.output.iter().map(|output| (output.name().to_owned(), false)));
    }
    let made = graph.node.iter().flat_map(|node| &node.output);
    made.filter(|name| by.get(*name).copied().unwrap_or(true)).cloned().collect()
}

impl Body<'_, '_> {
    fn node(&mut self, old: NodeProto, step: Step) {
        let first = self.nodes.len();
        let name = match step {
            Step::Keep => return self.nodes.push(old),
            Step::Drop => return,
            Step::Product { key, factor, dtype, terms, gemm, rank } => {
                self.product(&old, (&key, factor), dtype, (terms, rank), gemm)
            }
            Step::Table { key, dtype, rank } => self.table(&old, &key, dtype, rank),
        };
        // Whoever has the name has the notes.
        if let Some(node) = self.nodes[first..].iter_mut().find(|node| node.name() == name) {
            node.doc_string = old.doc_string;
            node.metadata_props = old.metadata_props;
        }
    }

    /// The names of a weight's values and scales, made where they are first asked for.
    pub(super) fn weight(&mut self, key: &Key, factor: f32) -> (String, String) {
        let Writer { names, weights, values, scales, constants, .. } = &mut *self.writer;
        let (Stored { name, weight }, kind) = (&weights[key], key.layout.name());
        let constants = &mut constants[key.scope];
        let values = values.entry(key.clone()).or_insert_with(|| {
            let name = names.value(&format!("{name}/int8_{kind}"));
            constants.push(weight.values(&name));
            name
        });
        let scales = scales.entry((key.clone(), factor.to_bits())).or_insert_with(|| {
            let name = names.value(&format!("{name}/scale_{kind}"));
            constants.push(weight.scales(&name, factor));
            name
        });
        (values.clone(), scales.clone())
    }

    /// The name that a node keeps; one that has none takes its output's.
    fn name_of(&mut self, old: &NodeProto) -> String {
        match old.name() {
            "" => self.writer.names.node(old.output_at(0).unwrap_or_default()),
            name => name.to_owned(),
        }
    }

    /// Returns the name of the product.
    fn product(
        &mut self,
        old: &NodeProto,
        (key, factor): (&Key, f32),
        dtype: DataType,
        (terms, rank): (Terms, Option<usize>),
        gemm: Option<Gemm>,
    ) -> String {
        let (name, output) = (self.name_of(old), old.output_at(0).unwrap_or_default());
        let x = old.input_at(0).unwrap_or_default();
        let input = self.prepared(x, dtype, gemm.as_ref().is_some_and(|gemm| gemm.turned));
        let bias = gemm.and_then(|gemm| gemm.bias.filter(|_| gemm.beta != 0.0).zip(Some(gemm.beta)));
        let sum = match bias {
            Some(_) => self.value(&format!("{output}/product")),
            None => output.to_owned(),
        };
        let floats = match dtype {
            DataType::Float => sum.clone(),
            _ => self.value(&format!("{output}/float")),
        };
        let (weights, key) = (self.writer.weights.clone(), (key, factor));
        match &weights[key.0].weight {
            Weight::Blocks(blocks) => {
                let (weight, scale) = self.weight(key.0, factor);
                let product = blocks.product(&input, [&weight, &scale], &floats);
                self.nodes.push(product.named(&name).build());
            }
            Weight::Columns(columns) if self.writer.options.form == Form::Static => {
                let (weight, scale) = self.weight(key.0, factor);
                let rank = columns.shape.len();
                let input = qdq::activation(self, x, &input);
                qdq::product(self, &input, [&weight, &scale], rank, &floats, &name);
            }
            Weight::Columns(columns) if rank == Some(1) => {
                // tract gives an integer product of a vector one axis too many.
                let mut shape: Vec<i64> = columns.shape.iter().map(|&dim| dim as i64).collect();
                shape.remove(shape.len() - 2);
                let row = self.reshaped(&input, &[1, -1], None);
                let product = self.value(&format!("{output}/row"));
                self.dynamic(terms, (&row, Some(2)), key, &product, (&name, true));
                self.reshaped(&product, &shape, Some(&floats));
            }
            Weight::Columns(_) => {
                let one_range = self.writer.options.granularity == Granularity::Tensor;
                let is_last = floats == output && self.fusible.contains(output);
                self.dynamic(terms, (&input, rank), key, &floats, (&name, one_range || is_last));
            }
        }
        if floats != sum {
            let back = node("Cast", [&floats], &sum).int("to", i64::from(dtype as i32));
            self.add(back, &format!("{name}/narrow"));
        }
        if let Some((bias, beta)) = bias {
            let bias = self.times(&bias, beta, dtype, &name, output);
            self.add(node("Add", [&sum, &bias], output), &format!("{name}/bias"));
        }
        name
    }

    /// A value in another shape, under a name of its own or this one.
    fn reshaped(&mut self, from: &str, shape: &[i64], to: Option<&str>) -> String {
        let key = (from.to_owned(), "row");
        if let Some(row) = self.floats.get(&key).filter(|_| to.is_none()) {
            return row.clone();
        }
        let output = to.map_or_else(|| self.value(&format!("{from}/row")), str::to_owned);
        let numbers: Vec<String> = shape.iter().map(i64::to_string).collect();
        let base = format!("quantize/shape_{}", numbers.join("_"));
        let constant = self.shared(&base, |name| initializer_i64(name, &[shape.len()], shape));
        self.add(node("Reshape", [from, &constant], &output), &format!("{output}/reshape"));
        if to.is_none() {
            self.floats.insert(key, output.clone());
        }
        output
    }

    /// A bias times `beta`.
    fn times(&mut self, bias: &str, beta: f32, dtype: DataType, name: &str, output: &str) -> String {
        if beta == 1.0 {
            return bias.to_owned();
        }
        let factor = self.value(&format!("{output}/beta"));
        self.constant(initializer_f32(&factor, &[], &[beta]));
        let factor = self.cast(&factor, dtype, &format!("{output}/beta_cast"));
        let scaled = self.value(&format!("{output}/scaled_bias"));
        self.add(node("Mul", [bias, &factor], &scaled), &format!("{name}/scaled_bias"));
        scaled
    }

    fn cast(&mut self, from: &str, to: DataType, base: &str) -> String {
        if to == DataType::Float {
            return from.to_owned();
        }
        let output = self.value(base);
        self.add(node("Cast", [from], &output).int("to", i64::from(to as i32)), &output);
        output
    }

    /// An activation in f32, rows first.
    fn prepared(&mut self, x: &str, dtype: DataType, turned: bool) -> String {
        let mut input = x.to_owned();
        let to = i64::from(DataType::Float as i32);
        for part in [turned.then_some("turned"), (dtype != DataType::Float).then_some("f32")] {
            let Some(part) = part else { continue };
            let key = (input.clone(), part);
            if !self.floats.contains_key(&key) {
                let output = self.value(&format!("{input}/{part}"));
                let step = match part {
                    "f32" => node("Cast", [&input], &output).int("to", to),
                    _ => node("Transpose", [&input], &output).ints("perm", [1, 0]),
                };
                self.add(step, &output);
                self.floats.insert(key.clone(), output);
            }
            input.clone_from(&self.floats[&key]);
        }
        input
    }

    /// `y[..., g, :] = scale[ids, g] * table[ids, g, :]`: each group of a row, or the row, has its own scale.
    /// Returns the name of the look-up.
    fn table(&mut self, old: &NodeProto, key: &Key, dtype: DataType, rank: Option<usize>) -> String {
        let (weight, scale) = self.weight(key, 1.0);
        let (name, output) = (self.name_of(old), old.output_at(0).unwrap_or_default());
        let ids = old.input_at(1).unwrap_or_default();
        let [rows, scales, floats] =
            ["rows", "scales", "floats"].map(|part| self.value(&format!("{output}/{part}")));
        self.nodes.push(node("Gather", [&weight, ids], &rows).named(&name).int("axis", 0).build());
        let gathered = node("Gather", [&scale, ids], &scales).int("axis", 0);
        self.add(gathered, &format!("{name}/scale"));
        let cast = node("Cast", [&rows], &floats).int("to", i64::from(DataType::Float as i32));
        self.add(cast, &format!("{name}/float"));
        let row = match (rank, &self.writer.weights[key].weight) {
            (Some(rank), Weight::Columns(columns)) => {
                let width: usize = columns.shape[1..].iter().product();
                // Zeros stand for the indices' own dimensions.
                Some([vec![0; rank], vec![width as i64]].concat())
            }
            _ => None,
        };
        let narrow = dtype != DataType::Float;
        let mut value = floats;
        let steps = [Some("scaled"), row.as_ref().map(|_| "row"), narrow.then_some("narrow")];
        let last = steps.iter().flatten().count() - 1;
        for (at, part) in steps.into_iter().flatten().enumerate() {
            let to =
                if at == last { output.to_owned() } else { self.value(&format!("{output}/{part}")) };
            match part {
                "scaled" => self.add(node("Mul", [&value, &scales], &to), &format!("{name}/scaled")),
                "row" => drop(self.reshaped(&value, row.as_deref().unwrap_or_default(), Some(&to))),
                _ => {
                    let cast = node("Cast", [&value], &to).int("to", i64::from(dtype as i32));
                    self.add(cast, &format!("{name}/narrow"));
                }
            }
            value = to;
        }
        name
    }
}
