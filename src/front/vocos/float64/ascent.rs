//! Frames that drive a decoder to its limits, by gradient ascent.
//!
//! What is ascended is what the decoder makes of each frame if it lasts: every convolution then sees that frame alone.
//! Interpolated frames are nearly so, and there are four times as many of them.

use ndarray::{Array1, Axis, Zip, s};

use super::{Block, EPSILON, InDouble, Norm};
use crate::front::float64::{Error, Frames, Numbers, Rows, Tick, argmax, by_rows, layer_norm};

/// Steps from where an ascent begins.
pub(super) const STEPS: usize = 12;
/// The root mean square of a frame's step.
const STEP: f64 = 0.3;
/// No number goes further.
const FURTHEST: f64 = 20.0;

/// Where an ascent goes: the slope of what is to grow, by log-magnitudes and phases of a frame.
type Goal = fn(&InDouble, &[f64], &mut [f64]);

/// To the magnitude limit, and to large phases.
const GOALS: [(&str, Goal); 2] = [("extreme_clip", louder), ("extreme_phase", further)];

/// Of the mean magnitude, as far as e times the limit.
fn louder(decoder: &InDouble, polar: &[f64], slope: &mut [f64]) {
    let most = decoder.limit.ln() + 1.0;
    let bins = polar.len() / 2;
    for (slope, m) in slope[..bins].iter_mut().zip(polar) {
        *slope = if *m <= most { m.exp() } else { 0.0 };
    }
}

/// Of the largest phase.
fn further(_: &InDouble, polar: &[f64], slope: &mut [f64]) {
    let bins = polar.len() / 2;
    let largest = bins + argmax(polar[bins..].iter().map(|phase| phase.abs()));
    slope[largest] = polar[largest].signum();
}

/// What a decoder computed on its way.
struct Passed {
    /// Before the first norm.
    embedded: Rows,
    blocks: Vec<PassedBlock>,
    /// Before the last norm.
    last: Rows,
    polar: Rows,
}

/// What a block computed on its way: before its norm, and before its activation.
struct PassedBlock {
    convolved: Rows,
    inner: Rows,
}

impl InDouble {
    /// Each sequence moved towards each goal.
    pub(super) fn ascend(
        &self,
        starts: &[Frames],
        tick: Tick<'_>,
    ) -> Result<Vec<(&'static str, Vec<Frames>)>, Error> {
        let channels = self.dimensions.input_channels;
        let frames = starts.iter().flat_map(|start| (0..start.length).map(move |at| (start, at)));
        let frames: Vec<(&Frames, usize)> = frames.collect();
        let count = frames.len();
        let mut points = Rows::from_shape_fn((GOALS.len() * count, channels), |(row, channel)| {
            let (start, at) = frames[row % count];
            start.values[channel * start.length + at]
        });
        let goal = |row: usize| GOALS[row / count].1;
        for _ in 0..STEPS {
            let gradient = self.gradient(&points, &goal);
            for (mut point, gradient) in points.rows_mut().into_iter().zip(gradient.rows()) {
                let size = (gradient.iter().map(|g| g * g).sum::<f64>() / channels as f64).sqrt();
                point.zip_mut_with(&gradient, |x, g| {
                    *x = (*x + STEP * g / size.max(1e-20)).clamp(-FURTHEST, FURTHEST);
                });
            }
            tick()?;
        }
        let mut from = 0;
        let driven = GOALS.iter().map(|&(name, _)| {
            let of = |start: &Frames| {
                let rows = points.slice(s![from..from + start.length, ..]);
                from += start.length;
                Frames { length: start.length, values: rows.t().iter().copied().collect() }
            };
            (name, starts.iter().map(of).collect())
        });
        Ok(driven.collect())
    }

    /// What the decoder makes of frames that last.
    fn pass(&self, frames: &Rows) -> Passed {
        let exact = Numbers::Exact;
        let embedded = self.embed.apply(lasting(frames, self.dimensions.input_kernel).view(), exact);
        let mut x = embedded.clone();
        self.norm.apply(&mut x, exact);
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let convolved = &x * &block.sums() + &Array1::from_vec(block.depthwise[1].values(exact));
            let mut normed = convolved.clone();
            block.norm.apply(&mut normed, exact);
            let inner = block.inner.apply(normed.view(), exact);
            let outer = block.outer.apply(inner.mapv(|x| self.gelu.at(x)).view(), exact);
            x += &(outer * &Array1::from_vec(block.gamma.values(exact)));
            blocks.push(PassedBlock { convolved, inner });
        }
        let polar = self.polar(x.view(), exact);
        Passed { embedded, blocks, last: x, polar }
    }

    /// The slope of each row's goal by its numbers, backwards through the decoder (Rumelhart et al. 1986, Learning
    /// Representations by Back-propagating Errors).
    fn gradient(&self, frames: &Rows, goal: &(dyn Fn(usize) -> Goal + Sync)) -> Rows {
        let passed = self.pass(frames);
        let mut slope = Rows::zeros(passed.polar.dim());
        let width = passed.polar.ncols();
        let polar = passed.polar.as_slice().expect("rows stand one after another");
        by_rows(&mut slope, |at, slope| goal(at)(self, &polar[at * width..][..width], slope));
        let mut slope = self.last_norm.back(&passed.last, self.head.transposed(slope.view()));
        for (block, passed) in self.blocks.iter().zip(&passed.blocks).rev() {
            slope += &self.block_back(block, passed, &slope);
        }
        let slope = self.embed.transposed(self.norm.back(&passed.embedded, slope).view());
        let width = self.dimensions.input_kernel;
        let taps = (0..width).map(|tap| slope.slice(s![.., tap..;width]));
        taps.fold(Rows::zeros(frames.dim()), |sum, tap| sum + tap)
    }

    /// The slope by what entered a block, but for the path around it.
    fn block_back(&self, block: &Block, passed: &PassedBlock, slope: &Rows) -> Rows {
        let gamma = Array1::from_vec(block.gamma.values(Numbers::Exact));
        let mut inner = block.outer.transposed((slope * &gamma).view());
        Zip::from(&mut inner).and(&passed.inner).for_each(|slope, x| *slope *= self.gelu.slope(*x));
        block.norm.back(&passed.convolved, block.inner.transposed(inner.view())) * block.sums()
    }
}

/// Windows [frames, channels · width] that hold one frame all over.
fn lasting(frames: &Rows, width: usize) -> Rows {
    Rows::from_shape_fn((frames.nrows(), frames.ncols() * width), |(at, tap)| frames[(at, tap / width)])
}

impl Block {
    /// What each channel is multiplied by where every tap sees the same.
    fn sums(&self) -> Array1<f64> {
        let sum = |sum: Array1<f64>, tap: Vec<f64>| sum + Array1::from_vec(tap);
        self.taps(Numbers::Exact).into_iter().fold(Array1::zeros(self.depthwise[1].shape()[0]), sum)
    }
}

impl Norm {
    /// The slope by what was normed: with g the slope by the output times the weight, x̂ the normed input and s its scale,
    /// s·(g − mean(g) − x̂·mean(g ∘ x̂)).
    fn back(&self, x: &Rows, mut slope: Rows) -> Rows {
        let weight = self.0[0].values(Numbers::Exact);
        let plain = [vec![1.0; weight.len()], vec![0.0; weight.len()]];
        by_rows(&mut slope, |at, slope| {
            let mut normed = x.index_axis(Axis(0), at).to_vec();
            let scale = layer_norm(&mut normed, &plain[0], &plain[1], EPSILON);
            slope.iter_mut().zip(&weight).for_each(|(g, w)| *g *= w);
            let count = slope.len() as f64;
            let mean = slope.iter().sum::<f64>() / count;
            let along = slope.iter().zip(&normed).map(|(g, x)| g * x).sum::<f64>() / count;
            slope.iter_mut().zip(&normed).for_each(|(g, x)| *g = scale * (*g - mean - x * along));
        });
        slope
    }
}

#[cfg(test)]
impl InDouble {
    /// The slope of one goal.
    pub(super) fn slope(&self, frames: &Rows, goal: usize) -> Rows {
        self.gradient(frames, &|_| GOALS[goal].1)
    }

    /// Log-magnitudes and phases of a frame that lasts.
    pub(super) fn lasting_polar(&self, frames: &Rows) -> Vec<f64> {
        self.pass(frames).polar.into_raw_vec_and_offset().0
    }
}
