use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ir::{Model, ValueInfoProto};
use crate::names::Ports;

/// A graph's interface: what it takes and gives, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// Whether a causal graph keeps its cache itself.
    pub stateful: bool,
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type: `f32`.
    pub dtype: String,
    /// Dimensions: numbers, bounds `a..b`, or the names of open ones.
    #[serde(rename = "shape")]
    pub dims: Vec<String>,
}

impl Signature {
    /// The same graph with its cache inside.
    pub fn with_state(mut self, ports: &Ports) -> Self {
        self.inputs.retain(|port| !ports.is_cache(&port.name));
        self.outputs.retain(|port| !ports.is_cache(&port.name));
        self.stateful = true;
        self
    }

    /// Those of its inputs that references record: a cache is the model's own.
    pub fn recorded_inputs(&self, ports: &Ports) -> Vec<String> {
        let names = self.inputs.iter().map(|port| &port.name);
        names.filter(|name| !ports.is_cache(name)).cloned().collect()
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
