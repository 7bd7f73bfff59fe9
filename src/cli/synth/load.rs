//! Which of a bundle's files speak, and in what.

use super::super::Failure;
use super::super::here::Here;
use super::Error;
use super::options::Synth;
use crate::bundle::{Bundle, TOKENIZER};
use crate::family;
use crate::names::Role;
use crate::runtime::{self, Options};
use crate::speech::Voice;

/// A bundle's voice, and what it speaks with: `lm int8 in onnxruntime 1.31.1`.
pub(super) fn voice(
    options: &Synth,
    bundle: &Bundle,
    threads: usize,
    here: &Here,
) -> Result<(Voice, Vec<String>), Failure> {
    if !bundle.lists(TOKENIZER) {
        return Err(Box::new(Error::NoTokenizer { bundle: bundle.folder().to_owned() }));
    }
    let found = here.runtimes(&[], Options::EXACT)?;
    let usual = found.fastest(|_| true).ok_or(runtime::Error::NoneBuiltIn)?.engine();
    let manifest = bundle.manifest();
    let mut runtimes = Vec::new();
    for &graph in family::named(&manifest.family).map_or(&[][..], |family| family.voice) {
        let role = manifest.graphs.get(graph).map(|graph| graph.interface.role());
        let own = match role {
            Some(Role::Causal) => options.lm_runtime,
            Some(Role::Signal) => options.decoder_runtime,
            None => None,
        };
        // Steps follow each other at once; a decoder that waits awake would take their cores.
        let how = Options { yielding: role == Some(Role::Signal), ..Options::fast(threads) };
        runtimes.push((graph, here.runtime(own.or(options.runtime).unwrap_or(usual), how)?));
    }
    let (mut files, mut with) = (Vec::new(), Vec::new());
    for (graph, runtime) in &runtimes {
        let chosen = bundle.choose(graph, runtime.as_ref(), options.precision)?;
        let missing =
            || Error::NoFile { graph: (*graph).to_owned(), engine: runtime.name().to_owned() };
        let chosen = chosen.ok_or_else(missing)?;
        with.push(format!("{graph} {} in {}", chosen.entry.precision, runtime.name_and_version()));
        files.push(chosen);
    }
    Ok((bundle.voice(&files)?, with))
}
