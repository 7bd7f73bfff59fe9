use std::path::PathBuf;

use super::*;
use crate::front::float64::testing::{Recorded, on_any_threads};
use crate::front::float64::{CausalInDouble, Frames, SignalInDouble, Tick};
use crate::front::{transformer, vocos};
use crate::names;
use crate::recipe::{CausalReferences, SignalReferences};
use crate::validate::{Kind, Metric, References};

/// The language model of `fixtures/float64/qwen3.safetensors`.
fn language_model() -> transformer::InDouble {
    let config = transformer::Config {
        architecture: "Qwen3ForCausalLM".into(),
        hidden_size: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        intermediate_size: 40,
        vocab_size: 37,
        max_position_embeddings: 512,
        tied: false,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        rotation: transformer::Rotation::Default,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        qk_norm: true,
    };
    transformer::InDouble::new(&config, &Recorded::read("qwen3").weights()).unwrap()
}

/// The decoder of `fixtures/float64/vocos.safetensors`.
fn decoder() -> vocos::InDouble {
    let plain = vocos::Vocos {
        file: "decoder.pth",
        upscale: 4,
        hops: 4,
        magnitude_limit: 100.0,
        sample_rate: 32000,
        version: |_| "",
    };
    let dimensions = vocos::Dimensions {
        input_channels: 20,
        dim: 24,
        intermediate_dim: 40,
        layers: 2,
        input_kernel: 1,
        dw_kernel: 3,
        n_fft: 64,
    };
    vocos::InDouble::new(&plain, &dimensions, &Recorded::read("vocos").weights()).unwrap()
}

static NEVER: AtomicBool = AtomicBool::new(false);
const UNWATCHED: Watch<'static> = Watch { progress: &|_, _| {}, interrupted: &NEVER };

/// What is read back of a file.
fn read(file: &TensorFile, inputs: &[&str]) -> References {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("references.safetensors");
    std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
    References::read(&path, &inputs.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn listed(references: &References) -> Vec<(&str, Kind, usize, usize, usize)> {
    let cases = references.cases.iter();
    cases.map(|case| (&*case.name, case.kind, case.batch, case.length, case.prefill)).collect()
}

fn recorded_causal(
    wanted: &CausalReferences,
    layers: &[u32],
    prompts: Prompts<'_>,
) -> Result<TensorFile, Error> {
    causal(&language_model(), &names::Causal::default(), wanted, layers, prompts, UNWATCHED)
}

#[test]
fn a_language_models_cases_are_those_of_the_recipe() {
    let wanted = CausalReferences { prefills: vec![1, 9], steps: 11, ..CausalReferences::default() };
    let said = [vec![3, 1, 7, 2], vec![5; 6]];
    let prompts = Prompts { ids: &said, stop: Some(4) };
    let file = on_any_threads(|| recorded_causal(&wanted, &[1], prompts).unwrap());
    assert_eq!(file.metadata["precision"], "float64");
    let references = read(&file, &["input_ids", "attention_mask", "position_ids"]);
    let names: Vec<&str> = references.cases.iter().map(|case| &*case.name).collect();
    let cases = [
        "prefill_1", "prefill_9", "padded_b3_9", "steps", "steps_at_once", "greedy", "spoken_0",
        "spoken_1",
    ];
    assert_eq!(names, cases);
    use Kind::{Greedy, Prefill, Steps};
    let listed = listed(&references);
    assert_eq!(
        listed[2..6],
        [
            ("padded_b3_9", Prefill, 3, 9, 0),
            ("steps", Steps, 1, 18, 7),
            ("steps_at_once", Prefill, 1, 18, 0),
            ("greedy", Greedy, 1, 37, 0),
        ]
    );
    let padded = references.inputs(&references.cases[2]);
    let rows =
        |name: &str| padded[name].to_i64().unwrap().chunks(9).map(<[i64]>::to_vec).collect::<Vec<_>>();
    // 1 + 9·row/4 places of padding.
    assert_eq!(rows("attention_mask")[1..], [[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1]]);
    assert_eq!(rows("position_ids")[1], [0, 0, 0, 0, 1, 2, 3, 4, 5]);
    let outputs = references.outputs(&references.cases[2]);
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["hidden_states.1", "last_hidden_state", "logits"]);
    assert_eq!(outputs["logits"].shape(), [3, 9, 37]);
    let [steps, at_once] = [3, 4].map(|at| references.outputs(&references.cases[at]));
    assert_eq!(steps["logits"], at_once["logits"]);
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["last_hidden_state", "logits"]);
    for case in &references.cases {
        let Some(moved) = &case.last_bit else {
            // Too long to be run a second time.
            assert!(case.batch * case.length > MOST_MOVED, "{}", case.name);
            continue;
        };
        match case.kind {
            Greedy => {
                assert!(moved.get(Metric::GreedyAgreement).is_some() && moved.iter().count() == 1)
            }
            _ => {
                let (max_abs, snr_db) =
                    (moved.get(Metric::MaxAbs).unwrap(), moved.get(Metric::SnrDb).unwrap());
                assert!(
                    (1e-8..1e-5).contains(&max_abs) && (100.0..170.0).contains(&snr_db),
                    "{moved:?}"
                );
                assert!(
                    moved.get(Metric::Top1Agreement).unwrap() > 0.9
                        && moved.get(Metric::MaxAbsOfPeak).is_some()
                );
            }
        }
    }
}

#[test]
fn a_greedy_run_takes_the_likeliest_token_and_ends_at_the_stop() {
    let model = language_model();
    let prompt = vec![3, 1, 7, 2];
    let run = |stop| {
        let ids = [prompt.clone()];
        spoken(&model, Prompts { ids: &ids, stop }, UNWATCHED).map(|mut spoken| spoken.remove(0))
    };
    let free = run(None).unwrap();
    assert!(free.tokens.len() == LIMIT && !free.stopped && free.frames.length == LIMIT);
    let whole = [prompt.clone(), free.tokens.clone()].concat();
    let answers = model.run(
        &[float64::Sequence::of(&whole)],
        float64::Wanted::default(),
        float64::Numbers::Exact,
        &mut || Ok(()),
    );
    let answer = answers.unwrap().remove(0);
    assert_eq!(answer.likeliest[3..whole.len() - 1], free.tokens);
    for channel in 0..32 {
        for at in [0, 1, 17] {
            let row = answer.hidden[(3 + at, channel)];
            assert!((free.frames.values[channel * LIMIT + at] - row).abs() < 1e-6);
        }
    }
    // The first that was not said before: the answer ends there.
    let at = (2..LIMIT).find(|&at| !free.tokens[..at].contains(&free.tokens[at]));
    if let Some(at) = at {
        let stopped = run(Some(free.tokens[at])).unwrap();
        assert!(stopped.stopped && stopped.tokens == free.tokens[..at] && stopped.frames.length == at);
    }
    let refused = run(Some(free.tokens[0])).unwrap_err().to_string();
    assert!(refused.contains("`sentences[0]`: the checkpoint says 0 tokens to it"), "{refused}");
}

#[test]
fn names_of_the_recipe_are_those_of_the_tensors() {
    let names =
        names::Causal { mask: "tokens".into(), hidden: "states".into(), ..names::Causal::default() };
    let wanted = CausalReferences { prefills: vec![2], steps: 8, ..CausalReferences::default() };
    let file = causal(&language_model(), &names, &wanted, &[], Prompts::default(), UNWATCHED).unwrap();
    let references = read(&file, &["input_ids", "tokens", "position_ids"]);
    let greedy = references.outputs(references.cases.last().unwrap());
    assert_eq!(greedy.keys().collect::<Vec<_>>(), ["greedy.tokens"]);
    assert!(references.outputs(&references.cases[0]).contains_key("states"));
}

#[test]
fn what_a_language_model_cannot_be_asked_is_refused() {
    let plain = CausalReferences { prefills: vec![2], steps: 8, ..CausalReferences::default() };
    let why = |wanted: &CausalReferences, layers: &[u32], ids: &[Vec<i64>]| {
        let prompts = Prompts { ids, stop: None };
        recorded_causal(wanted, layers, prompts).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(why(&plain, &[0, 1], &[]).is_ok());
    let with = |prefills: Vec<u32>, steps| CausalReferences { prefills, steps, ..plain.clone() };
    assert!(why(&with(vec![512], 8), &[], &[]).is_ok());
    assert!(
        why(&with(vec![513], 8), &[], &[])
            .unwrap_err()
            .contains("513 positions, and the model has 512")
    );
    assert!(why(&with(vec![2], 505), &[], &[]).unwrap_err().contains("513 positions"));
    assert!(why(&plain, &[2], &[]).unwrap_err().contains("layer 2 of 2"));
    assert!(why(&plain, &[], &[vec![37]]).unwrap_err().contains("token 37 is not one"));
    assert!(why(&plain, &[], &[vec![]]).unwrap_err().contains("a prompt without a token"));
}

fn recorded_signal(wanted: &SignalReferences, spoken: &[Frames]) -> Result<TensorFile, Error> {
    signal(&decoder(), &names::Signal::default(), wanted, spoken, UNWATCHED)
}

#[test]
fn a_decoders_cases_are_those_of_the_recipe() {
    let wanted =
        SignalReferences { lengths: vec![2, 50], batches: vec![1, 3], ..SignalReferences::default() };
    let spoken = [Frames { length: 7, values: vec![0.25; 140] }];
    let file = on_any_threads(|| recorded_signal(&wanted, &spoken).unwrap());
    assert_eq!(file.metadata["precision"], "float64");
    let references = read(&file, &["hidden_states"]);
    use Kind::{Extreme, Realistic, Spoken};
    assert_eq!(
        listed(&references),
        [
            ("b1_t2", Realistic, 1, 2, 0),
            ("b1_t50", Realistic, 1, 50, 0),
            ("b3_t2", Realistic, 3, 2, 0),
            ("b3_t50", Realistic, 3, 50, 0),
            ("extreme_clip_t5", Extreme, 1, 5, 0),
            ("extreme_phase_t5", Extreme, 1, 5, 0),
            ("loud_t5", Extreme, 1, 5, 0),
            ("extreme_clip_t16", Extreme, 1, 16, 0),
            ("extreme_phase_t16", Extreme, 1, 16, 0),
            ("loud_t16", Extreme, 1, 16, 0),
            ("zeros_t3", Extreme, 1, 3, 0),
            ("spoken_0", Spoken, 1, 7, 0),
        ]
    );
    let (model, mut close) = (decoder(), 0);
    for case in &references.cases {
        let (given, answer) = (references.inputs(case), references.outputs(case));
        let (frames, audio) = (&given["hidden_states"], answer["audio"].to_f32().unwrap());
        assert_eq!(frames.shape(), [case.batch, 20, case.length]);
        assert_eq!(answer["audio"].shape(), [case.batch, 64 * (case.length - 1)]);
        let rows = frames.to_f32().unwrap();
        let rows = rows.chunks(20 * case.length).map(|row| Frames {
            length: case.length,
            values: row.iter().map(|&x| f64::from(x)).collect(),
        });
        let answers =
            model.run(&rows.collect::<Vec<_>>(), float64::Numbers::Exact, &mut || Ok(())).unwrap();
        let again: Vec<f32> =
            answers.iter().flat_map(|a| a.samples.iter().map(|&x| x as f32)).collect();
        close += usize::from(again == audio);
        // 150 frames are too many.
        assert_eq!(case.last_bit.is_some(), case.name != "b3_t50");
        if let Some(moved) = &case.last_bit {
            assert!(
                (1e-8..1e-4).contains(&moved.get(Metric::MaxAbsOfPeak).unwrap()),
                "{}: {moved:?}",
                case.name
            );
            assert!(moved.get(Metric::SnrDb).unwrap() > 80.0 && moved.get(Metric::MaxAbs).is_none());
        }
    }
    // A sequence of two frames has so few rows that a product may be taken in another order.
    assert!(close >= references.cases.len() - 2, "{close}");
    let of = |at: usize| references.inputs(&references.cases[at])["hidden_states"].to_f32().unwrap();
    assert_eq!(of(1)[..], of(3)[..1000], "the first row of a batch is that of a batch of one");
    assert_ne!(of(3)[..1000], of(3)[1000..2000]);
}

#[test]
fn what_a_decoder_cannot_be_asked_is_refused() {
    let plain = SignalReferences {
        lengths: vec![2],
        batches: vec![1],
        extreme: false,
        ..SignalReferences::default()
    };
    assert!(recorded_signal(&plain, &[]).is_ok());
    let short = SignalReferences { lengths: vec![2, 1], ..plain.clone() };
    let why = recorded_signal(&short, &[]).unwrap_err().to_string();
    assert!(why.contains("`references.lengths`: 1 frames give no sample"), "{why}");
    let spoken = [Frames { length: 7, values: vec![0.25; 7 * 21] }];
    assert!(recorded_signal(&plain, &spoken).unwrap_err().to_string().contains("20 channels"));
    let infinite = [Frames { length: 2, values: vec![f64::INFINITY; 40] }];
    let why = recorded_signal(&plain, &infinite).unwrap_err().to_string();
    assert!(why.contains("reference-nonfinite") && why.contains("case spoken_0"), "{why}");
}

#[test]
fn progress_ends_at_its_total_and_a_stop_ends_the_work() {
    let told = std::cell::RefCell::new(Vec::new());
    let progress = |done, total| told.borrow_mut().push((done, total));
    let watch = Watch { progress: &progress, interrupted: &NEVER };
    let wanted = SignalReferences { lengths: vec![2], batches: vec![1], ..SignalReferences::default() };
    signal(&decoder(), &names::Signal::default(), &wanted, &[], watch).unwrap();
    let told = told.into_inner();
    let total = told[0].1;
    assert!(total > 4 && told[0].0 == 0 && told.last() == Some(&(total, total)), "{told:?}");
    assert!(
        told.windows(2).all(|pair| pair[0].0 <= pair[1].0)
            && told.len() == total + 2 - usize::from(total == 0)
    );
    let stopped = AtomicBool::new(true);
    let watch = Watch { progress: &|_, _| {}, interrupted: &stopped };
    let names = names::Signal::default();
    assert!(matches!(signal(&decoder(), &names, &wanted, &[], watch), Err(Error::Interrupted)));
    let wanted = CausalReferences::default();
    let stopped =
        causal(&language_model(), &names::Causal::default(), &wanted, &[], Prompts::default(), watch);
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

#[test]
fn speech_is_read_as_upstreams_is() {
    let model = decoder();
    // A language model whose hidden states are as wide as the decoder's frames.
    struct Narrow(transformer::InDouble);
    impl CausalInDouble for Narrow {
        fn vocabulary(&self) -> usize {
            self.0.vocabulary()
        }
        fn channels(&self) -> usize {
            20
        }
        fn positions(&self) -> usize {
            self.0.positions()
        }
        fn layers(&self) -> usize {
            self.0.layers()
        }
        fn run(
            &self,
            sequences: &[float64::Sequence],
            wanted: float64::Wanted<'_>,
            numbers: float64::Numbers,
            tick: Tick<'_>,
        ) -> Result<Vec<float64::CausalAnswer>, float64::Error> {
            self.0.run(sequences, wanted, numbers, tick)
        }
        fn begin(&self, sequences: usize) -> Box<dyn float64::Stepping + '_> {
            struct Cut<'a>(Box<dyn float64::Stepping + 'a>);
            impl float64::Stepping for Cut<'_> {
                fn feed(
                    &mut self,
                    tokens: &[(usize, &[i64])],
                ) -> Result<Vec<float64::Next>, float64::Error> {
                    let mut nexts = self.0.feed(tokens)?;
                    nexts.iter_mut().for_each(|next| next.hidden.truncate(20));
                    Ok(nexts)
                }
            }
            Box::new(Cut(self.0.begin(sequences)))
        }
    }
    let narrow = Narrow(language_model());
    let sentences = ["One. Two.".to_owned()];
    let asked = |ids: &[i64]| Asked {
        sentence: 0,
        prompt: "[STOP][TEXT]one.[START]".into(),
        ids: ids.to_vec(),
    };
    let asked = [asked(&[3, 1, 7, 2]), asked(&[3, 1, 9, 9, 2])];
    let wanted = Speech { sentences: &sentences, asked: &asked, repetition_penalty: 1.2, stop: 36 };
    let (file, result) = on_any_threads(|| speech(&narrow, &model, wanted, UNWATCHED).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("speech.safetensors");
    std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
    let recorded = crate::validate::speech::Recorded::read(&path).unwrap();
    assert_eq!((recorded.pieces.len(), &recorded.sentences[..]), (2, &sentences[..]));
    assert_eq!(
        (result["pieces"].as_u64(), result["unstopped"].as_u64()),
        (Some(2), Some(recorded.pieces.iter().filter(|p| !p.stopped).count() as u64))
    );
    let tokens: usize = recorded.pieces.iter().map(|piece| piece.tokens.len()).sum();
    assert_eq!(result["tokens"].as_u64(), Some(tokens as u64));
    for (piece, asked) in recorded.pieces.iter().zip(&asked) {
        assert_eq!((&piece.ids, &piece.prompt), (&asked.ids, &asked.prompt));
        assert_eq!(piece.audio.len(), 64 * piece.tokens.len().saturating_sub(1));
    }
    // What was said already is less likely: with the largest penalty nothing is said twice, while there is something left.
    let heavy = Speech { repetition_penalty: 1e9, ..wanted };
    let (file, _) = speech(&narrow, &model, heavy, UNWATCHED).unwrap();
    let tokens = file.tensors["0/tokens"].to_i64().unwrap();
    let distinct: std::collections::BTreeSet<_> = tokens.iter().take(10).collect();
    assert_eq!(distinct.len(), tokens.len().min(10));
    let why = speech(&language_model(), &model, wanted, UNWATCHED).unwrap_err().to_string();
    assert!(why.contains("have 32 channels, and the decoder takes 20"), "{why}");
    let nothing = Speech { asked: &[], ..wanted };
    assert!(
        speech(&narrow, &model, nothing, UNWATCHED)
            .unwrap_err()
            .to_string()
            .contains("nothing is asked")
    );
}
