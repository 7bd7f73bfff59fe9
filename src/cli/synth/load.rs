//! Which of a bundle's files speak, and in what.

use super::super::arguments::Shared;
use super::super::bench::variants;
use super::super::{Failure, build};
use super::Error;
use super::options::{Engine, Synth};
use crate::bundle::{ArtifactEntry, Bundle, Manifest, Port};
use crate::ir::Model;
use crate::names::Precision;
use crate::quantize::needs_onnxruntime;
use crate::runtime::{Format, Options, Runtime, Session};
use crate::speech::{Decoder, LanguageModel, Tokenizer, Voice};
use crate::validate::Part;

pub(in super::super) const TOKENIZER: &str = "tokenizer.json";

/// A bundle's voice, and what it speaks with: `lm int8 in onnxruntime 1.31.1`.
pub(in super::super) fn voice(
    options: &Synth,
    bundle: &Bundle,
    threads: usize,
    shared: &Shared,
) -> Result<(Voice, [String; 2]), Failure> {
    if !bundle.lists(TOKENIZER) {
        return Err(Box::new(Error::NoTokenizer { bundle: bundle.folder().to_owned() }));
    }
    let found = default_engine(shared)?;
    let half = |part: Part, own: Option<Engine>| {
        let engine = own.or(options.runtime).unwrap_or(found);
        let wanted = options.scheme;
        let entry = choose(bundle.manifest(), part, engine, wanted)
            .ok_or_else(|| Error::NoFile { part, engine: format!("{engine:?}").to_lowercase() })?;
        // Steps follow each other at once; a decoder that waits awake would take their cores.
        let options = Options { yielding: part == Part::Decoder, ..Options::fast(threads) };
        let runtime = variants::find(engine.name(), options, shared)?;
        let with = format!("{part} {} in {}", entry.scheme, runtime.name_and_version());
        Ok::<_, Failure>((entry, runtime, with))
    };
    let (lm, lm_runtime, lm_in) = half(Part::Lm, options.lm_runtime)?;
    let (decoder, decoder_runtime, decoder_in) = half(Part::Decoder, options.decoder_runtime)?;
    let halves = [(lm, lm_runtime.as_ref()), (decoder, decoder_runtime.as_ref())];
    Ok((assembled(bundle, halves)?, [lm_in, decoder_in]))
}

/// A voice of these files, the language model's first, each in a runtime.
pub(in super::super) fn assembled(
    bundle: &Bundle,
    [lm, decoder]: [(&ArtifactEntry, &dyn Runtime); 2],
) -> Result<Voice, Failure> {
    let tokenizer = Tokenizer::read(&bundle.file(TOKENIZER)?)?;
    let ports = |entry: &ArtifactEntry| (ports(&entry.inputs), ports(&entry.outputs));
    let (inputs, outputs) = ports(lm.0);
    let lm = LanguageModel::new(load(bundle, lm)?, &inputs, &outputs)?;
    let (inputs, outputs) = ports(decoder.0);
    let decoder = Decoder::new(load(bundle, decoder)?, &inputs, &outputs)?;
    Ok(Voice::new(tokenizer, lm, decoder)?)
}

/// The fastest runtime that is found here.
fn default_engine(shared: &Shared) -> Result<Engine, Failure> {
    Ok(match (build::onnxruntime(shared)?, build::openvino(shared)?) {
        (Some(_), _) => Engine::Onnxruntime,
        (None, Some(_)) => Engine::Openvino,
        (None, None) => Engine::Tract,
    })
}

/// The file of a half that an engine is to run: of the scheme that is wanted, or of the smallest that it is
/// fast with; its own format before ONNX.
fn choose(
    manifest: &Manifest,
    part: Part,
    engine: Engine,
    wanted: Option<Precision>,
) -> Option<&ArtifactEntry> {
    let schemes = match (wanted, engine) {
        (Some(scheme), _) => vec![scheme],
        // tract takes minutes for products of 8 bits.
        (None, Engine::Tract) => vec![Precision::Fp32],
        (None, _) => vec![Precision::Int8, Precision::Fp32],
    };
    let of = |scheme: Precision, format: Format| manifest.artifact(part, scheme, format);
    schemes.into_iter().find_map(|scheme| match engine {
        // OpenVINO runs integer products of ONNX slower than fp32.
        Engine::Openvino => of(scheme, Format::OpenVino)
            .or_else(|| of(scheme, Format::Onnx).filter(|_| scheme == Precision::Fp32)),
        _ => of(scheme, Format::Onnx),
    })
}

/// Loads a file that is what the manifest says.
fn load(
    bundle: &Bundle,
    (entry, runtime): (&ArtifactEntry, &dyn Runtime),
) -> Result<Box<dyn Session>, Failure> {
    let path = bundle.model(entry)?.path;
    if runtime.name() == "tract" && needs_onnxruntime(&Model::open(&path)?) {
        return Err(Box::new(Error::NoFile { part: entry.part, engine: "tract".to_owned() }));
    }
    Ok(runtime.load(&path)?)
}

fn ports(ports: &[Port]) -> Vec<(String, Vec<String>)> {
    ports.iter().map(|port| (port.name.clone(), port.shape.clone())).collect()
}
