use std::fmt;
use std::io::Cursor;
use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use super::Error;
use crate::files;

/// A mono signal; full scale is ±1.
#[derive(Clone, Debug, PartialEq)]
pub struct Wav {
    /// Samples a second.
    pub sample_rate: u32,
    /// The samples.
    pub samples: Vec<f32>,
}

/// How samples stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `round(32768·x)`, clipped to −32768 … 32767; read back as `n / 32768`.
    Pcm16,
    /// As they are, NaN and infinities included.
    Float32,
}

/// What an encoding can't hold.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Unencodable {
    /// A sample that 16-bit PCM has no number for.
    #[error("sample {index} is {value}, which 16-bit PCM has no number for")]
    NotFinite { index: usize, value: f32 },
    /// More samples than the header of a WAV file can count.
    #[error("{samples} samples don't fit into the 4 GiB of a WAV file")]
    TooLong { samples: usize },
}

/// A sample in 16 bits; what is louder than full scale is clipped.
pub(super) fn pcm16(sample: f32) -> i16 {
    (f64::from(sample) * 32768.0).round().clamp(-32768.0, 32767.0) as i16
}

impl Wav {
    /// Reads a mono file of 16-bit PCM or 32-bit float.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Wav`] for any other contents; both name the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Wav { path: path.to_owned(), why };
        files::plain(path).map_err(|e| refuse(e.to_string()))?;
        Self::parse(&fs_err::read(path)?).map_err(refuse)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = WavReader::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
        let WavSpec { channels, sample_rate, bits_per_sample, sample_format } = reader.spec();
        if channels != 1 {
            return Err(format!("it has {channels} channels, and only mono is read"));
        }
        let samples: Result<Vec<f32>, _> = match (sample_format, bits_per_sample) {
            (SampleFormat::Int, 16) => {
                reader.samples::<i16>().map(|s| s.map(|n| f32::from(n) / 32768.0)).collect()
            }
            (SampleFormat::Float, 32) => reader.samples::<f32>().collect(),
            (format, bits) => {
                let kind = if format == SampleFormat::Int { "PCM" } else { "float" };
                return Err(format!(
                    "it is {bits}-bit {kind}, and only 16-bit PCM and 32-bit float are read"
                ));
            }
        };
        Ok(Self { sample_rate, samples: samples.map_err(|e| e.to_string())? })
    }

    /// Writes the file, over one that stands there.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Encode`]; both name the file.
    pub fn write(&self, path: &Path, encoding: Encoding) -> Result<(), Error> {
        let bytes =
            self.to_bytes(encoding).map_err(|why| Error::Encode { path: path.to_owned(), why })?;
        Ok(fs_err::write(path, bytes)?)
    }

    /// The file's bytes, the same for the same samples.
    ///
    /// # Errors
    /// [`Unencodable`]: a sample that PCM can't hold is never written as some other number.
    pub fn to_bytes(&self, encoding: Encoding) -> Result<Vec<u8>, Unencodable> {
        const HEADERS: u64 = 128;
        let (bits_per_sample, sample_format) = match encoding {
            Encoding::Pcm16 => (16, SampleFormat::Int),
            Encoding::Float32 => (32, SampleFormat::Float),
        };
        let samples = self.samples.len();
        if samples as u64 * u64::from(bits_per_sample / 8) > u64::from(u32::MAX) - HEADERS {
            return Err(Unencodable::TooLong { samples });
        }
        let spec =
            WavSpec { channels: 1, sample_rate: self.sample_rate, bits_per_sample, sample_format };
        let mut bytes = Vec::new();
        let in_memory = "memory takes every write";
        let mut writer = WavWriter::new(Cursor::new(&mut bytes), spec).expect(in_memory);
        for (index, &value) in self.samples.iter().enumerate() {
            match encoding {
                Encoding::Float32 => writer.write_sample(value),
                Encoding::Pcm16 if value.is_finite() => writer.write_sample(pcm16(value)),
                Encoding::Pcm16 => return Err(Unencodable::NotFinite { index, value }),
            }
            .expect(in_memory);
        }
        writer.finalize().expect(in_memory);
        Ok(bytes)
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Pcm16 => "16-bit PCM",
            Encoding::Float32 => "32-bit float",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wav(samples: &[f32]) -> Wav {
        Wav { sample_rate: 32_000, samples: samples.to_vec() }
    }

    #[test]
    fn float_round_trips_exactly_and_pcm_to_half_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let original = wav(&[0.0, 1.5, -0.3, f32::MIN_POSITIVE, 0.999]);
        original.write(&path, Encoding::Float32).unwrap();
        assert_eq!(Wav::read(&path).unwrap(), original);

        let original = wav(&[0.0, -1.0, 0.25, 1.0 / 32768.0, 0.3]);
        original.write(&path, Encoding::Pcm16).unwrap();
        let back = Wav::read(&path).unwrap();
        assert_eq!(back.samples[..4], original.samples[..4]);
        approx::assert_abs_diff_eq!(back.samples[4], 0.3, epsilon = 0.5 / 32768.0);
    }

    #[test]
    fn pcm_clips_what_is_too_loud_and_refuses_what_is_no_number() {
        let bytes = wav(&[1.0, 2.0, -7.0]).to_bytes(Encoding::Pcm16).unwrap();
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [32767.0 / 32768.0, 32767.0 / 32768.0, -1.0]);
        for value in [f32::NAN, f32::INFINITY] {
            let refused = wav(&[0.0, value]).to_bytes(Encoding::Pcm16);
            assert!(matches!(refused, Err(Unencodable::NotFinite { index: 1, .. })));
            let bytes = wav(&[0.0, value]).to_bytes(Encoding::Float32).unwrap();
            assert_eq!(Wav::parse(&bytes).unwrap().samples[1].to_bits(), value.to_bits());
        }
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("voice.wav");
        let named = |e: Error| assert!(e.to_string().contains("voice.wav"), "{e}");
        named(Wav::read(&path).unwrap_err());
        fs_err::write(&path, b"RIFF").unwrap();
        named(Wav::read(&path).unwrap_err());
        named(wav(&[f32::NAN]).write(&path, Encoding::Pcm16).unwrap_err());

        let (channels, bits_per_sample) = (2, 16);
        let sample_format = SampleFormat::Int;
        let spec = WavSpec { channels, sample_rate: 8000, bits_per_sample, sample_format };
        WavWriter::create(&path, spec).unwrap().finalize().unwrap();
        let refused = Wav::read(&path).unwrap_err();
        assert!(refused.to_string().contains("2 channels"), "{refused}");
        named(refused);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_file_never_panics(at in 0usize..72, byte: u8, cut in 0usize..100, float: bool) {
            let encoding = if float { Encoding::Float32 } else { Encoding::Pcm16 };
            let mut bytes = wav(&[0.5; 8]).to_bytes(encoding).unwrap();
            let last = bytes.len() - 1;
            bytes[at.min(last)] = byte;
            bytes.truncate(bytes.len() - cut.min(last));
            let _ = Wav::parse(&bytes);
        }
    }
}
