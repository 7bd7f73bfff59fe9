//! What PyTorch answered, of the small models in `fixtures/float64`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Rows;
use crate::source::Weights;
use crate::tensor::TensorFile;

/// A file of `fixtures/float64`.
pub(crate) struct Recorded {
    pub(crate) file: TensorFile,
}

impl Recorded {
    pub(crate) fn read(name: &str) -> Self {
        let path = root().join(format!("fixtures/float64/{name}.safetensors"));
        Self { file: TensorFile::read(&path).unwrap() }
    }

    /// Its own weights, as a checkpoint has them.
    pub(crate) fn weights(&self) -> Weights {
        let tensors = self.file.tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix("weights/")?.to_owned(), tensor.clone()))
        });
        weights(tensors.collect())
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.file.tensors[name].shape().to_vec()
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.file.tensors[name].to_f32().unwrap()
    }

    pub(crate) fn whole(&self, name: &str) -> Vec<i64> {
        self.file.tensors[name].to_i64().unwrap()
    }
}

/// Tensors as a checkpoint's weights.
pub(crate) fn weights(tensors: BTreeMap<String, crate::tensor::Tensor>) -> Weights {
    let file = TensorFile { tensors, ..TensorFile::default() };
    Weights::from_safetensors_bytes(file.to_bytes().unwrap().into(), Path::new("w")).unwrap()
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The largest difference over the peak.
pub(crate) fn of_peak(want: &[f32], got: impl IntoIterator<Item = f64>) -> f64 {
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(want.len(), got.len());
    let peak = want.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    let largest = want.iter().zip(&got).map(|(w, g)| (f64::from(*w) - g).abs()).fold(0.0, f64::max);
    assert!(got.iter().all(|x| x.is_finite()));
    largest / f64::from(peak)
}

/// On one thread, and on two: the same bits.
pub(crate) fn on_any_threads<T: PartialEq + Send>(run: impl Fn() -> T + Sync) -> T {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run)
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3), "the number of threads shows");
    one
}

/// Numbers that look like nothing in particular.
pub(crate) fn rows(count: usize, channels: usize, seed: usize) -> Rows {
    let value = |(row, channel)| {
        let at: usize = row * 7919 + channel * 104_729 + seed * 1_299_709;
        (at.wrapping_mul(2_654_435_761) % 100_003) as f64 / 50_001.5 - 1.0
    };
    Rows::from_shape_fn((count, channels), value)
}
