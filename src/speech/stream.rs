use super::{Error, Frame, Speaker};

/// Decodes frames as they come, in chunks, so that what comes out is what decoding all of them at once gives.
///
/// The samples between frames i and i + 1 are ready when all are there that change them
/// ([`Speaker::receptive_field`] after frame i); a chunk is decoded with as many frames before it. With a file in 8 bits whose activations are
/// quantized as they come the range is the chunk's, and samples differ as much as 8 bits do.
pub struct Stream<'a> {
    speaker: &'a dyn Speaker,
    /// Pieces of the next chunk.
    chunk: usize,
    /// The most pieces of a chunk.
    most: usize,
    /// The frames that are still needed, the first of them being frame `first`.
    frames: Vec<Frame>,
    first: usize,
    /// Pieces between two frames that were returned already.
    done: usize,
}

impl<'a> Stream<'a> {
    /// A stream whose first chunk is one piece (64 ms in Soprano), and each one twice the last, up to `most`
    /// pieces: the first sound is there soon, and what follows is decoded with less that is decoded again.
    pub fn new(speaker: &'a dyn Speaker, most: usize) -> Self {
        Self { speaker, chunk: 1, most: most.max(1), frames: Vec::new(), first: 0, done: 0 }
    }

    /// Takes a frame; gives the samples that are ready, if there are enough.
    ///
    /// # Errors
    /// As [`Speaker::render`].
    pub fn push(&mut self, frame: &Frame) -> Result<Option<Vec<f32>>, Error> {
        self.frames.push(frame.clone());
        let there = self.first + self.frames.len();
        let ready = there.saturating_sub(self.speaker.receptive_field());
        if ready < self.done + self.chunk {
            return Ok(None);
        }
        self.chunk = (2 * self.chunk).min(self.most);
        self.decode(ready).map(Some)
    }

    /// The samples that are left.
    ///
    /// # Errors
    /// As [`Speaker::render`].
    pub fn finish(&mut self) -> Result<Vec<f32>, Error> {
        let pieces = (self.first + self.frames.len()).saturating_sub(1);
        if pieces == self.done { Ok(Vec::new()) } else { self.decode(pieces) }
    }

    /// The samples of the pieces that were not returned yet, up to piece `to`.
    fn decode(&mut self, to: usize) -> Result<Vec<f32>, Error> {
        let samples = self.speaker.render(&self.frames)?;
        let piece = samples.len() / (self.frames.len() - 1).max(1);
        let new = samples[(self.done - self.first) * piece..(to - self.first) * piece].to_vec();
        self.done = to;
        let unneeded = to.saturating_sub(self.speaker.receptive_field()).saturating_sub(self.first);
        self.frames.drain(..unneeded);
        self.first += unneeded;
        Ok(new)
    }
}
