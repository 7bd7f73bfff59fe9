//! Calls one after another, in which outputs go back in, in a runtime's own values.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Conversation, Error, Tensors};
use crate::tensor::Tensor;

/// What a runtime does in a conversation: it converts values and calls its model.
pub(super) trait Calls {
    /// A value as the runtime holds it.
    type Value;

    /// The runtime's name.
    fn runtime(&self) -> &'static str;

    /// The model's inputs and outputs, in its order.
    fn ports(&self) -> [&[String]; 2];

    /// A tensor as a value.
    fn value(&self, tensor: &Tensor) -> Result<Self::Value, String>;

    /// An output, by its place, as a tensor.
    fn tensor(&self, at: usize, value: &Self::Value) -> Result<Tensor, String>;

    /// A value that outlives the next call.
    fn kept(&self, value: Self::Value) -> Result<Self::Value, String> {
        Ok(value)
    }

    /// Calls the model with a value for each input, and gives `take` each output with its place, while the
    /// inputs are still there: an output may share an input's memory.
    fn call(&self, inputs: Vec<Self::Value>, take: Take<'_, Self::Value>) -> Result<(), String>;
}

/// Takes an output by its place.
pub(super) type Take<'a, V> = &'a mut dyn FnMut(usize, V) -> Result<(), String>;

/// A conversation that owns what goes back in.
pub(super) struct Turns<C: Calls> {
    calls: C,
    carried: Vec<(String, String)>,
    held: BTreeMap<String, C::Value>,
}

impl<C: Calls> Turns<C> {
    pub(super) fn begin<'a>(calls: C, carried: &[(String, String)]) -> Box<dyn Conversation + 'a>
    where
        C: 'a,
    {
        Box::new(Self { calls, carried: carried.to_vec(), held: BTreeMap::new() })
    }

    fn refuse(&self, why: String) -> Error {
        Error::Run { runtime: self.calls.runtime(), why }
    }

    /// A value for each of the model's inputs.
    fn feed(&mut self, given: &Tensors) -> Result<Vec<C::Value>, Error> {
        let mut held = std::mem::take(&mut self.held);
        let known = self.calls.ports()[0];
        let is_new = |name: &String| known.contains(name) && !held.contains_key(name);
        if let Some(name) = given.keys().find(|name| !is_new(name)) {
            return Err(Error::UnknownInput { name: name.clone(), known: known.join(", ") });
        }
        let value = |name: &String| match (held.remove(name), given.get(name)) {
            (Some(value), _) => Ok(value),
            (None, Some(tensor)) => self.calls.value(tensor).map_err(|why| self.refuse(why)),
            (None, None) => Err(Error::MissingInput { name: name.clone() }),
        };
        known.iter().map(value).collect()
    }
}

impl<C: Calls> Conversation for Turns<C> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, Error> {
        let inputs = self.feed(inputs)?;
        let (mut outputs, mut held) = (Tensors::new(), BTreeMap::new());
        let names = self.calls.ports()[1];
        let take = &mut |at: usize, value| {
            let name: &String = &names[at];
            match self.carried.iter().find(|(from, _)| from == name) {
                Some((_, to)) => drop(held.insert(to.clone(), self.calls.kept(value)?)),
                None => drop(outputs.insert(name.clone(), self.calls.tensor(at, &value)?)),
            }
            Ok(())
        };
        self.calls.call(inputs, take).map_err(|why| self.refuse(why))?;
        if let Some((from, _)) = self.carried.iter().find(|(_, to)| !held.contains_key(to)) {
            return Err(self.refuse(format!("the model has no output {from:?}")));
        }
        self.held = held;
        Ok(outputs)
    }

    fn seconds(&mut self, inputs: &Tensors) -> Result<f64, Error> {
        let inputs = self.feed(inputs)?;
        let start = Instant::now();
        self.calls.call(inputs, &mut |_, _| Ok(())).map_err(|why| self.refuse(why))?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A conversation with a session of a test, which says what a call gives.
#[cfg(test)]
pub(crate) struct Copying<F> {
    call: F,
    carried: Vec<(String, String)>,
    held: Tensors,
}

#[cfg(test)]
impl<F: FnMut(&Tensors) -> Result<Tensors, Error>> Copying<F> {
    pub(crate) fn begin<'a>(call: F, carried: &[(String, String)]) -> Box<dyn Conversation + 'a>
    where
        F: 'a,
    {
        Box::new(Self { call, carried: carried.to_vec(), held: Tensors::new() })
    }
}

#[cfg(test)]
impl<F: FnMut(&Tensors) -> Result<Tensors, Error>> Conversation for Copying<F> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, Error> {
        let mut given = std::mem::take(&mut self.held);
        given.extend(inputs.clone());
        let mut outputs = (self.call)(&given)?;
        for (from, to) in &self.carried {
            self.held.insert(to.clone(), outputs.remove(from).expect("a carried output"));
        }
        Ok(outputs)
    }

    fn seconds(&mut self, inputs: &Tensors) -> Result<f64, Error> {
        self.run(inputs).map(|_| 0.0)
    }
}
