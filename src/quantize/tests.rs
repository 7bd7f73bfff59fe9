use std::io::Write as _;

use super::blocks::Blocks;
use super::columns::Columns;
use super::*;
use crate::export::Python;
use crate::ir::{TestGraph, initializer_f32, node};
use crate::runtime::{self, Places, Runtime, Tensors, Tract};
use crate::tensor::Tensor;

/// Numbers between -1 and 1 that look drawn by chance, the same each time.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn product(weight: &[f32], shape: [usize; 2]) -> Model {
    TestGraph::new()
        .input("x", &["batch", "rows", &shape[0].to_string()])
        .initializer(initializer_f32("w", &shape, weight))
        .node(node("MatMul", ["x", "w"], "y").named("product"))
        .output("y", &["batch", "rows", &shape[1].to_string()])
        .model()
}

fn run(model: &Model, shape: &[usize], x: &[f32]) -> Vec<f32> {
    run_in(&Tract, model, shape, x)
}

fn run_in(runtime: &dyn Runtime, model: &Model, shape: &[usize], x: &[f32]) -> Vec<f32> {
    let session = runtime.load_bytes(&model.to_bytes()).unwrap();
    let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(shape, x))]);
    session.run(&inputs).unwrap()["y"].to_f32().unwrap()
}

fn snr(want: &[f32], got: &[f32]) -> f64 {
    crate::audio::snr_db(want, got).unwrap()
}

#[test]
fn one_term_of_a_tensor_is_the_formula_of_dynamic_quantization() {
    let (k, n) = (96, 64);
    let (weight, x) = (noise(k * n, 1), noise(3 * k, 2));
    let mut model = product(&weight, [k, n]);
    quantize(&mut model, &Options { granularity: Granularity::Tensor, ..Default::default() }).unwrap();
    let got = run(&model, &[1, 3, k], &x);

    let (low, high) = x.iter().fold((0f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
    let scale = (high - low) / 255.0;
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    let levels: Vec<f32> = x
        .iter()
        .map(|v| (v / scale).round_ties_even() + zero)
        .map(|v| v.clamp(0.0, 255.0) - zero)
        .collect();
    for column in 0..n {
        let largest = (0..k).map(|row| weight[row * n + column].abs()).fold(0f32, f32::max);
        let step = largest / 127.0;
        for row in 0..3 {
            let sum: f32 = (0..k)
                .map(|at| {
                    levels[row * k + at] * (weight[at * n + column] * (1.0 / step)).round_ties_even()
                })
                .sum();
            let want = sum * (scale * step);
            let got = got[row * n + column];
            approx::assert_relative_eq!(got, want, epsilon = 1e-5, max_relative = 1e-5);
        }
    }
}

#[test]
fn two_terms_leave_the_error_of_the_weights_alone() {
    let (k, n) = (256, 64);
    let (weight, mut x) = (noise(k * n, 3), noise(2 * k, 4));
    // An outlier takes the levels of all others: what one term suffers from.
    x[5] = 40.0;
    let exact = run(&product(&weight, [k, n]), &[2, 1, k], &x);
    let of = |terms| {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { terms, ..Default::default() }).unwrap();
        snr(&exact, &run(&model, &[2, 1, k], &x))
    };
    let (one, two) = (of(Terms::One), of(Terms::Two));
    assert!(two > one + 5.0 && two > 40.0, "one term {one:.1} dB, two {two:.1} dB");
}

/// The graph's own outputs and these values.
fn with_outputs(mut model: Model, names: &[&str]) -> Model {
    let graph = model.proto_mut().graph.as_mut().unwrap();
    for name in names {
        graph
            .output
            .push(crate::ir::ValueInfoProto { name: Some((*name).to_owned()), ..Default::default() });
    }
    model
}

#[test]
fn a_pair_of_products_in_two_terms_fits_16_bits() {
    let (k, n) = (64, 64);
    let (weight, mut x) = (noise(k * n, 21), noise(k, 22));
    (x[0], x[1]) = (3.0, -3.0);
    let mut model = product(&weight, [k, n]);
    quantize(&mut model, &Options { terms: Terms::Two, ..Default::default() }).unwrap();
    let model = with_outputs(model, &["x/first", "x/second"]);
    let session = Tract.load_bytes(&model.to_bytes()).unwrap();
    let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(&[1, 1, k], &x))]);
    let outputs = session.run(&inputs).unwrap();
    let first = outputs["x/first"].bytes();
    assert_eq!((first[0], first[1]), (127, 1), "the largest values take the last levels");
    for term in ["x/first", "x/second"] {
        let most = *outputs[term].bytes().iter().max().unwrap();
        assert!(2 * i32::from(most) * 127 <= i32::from(i16::MAX), "{term}: {most}");
    }
}

#[test]
fn reduced_range_is_for_one_term_alone() {
    let (k, n) = (64, 64);
    let weight = noise(k * n, 25);
    let largest = |terms| {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { terms, reduce_range: true, ..Default::default() }).unwrap();
        let stored = model.graph_proto().initializer.iter().find(|t| t.name().starts_with("w/int8"));
        let bytes = stored.unwrap().raw_data.clone().unwrap();
        bytes.iter().map(|&byte| byte.cast_signed().unsigned_abs()).max().unwrap()
    };
    assert_eq!((largest(Terms::One), largest(Terms::Two)), (63, 127));
}

#[test]
fn zeros_give_zeros() {
    let (k, n) = (64, 64);
    let mut weight = noise(k * n, 5);
    (0..k).for_each(|row| weight[row * n + 7] = 0.0);
    for terms in [Terms::One, Terms::Two] {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { terms, ..Default::default() }).unwrap();
        let y = run(&model, &[1, 2, k], &noise(2 * k, 6));
        assert!(y.iter().all(|v| v.is_finite()));
        assert!(y[7] == 0.0 && y[n + 7] == 0.0, "a column of zeros");
        assert!(run(&model, &[1, 2, k], &vec![0.0; 2 * k]).iter().all(|&v| v == 0.0), "{terms:?}");
    }
}

#[test]
fn a_table_keeps_a_scale_for_each_row() {
    let (rows, columns) = (128, 64);
    let mut values = noise(rows * columns, 7);
    values[..columns].iter_mut().for_each(|v| *v *= 1e-3);
    let weight = noise(columns * 64, 8);
    let mut model = TestGraph::new()
        .input_i64("ids", &["batch", "rows"])
        .initializer(initializer_f32("table", &[rows, columns], &values))
        .initializer(initializer_f32("w", &[columns, 64], &weight))
        .node(node("Gather", ["table", "ids"], "x").named("look-up"))
        .node(node("MatMul", ["x", "w"], "z").named("product"))
        .output("x", &["batch", "rows", "64"])
        .output("z", &["batch", "rows", "64"])
        .model();
    let report = quantize(&mut model, &Options::default()).unwrap();
    assert_eq!(
        (report.tables, report.products),
        (vec!["look-up".to_owned()], vec!["product".to_owned()])
    );
    let session = Tract.load_bytes(&model.to_bytes()).unwrap();
    let ids = Tensors::from([("ids".to_owned(), Tensor::from_i64(&[1, 2], &[0, 9]))]);
    let x = session.run(&ids).unwrap()["x"].to_f32().unwrap();
    for (at, row) in [0usize, 9].into_iter().enumerate() {
        let want = &values[row * columns..][..columns];
        assert!(snr(want, &x[at * columns..][..columns]) > 40.0, "row {row}");
    }
}

#[test]
fn an_activation_is_quantized_once_for_all_its_products() {
    let weight = noise(64 * 64, 9);
    let mut model = TestGraph::new()
        .input("x", &["batch", "rows", "64"])
        .initializer(initializer_f32("w", &[64, 64], &weight))
        .initializer(initializer_f32("v", &[64, 64], &weight))
        .node(node("MatMul", ["x", "w"], "y"))
        .node(node("MatMul", ["x", "v"], "z"))
        .output("y", &["batch", "rows", "64"])
        .output("z", &["batch", "rows", "64"])
        .model();
    quantize(&mut model, &Options { terms: Terms::One, ..Default::default() }).unwrap();
    let count = |op: &str| model.graph_proto().node.iter().filter(|n| n.op_type() == op).count();
    assert_eq!((count("QuantizeLinear"), count("MatMulInteger"), count("MatMul")), (1, 2, 0));
}

#[test]
fn what_stays_is_said_and_what_can_not_be_is_refused() {
    let keep = |pattern: &str| Options { keep_fp32: vec![pattern.to_owned()], ..Default::default() };
    let weight = noise(64 * 64, 10);
    let fresh = || product(&weight, [64, 64]);
    assert!(matches!(quantize(&mut fresh(), &keep("prod*")), Err(Error::Nothing { .. })));
    let missed = quantize(&mut fresh(), &keep("produce")).unwrap_err().to_string();
    assert_eq!(missed, "no node is named \"produce\"");
    for bad in [f32::NAN, f32::INFINITY] {
        let mut weight = weight.clone();
        weight[100] = bad;
        let error =
            quantize(&mut product(&weight, [64, 64]), &Options::default()).unwrap_err().to_string();
        assert_eq!(error, "node \"product\": the weight \"w\" has NaN or infinite values");
    }
    let mut twice = fresh();
    quantize(&mut twice, &Options::default()).unwrap();
    assert!(matches!(quantize(&mut twice, &Options::default()), Err(Error::Twice { .. })));
    let small = quantize(&mut product(&noise(16, 1), [4, 4]), &Options::default());
    assert!(matches!(small, Err(Error::Nothing { .. })));
}

#[test]
fn reduced_range_keeps_pairs_of_products_in_16_bits() {
    let weight = noise(64 * 64, 11);
    let tensor = initializer_f32("w", &[64, 64], &weight);
    let stored = Columns::per_column(&tensor, true).unwrap();
    let largest = stored.values.iter().map(|v| i32::from(v.cast_signed()).abs()).max().unwrap();
    assert!(2 * 255 * largest <= i32::from(i16::MAX), "{largest}");
}

/// ONNX Runtime of the tree's own environment; without it the test says so and ends.
fn onnxruntime(test: &str) -> Option<Box<dyn Runtime>> {
    onnxruntime_with(test, runtime::Options::EXACT)
}

fn onnxruntime_with(test: &str, options: runtime::Options) -> Option<Box<dyn Runtime>> {
    let environment = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv");
    let python = Python::find(Some(&environment), "soprano", &environment);
    let folders = python.map(|python| python.site_packages()).unwrap_or_default();
    let places = Places { folders, ..Places::default() };
    match runtime::named("onnxruntime").unwrap().find(&places, options) {
        Ok(found) => Some(found),
        Err(error) => {
            // Past the harness, which keeps what is printed of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
            None
        }
    }
}

fn seen(x: &[f32], channels: usize) -> Calibration {
    let mut observed = Observed::default();
    observed.add(x, channels);
    Calibration::from([("x".to_owned(), observed)])
}

#[test]
fn every_form_is_the_same_product_in_both_runtimes() {
    let Some(onnxruntime) = onnxruntime("every_form_is_the_same_product_in_both_runtimes") else {
        return;
    };
    let (k, n) = (96, 64);
    let (weight, x) = (noise(k * n, 21), noise(5 * k, 22));
    let fp32 = product(&weight, [k, n]);
    let want = run(&fp32, &[1, 5, k], &x);
    let vnni = crate::hardware::Machine::detect().features.iter().any(|f| f.contains("vnni"));
    for (form, terms, reduce_range, at_least) in [
        (Form::Dynamic, Terms::One, true, 34.0),
        (Form::Dynamic, Terms::One, false, 38.0),
        (Form::Dynamic, Terms::Two, true, 44.0),
        (Form::Static, Terms::One, true, 34.0),
        (Form::Static, Terms::One, false, 38.0),
        (Form::Blocks8, Terms::One, false, 38.0),
        (Form::Blocks4, Terms::One, false, 15.0),
    ] {
        // Without VNNI sums of 16 bits overflow there: the very thing that a reduced range is for.
        if !vnni && !reduce_range && !form.is_blocks() {
            continue;
        }
        let mut model = fp32.clone();
        let seen = seen(&x, k);
        let options = Options { form, terms, reduce_range, seen, ..Options::default() };
        quantize(&mut model, &options).unwrap();
        let there = run_in(onnxruntime.as_ref(), &model, &[1, 5, k], &x);
        assert!(snr(&want, &there) > at_least, "{form:?} {terms:?}: {:.1} dB", snr(&want, &there));
        // tract has no blocks of 8 bits, and multiplies those of 4 without holding activations in 8.
        assert_eq!(has_byte_blocks(&model), form == Form::Blocks8);
        if !form.is_blocks() {
            let here = run(&model, &[1, 5, k], &x);
            assert!(snr(&there, &here) > 120.0, "{form:?} {terms:?}: {:.1} dB", snr(&there, &here));
        }
    }
}

#[test]
fn blocks_are_packed_as_the_operator_reads_them() {
    let mut weight = vec![0f32; 40 * 2];
    // Column 0: block 0 reaches 7, block 1 (rows 32 to 39) is zero but for one value.
    weight[0] = 7.0;
    weight[2] = -7.0;
    weight[2 * 33] = 3.5;
    let tensor = initializer_f32("w", &[40, 2], &weight);
    let blocks = Blocks::of(&tensor, 4).unwrap();
    let (values, scales) = (blocks.values("q"), blocks.scales("s", 1.0));
    assert_eq!((values.dims.as_slice(), scales.dims.as_slice()), (&[2, 2, 16][..], &[4][..]));
    let bytes = values.raw_data.unwrap();
    assert_eq!(bytes[0], 0x1f, "7 is 15 in the low half, -7 is 1 in the high half");
    assert_eq!((bytes[1], bytes[16]), (0x88, 0xf8), "zero is 8");
    let node = blocks.product("x", ["q", "s"], "y").build();
    assert_eq!(node.attr_i("accuracy_level", 0), 4);
}

/// x times a norm's scale, into two products.
fn behind_a_norm(outlier: f32) -> Model {
    let mut scale = noise(64, 31).iter().map(|v| v.abs() + 0.5).collect::<Vec<f32>>();
    scale[7] = outlier;
    TestGraph::new()
        .input("n", &["batch", "rows", "64"])
        .initializer(initializer_f32("scale", &[64], &scale))
        .initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 32)))
        .initializer(initializer_f32("v", &[64, 64], &noise(64 * 64, 33)))
        .node(node("Mul", ["n", "scale"], "x"))
        .node(node("MatMul", ["x", "w"], "p"))
        .node(node("MatMul", ["x", "v"], "q"))
        .node(node("Add", ["p", "q"], "y"))
        .output("y", &["batch", "rows", "64"])
        .model()
}

#[test]
fn smoothing_is_exact_in_fp32_and_better_in_8_bits() {
    let values = noise(8 * 64, 34);
    let run = |model: &Model| {
        let session = Tract.load_bytes(&model.to_bytes()).unwrap();
        let inputs = Tensors::from([("n".to_owned(), Tensor::from_f32(&[1, 8, 64], &values))]);
        session.run(&inputs).unwrap()["y"].to_f32().unwrap()
    };
    let plain = behind_a_norm(60.0);
    let want = run(&plain);
    let scale = plain.graph().constant_f32("scale").unwrap().1;
    let x: Vec<f32> = values.iter().enumerate().map(|(at, v)| v * scale[at % 64]).collect();
    let mut smoothed = plain.clone();
    assert_eq!(smooth(&mut smoothed, &seen(&x, 64), 0.5), 1);
    smoothed.check().unwrap();
    assert!(snr(&want, &run(&smoothed)) > 120.0);
    let in_8_bits = |model: &Model| {
        let mut model = model.clone();
        quantize(&mut model, &Options::default()).unwrap();
        snr(&want, &run(&model))
    };
    let (before, after) = (in_8_bits(&plain), in_8_bits(&smoothed));
    assert!(after > before + 3.0, "{before:.1} dB, smoothed {after:.1} dB");
}

#[test]
fn an_activation_that_others_read_is_not_smoothed() {
    let mut model = behind_a_norm(60.0);
    let graph = model.proto_mut().graph.as_mut().unwrap();
    graph.output.push(crate::ir::value_f32("x", &["batch", "rows", "64"]));
    assert_eq!(smooth(&mut model, &seen(&noise(64, 1), 64), 0.5), 0);
    assert_eq!(smooth(&mut behind_a_norm(60.0), &Calibration::new(), 0.5), 0, "never seen");
}

#[test]
fn a_static_form_needs_to_have_seen_every_activation() {
    let mut model = product(&noise(64 * 64, 41), [64, 64]);
    let options = Options { form: Form::Static, ..Options::default() };
    let error = quantize(&mut model, &options).unwrap_err().to_string();
    assert_eq!(error, "node \"product\": the range of its activation \"x\" was not seen");
}

#[test]
fn weights_of_zeros_stay_zeros() {
    let mut weight = noise(64 * 64, 51);
    for row in weight.chunks_exact_mut(64) {
        row[3] = 0.0;
    }
    for weight in [weight, vec![0.0; 64 * 64]] {
        let x = noise(2 * 64, 52);
        for terms in [Terms::One, Terms::Two] {
            let mut model = product(&weight, [64, 64]);
            quantize(&mut model, &Options { terms, ..Options::default() }).unwrap();
            let got = run(&model, &[1, 2, 64], &x);
            assert!(got.iter().all(|v| v.is_finite()));
            assert!(got.iter().skip(3).step_by(64).all(|v| *v == 0.0));
        }
    }
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, name) in [("a", "a"), ("a*", "a"), ("*b", "ab"), ("/l.*/m*", "/l.3/mlp"), ("*", "")] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in
        [("a", "ab"), ("a*b", "a"), ("*b", "ba"), ("/l.*/m", "/l.3/mlp"), ("aa*aa", "aaa")]
    {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

mod graphs;
mod reasons;
mod rows;
mod weights;
