//! Products with weights that are widened a tile at a time.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::{Numbers, Parameter, Parameters, Rows};
use crate::source::Refused;

/// Outputs whose weights are widened together: 192 rows of 768 are 1.2 MB.
const TILE: usize = 192;
/// Rows that are multiplied together.
const BLOCK: usize = 256;
/// Up to so many rows are multiplied one by one: packing them for a matrix product costs more.
const FEW: usize = 4;
/// Fewer multiplications than this, or values to change, are one thread's: waking another takes as long.
const SMALL: usize = 1 << 20;

/// y = x·Wᵀ + b, W [outputs, inputs].
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
    outputs: usize,
    inputs: usize,
}

impl Linear {
    /// `{name}.weight` [outputs, inputs], and `{name}.bias` [outputs] where there is one.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub(crate) fn new(
        of: Parameters<'_>,
        name: &str,
        [outputs, inputs]: [usize; 2],
        has_bias: bool,
    ) -> Result<Self, Refused> {
        let weight = of.get(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = has_bias.then(|| of.get(&format!("{name}.bias"), &[outputs])).transpose()?;
        Ok(Self { weight, bias, outputs, inputs })
    }

    /// Of a convolution, as a product over windows: [outputs, channels, width] with its bias.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub(crate) fn convolution(
        of: Parameters<'_>,
        name: &str,
        shape: [usize; 3],
    ) -> Result<Self, Refused> {
        let [outputs, channels, width] = shape;
        let weight = of.get(&format!("{name}.weight"), &shape)?;
        let bias = Some(of.get(&format!("{name}.bias"), &[outputs])?);
        Ok(Self { weight, bias, outputs, inputs: channels.saturating_mul(width) })
    }

    /// x [rows, inputs] to [rows, outputs].
    pub(crate) fn apply(&self, x: ArrayView2<'_, f64>, numbers: Numbers) -> Rows {
        let bias = self.bias.as_ref().map(|bias| bias.values(numbers));
        let mut y = Rows::zeros((x.nrows(), self.outputs));
        let tiles: Vec<ArrayViewMut2<'_, f64>> = y.axis_chunks_iter_mut(Axis(1), TILE).collect();
        let one = |wide: &mut Vec<f64>, (tile, mut y): (usize, ArrayViewMut2<'_, f64>)| {
            if x.nrows() <= FEW && numbers == Numbers::Exact {
                for (at, mut y) in y.columns_mut().into_iter().enumerate() {
                    let w = self.widened(tile * TILE + at, 1, numbers, wide);
                    y.iter_mut().zip(x.rows()).for_each(|(y, x)| *y = dot(w.row(0), x));
                }
            } else {
                let w = self.widened(tile * TILE, y.ncols(), numbers, wide);
                let blocks = x.axis_chunks_iter(Axis(0), BLOCK);
                for (x, y) in blocks.zip(y.axis_chunks_iter_mut(Axis(0), BLOCK)) {
                    general_mat_mul(1.0, &w, &x.t(), 0.0, &mut y.reversed_axes());
                }
            }
            if let Some(bias) = &bias {
                let bias = ArrayView1::from(&bias[tile * TILE..][..y.ncols()]);
                y.rows_mut().into_iter().for_each(|mut row| row += &bias);
            }
        };
        if x.len().saturating_mul(self.outputs) < SMALL {
            tiles.into_iter().enumerate().for_each(|tile| one(&mut Vec::new(), tile));
        } else {
            tiles.into_par_iter().enumerate().for_each_init(Vec::new, one);
        }
        y
    }

    /// The product the other way, y [rows, outputs] to y·W [rows, inputs]: what a gradient takes. For few rows: each tile
    /// has a sum of its own, which are added at the end.
    pub(crate) fn transposed(&self, y: ArrayView2<'_, f64>) -> Rows {
        let tiles: Vec<_> = y.axis_chunks_iter(Axis(1), TILE).enumerate().collect();
        let one = |wide: &mut Vec<f64>, (tile, y): (usize, ArrayView2<'_, f64>)| {
            let mut x = Rows::zeros((y.nrows(), self.inputs));
            let w = self.widened(tile * TILE, y.ncols(), Numbers::Exact, wide);
            general_mat_mul(1.0, &w.t(), &y.t(), 0.0, &mut x.view_mut().reversed_axes());
            x
        };
        let parts: Vec<Rows> = tiles.into_par_iter().map_init(Vec::new, one).collect();
        parts.into_iter().fold(Rows::zeros((y.nrows(), self.inputs)), |sum, part| sum + part)
    }

    /// The widened weights of some outputs, [outputs, inputs].
    fn widened<'a>(
        &self,
        first: usize,
        outputs: usize,
        numbers: Numbers,
        wide: &'a mut Vec<f64>,
    ) -> ArrayView2<'a, f64> {
        let from = first * self.inputs;
        wide.resize(outputs * self.inputs, 0.0);
        self.weight.widen(from..from + wide.len(), numbers, wide);
        ArrayView2::from_shape((outputs, self.inputs), wide).expect("as many weights as outputs need")
    }
}

/// Σ aᵢ·bᵢ, in eight sums that are added at the end.
fn dot(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    let (Some(a), Some(b)) = (a.as_slice(), b.as_slice()) else { return a.dot(&b) };
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Changes each row by itself, in parallel.
pub(crate) fn by_rows(x: &mut Rows, change: impl Fn(usize, &mut [f64]) + Sync) {
    let channels = x.ncols().max(1);
    let rows = x.as_slice_mut().expect("rows stand one after another");
    let few = (SMALL / 64 / channels).max(1);
    rows.par_chunks_mut(channels).enumerate().with_min_len(few).for_each(|(at, row)| change(at, row));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_any_threads, rows, weights};
    use super::*;
    use crate::tensor::Tensor;

    /// A product of f32 weights, and the weights.
    fn linear(outputs: usize, inputs: usize) -> (Linear, Rows, Vec<f64>) {
        let (w, b) = (rows(outputs, inputs, 1), rows(1, outputs, 2));
        let tensor = |shape: &[usize], values: &Rows| {
            Tensor::from_f32(shape, &values.iter().map(|&x| x as f32).collect::<Vec<_>>())
        };
        let tensors = [
            ("a.weight".to_owned(), tensor(&[outputs, inputs], &w)),
            ("a.bias".to_owned(), tensor(&[outputs], &b)),
        ];
        let weights = weights(tensors.into());
        let linear = Linear::new(Parameters(&weights), "a", [outputs, inputs], true).unwrap();
        let narrow = |x: &f64| f64::from(*x as f32);
        (linear, w.map(narrow), b.iter().map(narrow).collect())
    }

    #[test]
    fn every_number_of_rows_gives_the_sums_of_the_definition() {
        for (outputs, inputs) in [(1, 1), (7, 13), (192, 40), (450, 301)] {
            let (linear, w, b) = linear(outputs, inputs);
            for count in [0, 1, FEW, FEW + 1, 30, BLOCK + 3] {
                let x = rows(count, inputs, 3);
                let y = on_any_threads(|| linear.apply(x.view(), Numbers::Exact));
                assert_eq!(y.dim(), (count, outputs));
                for ((row, at), y) in y.indexed_iter() {
                    let (x, w) = (x.row(row), w.row(at));
                    let terms = x.iter().zip(w.iter()).map(|(x, w)| x * w);
                    let want = terms.sum::<f64>() + b[at];
                    assert!((want - y).abs() < 1e-13 * inputs as f64, "{outputs} {inputs} {count}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (linear, ..) = linear(450, 301);
        let x = rows(300, 301, 3);
        let all = linear.apply(x.view(), Numbers::Exact);
        let some = linear.apply(x.slice(ndarray::s![17..90, ..]), Numbers::Exact);
        assert_eq!(all.slice(ndarray::s![17..90, ..]), some);
    }

    #[test]
    fn moved_weights_move_the_product_by_a_last_bit_of_its_terms() {
        let (linear, w, b) = linear(450, 301);
        for count in [1, 40] {
            let x = rows(count, 301, 3);
            let exact = linear.apply(x.view(), Numbers::Exact);
            let moved = linear.apply(x.view(), Numbers::Moved { seed: 1 });
            assert_eq!(moved, linear.apply(x.view(), Numbers::Moved { seed: 1 }));
            for ((row, at), y) in exact.indexed_iter() {
                let (x, w) = (x.row(row), w.row(at));
                let terms = x.iter().zip(w.iter()).map(|(x, w)| (x * w).abs());
                let most = (terms.sum::<f64>() + b[at].abs()) / (1 << 24) as f64;
                let by = (moved[(row, at)] - y).abs();
                assert!(by > 0.0 && by <= most * 1.001, "{by} {most}");
            }
        }
    }

    #[test]
    fn the_way_back_is_the_transposed_product() {
        let (linear, w, _) = linear(450, 301);
        let y = rows(9, 450, 5);
        let x = on_any_threads(|| linear.transposed(y.view()));
        for ((row, at), x) in x.indexed_iter() {
            let want: f64 = y.row(row).iter().zip(w.column(at)).map(|(y, w)| y * w).sum();
            assert!((want - x).abs() < 1e-11);
        }
    }

    #[test]
    fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
        let weights = weights([("a.weight".to_owned(), Tensor::from_f32(&[2, 3], &[0.0; 6]))].into());
        let why = |name: &str, shape, bias| {
            Linear::new(Parameters(&weights), name, shape, bias).map(|_| ()).unwrap_err()
        };
        assert!(Linear::new(Parameters(&weights), "a", [2, 3], false).is_ok());
        let error = why("a", [3, 2], false);
        assert_eq!(error.code, "checkpoint-shape");
        assert_eq!(error.message, "w: tensor `a.weight` is [2, 3], expected [3, 2]");
        assert_eq!(why("a", [2, 3], true).message, "w: tensor `a.bias` is missing");
        assert_eq!(why("b", [2, 3], true).message, "w: tensor `b.weight` is missing");
    }
}
