//! Which of a bundle's files speak, and in what.

use super::super::Failure;
use super::super::here::Here;
use super::Error;
use super::options::Synth;
use crate::bundle::{Bundle, TOKENIZER};
use crate::runtime::{self, Engine, Options};
use crate::speech::Voice;
use crate::validate::Part;

/// A bundle's voice, and what it speaks with: `lm int8 in onnxruntime 1.31.1`.
pub(super) fn voice(
    options: &Synth,
    bundle: &Bundle,
    threads: usize,
    here: &Here,
) -> Result<(Voice, [String; 2]), Failure> {
    if !bundle.lists(TOKENIZER) {
        return Err(Box::new(Error::NoTokenizer { bundle: bundle.folder().to_owned() }));
    }
    let found = here.runtimes(&[], Options::EXACT)?;
    let usual = found.fastest(|_| true).ok_or(runtime::Error::NoneBuiltIn)?.engine();
    let find = |own: Option<&'static dyn Engine>, yielding: bool| {
        let how = Options { yielding, ..Options::fast(threads) };
        here.runtime(own.or(options.runtime).unwrap_or(usual), how)
    };
    // Steps follow each other at once; a decoder that waits awake would take their cores.
    let lm = find(options.lm_runtime, false)?;
    let decoder = find(options.decoder_runtime, true)?;
    let [lm, decoder] = [(Part::Lm, &lm), (Part::Decoder, &decoder)].map(|(part, runtime)| {
        let missing = || Error::NoFile { part, engine: runtime.name().to_owned() };
        let chosen = bundle.choose(part, runtime.as_ref(), options.scheme)?;
        Ok::<_, Failure>(chosen.ok_or_else(missing)?)
    });
    let (lm, decoder) = (lm?, decoder?);
    let with = [&lm, &decoder].map(|chosen| {
        let (entry, runtime) = (chosen.entry, chosen.runtime.name_and_version());
        format!("{} {} in {runtime}", entry.part, entry.scheme)
    });
    Ok((bundle.voice(&lm, &decoder)?, with))
}
