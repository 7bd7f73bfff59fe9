use super::*;
use crate::ir::TestGraph;
use crate::runtime::{Runtime, Tensors, Tract};
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
    let session = Tract.load_bytes(&model.to_bytes()).unwrap();
    let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(shape, x))]);
    session.run(&inputs).unwrap()["y"].to_f32().unwrap()
}

fn snr(want: &[f32], got: &[f32]) -> f64 {
    crate::audio::snr_db(want, got).unwrap()
}

#[test]
fn one_term_is_the_formula_of_dynamic_quantization() {
    let (k, n) = (96, 64);
    let (weight, x) = (noise(k * n, 1), noise(3 * k, 2));
    let mut model = product(&weight, [k, n]);
    quantize(&mut model, &Options { terms: Terms::One, ..Default::default() }).unwrap();
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
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{row} {column}: {got} {want}");
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
    assert_eq!((count("DynamicQuantizeLinear"), count("MatMulInteger"), count("MatMul")), (1, 2, 0));
}

#[test]
fn what_stays_is_said_and_what_can_not_be_is_refused() {
    let keep = |pattern: &str| Options { keep_fp32: vec![pattern.to_owned()], ..Default::default() };
    let weight = noise(64 * 64, 10);
    let fresh = || product(&weight, [64, 64]);
    assert!(matches!(quantize(&mut fresh(), &keep("prod*")), Err(Error::Nothing)));
    let missed = quantize(&mut fresh(), &keep("produce")).unwrap_err().to_string();
    assert_eq!(missed, "no node is named \"produce\", which was to stay fp32");
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
    assert!(matches!(small, Err(Error::Nothing)));
}

#[test]
fn reduced_range_keeps_pairs_of_products_in_16_bits() {
    let weight = noise(64 * 64, 11);
    let tensor = initializer_f32("w", &[64, 64], &weight);
    let held = Columns::per_column(&tensor, true).unwrap();
    let largest = held.values.iter().map(|v| i32::from(*v).abs()).max().unwrap();
    assert!(2 * 255 * largest <= i32::from(i16::MAX), "{largest}");
}
