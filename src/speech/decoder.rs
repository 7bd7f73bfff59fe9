use super::{Error, Frame};
use crate::interface::Signal;
use crate::runtime::Session;

/// A decoder, loaded: rows of hidden states to samples.
pub struct Decoder {
    session: Box<dyn Session>,
    graph: Signal,
}

impl Decoder {
    /// A session of a signal graph.
    pub fn new(session: Box<dyn Session>, graph: Signal) -> Self {
        Self { session, graph }
    }

    /// Channels of a row.
    pub fn channels(&self) -> usize {
        self.graph.channels()
    }

    /// Samples of T rows, full scale ±1: as many for each row but the first (2048 in Soprano). Fewer than
    /// two rows are silence, of no length.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::Interface`], [`Error::Audio`] for a sample that is not a number.
    pub fn decode(&self, rows: &[Frame]) -> Result<Vec<f32>, Error> {
        if rows.len() < 2 {
            return Ok(Vec::new());
        }
        let refuse = |why: String| Error::Interface { what: "the decoder".to_owned(), why };
        let channels = self.graph.channels();
        // [channels, T]: time is innermost.
        let mut values = vec![0.0; channels * rows.len()];
        for (at, row) in rows.iter().enumerate() {
            let Frame::Row(row) = row else {
                return Err(refuse("takes rows of hidden states, not codes".to_owned()));
            };
            if row.len() != channels {
                return Err(Error::Width { lm: row.len(), decoder: channels });
            }
            for (channel, value) in row.iter().enumerate() {
                values[channel * rows.len() + at] = *value;
            }
        }
        let outputs = self.session.run(&self.graph.frames(1, rows.len(), &values))?;
        let audio = outputs
            .get(&self.graph.names().samples)
            .ok_or_else(|| refuse("gave no audio".to_owned()))?;
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
