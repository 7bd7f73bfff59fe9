//! Small checkpoints for tests.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};

use super::{Dimensions, Vocos};
use crate::source::Weights;

/// A family of decoders.
pub(crate) const VOCOS: Vocos = Vocos {
    file: "decoder.pth",
    upscale: 4,
    hops: 4,
    magnitude_limit: 100.0,
    sample_rate: 32_000,
    version,
};

fn version(_: &Dimensions) -> &'static str {
    "test"
}

/// Tensors by name: shapes and values.
#[derive(Clone, Default)]
pub(crate) struct State(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl State {
    /// Puts a tensor in, or another in its place.
    pub(crate) fn put(&mut self, name: &str, shape: &[usize], value: impl Fn(usize) -> f32) {
        let count = shape.iter().product();
        self.0.insert(name.to_owned(), (shape.to_vec(), (0..count).map(value).collect()));
    }

    /// Changes a tensor's values.
    pub(crate) fn change(&mut self, name: &str, value: impl Fn(usize, f32) -> f32) {
        let (_, values) = self.0.get_mut(name).unwrap();
        values.iter_mut().enumerate().for_each(|(at, v)| *v = value(at, *v));
    }

    /// Gives a tensor the values of another.
    pub(crate) fn copy(&mut self, from: &str, to: &str) {
        let tensor = self.0[from].clone();
        self.0.insert(to.to_owned(), tensor);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name).unwrap();
    }

    pub(super) fn keep(&mut self, which: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| which(name));
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Gives a tensor one more axis, of length 1.
    pub(super) fn widen(&mut self, name: &str) {
        self.0.get_mut(name).unwrap().0.insert(0, 1);
    }

    /// Changes the start of names.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let renamed =
            |name: String| name.strip_prefix(from).map(|rest| format!("{to}{rest}")).unwrap_or(name);
        let tensors = std::mem::take(&mut self.0).into_iter();
        self.0 = tensors.map(|(name, tensor)| (renamed(name), tensor)).collect();
    }

    /// As a checkpoint has them.
    pub(crate) fn weights(&self) -> Weights {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = (self.0.iter())
            .map(|(name, (shape, values))| {
                (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        Weights::from_safetensors_bytes(file.into(), "decoder.pth".as_ref()).unwrap()
    }
}

/// A decoder of every kind of layer.
pub(crate) fn small() -> State {
    of(&Dimensions {
        input_channels: 5,
        dim: 6,
        intermediate_dim: 8,
        layers: 2,
        input_kernel: 3,
        dw_kernel: 7,
        n_fft: 16,
    })
}

/// A decoder of these dimensions, no two values of a tensor alike, and a window that is symmetric.
pub(crate) fn of(dimensions: &Dimensions) -> State {
    let mut state = State::default();
    for (at, (name, shape)) in dimensions.tensors().into_iter().enumerate() {
        let centre = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        state.put(&name, &shape, |i| centre + 0.5 * ((i + 1) as f32 * 0.37 + at as f32 * 1.7).sin());
    }
    let n_fft = dimensions.n_fft;
    let hann = |i: usize| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n_fft as f64).cos()) as f32;
    state.put(super::dimensions::WINDOW, &[n_fft], hann);
    state
}
