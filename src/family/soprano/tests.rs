//! Whole checkpoints against what PyTorch records of them: with the Python environment alone, and minutes long at full
//! size.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::FAMILY;
use crate::front::InDouble;
use crate::front::float64::testing::{of_peak, root};
use crate::front::float64::{Frames, Numbers, Sequence, Wanted};
use crate::names::Role;
use crate::tensor::TensorFile;

fn skipped(what: &str, why: &str) {
    // libtest captures what goes through `eprintln!`.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what} against PyTorch: {why}");
}

/// Runs a task of the Python half; nothing where its environment isn't there.
fn python(task: &str, output: &Path, mut fields: Value) -> Option<()> {
    let python = root().join(".venv/bin/python");
    if !python.exists() {
        skipped(task, "no .venv; run make setup");
        return None;
    }
    std::fs::create_dir_all(output).unwrap();
    fields["protocol"] = 2.into();
    fields["task"] = task.into();
    fields["output"] = output.to_str().into();
    let request = output.join("request.json");
    std::fs::write(&request, fields.to_string()).unwrap();
    let run = Command::new(python)
        .args(["-m", "soprano_export"])
        .arg(&request)
        .env("PYTHONPATH", root().join("python"))
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    Some(())
}

/// Records what PyTorch answers of a synthetic checkpoint, and holds the formulas to it: 1e-5 of the peak everywhere,
/// and the same tokens.
fn hold(preset: &str) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let graphs = json!({"family": "soprano", "preset": preset, "graphs": ["decoder", "lm"]});
    if python("synthesize", &checkpoint, graphs).is_none() {
        return;
    }
    let record = |graph: &str, role: &str, references: Value| {
        let output = folder.path().join(graph);
        let fields = json!({
            "checkpoint": checkpoint, "family": "soprano", "graph": graph, "role": role, "references": references
        });
        python("record", &output, fields).unwrap();
        TensorFile::read(&output.join("references.safetensors")).unwrap()
    };
    let lengths = json!({"lengths": [2, 3, 16, 64], "batches": [1, 3]});
    let mut worst = decoder(&checkpoint, &record("decoder", "signal", lengths));
    worst = worst.max(language_model(&checkpoint, &record("lm", "causal", json!({}))));
    println!("{preset}: PyTorch is at most {worst:.1e} of the peak away");
    assert!(worst < 1e-5, "{preset}: {worst:e}");
}

/// A graph of the checkpoint, as builds compute it.
fn model(checkpoint: &Path, name: &str, role: Role) -> InDouble {
    FAMILY.front(name, role).unwrap().in_double(checkpoint).unwrap()
}

/// The largest difference of a decoder's cases.
fn decoder(checkpoint: &Path, file: &TensorFile) -> f64 {
    let InDouble::Signal(model) = model(checkpoint, "decoder", Role::Signal) else { panic!() };
    let cases: Vec<Value> = serde_json::from_str(&file.metadata["cases"]).unwrap();
    let off = cases.iter().map(|case| {
        let name = case["name"].as_str().unwrap();
        let frames = &file.tensors[&format!("{name}/hidden_states")];
        let [_, channels, length] = *frames.shape() else { panic!("{:?}", frames.shape()) };
        let values = frames.to_f32().unwrap();
        let one = |row: &[f32]| Frames { length, values: row.iter().map(|&x| f64::from(x)).collect() };
        let frames: Vec<Frames> = values.chunks(channels * length).map(one).collect();
        let answers = model.run(&frames, Numbers::Exact, &mut || Ok(())).unwrap();
        let want = file.tensors[&format!("{name}/audio")].to_f32().unwrap();
        let off = of_peak(&want, answers.into_iter().flat_map(|answer| answer.samples));
        println!("{name}: {off:.1e}");
        off
    });
    off.fold(0.0, f64::max)
}

/// The largest difference of a language model's cases.
fn language_model(checkpoint: &Path, file: &TensorFile) -> f64 {
    let InDouble::Causal(model) = model(checkpoint, "lm", Role::Causal) else { panic!() };
    let cases: Vec<Value> = serde_json::from_str(&file.metadata["cases"]).unwrap();
    let mut worst = 0.0_f64;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let tensor = |of: &str| &file.tensors[&format!("{name}/{of}")];
        let length = tensor("input_ids").shape()[1];
        let rows = |of: &str| -> Vec<Vec<i64>> {
            tensor(of).to_i64().unwrap().chunks(length).map(<[i64]>::to_vec).collect()
        };
        if case["kind"] == "greedy" {
            let tokens = tensor("tokens").to_i64().unwrap();
            let whole = [rows("input_ids").remove(0), tokens.clone()].concat();
            let answer =
                model.run(&[Sequence::of(&whole)], Wanted::default(), Numbers::Exact, &mut || Ok(()));
            let chosen = &answer.unwrap()[0].likeliest[length - 1..whole.len() - 1];
            assert_eq!(chosen, tokens, "{name}");
            continue;
        }
        let rows = rows("input_ids").into_iter().zip(rows("attention_mask")).zip(rows("position_ids"));
        let sequences = rows.map(|((ids, mask), positions)| Sequence {
            ids,
            seen: mask.iter().map(|&seen| seen != 0).collect(),
            positions,
        });
        let wanted = Wanted { logits: true, layers: &[] };
        let answers =
            model.run(&sequences.collect::<Vec<_>>(), wanted, Numbers::Exact, &mut || Ok(())).unwrap();
        let hidden = answers.iter().flat_map(|answer| answer.hidden.iter().copied());
        let hidden = of_peak(&tensor("last_hidden_state").to_f32().unwrap(), hidden);
        let logits = answers.iter().flat_map(|answer| answer.logits.iter().flatten().copied());
        let logits = of_peak(&tensor("logits").to_f32().unwrap(), logits);
        println!("{name}: hidden {hidden:.1e}, logits {logits:.1e}");
        worst = worst.max(hidden).max(logits);
    }
    worst
}

#[test]
fn small_checkpoints_are_what_pytorch_computes() {
    hold("tiny");
    hold("tiny-1.0");
}

#[test]
fn a_checkpoint_of_full_size_is_what_pytorch_computes() {
    if std::env::var_os("SOPRANO_EXPORT_FULL_SIZE").is_none() {
        skipped("full size", "it takes minutes; SOPRANO_EXPORT_FULL_SIZE=1 asks for it");
        return;
    }
    hold("soprano-1.1");
}
