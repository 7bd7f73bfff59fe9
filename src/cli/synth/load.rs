//! Which of a bundle's files speak, and in what.

use super::super::arguments::Shared;
use super::super::bench::variants;
use super::super::{Failure, build};
use super::Error;
use super::options::{Engine, Synth};
use crate::bundle::{ArtifactEntry, Bundle, Manifest};
use crate::family;
use crate::interface::Interface;
use crate::ir::Model;
use crate::names::{Precision, Role};
use crate::quantize::needs_onnxruntime;
use crate::runtime::{Format, Options, Runtime, Session};
use crate::speech::{Decoder, LanguageModel, Tokenizer, Voice};

pub(in super::super) const TOKENIZER: &str = "tokenizer.json";

/// A bundle's voice, and what it speaks with: `lm int8 in onnxruntime 1.31.1`.
pub(in super::super) fn voice(
    options: &Synth,
    bundle: &Bundle,
    threads: usize,
    shared: &Shared,
) -> Result<(Voice, Vec<String>), Failure> {
    if !bundle.lists(TOKENIZER) {
        return Err(Box::new(Error::NoTokenizer { bundle: bundle.folder().to_owned() }));
    }
    let found = default_engine(shared)?;
    let manifest = bundle.manifest();
    let graphs = family::named(&manifest.family).map_or(&[][..], |family| family.voice);
    let (mut loaded, mut with) = (Vec::new(), Vec::new());
    for graph in graphs {
        let role = manifest.graphs.get(*graph).map(|graph| graph.interface.role());
        let own = match role {
            Some(Role::Causal) => options.lm_runtime,
            Some(Role::Signal) => options.decoder_runtime,
            None => None,
        };
        let engine = own.or(options.runtime).unwrap_or(found);
        let missing = || Error::NoFile {
            graph: (*graph).to_owned(),
            engine: format!("{engine:?}").to_lowercase(),
        };
        let entry = choose(manifest, graph, engine, options.precision).ok_or_else(missing)?;
        // Steps follow each other at once; a decoder that waits awake would take their cores.
        let yielding = role == Some(Role::Signal);
        let runtime =
            variants::find(engine.name(), Options { yielding, ..Options::fast(threads) }, shared)?;
        with.push(format!("{graph} {} in {}", entry.precision, runtime.name_and_version()));
        loaded.push((entry, runtime));
    }
    let loaded: Vec<_> = loaded.iter().map(|(entry, runtime)| (*entry, runtime.as_ref())).collect();
    Ok((assembled(bundle, &loaded)?, with))
}

/// A voice of these files, each in a runtime.
pub(in super::super) fn assembled(
    bundle: &Bundle,
    files: &[(&ArtifactEntry, &dyn Runtime)],
) -> Result<Voice, Failure> {
    let tokenizer = Tokenizer::read(&bundle.file(TOKENIZER)?)?;
    let (mut lm, mut decoder) = (None, None);
    for &(entry, runtime) in files {
        let ports = &bundle.manifest().graph(entry).interface;
        let session = load(bundle, (entry, runtime))?;
        match Interface::bind(ports, &entry.signature())? {
            Interface::Causal(graph) => lm = Some(LanguageModel::new(session, graph)?),
            Interface::Signal(graph) => decoder = Some(Decoder::new(session, graph)),
        }
    }
    match lm.zip(decoder) {
        Some((lm, decoder)) => Ok(Voice::new(tokenizer, lm, decoder)?),
        None => Err(Box::new(Error::NoVoice { family: bundle.manifest().family.clone() })),
    }
}

/// The fastest runtime that is found here.
fn default_engine(shared: &Shared) -> Result<Engine, Failure> {
    Ok(match (build::onnxruntime(shared)?, build::openvino(shared)?) {
        (Some(_), _) => Engine::Onnxruntime,
        (None, Some(_)) => Engine::Openvino,
        (None, None) => Engine::Tract,
    })
}

/// The file of a graph that an engine is to run: of the precision that is wanted, or of the smallest that it is
/// fast with; its own format before ONNX.
fn choose<'a>(
    manifest: &'a Manifest,
    graph: &str,
    engine: Engine,
    wanted: Option<Precision>,
) -> Option<&'a ArtifactEntry> {
    let precisions = match (wanted, engine) {
        (Some(precision), _) => vec![precision],
        // tract takes minutes for products of 8 bits.
        (None, Engine::Tract) => vec![Precision::Fp32],
        (None, _) => vec![Precision::Int8, Precision::Fp32],
    };
    let of = |precision: Precision, format: Format| manifest.artifact(graph, precision, format);
    precisions.into_iter().find_map(|precision| match engine {
        // OpenVINO runs integer products of ONNX slower than fp32.
        Engine::Openvino => of(precision, Format::OpenVino)
            .or_else(|| of(precision, Format::Onnx).filter(|_| precision == Precision::Fp32)),
        _ => of(precision, Format::Onnx),
    })
}

/// Loads a file that is what the manifest says.
fn load(
    bundle: &Bundle,
    (entry, runtime): (&ArtifactEntry, &dyn Runtime),
) -> Result<Box<dyn Session>, Failure> {
    let path = bundle.model(entry)?.path;
    if runtime.name() == "tract" && needs_onnxruntime(&Model::open(&path)?) {
        return Err(Box::new(Error::NoFile { graph: entry.graph.clone(), engine: "tract".to_owned() }));
    }
    Ok(runtime.load(&path)?)
}
