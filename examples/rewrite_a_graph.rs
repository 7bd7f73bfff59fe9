//! Rewrites a small model as a build rewrites an exported one: passes to their fixed point, then a check.
//!
//! ```text
//! cargo run --release --example rewrite_a_graph
//! ```

use soprano_export::ir::{Attr, Model, TestGraph, initializer_f32, node};
use soprano_export::passes::{self, Driver, Given, SIGNAL};
use soprano_export::runtime::{Runtime, Tensors, Tract};
use soprano_export::tensor::Tensor;

/// `y = 2 (x W + b)`, with the factor in a node of its own and a product that nothing reads, as exporters leave them.
fn exported() -> Model {
    let factor = Attr::Tensor(initializer_f32("", &[1], &[2.0]));
    TestGraph::new()
        .input("x", &["rows", "2"])
        .initializer(initializer_f32("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .initializer(initializer_f32("b", &[3], &[0.5, -0.5, 0.25]))
        .node(node("Constant", [""; 0], "factor").attr("value", factor))
        .node(node("Identity", ["x"], "same"))
        .node(node("MatMul", ["same", "w"], "product"))
        .node(node("Add", ["product", "b"], "sum"))
        .node(node("Mul", ["sum", "factor"], "y"))
        .node(node("Exp", ["product"], "forgotten"))
        .output("y", &["rows", "3"])
        .model()
}

/// What the model says to one row, in tract.
fn says(model: &Model) -> Vec<f32> {
    let session = Tract.load_bytes(&model.to_bytes()).expect("tract loads it");
    let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(&[1, 2], &[1.0, -1.0]))]);
    session.run(&inputs).expect("tract runs it")["y"].to_f32().expect("floats")
}

fn main() {
    let before = exported();

    // Every pass, as `soprano-export pass run` does.
    let mut model = before.clone();
    let report =
        passes::rewrite(&mut model, SIGNAL, None, Given::default()).expect("passes alone never fail");
    model.check().expect("what was right stays right");
    for pass in &report.passes {
        println!("{}: {} applied, {} refused", pass.pass, pass.applied, pass.refused.len());
    }
    println!("nodes {} -> {}", report.nodes.0, report.nodes.1);
    // The factor is in the weights and the bias now.
    assert_eq!(report.nodes, (6, 2));
    assert_eq!(says(&model), says(&before));

    // Some of them, up to a number of patches: how a bad patch is found.
    let mut model = before.clone();
    let driver =
        Driver::of(&["lift-constants", "identity-elimination"]).expect("both exist").fuel(Some(1));
    let report = driver.run(&mut model).expect("passes alone never fail");
    assert!(report.out_of_fuel);
    assert_eq!(report.passes[0].pass, "lift-constants");

    // A name that no pass has is an error that says which was meant.
    let error = Driver::of(&["fold-scales"]).err().expect("there is none");
    println!("{error}");
}
