use super::{Decoder, Error};

/// Rows after a row that can still change its samples, rounded up: upstream's figure. A row's samples depend
/// on those within 2.2 of it.
pub const RECEPTIVE_FIELD: usize = 4;

/// Decodes rows as they come, in chunks, so that what comes out is what decoding all of them at once gives.
///
/// The samples between rows i and i + 1 are ready when three more rows are there ([`RECEPTIVE_FIELD`] behind
/// row i); a chunk is decoded with as many rows before it. With a file in 8 bits whose activations are
/// quantized as they come the range is the chunk's, and samples differ as much as 8 bits do.
pub struct Stream<'a> {
    decoder: &'a Decoder,
    /// Pieces of the next chunk.
    chunk: usize,
    /// The most pieces of a chunk.
    most: usize,
    /// The rows that are still needed, the first of them being row `first`.
    rows: Vec<Vec<f32>>,
    first: usize,
    /// Pieces between two rows that were returned already.
    done: usize,
}

impl<'a> Stream<'a> {
    /// A stream whose first chunk is one piece (64 ms in Soprano), and each one twice the last, up to `most`
    /// pieces: the first sound is there soon, and what follows is decoded with less that is decoded again.
    pub fn new(decoder: &'a Decoder, most: usize) -> Self {
        Self { decoder, chunk: 1, most: most.max(1), rows: Vec::new(), first: 0, done: 0 }
    }

    /// Takes a row; gives the samples that are ready, if there are enough.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn push(&mut self, row: &[f32]) -> Result<Option<Vec<f32>>, Error> {
        self.rows.push(row.to_vec());
        let there = self.first + self.rows.len();
        let ready = there.saturating_sub(RECEPTIVE_FIELD);
        if ready < self.done + self.chunk {
            return Ok(None);
        }
        self.chunk = (2 * self.chunk).min(self.most);
        self.decode(ready).map(Some)
    }

    /// The samples that are left.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn finish(&mut self) -> Result<Vec<f32>, Error> {
        let pieces = (self.first + self.rows.len()).saturating_sub(1);
        if pieces == self.done { Ok(Vec::new()) } else { self.decode(pieces) }
    }

    /// The samples of the pieces that were not returned yet, up to piece `to`.
    fn decode(&mut self, to: usize) -> Result<Vec<f32>, Error> {
        let samples = self.decoder.decode(&self.rows)?;
        let piece = samples.len() / (self.rows.len() - 1).max(1);
        let new = samples[(self.done - self.first) * piece..(to - self.first) * piece].to_vec();
        self.done = to;
        let unneeded = to.saturating_sub(RECEPTIVE_FIELD).saturating_sub(self.first);
        self.rows.drain(..unneeded);
        self.first += unneeded;
        Ok(new)
    }
}
