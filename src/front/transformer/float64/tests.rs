use serde_json::Value;

use super::super::Rotation;
use super::*;
use crate::front::float64::testing::{Recorded, of_peak, on_any_threads, root};

/// What a config says, as far as these models need it.
fn config(text: &str) -> Config {
    let of: Value = serde_json::from_str(text).unwrap();
    let count = |key: &str| of[key].as_u64().map(|count| count as usize);
    let heads = count("num_attention_heads").unwrap();
    let architecture = of["architectures"][0].as_str().unwrap().to_owned();
    let positions = count("max_position_embeddings").unwrap();
    let (is_qwen2, is_mistral) =
        (architecture.starts_with("Qwen2"), architecture.starts_with("Mistral"));
    let biased = of["attention_bias"].as_bool().unwrap_or(false) && !is_mistral;
    Config {
        hidden_size: count("hidden_size").unwrap(),
        layers: count("num_hidden_layers").unwrap(),
        heads,
        kv_heads: count("num_key_value_heads").unwrap(),
        head_dim: count("head_dim").unwrap_or(count("hidden_size").unwrap() / heads),
        intermediate_size: count("intermediate_size").unwrap(),
        vocab_size: count("vocab_size").unwrap(),
        max_position_embeddings: positions,
        tied: of["tie_word_embeddings"].as_bool().unwrap(),
        rms_norm_eps: of["rms_norm_eps"].as_f64().unwrap(),
        rope_theta: of["rope_theta"].as_f64().unwrap(),
        rotation: rotation(&of["rope_scaling"], positions),
        qkv_bias: is_qwen2 || biased,
        out_bias: !is_qwen2 && biased,
        mlp_bias: of["mlp_bias"].as_bool().unwrap_or(false),
        qk_norm: architecture.starts_with("Qwen3"),
        architecture,
    }
}

fn rotation(of: &Value, positions: usize) -> Rotation {
    let number = |key: &str| of[key].as_f64();
    let original_max_position_embeddings =
        number("original_max_position_embeddings").unwrap_or(positions as f64);
    let factor = number("factor").unwrap_or(1.0);
    match of["rope_type"].as_str() {
        None | Some("default") => Rotation::Default,
        Some("linear") => Rotation::Linear { factor },
        Some("llama3") => Rotation::Llama3 {
            factor,
            low_freq_factor: number("low_freq_factor").unwrap(),
            high_freq_factor: number("high_freq_factor").unwrap(),
            original_max_position_embeddings,
        },
        Some("yarn") => Rotation::Yarn {
            factor,
            attention_factor: number("attention_factor"),
            mscale: number("mscale").zip(number("mscale_all_dim")),
            beta_fast: number("beta_fast").unwrap_or(32.0),
            beta_slow: number("beta_slow").unwrap_or(1.0),
            original_max_position_embeddings,
            truncate: of["truncate"].as_bool().unwrap_or(true),
        },
        other => panic!("{other:?}"),
    }
}

fn model(name: &str) -> (Recorded, InDouble) {
    let recorded = Recorded::read(name);
    let model = InDouble::new(&config(&recorded.file.metadata["config"]), &recorded.weights()).unwrap();
    (recorded, model)
}

fn mini() -> InDouble {
    let folder = root().join("fixtures/soprano-mini");
    let config = config(&std::fs::read_to_string(folder.join("config.json")).unwrap());
    InDouble::new(&config, &Weights::of_language_model(&folder).unwrap()).unwrap()
}

/// The sequences of a recorded run.
fn sequences(recorded: &Recorded, run: &str) -> Vec<Sequence> {
    let length = recorded.shape(&format!("{run}/ids"))[1];
    let rows = |name: &str| -> Vec<Vec<i64>> {
        recorded.whole(&format!("{run}/{name}")).chunks(length).map(<[i64]>::to_vec).collect()
    };
    let rows = rows("ids").into_iter().zip(rows("mask")).zip(rows("positions"));
    rows.map(|((ids, mask), positions)| Sequence {
        ids,
        seen: mask.iter().map(|&seen| seen != 0).collect(),
        positions,
    })
    .collect()
}

fn run(model: &InDouble, sequences: &[Sequence], numbers: Numbers) -> Vec<CausalAnswer> {
    let wanted = Wanted { logits: true, layers: &[1] };
    model.run(sequences, wanted, numbers, &mut || Ok(())).unwrap()
}

fn all<'a>(
    answers: &'a [CausalAnswer],
    of: impl Fn(&'a CausalAnswer) -> &'a Rows + 'a,
) -> impl Iterator<Item = f64> + 'a {
    answers.iter().flat_map(move |answer| of(answer).iter().copied())
}

#[test]
fn each_architecture_is_what_transformers_computes() {
    for name in ["qwen3", "qwen3-yarn", "qwen2", "llama", "llama-yarn", "mistral"] {
        let (recorded, model) = model(name);
        // Of a batch that is padded every row counts, and those that are padding themselves.
        for run_name in ["padded", "far"] {
            let answers = run(&model, &sequences(&recorded, run_name), Numbers::Exact);
            let want = |output: &str| recorded.floats(&format!("{run_name}/{output}"));
            let hidden = of_peak(&want("hidden"), all(&answers, |answer| &answer.hidden));
            let logits =
                of_peak(&want("logits"), all(&answers, |answer| answer.logits.as_ref().unwrap()));
            let inner = of_peak(&want("layer.1"), all(&answers, |answer| &answer.layers[0]));
            println!(
                "{name} {run_name}: hidden {hidden:.1e}, logits {logits:.1e}, layer {inner:.1e} of the peak"
            );
            assert!(hidden.max(logits).max(inner) < 3e-6, "{name} {run_name}");
        }
    }
}

#[test]
fn each_part_of_a_config_counts() {
    for (name, change) in [
        ("qwen3", &(|c: &mut Config| c.rope_theta = 9e5) as &dyn Fn(&mut Config)),
        ("qwen3", &|c| c.rms_norm_eps = 1e-3),
        ("qwen3", &|c| c.qk_norm = false),
        ("qwen2", &|c| c.qkv_bias = false),
        ("llama", &|c| c.mlp_bias = false),
        ("llama", &|c| c.out_bias = false),
        ("llama", &|c| c.rotation = Rotation::Default),
        ("mistral", &|c| c.rotation = Rotation::Linear { factor: 2.4 }),
        ("llama-yarn", &|c| c.rotation = Rotation::Linear { factor: 4.0 }),
        ("qwen3-yarn", &|c| match &mut c.rotation {
            Rotation::Yarn { truncate, .. } => *truncate = true,
            _ => unreachable!(),
        }),
        ("qwen3-yarn", &|c| match &mut c.rotation {
            Rotation::Yarn { mscale, .. } => *mscale = None,
            _ => unreachable!(),
        }),
    ] {
        let recorded = Recorded::read(name);
        let mut config = config(&recorded.file.metadata["config"]);
        change(&mut config);
        let model = InDouble::new(&config, &recorded.weights()).unwrap();
        let answers = run(&model, &sequences(&recorded, "far"), Numbers::Exact);
        let off = of_peak(&recorded.floats("far/hidden"), all(&answers, |answer| &answer.hidden));
        assert!(off > 1e-4, "{name} {config:?}: {off:e}");
    }
}

#[test]
fn a_trained_voice_is_what_transformers_computes() {
    let (recorded, model) = (Recorded::read("soprano-mini"), mini());
    for case in ["prefill_32", "padded_b3_8"] {
        let answers = run(&model, &sequences(&recorded, case), Numbers::Exact);
        let hidden = of_peak(
            &recorded.floats(&format!("{case}/hidden")),
            all(&answers, |answer| &answer.hidden),
        );
        let logits = recorded.floats(&format!("{case}/logits"));
        let logits = of_peak(&logits, all(&answers, |answer| answer.logits.as_ref().unwrap()));
        println!("{case}: hidden {hidden:.1e}, logits {logits:.1e} of the peak");
        assert!(hidden.max(logits) < 5e-6, "{case}");
    }
    let (prompt, tokens) = (recorded.whole("spoken/ids"), recorded.whole("spoken/tokens"));
    let mut stepped = model.begin(1);
    let mut next = prompt.clone();
    for (at, &token) in tokens.iter().enumerate() {
        let answer = stepped.feed(&[(0, &next)]).unwrap().remove(0);
        assert_eq!(argmax(answer.logits) as i64, token, "token {at}");
        next = vec![token];
    }
}

#[test]
fn steps_from_a_cache_are_the_whole_run() {
    let (recorded, model) = model("qwen3");
    let mut far = sequences(&recorded, "far").remove(0);
    far.positions = (0..).take(far.ids.len()).collect();
    let whole = run(&model, std::slice::from_ref(&far), Numbers::Exact).remove(0);
    let near = |next: &Next, at: usize| {
        let rows = whole.hidden.row(at).into_iter().zip(&next.hidden);
        let logits = whole.logits.as_ref().unwrap();
        let pairs = rows.chain(logits.row(at).into_iter().zip(&next.logits));
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-13, "{at}: {a} {b}"));
    };
    let mut stepped = model.begin(6);
    // One alone, and six together, each with another beginning: few rows are multiplied in another way.
    for at in 6..far.ids.len() {
        let ids = if at == 6 { &far.ids[..7] } else { &far.ids[at..=at] };
        near(&stepped.feed(&[(5, ids)]).unwrap()[0], at);
    }
    let mut stepped = model.begin(6);
    for at in 6..far.ids.len() {
        let tokens: Vec<(usize, &[i64])> = (0..6)
            .filter(|which| at + which < far.ids.len())
            .map(|which| {
                (
                    which,
                    if at == 6 { &far.ids[..=at + which] } else { &far.ids[at + which..=at + which] },
                )
            })
            .collect();
        let nexts = stepped.feed(&tokens).unwrap();
        tokens.iter().zip(&nexts).for_each(|((which, _), next)| near(next, at + which));
    }
}

#[test]
fn a_run_does_not_depend_on_threads_nor_on_what_runs_with_it() {
    let (recorded, model) = model("llama");
    let given = [sequences(&recorded, "padded"), sequences(&recorded, "far")].concat();
    for numbers in [Numbers::Exact, Numbers::Moved { seed: 0 }] {
        let together = on_any_threads(|| {
            run(&model, &given, numbers)
                .into_iter()
                .map(|answer| (answer.hidden, answer.logits))
                .collect::<Vec<_>>()
        });
        for (sequence, (hidden, logits)) in given.iter().zip(together) {
            let alone = run(&model, std::slice::from_ref(sequence), numbers).remove(0);
            assert!(alone.hidden == hidden && alone.logits == logits);
        }
    }
    assert!(run(&model, &[], Numbers::Exact).is_empty());
}

#[test]
fn a_last_bit_of_the_weights_moves_it_about_as_far_as_float32_does() {
    let (recorded, model) = model("qwen3");
    let given = sequences(&recorded, "padded");
    let [exact, moved] =
        [Numbers::Exact, Numbers::Moved { seed: 0 }].map(|numbers| run(&model, &given, numbers));
    let want: Vec<f32> = all(&exact, |answer| &answer.hidden).map(|x| x as f32).collect();
    let by = of_peak(&want, all(&moved, |answer| &answer.hidden));
    assert!((2e-8..2e-6).contains(&by), "{by:e}");
}

#[test]
fn what_the_model_does_not_know_is_refused() {
    let (recorded, model) = model("qwen3");
    let vocabulary = model.vocabulary() as i64;
    let fed = |id: i64| model.begin(1).feed(&[(0, &[id])]).map(|_| ());
    assert!(fed(vocabulary - 1).is_ok() && fed(0).is_ok());
    for id in [vocabulary, -1, i64::MAX, i64::MIN] {
        let Err(Error::Refused(refused)) = fed(id) else { panic!("{id}") };
        assert_eq!(refused.code, "checkpoint-tokenizer");
        assert!(refused.message.contains(&format!("token {id} is not one of a vocabulary of 37")));
    }
    let stop = model.run(&[Sequence::of(&[1, 2])], Wanted::default(), Numbers::Exact, &mut || {
        Err(Error::Interrupted)
    });
    assert!(matches!(stop, Err(Error::Interrupted)));
    let config = config(&recorded.file.metadata["config"]);
    let weights = recorded.weights();
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        InDouble::new(&config, &weights).map(|_| ()).map_err(|refused| (refused.code, refused.message))
    };
    assert!(refused(&|_| {}).is_ok());
    for change in [
        &(|c: &mut Config| c.kv_heads = 0) as &dyn Fn(&mut Config),
        &|c| c.heads = 3,
        &|c| c.heads = 0,
        &|c| c.head_dim = 7,
        &|c| c.head_dim = 0,
    ] {
        assert_eq!(refused(change).unwrap_err().0, "checkpoint-config");
    }
    for (change, why) in [
        (
            &(|c: &mut Config| c.layers = 3) as &dyn Fn(&mut Config),
            "`model.layers.2.input_layernorm.weight` is missing",
        ),
        (&|c| c.layers = usize::MAX, "`model.layers.2.input_layernorm.weight` is missing"),
        (&|c| c.vocab_size = 38, "`model.embed_tokens.weight` is [37, 32], expected [38, 32]"),
        (&|c| c.qkv_bias = true, "`model.layers.0.self_attn.q_proj.bias` is missing"),
        (
            &|c| (c.heads, c.head_dim) = (usize::MAX - 1, 2),
            "`model.layers.0.self_attn.q_proj.weight` is",
        ),
    ] {
        let (code, message) = refused(change).unwrap_err();
        assert!(code == "checkpoint-shape" && message.contains(why), "{message}");
    }
}
