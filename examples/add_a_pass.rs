//! A pass and a surgery of one's own, run by the same driver as those of the library. One that stays belongs into
//! `src/passes/` as a file and a line: see `docs/adding-a-pass.md`.
//!
//! ```text
//! cargo run --release --example add_a_pass
//! ```

use soprano_export::ir::{Graph, Model, NodeId, Patch, TestGraph, node};
use soprano_export::passes::{Driver, Error, Given, Pass, Refused, Skip, Step, Surgery};

/// `Neg(Neg(x))` is `x`.
struct CancelNegations;

impl Pass for CancelNegations {
    fn name(&self) -> &'static str {
        "cancel-negations"
    }

    fn rules(&self) -> &'static str {
        "Neg(Neg(x))  =>  x\nnot: where the outer one is an output of the graph"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let outer = graph.node(id);
        if !graph.is(outer, "Neg") {
            return Err(Skip::NoMatch);
        }
        let inner = outer.input_at(0).and_then(|value| graph.maker_of(value, "Neg"));
        let x = inner.and_then(|(_, inner)| inner.input_at(0)).ok_or(Skip::NoMatch)?;
        let y = outer.output_at(0).ok_or(Skip::NoMatch)?;
        if graph.is_output(y) {
            return Err(Skip::Refused("its output is one of the graph, and must keep its name"));
        }
        // The inner one may serve other nodes: it goes as an unused node, if it doesn't.
        Ok(Patch::at(id).remove(id).redirect(y, x))
    }
}

/// The first output becomes the only one.
struct KeepFirstOutput;

impl Surgery for KeepFirstOutput {
    fn name(&self) -> &'static str {
        "keep-first-output"
    }

    fn rules(&self) -> &'static str {
        "outputs y1, y2, ...  =>  output y1"
    }

    fn run(&self, model: &mut Model, _: &Given) -> Result<usize, Refused> {
        let graph = model.proto_mut().graph.as_mut().expect("a model has a graph");
        match graph.output.len() {
            0 => Err(Refused::Port { role: "logits", why: "the graph has no output".to_owned() }),
            outputs => {
                graph.output.truncate(1);
                Ok(outputs - 1)
            }
        }
    }
}

const STEPS: &[Step] = &[Step::Surgery(&KeepFirstOutput), Step::Passes(&[&CancelNegations])];

fn model() -> Model {
    TestGraph::new()
        .input("x", &["n"])
        .node(node("Neg", ["x"], "a"))
        .node(node("Neg", ["a"], "b"))
        .node(node("Relu", ["b"], "y"))
        .node(node("Neg", ["a"], "z"))
        .output("y", &["n"])
        .output("z", &["n"])
        .model()
}

fn main() -> Result<(), Error> {
    // The pass alone: it reports which node it leaves, and why.
    let mut once = model();
    let report = Driver::new(&STEPS[1..]).run(&mut once)?;
    assert_eq!((report.passes[0].applied, report.passes[0].refused.len()), (1, 1));
    let (node, why) = &report.passes[0].refused[0];
    println!("{} leaves {node:?}: {why}", report.passes[0].pass);

    // After the surgery nothing is left to refuse: the driver has dropped what fed the second output.
    let mut both = model();
    let report = Driver::new(STEPS).run(&mut both)?;
    assert_eq!(report.nodes.0, 4);
    assert!(report.passes.iter().all(|pass| pass.applied == 1 && pass.refused.is_empty()));
    assert_eq!(both.graph_proto().node.last().and_then(|node| node.input_at(0)), Some("x"));
    for pass in &report.passes {
        println!("{}: {} applied", pass.pass, pass.applied);
    }
    Ok(())
}
