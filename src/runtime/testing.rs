//! Conversations for the tests of what uses a runtime.

use super::{Conversation, Error, Tensors};

/// A conversation with a session of a test, which says what a call gives.
pub(crate) struct Copying<F> {
    call: F,
    carried: Vec<(String, String)>,
    values: Tensors,
}

impl<F: FnMut(&Tensors) -> Result<Tensors, Error>> Copying<F> {
    pub(crate) fn begin<'a>(call: F, carried: &[(String, String)]) -> Box<dyn Conversation + 'a>
    where
        F: 'a,
    {
        Box::new(Self { call, carried: carried.to_vec(), values: Tensors::new() })
    }
}

impl<F: FnMut(&Tensors) -> Result<Tensors, Error>> Conversation for Copying<F> {
    fn run(&mut self, new: &Tensors) -> Result<Tensors, Error> {
        let mut inputs = std::mem::take(&mut self.values);
        inputs.extend(new.clone());
        let mut outputs = (self.call)(&inputs)?;
        for (from, to) in &self.carried {
            self.values.insert(to.clone(), outputs.remove(from).expect("a carried output"));
        }
        Ok(outputs)
    }

    fn seconds(&mut self, inputs: &Tensors) -> Result<f64, Error> {
        self.run(inputs).map(|_| 0.0)
    }
}
