use std::collections::HashSet;

use super::attention::{LENGTH, attentions, descendants};
use super::surgery::{Given, Refused, Surgery, fixed, free, port};
use crate::ir::{
    Graph, Model, Names, NodeId, ValueInfoProto, initializer_i64, node, rename_value, value_f32,
};
use crate::names::Causal;

const NAME: &str = "expose-hidden-states";

/// What the logits are projected from becomes an output, after every other; and what enters layers, where asked,
/// before it.
///
/// `channels` is the width of `h`: W's rows. An inner value that has the name of an output to be gets another; an
/// `h` that is an output already stays one.
pub(super) struct ExposeHiddenStates;

impl Surgery for ExposeHiddenStates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static str {
        "logits = MatMul(h, W)  =>  logits = MatMul(last_hidden_state, W), f32 [batch, sequence, channels]\n\
         of the last position alone, where asked (--last-logits):\n\
         \u{20} =>  logits = MatMul(last_hidden_state[:, -1:], W), [batch, 1, vocabulary]\n\
         x + attention(norm(x)) of layer i, where asked (--hidden-states)  =>  hidden_states.i = x\n\
         not: a projection of another form, an output that is there, a layer that is not,\n\
         last logits before opset 10 or where their product feeds another output"
    }

    /// For the inputs of `Slice`.
    fn opset(&self, given: &Given) -> i64 {
        if given.last_logits { 10 } else { 7 }
    }

    fn run(&self, model: &mut Model, given: &Given) -> Result<usize, Refused> {
        let Projection { product, hidden, width, dtype, batch, layers } =
            projection(&model.graph(), given)?;
        let length = model.graph().noted(&given.names.ids).and_then(|ids| fixed(ids, 1));
        let length = length.as_deref().unwrap_or(LENGTH);
        let port = &given.names.hidden;
        let mut names = Names::of(model.graph_proto());
        let stays = model.graph().is_output(&hidden);
        let graph = model.graph_proto_mut();
        let layers = layers.into_iter();
        let mut outputs: Vec<(String, String)> =
            layers.map(|(layer, value)| (layer_port(&given.names, layer), value)).collect();
        outputs.push((port.clone(), hidden));
        for at in 0..outputs.len() {
            let port = outputs[at].0.clone();
            if let Some(other) = free(graph, &mut names, &port) {
                outputs
                    .iter_mut()
                    .filter(|(_, value)| *value == port)
                    .for_each(|o| o.1.clone_from(&other));
            }
        }
        let hidden = outputs.last().expect("pushed above").1.clone();
        if !stays {
            rename_value(graph, &hidden, port);
            outputs.iter_mut().filter(|(_, value)| *value == hidden).for_each(|o| o.1.clone_from(port));
        }
        let (read, count) = (outputs.last().expect("pushed above").1.clone(), outputs.len());
        for (port, value) in outputs {
            if port != value {
                let copy = node("Identity", [&value], &port).named(names.node(&port)).author(NAME);
                graph.node.push(copy.build());
            }
            graph.output.push(output(&port, dtype, &[&batch, length, &width]));
        }
        if given.last_logits {
            keep_last(model, &mut names, &given.names.logits, product, &read);
        }
        Ok(count)
    }
}

/// The output that carries what enters a layer.
fn layer_port(names: &Causal, layer: u32) -> String {
    format!("{}.{layer}", names.layers)
}

/// Projects the last position alone.
fn keep_last(model: &mut Model, names: &mut Names, logits: &str, product: NodeId, read: &str) {
    model.free_constants_of_inputs();
    let graph = model.graph_proto_mut();
    let [starts, ends, axes, last] = ["last/starts", "last/ends", "last/axes", "last"]
        .map(|part| names.value(&format!("{logits}/{part}")));
    graph.initializer.push(initializer_i64(&starts, &[1], &[-1]));
    graph.initializer.push(initializer_i64(&ends, &[1], &[i64::MAX]));
    graph.initializer.push(initializer_i64(&axes, &[1], &[1]));
    graph.node[product.0].input[0].clone_from(&last);
    let slice = node("Slice", [read, &starts, &ends, &axes], &last).named(names.node(&last));
    graph.node.insert(product.0, slice.author(NAME).build());
    for port in graph.output.iter_mut().filter(|port| port.name() == logits) {
        let mut dims = port.dims();
        dims[1] = "1".to_owned();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        *port = output(logits, port.element_type(), &dims);
    }
    let graph = model.graph();
    let shorter: HashSet<String> = descendants(&graph, &last).into_iter().map(str::to_owned).collect();
    model.graph_proto_mut().value_info.retain(|info| !shorter.contains(info.name()));
}

/// An output of the element type of an ONNX code.
fn output(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let mut output = value_f32(name, dims);
    output.set_element_type(dtype);
    output
}

/// The product that gives the logits, and what enters it and the layers.
struct Projection {
    product: NodeId,
    hidden: String,
    width: String,
    dtype: i32,
    batch: String,
    layers: Vec<(u32, String)>,
}

fn projection(graph: &Graph<'_>, given: &Given) -> Result<Projection, Refused> {
    let refuse = |why: String| Err(Refused::HiddenStates(why));
    let Causal { logits: name, hidden, .. } = &given.names;
    let logits = port(graph, "logits", name, false)?;
    let ports = given.layers.iter().map(|&layer| layer_port(&given.names, layer));
    let mut ports = ports.chain([hidden.clone()]);
    if let Some(port) = ports.find(|port| graph.is_output(port) || graph.is_input(port)) {
        let kind = if graph.is_output(&port) { "output" } else { "input" };
        return refuse(format!("the graph has an {kind} {port:?} already"));
    }
    let Some(product) = product_before(graph, name) else {
        return refuse(format!("no product gives {name:?}"));
    };
    let Some((width, dtype)) = width(graph, product) else {
        return refuse(format!("the product that gives {name:?} has no constant weight"));
    };
    let hidden = graph.node(product).input_at(0).unwrap_or_default();
    if graph.maker(hidden).is_none() {
        return refuse(format!("{name:?} is projected from an input, not from a hidden state"));
    }
    let dims = logits.dims();
    if given.last_logits {
        if dims.len() < 2 {
            return refuse(format!("{name:?} declares no shape [batch, sequence, vocabulary]"));
        }
        let reached = descendants(graph, graph.node(product).output_at(0).unwrap_or_default());
        let mut others = graph.proto().output.iter().map(|o| o.name()).filter(|other| *other != name);
        if let Some(other) = others.find(|other| reached.contains(other)) {
            return refuse(format!("the output {other:?} is made of all positions' logits"));
        }
    }
    let layers = layers(graph, &given.layers)?;
    let batch = dims.first().cloned().unwrap_or_default();
    Ok(Projection { product, hidden: hidden.to_owned(), width, dtype, batch, layers })
}

/// The product whose result, but for shape and bias, is a value.
fn product_before(graph: &Graph<'_>, value: &str) -> Option<NodeId> {
    let mut id = graph.maker(value)?;
    loop {
        let node = graph.node(id);
        let from = match node.op_type() {
            op if !graph.is(node, op) => return None,
            "MatMul" => return Some(id),
            "Add" => graph.constant_operand(id)?.1,
            "Cast" | "Identity" => node.input_at(0)?,
            _ => return None,
        };
        id = graph.maker(from)?;
    }
}

/// The rows of the constant matrix that a product multiplies with, and its element type. Tied to an embedding it
/// is a `Transpose` of that.
fn width(graph: &Graph<'_>, product: NodeId) -> Option<(String, i32)> {
    let weight = graph.node(product).input_at(1)?;
    let (tensor, rows) = match graph.initializer(weight) {
        Some(tensor) => (tensor, 0),
        None => {
            let (_, turned) = graph.maker_of(weight, "Transpose")?;
            let swaps = turned.attr_ints("perm").is_none_or(|perm| perm == [1, 0]);
            (graph.initializer(turned.input_at(0)?)?, usize::from(swaps))
        }
    };
    (tensor.dims.len() == 2).then(|| (tensor.dims[rows].to_string(), tensor.data_type()))
}

/// What enters the layers that are asked for, each once.
fn layers(graph: &Graph<'_>, wanted: &[u32]) -> Result<Vec<(u32, String)>, Refused> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let attentions = attentions(graph)?;
    let one = |&layer: &u32| {
        let layers = attentions.len();
        let attention = attentions.get(layer as usize).ok_or(Refused::Layer { layer, layers })?;
        let value = residual(graph, attention.context).ok_or_else(|| {
            Refused::HiddenStates(format!("layer {layer} adds its attention to no residual"))
        })?;
        Ok((layer, value.to_owned()))
    };
    let mut once = HashSet::new();
    wanted.iter().filter(|layer| once.insert(**layer)).map(one).collect()
}

/// What an attention's projected context is added to.
fn residual<'g>(graph: &Graph<'g>, context: NodeId) -> Option<&'g str> {
    let (mut value, mut projected) = (graph.node(context).output_at(0)?, false);
    loop {
        let user = graph.sole_user(value)?;
        let node = graph.node(user);
        match node.op_type() {
            op if !graph.is(node, op) => return None,
            "Transpose" | "Reshape" | "Cast" | "Identity" => {}
            "MatMul" if !projected => {
                width(graph, user)?;
                projected = true;
            }
            "Add" if projected => match graph.constant_operand(user) {
                Some(_) => {}
                None => return node.input.iter().map(String::as_str).find(|input| *input != value),
            },
            _ => return None,
        }
        value = node.output_at(0)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::layer::*;
    use super::*;

    #[test]
    fn positions_that_are_fixed_stay_so() {
        let mut proto = model(PLAIN).proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        graph.input[0] = crate::ir::value_i64(IDS, &["1", "5"]);
        graph.output[0] = value_f32(LOGITS, &["1", "5", "9"]);
        let mut fixed = Model::from_proto(proto, "test.onnx").unwrap();
        expose(&mut fixed, &[], false).unwrap();
        assert_eq!(fixed.graph_proto().output[1].dims(), ["1", "5", "8"]);
    }

    #[test]
    fn the_value_behind_the_logits_is_the_last_output() {
        let mut exposed = model(OPTIMUM);
        let whole = call(&exposed, &[&IDS_5], &[&ONES], None);
        expose(&mut exposed, &[0], true).unwrap();
        exposed.check().unwrap();
        let outputs: Vec<_> =
            exposed.graph_proto().output.iter().map(|o| (o.name(), o.dims())).collect();
        assert_eq!(outputs.last().unwrap().0, "last_hidden_state");
        assert_eq!(outputs.last().unwrap().1, ["batch", LENGTH, "8"]);
        assert_eq!(outputs[3].0, "hidden_states.0");
        assert_eq!(outputs[0].1, ["batch", "1", "9"]);
        let outputs = call(&exposed, &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&outputs), &logits(&whole)[36..]));
        let hidden = outputs["last_hidden_state"].to_f32().unwrap();
        let head = noise(WIDTH * VOCABULARY, 6);
        let projected: Vec<f32> = (0..VOCABULARY)
            .map(|token| (0..WIDTH).map(|c| hidden[32 + c] * head[c * VOCABULARY + token]).sum())
            .collect();
        assert!(close(&projected, &logits(&outputs)));
        let table = noise(VOCABULARY * WIDTH, 1);
        assert!(close(&outputs["hidden_states.0"].to_f32().unwrap()[..WIDTH], &table[24..32]));
        let again = expose(&mut exposed, &[], false).unwrap_err();
        assert!(again.ends_with("an output \"last_hidden_state\" already"), "{again}");
    }

    #[test]
    fn hidden_states_that_are_not_there_are_refused() {
        let refused = |model: &mut Model, layers: &[u32]| expose(model, layers, false).unwrap_err();
        assert_eq!(
            refused(&mut model(PLAIN), &[1]),
            "expose-hidden-states: layer 1 is not there: the graph has 1"
        );
        let odd = TestGraph::new().input("h", &["b", "s", "8"]).initializer(weights("w", 8, 9, 1));
        let product = node("MatMul", ["h", "w"], LOGITS);
        let mut odd = odd.node(product).output(LOGITS, &["b", "s", "9"]).model();
        assert!(refused(&mut odd, &[]).ends_with("projected from an input, not from a hidden state"));
        let mut none = TestGraph::new()
            .input("h", &["b", "s", "8"])
            .node(node("Tanh", ["h"], "y"))
            .output("y", &["b", "s", "8"])
            .model();
        assert!(refused(&mut none, &[]).ends_with("the graph has no output \"logits\""));
    }

    #[test]
    fn a_hidden_state_that_is_an_output_stays_one() {
        let mut proto = model(PLAIN).proto().clone();
        proto.graph.as_mut().unwrap().output.push(crate::ir::value_f32("h", &["batch", LENGTH, "8"]));
        let mut exposed = Model::from_proto(proto, "test.onnx").unwrap();
        expose(&mut exposed, &[], true).unwrap();
        exposed.check().unwrap();
        let outputs = call(&exposed, &[&IDS_5], &[&ONES], None);
        assert_eq!(outputs["h"], outputs["last_hidden_state"]);
        assert_eq!(outputs[LOGITS].shape(), [1, 1, VOCABULARY]);
    }

    #[test]
    fn a_head_that_is_the_embedding_transposed_has_hidden_states() {
        let turned = node("Transpose", ["table"], "head_turned").ints("perm", [1, 0]);
        let mut proto = model(PLAIN).proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        let last = graph.node.last_mut().unwrap();
        last.input[1] = "head_turned".to_owned();
        graph.node.insert(0, turned.build());
        graph.initializer.retain(|tensor| tensor.name() != "head");
        let mut tied = Model::from_proto(proto, "test.onnx").unwrap();
        expose(&mut tied, &[], false).unwrap();
        assert_eq!(tied.graph_proto().output.last().unwrap().dims(), ["batch", LENGTH, "8"]);
    }

    #[test]
    fn logits_without_a_shape_or_with_others_behind_them_are_refused() {
        let mut proto = model(PLAIN).proto().clone();
        proto.graph.as_mut().unwrap().output[0].r#type = None;
        let mut shapeless = Model::from_proto(proto, "test.onnx").unwrap();
        let error = expose(&mut shapeless, &[], true).unwrap_err();
        assert!(error.ends_with("declares no shape [batch, sequence, vocabulary]"), "{error}");
        let mut proto = model(PLAIN).proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        graph.node.push(node("Exp", [LOGITS], "odds").build());
        graph.output.push(crate::ir::value_f32("odds", &["batch", LENGTH, "9"]));
        let mut more = Model::from_proto(proto, "test.onnx").unwrap();
        let error = expose(&mut more, &[], true).unwrap_err();
        assert!(error.ends_with("the output \"odds\" is made of all positions' logits"), "{error}");
    }
}
