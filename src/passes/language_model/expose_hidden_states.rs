use super::attention::attentions;
use super::{LENGTH, LOGITS, Refused, graph_of, rename};
use crate::ir::{Graph, Model, NodeId, TensorProto, initializer_i64, node, value_f32};

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
/// `channels` is the width of `h`: W's rows.
///
/// # Errors
/// [`Refused::HiddenStates`] where `logits` is no output, no product makes it, or a layer is not there.
pub fn expose_hidden_states(model: &mut Model, expose: Expose<'_>) -> Result<(), Refused> {
    let refuse = |why: &str| Refused::HiddenStates { why: why.to_owned() };
    let (hidden, channels, batch, product, layers) = {
        let graph = model.graph();
        let Some(logits) = graph.proto().output.iter().find(|o| o.name() == LOGITS) else {
            return Err(refuse("the graph has no output \"logits\""));
        };
        if graph.is_output(HIDDEN) {
            return Err(refuse("the graph has an output \"last_hidden_state\" already"));
        }
        let product =
            product_behind(&graph, LOGITS).ok_or_else(|| refuse("no product makes \"logits\""))?;
        let weight = constant_weight(&graph, product)
            .ok_or_else(|| refuse("the product that makes \"logits\" has no constant weight"))?;
        let hidden = graph.node(product).input_at(0).unwrap_or_default();
        if graph.maker(hidden).is_none() {
            return Err(refuse("\"logits\" are projected from an input, not from a hidden state"));
        }
        let channels = weight.dims[0].to_string();
        let layers = layers(&graph, expose.layers)?;
        let batch = logits.dims().first().cloned().unwrap_or_default();
        (hidden.to_owned(), channels, batch, product, layers)
    };
    let graph = graph_of(model);
    rename(graph, &hidden, HIDDEN);
    for (layer, value) in &layers {
        let value = if *value == hidden { HIDDEN } else { value };
        let output = format!("{LAYER}{layer}");
        graph.node.push(node("Identity", [value], &output).named(&output).build());
        graph.output.push(value_f32(&output, &[&batch, LENGTH, &channels]));
    }
    graph.output.push(value_f32(HIDDEN, &[&batch, LENGTH, &channels]));
    if expose.last_logits {
        let [starts, ends, axes] =
            ["starts", "ends", "axes"].map(|part| format!("{LOGITS}/last/{part}"));
        graph.initializer.push(initializer_i64(&starts, &[1], &[-1]));
        graph.initializer.push(initializer_i64(&ends, &[1], &[i64::MAX]));
        graph.initializer.push(initializer_i64(&axes, &[1], &[1]));
        let last = format!("{LOGITS}/last");
        graph.node[product.0].input[0] = last.clone();
        let slice = node("Slice", [HIDDEN, &starts, &ends, &axes], &last).named(&last).build();
        graph.node.insert(product.0, slice);
        let output = graph.output.iter_mut().find(|output| output.name() == LOGITS);
        let output = output.expect("found above");
        let mut dims = output.dims();
        dims[1] = "1".to_owned();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        *output = value_f32(LOGITS, &dims);
    }
    Ok(())
}

/// The product whose result, but for shape and bias, is a value.
fn product_behind(graph: &Graph<'_>, value: &str) -> Option<NodeId> {
    let id = graph.maker(value)?;
    let made = graph.node(id);
    match made.op_type() {
        "MatMul" => Some(id),
        "Add" => product_behind(graph, graph.constant_operand(id)?.1),
        "Cast" | "Identity" => product_behind(graph, made.input_at(0)?),
        _ => None,
    }
}

fn constant_weight<'g>(graph: &Graph<'g>, product: NodeId) -> Option<&'g TensorProto> {
    let weight = graph.initializer(graph.node(product).input_at(1)?)?;
    (weight.dims.len() == 2).then_some(weight)
}

/// What enters the layers that are asked for.
fn layers(graph: &Graph<'_>, wanted: &[u32]) -> Result<Vec<(u32, String)>, Refused> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let refuse = |why: String| Refused::HiddenStates { why };
    let found = attentions(graph, "expose-hidden-states")?;
    let one = |&layer: &u32| {
        let attention = found.get(layer as usize).ok_or_else(|| {
            refuse(format!("layer {layer} is not there: the graph has {}", found.len()))
        })?;
        let value = residual(graph, attention.context)
            .ok_or_else(|| refuse(format!("layer {layer} adds its attention to no residual")))?;
        Ok((layer, value.to_owned()))
    };
    wanted.iter().map(one).collect()
}

/// What an attention's projected context is added to.
fn residual<'g>(graph: &Graph<'g>, context: NodeId) -> Option<&'g str> {
    let (mut value, mut projected) = (graph.node(context).output_at(0)?, false);
    loop {
        let user = graph.sole_user(value)?;
        let node = graph.node(user);
        match node.op_type() {
            "Transpose" | "Reshape" | "Cast" | "Identity" => {}
            "MatMul" if !projected => {
                constant_weight(graph, user)?;
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
