//! A bundle that speaks: which of its files a runtime is to run, and the voice of two of them.

use super::{ArtifactEntry, Bundle, OpenError};
use crate::names::Precision;
use crate::runtime::{Runtime, Takes};
use crate::speech::{Decoder, LanguageModel, Tokenizer, Voice};
use crate::validate::{Artifact, Part};

/// The tokenizer's file, which a bundle that speaks has.
pub const TOKENIZER: &str = "tokenizer.json";

/// A file of a bundle that is what the manifest says, in a runtime that takes it.
pub struct Chosen<'a> {
    /// The manifest's entry.
    pub entry: &'a ArtifactEntry,
    /// The file.
    pub artifact: Artifact,
    /// What runs it.
    pub runtime: &'a dyn Runtime,
}

impl Bundle {
    /// The file of a part that a runtime is to run: of the precision that is wanted, or of the smallest that it
    /// is fast with; in the format that it is fastest with. None where the runtime takes none.
    ///
    /// # Errors
    /// As [`Bundle::model`]; [`OpenError::Model`].
    pub fn choose<'a>(
        &'a self,
        part: Part,
        runtime: &'a dyn Runtime,
        wanted: Option<Precision>,
    ) -> Result<Option<Chosen<'a>>, OpenError> {
        let smallest = [Precision::Int8, Precision::Fp32];
        for &precision in wanted.as_ref().map_or(&smallest[..], std::slice::from_ref) {
            for &format in runtime.engine().formats() {
                let Some(entry) = self.manifest().artifact(part, precision, format) else { continue };
                let artifact = self.model(entry)?;
                match runtime.takes(&entry.traits(&artifact)?) {
                    Takes::Not(_) => {}
                    Takes::Slowly(_) if wanted.is_none() => {}
                    Takes::Slowly(_) | Takes::Well => {
                        return Ok(Some(Chosen { entry, artifact, runtime }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The voice of a language model and a decoder.
    ///
    /// # Errors
    /// [`OpenError`] where a file isn't what the manifest says, or can't be loaded.
    pub fn voice(&self, lm: &Chosen<'_>, decoder: &Chosen<'_>) -> Result<Voice, OpenError> {
        let tokenizer = Tokenizer::read(&self.file(TOKENIZER)?)?;
        let ports = |ports: &[super::Port]| -> Vec<_> {
            ports.iter().map(|port| (port.name.clone(), port.shape.clone())).collect()
        };
        let load = |chosen: &Chosen<'_>| chosen.runtime.load(&chosen.artifact.path);
        let (inputs, outputs) = (ports(&lm.entry.inputs), ports(&lm.entry.outputs));
        let lm = LanguageModel::new(load(lm)?, &inputs, &outputs)?;
        let (inputs, outputs) = (ports(&decoder.entry.inputs), ports(&decoder.entry.outputs));
        let decoder = Decoder::new(load(decoder)?, &inputs, &outputs)?;
        Ok(Voice::new(tokenizer, lm, decoder)?)
    }
}
