//! The decoder in double precision.

mod ascent;
mod spectrum;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayView2, Axis, s};

use super::{Dimensions, Vocos};
use crate::front::float64::{
    Error, Frames, Gelu, Linear, Numbers, Parameter, Parameters, Rows, SignalAnswer, SignalInDouble,
    Tick, by_rows, layer_norm,
};
use crate::source::{Refused, Weights};
use spectrum::Inverse;

/// Added to the variance in every norm.
const EPSILON: f64 = 1e-6;
/// Frames that go through the two products of a block together.
const PANEL: usize = 1024;

/// A Vocos decoder (Siuzdak 2023, Vocos, section 3.2), computed in f64 from a checkpoint's own weights.
///
/// ```text
/// x = interpolated frames                                       upscale·(T − 1) + 1 of them, linearly between
/// x = norm(convolution(x))
/// x = x + γ ∘ (gelu(norm(depthwise(x))·W₁ᵀ + b₁)·W₂ᵀ + b₂)      each block (Liu et al. 2022, ConvNeXt, section 2)
/// m, φ = norm(x)·Wᵀ + b
/// samples = inverse STFT of min(exp(m), limit)·exp(iφ), without the bins at 0 and at half the rate
/// ```
#[derive(Clone, Debug)]
pub struct InDouble {
    dimensions: Dimensions,
    upscale: usize,
    hop: usize,
    limit: f64,
    gelu: Arc<Gelu>,
    embed: Linear,
    norm: Norm,
    blocks: Vec<Block>,
    last_norm: Norm,
    head: Linear,
    window: Parameter,
}

/// Weight and bias of a layer norm.
#[derive(Clone, Debug)]
struct Norm([Parameter; 2]);

#[derive(Clone, Debug)]
struct Block {
    /// Depthwise: [channels, 1, width], and its bias.
    depthwise: [Parameter; 2],
    norm: Norm,
    inner: Linear,
    outer: Linear,
    gamma: Parameter,
}

/// Where each sequence's frames of the spectrum lie among those of all.
type Places = Vec<Range<usize>>;

impl InDouble {
    /// The decoder of these dimensions, with a checkpoint's weights.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-shape` or `-dtype`.
    pub fn new(vocos: &Vocos, dimensions: &Dimensions, weights: &Weights) -> Result<Self, Refused> {
        let d = *dimensions;
        let of = Parameters(weights);
        let wide = d.n_fft.saturating_add(2);
        let sound = d.n_fft >= 4
            && d.n_fft.is_multiple_of(2)
            && vocos.hops > 0
            && vocos.upscale > 0
            && d.n_fft.is_multiple_of(vocos.hops)
            && [d.input_kernel, d.dw_kernel].iter().all(|kernel| kernel % 2 == 1);
        if !sound {
            let why = format!("{d:?}: an even kernel, or frames that are not so many hops long");
            return Err(Refused::new("checkpoint-shape", why, "not the decoder of this model"));
        }
        let norm = |name: &str| {
            let half = |which: &str| of.get(&format!("{name}.{which}"), &[d.dim]);
            Ok(Norm([half("weight")?, half("bias")?]))
        };
        let block = |at: usize| -> Result<Block, Refused> {
            let name = |part: &str| format!("decoder.convnext.{at}.{part}");
            Ok(Block {
                depthwise: [
                    of.get(&name("dwconv.weight"), &[d.dim, 1, d.dw_kernel])?,
                    of.get(&name("dwconv.bias"), &[d.dim])?,
                ],
                norm: norm(&name("norm"))?,
                inner: Linear::new(of, &name("pwconv1"), [d.intermediate_dim, d.dim], true)?,
                outer: Linear::new(of, &name("pwconv2"), [d.dim, d.intermediate_dim], true)?,
                gamma: of.get(&name("gamma"), &[d.dim])?,
            })
        };
        Ok(Self {
            dimensions: d,
            upscale: vocos.upscale,
            hop: d.n_fft / vocos.hops,
            limit: f64::from(vocos.magnitude_limit),
            gelu: Arc::new(Gelu::new()),
            embed: Linear::convolution(of, "decoder.embed", [d.dim, d.input_channels, d.input_kernel])?,
            norm: norm("decoder.norm")?,
            blocks: (0..d.layers).map(block).collect::<Result<_, Refused>>()?,
            last_norm: norm("decoder.final_layer_norm")?,
            head: Linear::new(of, "head.out", [wide, d.dim], true)?,
            window: of.get("head.istft.window", &[d.n_fft])?,
        })
    }

    /// Frames of the spectrum, [all of them, input channels], and where each sequence's lie.
    fn interpolated(&self, frames: &[Frames]) -> Result<(Rows, Places), Error> {
        let channels = self.dimensions.input_channels;
        let mut places = Places::new();
        for one in frames {
            if one.length <= self.lead() || one.values.len() != one.length.saturating_mul(channels) {
                let (length, values) = (one.length, one.values.len());
                let why = format!(
                    "{length} frames of {values} numbers: two frames or more of {channels} channels are expected"
                );
                return Err(Refused::new(
                    "checkpoint-shape",
                    why,
                    "the two graphs are of different checkpoints",
                )
                .into());
            }
            let from = places.last().map_or(0, |place| place.end);
            places.push(from..from + self.upscale * (one.length - 1) + 1);
        }
        let mut x = Rows::zeros((places.last().map_or(0, |place| place.end), channels));
        for (one, place) in frames.iter().zip(&places) {
            for (at, mut row) in x.slice_mut(s![place.clone(), ..]).rows_mut().into_iter().enumerate() {
                let (left, share) =
                    (at / self.upscale, (at % self.upscale) as f64 / self.upscale as f64);
                let right = (left + 1).min(one.length - 1);
                for (channel, value) in row.iter_mut().enumerate() {
                    let of = |at: usize| one.values[channel * one.length + at];
                    *value = of(left) + (of(right) - of(left)) * share;
                }
            }
        }
        Ok((x, places))
    }

    /// The convolution at the beginning.
    fn windowed(&self, x: &Rows, places: &Places, numbers: Numbers) -> Rows {
        let (channels, width) = (self.dimensions.input_channels, self.dimensions.input_kernel);
        let mut y = Rows::zeros((x.nrows(), self.dimensions.dim));
        for from in (0..x.nrows()).step_by(PANEL) {
            let range = from..(from + PANEL).min(x.nrows());
            // Windows [frames, channels · width], as the weights [dim, channels, width] lie.
            let mut windows = Rows::zeros((range.len(), channels * width));
            for (at, mut window) in range.clone().zip(windows.rows_mut()) {
                let place = place_of(places, at);
                for tap in 0..width {
                    if let Some(from) = neighbour(at, tap, width, place) {
                        window.slice_mut(s![tap..;width]).assign(&x.row(from));
                    }
                }
            }
            y.slice_mut(s![range, ..]).assign(&self.embed.apply(windows.view(), numbers));
        }
        y
    }

    /// The frames after a block.
    fn block(&self, block: &Block, x: &Rows, places: &Places, numbers: Numbers) -> Rows {
        let gamma = block.gamma.values(numbers);
        let mut y = x.clone();
        for (panel, mut y) in y.axis_chunks_iter_mut(Axis(0), PANEL).enumerate() {
            let from = panel * PANEL;
            let mut inner = block.convolved(x, from..from + y.nrows(), places, numbers);
            block.norm.apply(&mut inner, numbers);
            let mut inner = block.inner.apply(inner.view(), numbers);
            by_rows(&mut inner, |_, row| row.iter_mut().for_each(|x| *x = self.gelu.at(*x)));
            let outer = block.outer.apply(inner.view(), numbers);
            for (mut y, outer) in y.rows_mut().into_iter().zip(outer.rows()) {
                y.iter_mut().zip(outer).zip(&gamma).for_each(|((y, outer), gamma)| *y += gamma * outer);
            }
        }
        y
    }

    /// Log-magnitudes and phases, n_fft/2 + 1 each, of frames that left the last block.
    fn polar(&self, x: ArrayView2<'_, f64>, numbers: Numbers) -> Rows {
        let mut x = x.to_owned();
        self.last_norm.apply(&mut x, numbers);
        self.head.apply(x.view(), numbers)
    }

    /// The samples of one sequence.
    fn answer(&self, x: ArrayView2<'_, f64>, inverse: &Inverse, numbers: Numbers) -> SignalAnswer {
        let mut polar = self.polar(x, numbers);
        let bins = polar.ncols() / 2;
        let clips = |magnitude: &&f64| **magnitude >= self.limit.ln();
        let clipped: usize =
            polar.rows().into_iter().map(|row| row.iter().take(bins).filter(clips).count()).sum();
        let largest =
            polar.slice(s![.., bins..]).iter().fold(0.0_f64, |most, phase| most.max(phase.abs()));
        by_rows(&mut polar, |_, row| row[..bins].iter_mut().for_each(|m| *m = m.exp().min(self.limit)));
        let share = clipped as f64 / (polar.nrows() * bins).max(1) as f64;
        let facts = vec![("clipped_share", share), ("max_phase", largest)];
        SignalAnswer { samples: inverse.samples(&polar), facts }
    }
}

/// The frame that a tap of a convolution reads, if it is one of the sequence's.
fn neighbour(at: usize, tap: usize, width: usize, place: &Range<usize>) -> Option<usize> {
    (at + tap).checked_sub(width / 2).filter(|from| place.contains(from))
}

/// The sequence that a frame is of.
fn place_of(places: &Places, at: usize) -> &Range<usize> {
    &places[places.partition_point(|place| place.end <= at)]
}

impl Norm {
    fn apply(&self, x: &mut Rows, numbers: Numbers) {
        let [weight, bias] = self.0.each_ref().map(|half| half.values(numbers));
        by_rows(x, |_, row| {
            layer_norm(row, &weight, &bias, EPSILON);
        });
    }
}

impl Block {
    /// Each channel of some frames by itself, with its neighbours in time.
    fn convolved(&self, x: &Rows, range: Range<usize>, places: &Places, numbers: Numbers) -> Rows {
        let (taps, bias) = (self.taps(numbers), self.depthwise[1].values(numbers));
        let mut y = Rows::zeros((range.len(), x.ncols()));
        by_rows(&mut y, |at, y| {
            let at = range.start + at;
            let place = place_of(places, at);
            y.copy_from_slice(&bias);
            for (tap, weights) in taps.iter().enumerate() {
                let Some(from) = neighbour(at, tap, taps.len(), place) else { continue };
                y.iter_mut().zip(x.row(from)).zip(weights).for_each(|((y, x), w)| *y += w * x);
            }
        });
        y
    }

    /// The depthwise weights, [width][channels].
    fn taps(&self, numbers: Numbers) -> Vec<Vec<f64>> {
        let weights = self.depthwise[0].values(numbers);
        let width = self.depthwise[0].shape().last().copied().unwrap_or(1);
        (0..width).map(|tap| weights.iter().skip(tap).step_by(width).copied().collect()).collect()
    }
}

impl SignalInDouble for InDouble {
    fn channels(&self) -> usize {
        self.dimensions.input_channels
    }

    fn per_frame(&self) -> usize {
        self.hop * self.upscale
    }

    fn lead(&self) -> usize {
        1
    }

    fn ticks(&self) -> usize {
        self.blocks.len() + 1
    }

    fn run(
        &self,
        frames: &[Frames],
        numbers: Numbers,
        tick: Tick<'_>,
    ) -> Result<Vec<SignalAnswer>, Error> {
        let (x, places) = self.interpolated(frames)?;
        let mut x = self.windowed(&x, &places, numbers);
        self.norm.apply(&mut x, numbers);
        for block in &self.blocks {
            x = self.block(block, &x, &places, numbers);
            tick()?;
        }
        let inverse = Inverse::new(self.window.values(numbers), self.hop);
        let one = |place: &Range<usize>| self.answer(x.slice(s![place.clone(), ..]), &inverse, numbers);
        let answers = places.iter().map(one).collect();
        tick()?;
        Ok(answers)
    }

    fn driven_ticks(&self) -> usize {
        ascent::STEPS
    }

    fn driven(
        &self,
        starts: &[Frames],
        tick: Tick<'_>,
    ) -> Result<Vec<(&'static str, Vec<Frames>)>, Error> {
        self.interpolated(starts)?;
        self.ascend(starts, tick)
    }
}
