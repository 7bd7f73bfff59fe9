//! A bundle that speaks: which of its files a runtime is to run, and the voice of some of them.

use std::collections::BTreeMap;

use super::{ArtifactEntry, Bundle, OpenError};
use crate::family;
use crate::interface::Interface;
use crate::names::Precision;
use crate::runtime::{Runtime, Takes};
use crate::speech::{Parts, Tokenizer, Voice};
use crate::validate::Artifact;

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
    /// The file of a graph that a runtime is to run: of a precision, or the smallest that it is fast with; in the
    /// format that it is fastest with. None where the runtime takes none.
    ///
    /// # Errors
    /// As [`Bundle::model`]; [`OpenError::Model`].
    pub fn choose<'a>(
        &'a self,
        graph: &str,
        runtime: &'a dyn Runtime,
        wanted: Option<Precision>,
    ) -> Result<Option<Chosen<'a>>, OpenError> {
        let smallest = [Precision::Int8, Precision::Fp32];
        for &precision in wanted.as_ref().map_or(&smallest[..], std::slice::from_ref) {
            for &format in runtime.engine().formats() {
                let Some(entry) = self.manifest().artifact(graph, precision, format) else { continue };
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

    /// The voice of this bundle in one runtime, each graph's file as [`Bundle::choose`] finds it.
    ///
    /// # Errors
    /// As [`Bundle::voice`]; [`OpenError::NoFile`] where the runtime takes no file of a graph.
    pub fn voice_in(
        &self,
        runtime: &dyn Runtime,
        wanted: Option<Precision>,
    ) -> Result<Voice, OpenError> {
        let graphs = family::named(&self.manifest().family).map_or(&[][..], |family| family.voice);
        let mut files = Vec::new();
        for &graph in graphs {
            let missing = || OpenError::NoFile { graph: graph.to_owned(), runtime: runtime.name() };
            files.push(self.choose(graph, runtime, wanted)?.ok_or_else(missing)?);
        }
        self.voice(&files)
    }

    /// The voice of these files, one of each graph that speaks.
    ///
    /// # Errors
    /// [`OpenError`] where a file isn't what the manifest says, or can't be loaded; [`OpenError::NoVoice`] where
    /// the graphs make none.
    pub fn voice(&self, files: &[Chosen<'_>]) -> Result<Voice, OpenError> {
        let manifest = self.manifest();
        let missing = || OpenError::NoVoice { family: manifest.family.clone() };
        let speaker = family::named(&manifest.family).and_then(|family| family.speaker);
        let (speaker, sample_rate) = speaker.zip(manifest.sample_rate()).ok_or_else(missing)?;
        let tokenizer = Tokenizer::read(&self.file(TOKENIZER)?)?;
        let mut graphs = BTreeMap::new();
        for Chosen { entry, artifact, runtime } in files {
            let interface = Interface::bind(&manifest.graph(entry).interface, &entry.signature())?;
            graphs.insert(entry.graph.clone(), (interface, runtime.load(&artifact.path)?));
        }
        Ok(Voice::new(speaker(Parts { tokenizer, sample_rate, graphs })?))
    }
}
