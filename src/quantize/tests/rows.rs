//! A row's result does not depend on the rows beside it: to the last bit, in every runtime.

use super::*;

const WIDTHS: [usize; 3] = [96, 160, 80];

/// A product, an activation function, another product.
fn two_products() -> Model {
    let [k, hidden, n] = WIDTHS;
    TestGraph::new()
        .input("x", &["batch", "rows", &k.to_string()])
        .initializer(initializer_f32("w", &[k, hidden], &noise(k * hidden, 41)))
        .initializer(initializer_f32("v", &[hidden, n], &noise(hidden * n, 42)))
        .node(node("MatMul", ["x", "w"], "wide"))
        .node(node("Tanh", ["wide"], "bent"))
        .node(node("MatMul", ["bent", "v"], "y"))
        .output("y", &["batch", "rows", &n.to_string()])
        .model()
}

/// Rows of very different sizes, one of zeros among them.
fn rows(count: usize) -> Vec<f32> {
    let size = |row: usize| if row == 3 { 0.0 } else { 10f32.powi(row as i32 % 7 - 3) };
    noise(count * WIDTHS[0], 43).iter().enumerate().map(|(at, v)| v * size(at / WIDTHS[0])).collect()
}

/// The furthest that a row's result is from what it is alone, in any company.
fn furthest(runtime: &dyn Runtime, model: &Model) -> f32 {
    const COUNT: usize = 24;
    let [k, _, n] = WIDTHS;
    let session = runtime.load_bytes(&model.to_bytes()).unwrap();
    let run = |shape: [usize; 2], x: &[f32]| {
        let x = Tensor::from_f32(&[shape[0], shape[1], k], x);
        session.run(&Tensors::from([("x".to_owned(), x)])).unwrap()["y"].to_f32().unwrap()
    };
    let x = rows(COUNT);
    let alone: Vec<f32> = x.chunks(k).flat_map(|row| run([1, 1], row)).collect();
    assert!(alone.chunks(n).enumerate().all(|(row, y)| (row == 3) == y.iter().all(|&v| v == 0.0)));
    let mut company: Vec<Vec<f32>> = [[1, COUNT], [COUNT, 1], [3, 8], [8, 3], [2, 12]]
        .into_iter()
        .map(|shape| run(shape, &x))
        .collect();
    // In chunks, as a stream; behind padding of another size.
    for length in [5, 7, 16] {
        company.push(x.chunks(k * length).flat_map(|part| run([1, part.len() / k], part)).collect());
    }
    let padding = vec![1e4; 6 * k];
    company.push(run([1, COUNT + 6], &[padding, x].concat()).split_off(6 * n));
    let apart = |(a, b): (&f32, &f32)| if a.to_bits() == b.to_bits() { 0.0 } else { (a - b).abs() };
    company.iter().flat_map(|y| y.iter().zip(&alone).map(apart)).fold(0.0, f32::max)
}

#[test]
fn a_row_is_the_same_bytes_in_any_company() {
    let mut runtimes: Vec<Box<dyn Runtime>> = vec![Box::new(Tract)];
    for threads in [1, 2] {
        let options = runtime::Options::EXACT.with_threads(threads);
        runtimes.extend(onnxruntime_with("a_row_is_the_same_bytes_in_any_company", options));
    }
    for runtime in &runtimes {
        for terms in [Terms::One, Terms::Two] {
            let of = |granularity| {
                let mut model = two_products();
                let options = Options { terms, granularity, reduce_range: true, ..Options::default() };
                quantize(&mut model, &options).unwrap();
                furthest(runtime.as_ref(), &model)
            };
            let name = runtime.name_and_version();
            assert!(of(Granularity::Row) == 0.0, "{name}, {terms:?}");
            assert!(of(Granularity::Tensor) > 1e-3, "{name}, {terms:?}: the negative twin");
        }
    }
}

#[test]
fn a_term_is_its_formula_in_each_row() {
    let [k, n, _] = WIDTHS;
    let (weight, x) = (noise(k * n, 41), rows(6));
    for (terms, tolerance) in [(Terms::One, 1e-5), (Terms::Two, 2e-5)] {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { terms, ..Options::default() }).unwrap();
        let got = run(&model, &[1, 6, k], &x);
        for (row, x) in x.chunks(k).enumerate() {
            let s = x.iter().fold(1e-30f32, |most, v| most.max(v.abs()));
            let levels: Vec<f32> = match terms {
                Terms::One => x.iter().map(|v| (v / s * 127.0).round_ties_even() / 127.0).collect(),
                Terms::Two => {
                    let first = |v: &f32| (v / s * 63.0).round_ties_even() / 63.0;
                    let second =
                        |v: &f32| ((v / s - first(v)) * 63.0 * 126.0).round_ties_even() / 63.0 / 126.0;
                    x.iter().map(|v| first(v) + second(v)).collect()
                }
            };
            for column in 0..n {
                let step = (0..k).map(|at| weight[at * n + column].abs()).fold(0f32, f32::max) / 127.0;
                let whole = |at: usize| (weight[at * n + column] / step).round_ties_even();
                let sum: f32 = (0..k).map(|at| levels[at] * whole(at)).sum();
                let peak: f32 = (0..k).map(|at| (levels[at] * whole(at)).abs()).sum();
                let (want, got) = (sum * s * step, got[row * n + column]);
                assert!(
                    (want - got).abs() <= tolerance * peak * s * step,
                    "{row} {column}: {want} {got}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let [k, n, _] = WIDTHS;
    let weight = noise(k * n, 41);
    for terms in [Terms::One, Terms::Two] {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { terms, ..Options::default() }).unwrap();
        let clean = run(&model, &[1, 3, k], &rows(3));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = rows(3);
            x[k + 5] = bad;
            let got = run(&model, &[1, 3, k], &x);
            assert!(got[..n] == clean[..n] && got[2 * n..] == clean[2 * n..], "{terms:?} {bad}");
        }
    }
}

/// A product with a bias behind it, near or far.
fn biased(between: &[&str]) -> Model {
    let [k, n, _] = WIDTHS;
    let mut graph = TestGraph::new()
        .input("x", &["batch", "rows", &k.to_string()])
        .initializer(initializer_f32("w", &[k, n], &noise(k * n, 41)))
        .initializer(initializer_f32("b", &[n], &noise(n, 44)))
        .initializer(initializer_f32("1", &[], &[1.0]))
        .initializer(crate::ir::initializer_i64("same", &[3], &[0, 0, -1]));
    let mut last = "product".to_owned();
    graph = graph.node(node("MatMul", ["x", "w"], "product"));
    for op in between {
        let next = format!("{last}/{op}");
        let second = match *op {
            "Mul" => Some("1"),
            "Reshape" => Some("same"),
            _ => None,
        };
        graph = graph.node(node(op, [Some(last.as_str()), second].into_iter().flatten(), &next));
        last = next;
    }
    graph.node(node("Add", [&last, "b"], "y")).output("y", &["batch", "rows", &n.to_string()]).model()
}

#[test]
fn a_bias_is_not_scaled_with_the_rows() {
    let Some(onnxruntime) = onnxruntime("a_bias_is_not_scaled_with_the_rows") else { return };
    let x = rows(6);
    let shape = [1, 6, WIDTHS[0]];
    for between in [&[][..], &["Identity"], &["Mul"], &["Identity", "Mul"], &["Reshape"]] {
        let fp32 = biased(between);
        let want = run(&fp32, &shape, &x);
        for terms in [Terms::One, Terms::Two] {
            let mut model = fp32.clone();
            let options = Options { terms, reduce_range: true, ..Options::default() };
            quantize(&mut model, &options).unwrap();
            for runtime in [&Tract, onnxruntime.as_ref()] as [&dyn Runtime; 2] {
                let found = snr(&want, &run_in(runtime, &model, &shape, &x));
                assert!(found > 32.0, "{between:?} {terms:?} {}: {found:.1} dB", runtime.name());
            }
        }
    }
}

/// As [`product`]; nothing in the graph says how many axes the activation has.
fn product_of_any_rank(weight: &[f32], [k, n]: [usize; 2]) -> Model {
    TestGraph::new()
        .input("x", &["batch", "rows", &k.to_string()])
        .initializer(initializer_f32("w", &[k, n], weight))
        .node(node("Shape", ["x"], "shape"))
        .node(node("Reshape", ["x", "shape"], "z"))
        .node(node("MatMul", ["z", "w"], "y"))
        .output("y", &["batch", "rows", &n.to_string()])
        .model()
}

#[test]
fn of_no_rows_nothing_comes() {
    let Some(onnxruntime) = onnxruntime("of_no_rows_nothing_comes") else { return };
    let [k, n, _] = WIDTHS;
    let weight = noise(k * n, 41);
    for terms in [Terms::One, Terms::Two] {
        for make in [product, product_of_any_rank] {
            for opset in [17, 18] {
                let fp32 = graphs::at_opset(make(&weight, [k, n]), opset);
                let mut model = fp32.clone();
                quantize(&mut model, &Options { terms, reduce_range: true, ..Options::default() })
                    .unwrap();
                let x = rows(4);
                let want = run(&fp32, &[2, 2, k], &x);
                let there = run_in(onnxruntime.as_ref(), &model, &[2, 2, k], &x);
                let here = run(&model, &[2, 2, k], &x);
                assert!(snr(&want, &there) > 32.0 && snr(&want, &here) > 32.0, "{terms:?} {opset}");
                let session = onnxruntime.load_bytes(&model.to_bytes()).unwrap();
                for shape in [[1, 0, k], [0, 3, k]] {
                    let x = Tensors::from([("x".to_owned(), Tensor::from_f32(&shape, &[]))]);
                    assert_eq!(session.run(&x).unwrap()["y"].shape(), [shape[0], shape[1], n]);
                }
            }
        }
    }
}
