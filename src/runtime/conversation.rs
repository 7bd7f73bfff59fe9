//! Calls one after another, in which outputs go back in, in a runtime's own values.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Conversation, Error, Session, Tensors};
use crate::tensor::Tensor;

/// What a runtime does in a conversation: it converts values and calls its model.
pub(super) trait Calls {
    /// A value as the runtime has it.
    type Value;

    /// A tensor as a value.
    fn value(&self, tensor: &Tensor) -> Result<Self::Value, String>;

    /// An output, by its place, as a tensor.
    fn tensor(&self, at: usize, value: &Self::Value) -> Result<Tensor, String>;

    /// A value that outlives the next call.
    fn lasting(&self, value: Self::Value) -> Result<Self::Value, String> {
        Ok(value)
    }

    /// Calls the model with a value for each input, and gives `take` each output with its place, while the
    /// inputs are still there: an output may share an input's memory.
    fn call(
        &self,
        ports: &Ports,
        inputs: Vec<Self::Value>,
        take: Take<'_, Self::Value>,
    ) -> Result<(), String>;
}

/// Takes an output by its place.
pub(super) type Take<'a, V> = &'a mut dyn FnMut(usize, V) -> Result<(), String>;

/// The names of a model's inputs and outputs, in its order, and of the runtime that calls it.
pub(super) struct Ports {
    pub(super) runtime: &'static str,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

impl Ports {
    fn refuse(&self, why: String) -> Error {
        Error::Run { runtime: self.runtime, why }
    }
}

/// A session of a model that keeps no state between calls.
pub(super) struct Loaded<M> {
    pub(super) ports: Ports,
    pub(super) model: M,
}

impl<M: Send + Sync> Session for Loaded<M>
where
    for<'a> &'a M: Calls,
{
    fn inputs(&self) -> &[String] {
        &self.ports.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.ports.outputs
    }

    fn begin(&self, carried: &[(String, String)]) -> Result<Box<dyn Conversation + '_>, Error> {
        Ok(Turns::begin(&self.model, &self.ports, carried))
    }
}

/// A conversation that owns what goes back in.
pub(super) struct Turns<'a, C: Calls> {
    calls: C,
    ports: &'a Ports,
    carried: Vec<(String, String)>,
    /// The inputs of the next call that come from the last one.
    values: BTreeMap<String, C::Value>,
}

impl<'a, C: Calls + 'a> Turns<'a, C> {
    pub(super) fn begin(
        calls: C,
        ports: &'a Ports,
        carried: &[(String, String)],
    ) -> Box<dyn Conversation + 'a> {
        Box::new(Self { calls, ports, carried: carried.to_vec(), values: BTreeMap::new() })
    }

    /// A value for each of the model's inputs.
    fn feed(&mut self, tensors: &Tensors) -> Result<Vec<C::Value>, Error> {
        let mut values = std::mem::take(&mut self.values);
        let known = &self.ports.inputs;
        let is_new = |name: &String| known.contains(name) && !values.contains_key(name);
        if let Some(name) = tensors.keys().find(|name| !is_new(name)) {
            return Err(Error::UnknownInput { name: name.clone(), known: known.join(", ") });
        }
        let value = |name: &String| match (values.remove(name), tensors.get(name)) {
            (Some(value), _) => Ok(value),
            (None, Some(tensor)) => self.calls.value(tensor).map_err(|why| self.ports.refuse(why)),
            (None, None) => Err(Error::MissingInput { name: name.clone() }),
        };
        known.iter().map(value).collect()
    }
}

impl<'a, C: Calls + 'a> Conversation for Turns<'a, C> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, Error> {
        let inputs = self.feed(inputs)?;
        let (mut outputs, mut values) = (Tensors::new(), BTreeMap::new());
        let take = &mut |at: usize, value| {
            let name = &self.ports.outputs[at];
            match self.carried.iter().find(|(from, _)| from == name) {
                Some((_, to)) => drop(values.insert(to.clone(), self.calls.lasting(value)?)),
                None => drop(outputs.insert(name.clone(), self.calls.tensor(at, &value)?)),
            }
            Ok(())
        };
        self.calls.call(self.ports, inputs, take).map_err(|why| self.ports.refuse(why))?;
        if let Some((from, _)) = self.carried.iter().find(|(_, to)| !values.contains_key(to)) {
            return Err(self.ports.refuse(format!("the model has no output {from:?}")));
        }
        self.values = values;
        Ok(outputs)
    }

    fn seconds(&mut self, inputs: &Tensors) -> Result<f64, Error> {
        let inputs = self.feed(inputs)?;
        let start = Instant::now();
        let call = self.calls.call(self.ports, inputs, &mut |_, _| Ok(()));
        call.map_err(|why| self.ports.refuse(why))?;
        Ok(start.elapsed().as_secs_f64())
    }
}
