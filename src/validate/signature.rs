use crate::ir::{Model, ValueInfoProto};

/// A model's interface: what it takes and gives, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// Whether a language model keeps its cache itself.
    pub stateful: bool,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type: `f32`.
    pub dtype: String,
    /// Dimensions: numbers, or the names of open ones.
    pub dims: Vec<String>,
}

impl Signature {
    /// The same model with its cache inside.
    pub fn with_state(mut self) -> Self {
        self.inputs.retain(|port| !port.name.starts_with(super::language_model::PAST));
        self.outputs.retain(|port| !port.name.starts_with(super::language_model::PRESENT));
        self.stateful = true;
        self
    }
}

impl From<&Model> for Signature {
    fn from(model: &Model) -> Self {
        let ports = |values: &[ValueInfoProto]| {
            let port = |value: &ValueInfoProto| Port {
                name: value.name().to_owned(),
                dtype: value.dtype_name(),
                dims: value.dims(),
            };
            values.iter().map(port).collect()
        };
        let graph = model.graph_proto();
        Self { inputs: ports(&graph.input), outputs: ports(&graph.output), stateful: false }
    }
}
