use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

use super::super::{Asked, Front};
use super::Transformer;
use super::rotary::Rotary;
use super::{Config, Rotation};
use crate::ir::Model;
use crate::names::{Ports, Role};
use crate::source::Refused;

const FRONT: Transformer = Transformer { stop: Some("[STOP]") };

/// A checkpoint of two layers, in a folder of its own.
struct Small {
    folder: tempfile::TempDir,
    config: Value,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    tokenizer: Option<Value>,
}

impl Small {
    fn new() -> Self {
        let config = json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
            "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 4, "intermediate_size": 12, "vocab_size": 10, "max_position_embeddings": 64,
            "tie_word_embeddings": false, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": null,
            "attention_bias": false, "eos_token_id": 3,
        });
        let mut small = Small {
            folder: tempfile::tempdir().unwrap(),
            config,
            tensors: Vec::new(),
            tokenizer: None,
        };
        small.add("model.embed_tokens.weight", &[10, 8]);
        small.add("model.norm.weight", &[8]);
        small.add("lm_head.weight", &[10, 8]);
        for layer in 0..2 {
            for (name, shape) in [
                ("input_layernorm", vec![8]),
                ("post_attention_layernorm", vec![8]),
                ("self_attn.q_proj", vec![16, 8]),
                ("self_attn.k_proj", vec![8, 8]),
                ("self_attn.v_proj", vec![8, 8]),
                ("self_attn.o_proj", vec![8, 16]),
                ("self_attn.q_norm", vec![4]),
                ("self_attn.k_norm", vec![4]),
                ("mlp.gate_proj", vec![12, 8]),
                ("mlp.up_proj", vec![12, 8]),
                ("mlp.down_proj", vec![8, 12]),
            ] {
                small.add(&format!("model.layers.{layer}.{name}.weight"), &shape);
            }
        }
        small
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        let seed = name.len() as f32;
        let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.7 + seed).sin());
        self.tensors.push((name.to_owned(), shape.to_vec(), values.collect()));
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Vec<usize>, Vec<f32>) {
        self.tensors.iter_mut().find(|(known, ..)| known == name).unwrap()
    }

    fn write(&self) -> PathBuf {
        let folder = self.folder.path();
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, shape, values)| {
                (name.clone(), shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        if let Some(tokenizer) = &self.tokenizer {
            std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        }
        folder.to_owned()
    }

    fn draft(&self, opset: u32, hidden_states: &[u32], last_logits: bool) -> Result<Model, Refused> {
        let checkpoint = self.write();
        let ports = Ports::usual(Role::Causal);
        let asked = Asked { checkpoint: &checkpoint, opset, ports: &ports, hidden_states, last_logits };
        Ok(FRONT.draft(&asked)?.draft.whole("small.onnx").expect("a consistent graph"))
    }

    fn refused(&self) -> Refused {
        self.draft(17, &[], false).map(|_| ()).expect_err("refused")
    }
}

/// What a change of the small checkpoint is refused with.
fn why(change: impl FnOnce(&mut Small)) -> (&'static str, String) {
    let mut small = Small::new();
    change(&mut small);
    let refused = small.refused();
    (refused.code, refused.message)
}

#[test]
fn every_opset_is_written_as_it_must_be() {
    for opset in 13..=20 {
        let model = Small::new().draft(opset, &[], false).unwrap();
        model.check().unwrap();
        assert_eq!(model.opset(""), Some(i64::from(opset)));
    }
}

#[test]
fn outputs_stand_in_the_bundles_order() {
    let model = Small::new().draft(17, &[1, 0], true).unwrap();
    model.check().unwrap();
    let names = |ports: &[crate::ir::ValueInfoProto]| {
        ports.iter().map(|port| port.name().to_owned()).collect::<Vec<_>>()
    };
    let caches = |word: &str| {
        ["0.key", "0.value", "1.key", "1.value"].map(|part| format!("{word}.{part}")).to_vec()
    };
    let graph = model.graph_proto();
    let wanted = [
        vec!["logits".to_owned()],
        caches("present"),
        vec![
            "hidden_states.1".to_owned(),
            "hidden_states.0".to_owned(),
            "last_hidden_state".to_owned(),
        ],
    ];
    assert_eq!(names(&graph.output), wanted.concat());
    let inputs = ["input_ids", "attention_mask", "position_ids"].map(str::to_owned).to_vec();
    assert_eq!(names(&graph.input), [inputs, caches("past_key_values")].concat());
    assert_eq!(graph.output[0].dims(), ["batch", "1", "10"]);
}

#[test]
fn a_layer_that_is_not_there_is_refused() {
    let refused = Small::new().draft(17, &[2], false).map(|_| ()).unwrap_err();
    assert_eq!(refused.message, "`hidden_states` has layer 2, and the model has 2");
}

#[test]
fn a_tied_head_is_the_embedding() {
    let mut small = Small::new();
    small.config["tie_word_embeddings"] = true.into();
    // A head that is the same tensor may be there.
    let embedding = small.tensor("model.embed_tokens.weight").2.clone();
    small.tensor("lm_head.weight").2 = embedding.clone();
    let tied = small.draft(17, &[], false).unwrap();
    small.tensor("lm_head.weight").2[3] += 1.0;
    let refused = small.refused();
    assert_eq!(refused.code, "checkpoint-shape");
    assert!(refused.message.ends_with("although config.json ties them"), "{refused}");
    small.tensors.retain(|(name, ..)| name != "lm_head.weight");
    let alone = small.draft(17, &[], false).unwrap();
    assert_eq!(tied.graph_proto(), alone.graph_proto());
    small.config["tie_word_embeddings"] = false.into();
    assert!(small.refused().message.contains("`lm_head.weight` is missing (1 in all)"));
}

#[test]
fn biases_are_those_that_the_config_has() {
    let mut small = Small::new();
    small.config["attention_bias"] = true.into();
    for layer in 0..2 {
        for (part, size) in [("q", 16), ("k", 8), ("v", 8), ("o", 8)] {
            small.add(&format!("model.layers.{layer}.self_attn.{part}_proj.bias"), &[size]);
        }
    }
    let count = |model: &Model| model.graph_proto().node.iter().filter(|node| node.is("Add")).count();
    let (plain, biased) = (Small::new().draft(17, &[], false).unwrap(), small.draft(17, &[], false));
    assert_eq!(count(&biased.unwrap()), count(&plain) + 4);
    small.config["attention_bias"] = false.into();
    assert!(small.refused().message.contains("is not part of the model that config.json describes"));
}

#[test]
fn tensors_that_the_config_does_not_ask_for_are_refused() {
    let (code, message) = why(|small| small.tensors.truncate(10));
    assert_eq!(code, "checkpoint-shape");
    assert!(message.contains("is missing (15 in all), although config.json asks for it"), "{message}");
    // Frequencies of older conversions are made anew.
    let mut small = Small::new();
    small.add("model.layers.0.self_attn.rotary_emb.inv_freq", &[2]);
    assert!(small.draft(17, &[], false).is_ok());
    let (code, message) = why(|small| small.add("model.extra", &[1]));
    assert_eq!(code, "checkpoint-shape");
    assert!(message.contains("`model.extra` is not part of the model"), "{message}");
    let (code, message) = why(|small| {
        let norm = small.tensor("model.norm.weight");
        (norm.1, norm.2) = (vec![7], vec![1.0; 7]);
    });
    assert_eq!(code, "checkpoint-shape");
    assert!(message.contains("`model.norm.weight` is [7], and config.json asks for [8]"), "{message}");
    let (code, message) = why(|small| small.tensor("model.norm.weight").2[2] = f32::NAN);
    assert_eq!(code, "checkpoint-nan");
    assert!(message.contains("has 1 of 8 values that are NaN or infinite"), "{message}");
}

#[test]
fn a_config_that_contradicts_itself_or_is_another_models_is_refused() {
    let with = |key: &'static str, value: Value| why(move |small| small.config[key] = value);
    for (key, value, code, part) in [
        ("hidden_size", json!(0), "checkpoint-config", "`hidden_size` is 0, expected a whole number"),
        ("hidden_size", json!(8.5), "checkpoint-config", "`hidden_size` is 8.5"),
        ("num_hidden_layers", json!(5000), "checkpoint-config", "from 1 to 4096"),
        ("num_hidden_layers", json!(4000), "checkpoint-shape", "asks for num_hidden_layers = 4000"),
        ("num_key_value_heads", json!(3), "checkpoint-config", "cannot be shared by 3 key-value heads"),
        ("head_dim", json!(3), "checkpoint-config", "`head_dim` is 3, expected an even number"),
        ("rms_norm_eps", json!(0), "checkpoint-config", "`rms_norm_eps` is 0, expected a finite"),
        ("rope_theta", json!("big"), "checkpoint-config", "`rope_theta` is \"big\""),
        ("tie_word_embeddings", json!("no"), "checkpoint-config", "expected true or false"),
        ("model_type", json!("gpt2"), "lm-unsupported", "model_type \"gpt2\" is not supported"),
        ("architectures", json!(["LlamaForCausalLM"]), "checkpoint-config", "is Qwen3ForCausalLM"),
        ("hidden_act", json!("gelu"), "lm-unsupported", "hidden_act \"gelu\""),
        ("partial_rotary_factor", json!(0.5), "lm-unsupported", "a partial rotary embedding"),
        ("eos_token_id", json!(10), "checkpoint-config", "is not a token of a vocabulary of 10"),
        ("rope_scaling", json!([]), "checkpoint-config", "`rope_scaling` is [], expected an object"),
        ("rope_scaling", json!({"rope_type": "dynamic"}), "lm-unsupported", "change with the length"),
        ("rope_scaling", json!({"type": "new"}), "lm-unsupported", "`rope_scaling.type` is \"new\""),
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 0}),
            "checkpoint-config",
            "`factor` above 0",
        ),
        ("rope_scaling", json!({"factor": 2}), "checkpoint-config", "has no `rope_type`"),
        ("rope_scaling", json!({}), "checkpoint-config", "has no `rope_type`"),
        (
            "rope_scaling",
            json!({"type": "linear", "rope_type": "llama3", "factor": 2}),
            "checkpoint-config",
            "`rope_scaling.rope_type` is \"llama3\", and `rope_scaling.type` is \"linear\"",
        ),
        ("rope_parameters", json!({"rope_type": "default"}), "lm-unsupported", "`rope_parameters` is"),
        ("quantization_config", json!({"bits": 4}), "lm-unsupported", "quantized weights"),
        ("layer_types", json!(["full_attention"]), "checkpoint-config", "has 1 entries, for 2 layers"),
        (
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "lm-unsupported",
            "`layer_types` has \"chunked_attention\"",
        ),
        ("layer_types", json!(["x", "y"]), "checkpoint-config", "`layer_types` has \"x\""),
        ("num_hidden_layers", json!(null), "lm-unsupported", "no `num_hidden_layers`"),
        ("torch_dtype", json!("nonsense"), "checkpoint-config", "`torch_dtype` is \"nonsense\""),
    ] {
        let (found, message) = with(key, value.clone());
        assert_eq!(found, code, "{key}: {value}: {message}");
        assert!(message.contains(part), "{key}: {value}: {message}");
    }
}

#[test]
fn a_window_shorter_than_the_model_is_refused() {
    let windowed = |window: u64, uses: bool| {
        let mut small = Small::new();
        small.config["sliding_window"] = window.into();
        small.config["use_sliding_window"] = uses.into();
        small.config["max_window_layers"] = 1.into();
        small.draft(17, &[], false).map(|_| ())
    };
    let refused = windowed(63, true).unwrap_err();
    assert_eq!(refused.code, "lm-unsupported");
    assert!(
        refused.message.contains("1 of 2 layers attend to the last 63 positions alone"),
        "{refused}"
    );
    windowed(64, true).unwrap();
    windowed(63, false).unwrap();
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let tokenizer = |stop: u64, largest: u64| {
        json!({
            "model": {"vocab": {"a": largest}},
            "added_tokens": [{"content": "[STOP]", "id": stop}],
        })
    };
    let with = |tokenizer: Value| {
        let mut small = Small::new();
        small.tokenizer = Some(tokenizer);
        small.draft(17, &[], false).map(|_| ())
    };
    with(tokenizer(3, 9)).unwrap();
    let refused = with(tokenizer(3, 10)).unwrap_err();
    assert_eq!(refused.code, "checkpoint-tokenizer");
    assert!(
        refused.message.ends_with("has the id 10, and config.json a vocabulary of 10"),
        "{refused}"
    );
    let refused = with(tokenizer(2, 9)).unwrap_err();
    assert_eq!(refused.code, "checkpoint-tokenizer");
    assert!(refused.message.contains("has [STOP] as 2"), "{refused}");
    assert_eq!(with(json!({})).unwrap_err().code, "checkpoint-format");
}

#[test]
fn a_folder_without_a_config_says_so() {
    let small = Small::new();
    let checkpoint = small.write();
    std::fs::remove_file(checkpoint.join("config.json")).unwrap();
    let missing = FRONT.open(&checkpoint).unwrap_err();
    assert_eq!(missing.code, "checkpoint-missing");
    std::fs::write(checkpoint.join("config.json"), "[]").unwrap();
    assert_eq!(FRONT.open(&checkpoint).unwrap_err().code, "checkpoint-format");
    std::fs::write(checkpoint.join("config.json"), "{").unwrap();
    assert_eq!(FRONT.open(&checkpoint).unwrap_err().code, "checkpoint-format");
    assert!(FRONT.open(Path::new("/nowhere")).is_err());
}

fn rotary(rotation: Rotation) -> Rotary {
    let mut config = Config::read(&Small::new().write()).unwrap();
    (config.head_dim, config.rotation) = (8, rotation);
    Rotary::of(&config)
}

/// Against `transformers` 4.57.6 of a head of 8 channels: `ROPE_INIT_FUNCTIONS[kind](config, "cpu")`.
#[test]
fn frequencies_are_those_of_transformers() {
    let near = |found: &Rotary, wanted: [f32; 4], amplitude: f32| {
        for (found, wanted) in found.frequencies.iter().zip(wanted) {
            assert!((found / wanted - 1.0).abs() < 3e-7, "{found} {wanted}");
        }
        assert!((found.amplitude / amplitude - 1.0).abs() < 3e-7, "{}", found.amplitude);
    };
    near(&rotary(Rotation::Default), [1.0, 0.1, 0.01, 0.001], 1.0);
    near(&rotary(Rotation::Linear { factor: 4.0 }), [0.25, 0.025, 0.0025, 0.00025], 1.0);
    let llama3 = Rotation::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 1024.0,
    };
    near(&rotary(llama3), [1.0, 0.1, 0.003_086_760_6, 0.000_125], 1.0);
    let yarn = Rotation::Yarn {
        factor: 4.0,
        attention_factor: None,
        mscale: None,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 1024.0,
        truncate: true,
    };
    near(&rotary(yarn), [1.0, 0.075, 0.005, 0.00025], 1.138_629_4);
}
