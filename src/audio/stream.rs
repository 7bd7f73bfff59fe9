use std::io::{self, Seek, SeekFrom, Write};

use super::Encoding;
use super::wav::pcm16;

/// A mono WAV file that is written as its samples come, to a file or to a pipe.
pub struct WavStream<W> {
    out: W,
    encoding: Encoding,
    data_bytes: u64,
}

/// The length of a file whose end isn't known, in headers.
const OPEN: u32 = u32::MAX;
/// Where the header has the length of all that follows it, and behind which it begins.
const RIFF_LENGTH: u64 = 4;
const RIFF_BODY: u64 = 8;

impl<W: Write> WavStream<W> {
    /// Writes the header, with lengths that say that the end isn't known.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, sample_rate: u32, encoding: Encoding) -> io::Result<Self> {
        let mut stream = Self { out, encoding, data_bytes: 0 };
        let (tag, bytes) = match encoding {
            Encoding::Pcm16 => (1u16, 2u16),
            Encoding::Float32 => (3, 4),
        };
        let bytes_a_second = sample_rate * u32::from(bytes);
        let header: Vec<u8> = [
            b"RIFF",
            OPEN.to_le_bytes().as_slice(),
            b"WAVEfmt \x10\0\0\0",
            &[tag, 1].map(u16::to_le_bytes).concat(),
            &[sample_rate, bytes_a_second].map(u32::to_le_bytes).concat(),
            &[bytes, bytes * 8].map(u16::to_le_bytes).concat(),
            b"data",
            &OPEN.to_le_bytes(),
        ]
        .concat();
        stream.out.write_all(&header)?;
        Ok(stream)
    }

    /// Writes samples, full scale ±1; PCM clips what is louder. None of them may be NaN, which would be
    /// written as silence.
    ///
    /// # Errors
    /// Those of `out`; a file of 4 GB can't grow.
    pub fn write(&mut self, samples: &[f32]) -> io::Result<()> {
        let bytes: Vec<u8> = match self.encoding {
            Encoding::Float32 => samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            Encoding::Pcm16 => samples.iter().flat_map(|&s| pcm16(s).to_le_bytes()).collect(),
        };
        self.data_bytes += bytes.len() as u64;
        if self.data_bytes > u64::from(OPEN) - 128 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file holds 4 GB"));
        }
        self.out.write_all(&bytes)
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write + Seek> WavStream<W> {
    /// Writes the lengths into the header: the file is whole.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        let end = self.out.stream_position()?;
        let length = |bytes: u64| u32::try_from(bytes).unwrap_or(OPEN).to_le_bytes();
        self.out.seek(SeekFrom::Start(RIFF_LENGTH))?;
        self.out.write_all(&length(end - RIFF_BODY))?;
        self.out.seek(SeekFrom::Start(end - self.data_bytes - 4))?;
        self.out.write_all(&length(self.data_bytes))?;
        self.out.seek(SeekFrom::Start(end))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Wav;

    #[test]
    fn a_file_in_pieces_is_the_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let samples: Vec<f32> = (0..999).map(|n| (n as f32 * 0.1).sin() * 1.01).collect();
        for encoding in [Encoding::Pcm16, Encoding::Float32] {
            let path = folder.path().join("a.wav");
            let mut stream =
                WavStream::begin(std::fs::File::create(&path).unwrap(), 32000, encoding).unwrap();
            samples.chunks(100).for_each(|piece| stream.write(piece).unwrap());
            stream.finish().unwrap();
            let read = Wav::read(&path).unwrap();
            let whole = folder.path().join("b.wav");
            Wav { sample_rate: 32000, samples: samples.clone() }.write(&whole, encoding).unwrap();
            assert_eq!(read, Wav::read(&whole).unwrap());
        }
    }

    #[test]
    fn a_pipe_says_that_its_end_is_not_known() {
        let mut stream = WavStream::begin(Vec::new(), 8000, Encoding::Pcm16).unwrap();
        stream.write(&[0.5, -2.0]).unwrap();
        let bytes = &stream.out;
        assert_eq!((&bytes[..4], &bytes[4..8], bytes.len()), (&b"RIFF"[..], &[255; 4][..], 44 + 4));
        assert_eq!(bytes[44..], [0, 64, 0, 128]);
    }
}
