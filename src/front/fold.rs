//! Linear layers that take up what stands before or after them.

use rayon::prelude::*;

/// The bias s that the normalization keeps. It divides b″ and multiplies the rounding of W′: at 1/4 the
/// decoder's error is least in ONNX Runtime and in OpenVINO alike (1 and 1/16 are worse in both).
pub(crate) const BIAS: f32 = 0.25;

/// How far the rounding of a bias in W′ may go, over what W″ contributes.
const ROUNDING: f64 = 1e-6;

/// How large a b″ may be over the largest norm of a column of W″ less its mean, which is what that column
/// gives for a z of uncorrelated elements, as a root mean square: 3.36.
///
/// The share b″ / (n s) in each element of W′ is rounded by u = 2⁻²⁴ of itself. Over a column that comes to
/// u |b″| / (n s) · Σ |z_k + s| at most, and Σ |z_k| ≤ √n ‖z‖ ≤ n: u |b″| (1 + s) / s.
///
/// Where x has a mean of m standard deviations, z is off by about u m in every element before any weight: the
/// sum comes to n u m, and y is off by u m |b″| / s more. No weight tells m. In ONNX Runtime, at the largest
/// bias that is folded and m = 100, that is 1e-5 of the peak for n = 512 and 3e-5 for n = 8.
fn largest_bias() -> f64 {
    let s = f64::from(BIAS);
    ROUNDING * s / (f64::from(f32::EPSILON) / 2.0 * (1.0 + s))
}

/// Scale γ and bias β of a layer normalization, and the bias b of the linear layer after it, in that layer's weights:
/// the addition goes.
///
/// A normalized vector z of n elements sums to zero, so a matrix may gain the same row u any number of
/// times unseen: zᵀ(W + 1uᵀ) = zᵀW. Fed z + s1 instead, that row comes out as the bias:
///
/// ```text
/// (γz + β)ᵀW + b  =  zᵀW″ + b″              W″ = diag(γ)W,  b″ = βᵀW + b
///                 =  (z + s1)ᵀW′            W′[k, j] = W″[k, j] − mean_k W″[k, j] + b″[j] / (n s)
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Normed {
    /// γ [n].
    scale: Vec<f32>,
    /// mean_k W″[k, j], [m].
    mean: Vec<f64>,
    /// b″[j] / (n s), [m].
    share: Vec<f64>,
}

impl Normed {
    /// What moves into W [n, m], row-major, from γ [n], β [n] and b [m].
    ///
    /// # Errors
    /// A sentence, where W′ would not be finite, or round a bias too much.
    pub(crate) fn of(
        weight: &[f32],
        scale: Vec<f32>,
        beta: &[f32],
        bias: &[f32],
    ) -> Result<Self, &'static str> {
        let columns = bias.len();
        let weight = Matrix { values: weight, columns };
        let starts: Vec<usize> = (0..columns).step_by(TOGETHER).collect();
        // Columns know nothing of each other: any number of cores comes to the same sums.
        let parts: Vec<Columns> = (starts.par_iter())
            .map(|&start| weight.sums(start, &scale, beta, &bias[start..columns.min(start + TOGETHER)]))
            .collect();
        let all = |of: fn(&Columns) -> &Vec<f64>| parts.iter().flat_map(of).copied();
        // A bias that is not finite makes its column so, and so does anything else that is not.
        let finite = parts.iter().all(|part| part.finite);
        if !finite || !beta.iter().chain(bias).all(|value| value.is_finite()) {
            return Err("a weight, scale or bias is not finite, or would not be");
        }
        let largest = |values: fn(&Columns) -> &Vec<f64>| {
            all(values).fold(0.0f64, |max, value| max.max(value.abs()))
        };
        if largest(|part| &part.bias) > largest_bias() * largest(|part| &part.squares).sqrt() {
            return Err("a bias so large that folded weights would round it too much");
        }
        let (mean, share) = (all(|part| &part.mean).collect(), all(|part| &part.share).collect());
        Ok(Self { scale, mean, share })
    }

    /// What makes W′ of a row k of W, column by column.
    pub(crate) fn row(&self, k: usize) -> impl Iterator<Item = impl Fn(f32) -> f32> {
        let scale = self.scale.get(k).copied().unwrap_or_default();
        let columns = self.mean.iter().zip(&self.share);
        columns.map(move |(&mean, &share)| move |w| folded(centred(scale, w, mean), share))
    }
}

/// W″[k, j] less its mean over k.
fn centred(scale: f32, weight: f32, mean: f64) -> f64 {
    f64::from(scale) * f64::from(weight) - mean
}

fn folded(centred: f64, share: f64) -> f32 {
    (centred + share) as f32
}

/// Columns that one core takes at a time.
const TOGETHER: usize = 256;

/// W [n, m], row-major.
struct Matrix<'a> {
    values: &'a [f32],
    columns: usize,
}

/// Sums over the rows of some columns.
struct Columns {
    mean: Vec<f64>,
    /// b″.
    bias: Vec<f64>,
    share: Vec<f64>,
    /// Σ_k (W″[k, j] − mean)².
    squares: Vec<f64>,
    finite: bool,
}

impl Matrix<'_> {
    fn sums(&self, start: usize, scale: &[f32], beta: &[f32], bias: &[f32]) -> Columns {
        let rows = scale.len() as f64;
        let columns = |row: usize| &self.values[row * self.columns + start..][..bias.len()];
        let mut mean = vec![0.0f64; bias.len()];
        let mut sum: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
        for (row, (&scale, &beta)) in scale.iter().zip(beta).enumerate() {
            for ((mean, sum), &w) in mean.iter_mut().zip(&mut sum).zip(columns(row)) {
                *mean += f64::from(scale) * f64::from(w) / rows;
                *sum += f64::from(beta) * f64::from(w);
            }
        }
        let per_bias = 1.0 / (rows * f64::from(BIAS));
        let share: Vec<f64> = sum.iter().map(|bias| bias * per_bias).collect();
        let (mut squares, mut finite) = (vec![0.0f64; bias.len()], true);
        for (row, &scale) in scale.iter().enumerate() {
            let sums = squares.iter_mut().zip(&mean).zip(&share);
            for (((square, &mean), &share), &w) in sums.zip(columns(row)) {
                let centred = centred(scale, w, mean);
                *square += centred * centred;
                finite &= folded(centred, share).is_finite();
            }
        }
        Columns { mean, bias: sum, share, squares, finite }
    }
}

/// The product of a weight and its scale.
///
/// # Errors
/// A sentence, where it is not finite, or too small for a normal number.
pub(crate) fn scaled(value: f32, scale: f32) -> Result<f32, &'static str> {
    let product = value * scale;
    if !product.is_finite() {
        return Err("a scaled weight or bias would not be finite");
    }
    if product.abs() < f32::MIN_POSITIVE && value != 0.0 && scale != 0.0 {
        return Err("a scaled weight or bias would be too small for a normal number");
    }
    Ok(product)
}
