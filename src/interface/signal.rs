use super::{Error, Signature, fixed, varied};
use crate::names;
use crate::tensor::{Tensor, Tensors};

/// A signal graph's input and output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    names: names::Signal,
    channels: usize,
    channels_last: bool,
}

impl Signal {
    /// Reads the channels of a frame off a graph's input.
    ///
    /// # Errors
    /// [`Error::Signal`] where there is another input, or the channels are left open.
    pub fn bind(names: &names::Signal, signature: &Signature) -> Result<Self, Error> {
        let refuse = |name: &str, why| Err(Error::Signal { name: name.to_owned(), why });
        let input = match signature.inputs.as_slice() {
            [] => return refuse(&names.frames, "is not there"),
            [only] if only.name == names.frames => only,
            [first, rest @ ..] => {
                let other = if first.name == names.frames { &rest[0] } else { first };
                return refuse(&other.name, "is none of a signal graph's inputs");
            }
        };
        match (fixed(&input.dims, 1), fixed(&input.dims, 2), input.dims.len()) {
            (Some(channels), _, 3) => Ok(Self { names: names.clone(), channels, channels_last: false }),
            (None, Some(channels), 3) => {
                Ok(Self { names: names.clone(), channels, channels_last: true })
            }
            _ => refuse(&input.name, "must have three dimensions, with the channels fixed"),
        }
    }

    /// The names of its input and output.
    pub fn names(&self) -> &names::Signal {
        &self.names
    }

    /// Values of a frame.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether channels are the last dimension, and not the one before.
    pub fn has_channels_last(&self) -> bool {
        self.channels_last
    }

    /// Frames [batch, channels, frames] as the graph takes them.
    pub fn frames(&self, batch: usize, frames: usize, values: &[f32]) -> Tensors {
        let tensor = if self.channels_last {
            let sequences = values.chunks(self.channels * frames);
            let at = |sequence: &[f32], frame: usize| -> Vec<f32> {
                (0..self.channels).map(|channel| sequence[channel * frames + frame]).collect()
            };
            let turned: Vec<f32> =
                sequences.flat_map(|s| (0..frames).flat_map(move |frame| at(s, frame))).collect();
            Tensor::from_f32(&[batch, frames, self.channels], &turned)
        } else {
            Tensor::from_f32(&[batch, self.channels, frames], values)
        };
        Tensors::from([(self.names.frames.clone(), tensor)])
    }

    /// A call of so many frames of each sequence.
    pub(super) fn feed(&self, batch: usize, frames: usize) -> Tensors {
        self.frames(batch, frames, &varied(batch * self.channels * frames))
    }
}

/// A signature of inputs with their dimensions.
#[cfg(test)]
pub(super) fn signature(inputs: &[(&str, &str)]) -> Signature {
    let port = |(name, dims): &(&str, &str)| super::Port {
        name: (*name).to_owned(),
        dtype: "f32".to_owned(),
        dims: dims.split(' ').map(str::to_owned).collect(),
    };
    Signature { inputs: inputs.iter().map(port).collect(), outputs: Vec::new(), stateful: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(inputs: &[(&str, &str)]) -> Result<Signal, Error> {
        let names = names::Signal { frames: "x".into(), ..Default::default() };
        Signal::bind(&names, &signature(inputs))
    }

    #[test]
    fn a_signal_graph_is_fed_with_values_that_vary() {
        let inputs = bind(&[("x", "batch 6 T")]).unwrap().feed(2, 8);
        let values = inputs["x"].to_f32().unwrap();
        assert_eq!(inputs["x"].shape(), [2, 6, 8]);
        assert!(values.iter().all(|v| v.abs() <= 1.0) && values.iter().any(|v| *v < -0.5));
    }

    #[test]
    fn channels_may_come_last() {
        let signal = bind(&[("x", "batch T 2")]).unwrap();
        let inputs = signal.frames(1, 3, &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        assert_eq!(inputs["x"].shape(), [1, 3, 2]);
        assert_eq!(inputs["x"].to_f32().unwrap(), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }

    #[test]
    fn inputs_that_are_not_known_are_refused() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[], "is not there"),
            (&[("x", "b c t")], "channels fixed"),
            (&[("x", "b 6 t"), ("y", "b 6 t")], "is none of a signal graph's"),
            (&[("y", "b 6 t")], "is none of a signal graph's"),
        ];
        for (inputs, why) in cases {
            let error = bind(inputs).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
