use super::Error;
use super::language_model::Ports;
use crate::runtime::{Session, Tensors};
use crate::tensor::Tensor;

/// A decoder, loaded: rows of hidden states to samples.
pub struct Decoder {
    session: Box<dyn Session>,
    input: String,
    output: String,
    channels: usize,
}

impl Decoder {
    /// A session of a model with these inputs and outputs.
    ///
    /// # Errors
    /// [`Error::Interface`] where they aren't a decoder's.
    pub fn new(session: Box<dyn Session>, inputs: &Ports, outputs: &Ports) -> Result<Self, Error> {
        let refuse =
            |why: &str| Error::Interface { what: "the decoder".to_owned(), why: why.to_owned() };
        let ([(input, dims)], [(output, _)]) = (inputs, outputs) else {
            return Err(refuse("must have one input and one output"));
        };
        let channels = dims.get(1).and_then(|dim| dim.parse().ok()).filter(|&n: &usize| n > 0);
        let (Some(channels), 3) = (channels, dims.len()) else {
            return Err(refuse("takes [batch, channels, T] with channels fixed"));
        };
        Ok(Self { session, input: input.clone(), output: output.clone(), channels })
    }

    /// Channels of a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples of T rows, full scale ±1: as many for each row but the first (2048 in Soprano). Fewer than
    /// two rows are silence, of no length.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::Interface`], [`Error::Audio`] for a sample that is no number.
    pub fn decode(&self, rows: &[Vec<f32>]) -> Result<Vec<f32>, Error> {
        if rows.len() < 2 {
            return Ok(Vec::new());
        }
        let refuse = |why: String| Error::Interface { what: "the decoder".to_owned(), why };
        // [channels, T]: time is innermost.
        let mut values = vec![0.0; self.channels * rows.len()];
        for (at, row) in rows.iter().enumerate() {
            if row.len() != self.channels {
                return Err(Error::Width { lm: row.len(), decoder: self.channels });
            }
            for (channel, value) in row.iter().enumerate() {
                values[channel * rows.len() + at] = *value;
            }
        }
        let given = Tensor::from_f32(&[1, self.channels, rows.len()], &values);
        let outputs = self.session.run(&Tensors::from([(self.input.clone(), given)]))?;
        let audio = outputs.get(&self.output).ok_or_else(|| refuse("gave no audio".to_owned()))?;
        let samples = audio.to_f32().map_err(|error| refuse(error.to_string()))?;
        if samples.is_empty() || !samples.len().is_multiple_of(rows.len() - 1) {
            return Err(refuse(format!("gave {} samples for {} rows", samples.len(), rows.len())));
        }
        match samples.iter().position(|sample| !sample.is_finite()) {
            Some(at) => Err(Error::Audio { at }),
            None => Ok(samples),
        }
    }
}
