//! What is written directly from a Vocos decoder's weights is what passes end in.

use super::*;
use crate::front::Asked;
use crate::front::vocos::Dimensions;
use crate::front::vocos::testing::{State, VOCOS, of, small};
use crate::names::{Ports, Role};
use crate::tensor::Tensor;

/// The graph of a checkpoint, which no pass changes.
fn written(state: &State, opset: u32) -> Model {
    let ports = Ports::usual(Role::Signal);
    let (hidden_states, last_logits) = (&[][..], false);
    let asked = Asked { checkpoint: "".as_ref(), opset, ports: &ports, hidden_states, last_logits };
    let drafted = VOCOS.draft_of(state.weights(), &asked).unwrap();
    let mut model = drafted.draft.whole("decoder.onnx").unwrap();
    model.check().unwrap();
    assert!(names_are_unique(&model));
    let before = model.to_bytes();
    let report = Driver::new(SIGNAL).run(&mut model).unwrap();
    let applied: Vec<_> = report.passes.iter().filter(|pass| pass.applied > 0).collect();
    assert!(applied.is_empty(), "opset {opset}: {applied:?}");
    assert!(model.to_bytes() == before, "opset {opset}");
    model
}

/// Samples of two sounds of five frames.
fn audio(model: &Model, channels: usize) -> Vec<Tensor> {
    let frames: Vec<f32> = (0..2 * channels * 5).map(|i| (i as f32 * 0.91).cos()).collect();
    run(model, &[("hidden_states", &[2, channels, 5], &frames)])
}

fn count(model: &Model, op: &str) -> usize {
    ops(model).iter().filter(|is| **is == op).count()
}

/// Every form that an opset has, of both kinds of embedding, with symmetric windows and others.
#[test]
fn no_pass_changes_what_is_written_at_any_opset() {
    let both = [1, 3].map(|input_kernel| {
        let (dw_kernel, n_fft) = (5, 16);
        let rest = Dimensions {
            input_channels: 5,
            dim: 6,
            intermediate_dim: 8,
            layers: 2,
            input_kernel,
            dw_kernel,
            n_fft,
        };
        of(&rest)
    });
    for state in &both {
        let mut lopsided = state.clone();
        lopsided.change("head.istft.window", |at, w| w + 0.02 * at as f32 + 0.1);
        for state in [state, &lopsided] {
            let expected = audio(&written(state, 17), 5);
            assert_eq!(expected[0].shape(), [2, 64]);
            for opset in 13..=20 {
                let model = written(state, opset);
                assert_eq!(count(&model, "LayerNormalization"), if opset < 17 { 0 } else { 4 });
                assert_eq!(count(&model, "Gelu"), if opset < 20 { 0 } else { 2 });
                let off = max_diff(&audio(&model, 5), &expected);
                assert!(off < 2e-6, "opset {opset}: {off:e}");
            }
        }
    }
}

/// A layer whose weights can't take up what stands next to them keeps it, as it keeps it from the passes.
#[test]
fn what_can_not_be_folded_stays() {
    let whole = written(&small(), 17);
    let (muls, adds, constants) =
        (count(&whole, "Mul"), count(&whole, "Add"), whole.graph_proto().initializer.len());
    let with = |change: &dyn Fn(&mut State)| {
        let mut state = small();
        change(&mut state);
        let model = written(&state, 17);
        let more = count(&model, "Mul") - muls;
        (
            more,
            count(&model, "Add") - adds,
            model.graph_proto().initializer.len() as i64 - constants as i64,
        )
    };
    assert_eq!(with(&|_| ()), (0, 0, 0));
    // A scale that leaves no normal number: one more product, and the scale itself.
    assert_eq!(with(&|state| state.change("decoder.convnext.1.gamma", |_, g| g * 1e-38)), (1, 0, 1));
    assert_eq!(with(&|state| state.change("decoder.convnext.1.gamma", |_, _| 0.0)), (0, 0, 0));
    assert_eq!(
        with(&|state| state.change("decoder.convnext.1.pwconv2.bias", |at, b| if at == 3 {
            1e-38
        } else {
            b
        })),
        (1, 0, 1)
    );
    // A bias that the weights would round: an addition, the bias, and scale and bias of the normalization.
    assert_eq!(
        with(&|state| state.change("decoder.convnext.0.pwconv1.bias", |at, b| if at == 3 {
            100.0
        } else {
            b
        })),
        (0, 1, 3)
    );
    assert_eq!(
        with(&|state| state.change("head.out.bias", |at, b| if at == 3 { 100.0 } else { b })),
        (0, 1, 3)
    );
    // Weights whose products with a scale are no numbers of theirs.
    let largest = |at: usize, _| if at.is_multiple_of(2) { 3e38 } else { -3e38 };
    assert_eq!(with(&|state| state.change("head.out.weight", largest)), (0, 1, 3));
    // Weights that two products have are one constant, which neither may change.
    assert_eq!(
        with(&|state| state
            .copy("decoder.convnext.0.pwconv1.weight", "decoder.convnext.1.pwconv1.weight")),
        (0, 2, 5)
    );
    assert_eq!(
        with(&|state| state
            .copy("decoder.convnext.0.pwconv2.weight", "decoder.convnext.1.pwconv2.weight")),
        (2, 0, 1)
    );
}

/// Equal constants are one, of whatever layer they are.
#[test]
fn equal_constants_are_one() {
    let mut state = small();
    let constants = |state: &State| written(state, 17).graph_proto().initializer.len();
    let before = constants(&state);
    state.copy("decoder.convnext.0.dwconv.weight", "decoder.convnext.1.dwconv.weight");
    state.copy("decoder.convnext.0.dwconv.bias", "decoder.norm.bias");
    assert_eq!(constants(&state), before - 2);
}
