//! Opening, rewriting and writing models of full size. Weights are made here, so nothing is needed.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use soprano_export::ir::{Model, TestGraph, initializer_f32, node};
use soprano_export::passes::Driver;

/// A stack of linear layers whose scales can be folded: `layers` weights of [768, 2304].
fn stack(layers: usize) -> Model {
    let (rows, columns) = (768, 2304);
    let mut graph = TestGraph::new().input("x0", &["t", "768"]);
    for layer in 0..layers {
        let values: Vec<f32> = (0..rows * columns).map(|i| ((i + layer) % 251) as f32 * 1e-3).collect();
        let name = |what: &str| format!("{what}{layer}");
        graph = graph
            .initializer(initializer_f32(&name("w"), &[rows, columns], &values))
            .initializer(initializer_f32(&name("b"), &[columns], &values[..columns]))
            .initializer(initializer_f32(&name("g"), &[columns], &values[1..=columns]))
            .node(node("MatMul", ["x0".to_owned(), name("w")], name("p")))
            .node(node("Add", [name("p"), name("b")], name("s")))
            .node(node("Mul", [name("s"), name("g")], name("y")))
            .output(&name("y"), &["t", "2304"]);
    }
    graph.model()
}

fn models(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let large = folder.path().join("large.onnx");
    let written = stack(43).write(&large).expect("300 MB of disk");
    eprintln!("model of {} bytes", written.bytes);
    let mut group = c.benchmark_group("300 MB");
    group.sample_size(10);
    group.bench_function("open", |b| b.iter(|| Model::open(black_box(&large)).unwrap()));
    let model = Model::open(&large).unwrap();
    group.bench_function("check", |b| b.iter(|| model.check().unwrap()));
    let copy = folder.path().join("copy.onnx");
    group.bench_function("write and hash", |b| b.iter(|| model.write(&copy).unwrap()));
    group.bench_function("rewrite every weight", |b| {
        b.iter(|| Driver::default().run(&mut model.clone()));
    });
    group.finish();
}

criterion_group!(benches, models);
criterion_main!(benches);
