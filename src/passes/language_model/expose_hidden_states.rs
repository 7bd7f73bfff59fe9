use std::collections::HashSet;

use super::attention::{attentions, descendants};
use super::{LENGTH, LOGITS, Refused, graph_of, needs_opset};
use crate::ir::{
    Graph, Model, Names, NodeId, ValueInfoProto, initializer_i64, node, rename_value, value_f32,
};

const PASS: &str = "expose-hidden-states";

/// The output that carries what the logits are projected from.
pub const HIDDEN: &str = "last_hidden_state";
const LAYER: &str = "hidden_states.";

/// What of a language model's inside becomes an output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expose<'a> {
    /// Layers whose input becomes `hidden_states.{i}`; 0 is the embedding.
    pub layers: &'a [u32],
    /// Logits of the last position alone: a prompt's others are never read.
    pub last_logits: bool,
}

/// `expose-hidden-states`: the value that feeds the projection to `logits` becomes the output
/// `last_hidden_state`, f32 [batch, sequence, channels], behind every other output.
///
/// ```text
/// logits = MatMul(h, W)         =>  logits = MatMul(last_hidden_state, W)
/// logits, of the last position  =>  logits = MatMul(last_hidden_state[:, -1:], W), [batch, 1, vocabulary]
/// x + attention(norm(x)) of layer i, where asked  =>  hidden_states.{i} = x, before last_hidden_state
/// ```
///
/// `channels` is the width of `h`: W's rows. An inner value that has the name of an output to be gets another; an
/// `h` that is an output already stays one.
///
/// # Errors
/// [`Refused::HiddenStates`] where `logits` is no output, no product makes it, a layer is not there, or the last
/// position is asked for and its logits feed another output; [`Refused::Opset`] where it is asked for below 10,
/// for the inputs of `Slice`.
pub fn expose_hidden_states(model: &mut Model, expose: Expose<'_>) -> Result<(), Refused> {
    if expose.last_logits {
        needs_opset(model, PASS, 10)?;
    }
    let Found { product, hidden, width, dtype, batch, layers } = found(&model.graph(), expose)?;
    if expose.last_logits {
        model.free_constants_of_inputs();
    }
    let mut names = Names::of(model.graph_proto());
    let stays = model.graph().is_output(&hidden);
    let graph = graph_of(model);
    let mut outputs: Vec<(String, String)> =
        layers.into_iter().map(|(layer, value)| (format!("{LAYER}{layer}"), value)).collect();
    outputs.push((HIDDEN.to_owned(), hidden.clone()));
    for at in 0..outputs.len() {
        let port = outputs[at].0.clone();
        if names.knows(&port) {
            // An inner value has the name: it takes another, unless it is the very value asked for.
            let other = names.value(&port);
            rename_value(graph, &port, &other);
            outputs.iter_mut().filter(|(_, value)| *value == port).for_each(|o| o.1.clone_from(&other));
        }
    }
    let hidden = outputs.last().expect("pushed above").1.clone();
    if !stays {
        rename_value(graph, &hidden, HIDDEN);
        outputs
            .iter_mut()
            .filter(|(_, value)| *value == hidden)
            .for_each(|o| HIDDEN.clone_into(&mut o.1));
    }
    let read = outputs.last().expect("pushed above").1.clone();
    for (port, value) in outputs {
        if port != value {
            let made = node("Identity", [&value], &port).named(names.node(&port)).author(PASS);
            graph.node.push(made.build());
        }
        graph.output.push(output(&port, dtype, &[&batch, LENGTH, &width]));
    }
    if expose.last_logits {
        let [starts, ends, axes, last] = ["last/starts", "last/ends", "last/axes", "last"]
            .map(|part| names.value(&format!("{LOGITS}/{part}")));
        graph.initializer.push(initializer_i64(&starts, &[1], &[-1]));
        graph.initializer.push(initializer_i64(&ends, &[1], &[i64::MAX]));
        graph.initializer.push(initializer_i64(&axes, &[1], &[1]));
        graph.node[product.0].input[0].clone_from(&last);
        let slice = node("Slice", [&read, &starts, &ends, &axes], &last).named(names.node(&last));
        graph.node.insert(product.0, slice.author(PASS).build());
        let logits = graph.output.iter_mut().find(|output| output.name() == LOGITS);
        let logits = logits.expect("found above");
        let mut dims = logits.dims();
        dims[1] = "1".to_owned();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        *logits = output(LOGITS, logits.element_type(), &dims);
        let graph = model.graph();
        let shorter: HashSet<String> =
            descendants(&graph, &last).into_iter().map(str::to_owned).collect();
        graph_of(model).value_info.retain(|info| !shorter.contains(info.name()));
    }
    Ok(())
}

/// An output of the element type of an ONNX code.
fn output(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let mut output = value_f32(name, dims);
    output.set_element_type(dtype);
    output
}

/// What the graph is found to have.
struct Found {
    product: NodeId,
    hidden: String,
    width: String,
    dtype: i32,
    batch: String,
    layers: Vec<(u32, String)>,
}

fn found(graph: &Graph<'_>, expose: Expose<'_>) -> Result<Found, Refused> {
    let refuse = |why: &str| Refused::HiddenStates { why: why.to_owned() };
    let Some(logits) = graph.proto().output.iter().find(|o| o.name() == LOGITS) else {
        return Err(refuse("the graph has no output \"logits\""));
    };
    let asked = expose.layers.iter().map(|layer| format!("{LAYER}{layer}"));
    let mut asked = asked.chain([HIDDEN.to_owned()]);
    if let Some(port) = asked.find(|port| graph.is_output(port) || graph.is_input(port)) {
        let kind = if graph.is_output(&port) { "output" } else { "input" };
        return Err(refuse(&format!("the graph has an {kind} {port:?} already")));
    }
    let product = product_behind(graph, LOGITS).ok_or_else(|| refuse("no product makes \"logits\""))?;
    let (width, dtype) = width(graph, product)
        .ok_or_else(|| refuse("the product that makes \"logits\" has no constant weight"))?;
    let hidden = graph.node(product).input_at(0).unwrap_or_default();
    if graph.maker(hidden).is_none() {
        return Err(refuse("\"logits\" are projected from an input, not from a hidden state"));
    }
    let dims = logits.dims();
    if expose.last_logits {
        if dims.len() < 2 {
            return Err(refuse("\"logits\" declare no shape [batch, sequence, vocabulary]"));
        }
        let scores = graph.node(product).output_at(0).unwrap_or_default();
        let made = descendants(graph, scores);
        let others = graph.proto().output.iter().map(|o| o.name()).filter(|name| *name != LOGITS);
        if let Some(other) = others.into_iter().find(|name| made.contains(name)) {
            return Err(refuse(&format!("the output {other:?} is made of all positions' logits")));
        }
    }
    let layers = layers(graph, expose.layers)?;
    let batch = dims.first().cloned().unwrap_or_default();
    Ok(Found { product, hidden: hidden.to_owned(), width, dtype, batch, layers })
}

/// The product whose result, but for shape and bias, is a value.
fn product_behind(graph: &Graph<'_>, value: &str) -> Option<NodeId> {
    let id = graph.maker(value)?;
    let made = graph.node(id);
    match made.op_type() {
        op if !graph.is(made, op) => None,
        "MatMul" => Some(id),
        "Add" => product_behind(graph, graph.constant_operand(id)?.1),
        "Cast" | "Identity" => product_behind(graph, made.input_at(0)?),
        _ => None,
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

/// What enters the layers that are asked for.
fn layers(graph: &Graph<'_>, wanted: &[u32]) -> Result<Vec<(u32, String)>, Refused> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let refuse = |why: String| Refused::HiddenStates { why };
    let found = attentions(graph, PASS)?;
    let one = |&layer: &u32| {
        let attention = found.get(layer as usize).ok_or_else(|| {
            refuse(format!("layer {layer} is not there: the graph has {}", found.len()))
        })?;
        let value = residual(graph, attention.context)
            .ok_or_else(|| refuse(format!("layer {layer} adds its attention to no residual")))?;
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
