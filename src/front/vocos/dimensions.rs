//! A decoder's checkpoint: its dimensions, read off the shapes of its tensors, and the checks that it is whole.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::Vocos;
use crate::front::inverse_stft::InverseStft;
use crate::source::{Refused, Weights};
use crate::tensor::Stored;

/// Every dimension that the tensors decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Channels of an input frame.
    pub input_channels: usize,
    /// Channels of the backbone.
    pub dim: usize,
    /// Channels between the two products of a block.
    pub intermediate_dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Width of the first convolution.
    pub input_kernel: usize,
    /// Width of the depthwise convolutions.
    pub dw_kernel: usize,
    /// Samples of a frame of the spectrum.
    pub n_fft: usize,
}

/// The tensors that tell the dimensions, and how many axes each has.
const TELLING: [(&str, usize); 5] = [
    ("decoder.embed.weight", 3),
    ("decoder.convnext.0.dwconv.weight", 3),
    ("decoder.convnext.0.pwconv1.weight", 2),
    ("head.out.weight", 2),
    (WINDOW, 1),
];
pub(super) const WINDOW: &str = "head.istft.window";
/// How many tensors an error lists before it only counts.
const SHOWN: usize = 5;
/// Below these a sum of squared windows and the middle of a window are nothing to divide by.
const LEAST_ENVELOPE: f32 = 1e-6;
const LEAST_MIDDLE: f32 = 1e-3;

/// A checkpoint that is whole: every tensor is there, of its shape, and finite.
pub(super) struct Checkpoint {
    pub(super) dimensions: Dimensions,
    weights: Weights,
    /// The window [n_fft].
    pub(super) window: Vec<f32>,
}

impl Checkpoint {
    /// The decoder of a checkpoint's folder.
    ///
    /// # Errors
    /// [`Refused`] with a code that starts with `checkpoint-`.
    pub(super) fn open(of: &Vocos, folder: &Path) -> Result<Self, Refused> {
        Self::of(of, Weights::of_state_dict(&folder.join(of.file))?)
    }

    fn of(of: &Vocos, weights: Weights) -> Result<Self, Refused> {
        let place = weights.listing.display();
        let dimensions = Dimensions::of(&weights, of.hops)?;
        whole(&weights, &dimensions)?;
        let Dimensions { n_fft, .. } = dimensions;
        InverseStft::fits(n_fft, n_fft / of.hops, n_fft)
            .map_err(|why| refuse_shape(&weights, &[format!("n_fft is {n_fft}, and {why}")]))?;
        check_finite(&weights)?;
        let window = widened(&weights, WINDOW)?;
        check_window(&window, n_fft / of.hops).map_err(|why| {
            let message = format!("{place}: `{WINDOW}` {why}");
            Refused::new("checkpoint-window", message, "upstream's window is a periodic Hann window")
        })?;
        Ok(Self { dimensions, weights, window })
    }

    /// All of its tensors.
    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A tensor that [`Dimensions::tensors`] lists.
    pub(super) fn tensor(&self, name: &str) -> Result<&Stored, Refused> {
        self.weights.get(name).ok_or_else(|| missing(&self.weights, name))
    }

    /// The values of such a tensor, row-major.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, Refused> {
        widened(&self.weights, name)
    }

    /// How many numbers were learned: all but the window's.
    pub(super) fn parameters(&self) -> usize {
        self.weights.iter().filter(|(name, _)| *name != WINDOW).map(|(_, stored)| stored.len()).sum()
    }
}

impl Dimensions {
    /// Reads every dimension off the shapes of a state dict.
    fn of(weights: &Weights, hops: usize) -> Result<Self, Refused> {
        let absent: Vec<&str> =
            TELLING.iter().map(|(name, _)| *name).filter(|name| weights.get(name).is_none()).collect();
        if ["decoder.embed.weight", "head.out.weight"].iter().all(|name| absent.contains(name)) {
            return Err(refuse_architecture(weights));
        }
        if !absent.is_empty() {
            let absent: Vec<_> = absent.iter().map(|name| format!("{name} is missing")).collect();
            return Err(refuse_shape(weights, &absent));
        }
        let shape = |name: &str| weights.get(name).map(Stored::shape).unwrap_or_default();
        let mut wrong: Vec<String> = (TELLING.iter())
            .filter(|(name, rank)| shape(name).len() != *rank || shape(name).contains(&0))
            .map(|(name, rank)| {
                format!("{name} is {:?}, expected {rank} dimensions, none of them 0", shape(name))
            })
            .collect();
        let [embed, depthwise, pointwise, out, _] = TELLING.map(|(name, _)| shape(name));
        let (
            &[dim, input_channels, input_kernel],
            &[_, _, dw_kernel],
            &[intermediate_dim, _],
            &[rows, _],
        ) = (embed, depthwise, pointwise, out)
        else {
            return Err(refuse_shape(weights, &wrong));
        };
        if !wrong.is_empty() {
            return Err(refuse_shape(weights, &wrong));
        }
        let blocks = blocks(weights);
        if let (Some(last), Some(first)) = (blocks.last(), first_gap(&blocks)) {
            wrong.push(format!(
                "decoder.convnext.{first} is missing, although decoder.convnext.{last} is there"
            ));
        }
        for (name, kernel) in [(TELLING[0].0, input_kernel), (TELLING[1].0, dw_kernel)] {
            if kernel.is_multiple_of(2) {
                let shape = shape(name);
                wrong
                    .push(format!("{name} is {shape:?}: an even kernel ({kernel}) changes the length"));
            }
        }
        let of_window = |n: usize| n >= 4 && n.is_multiple_of(2) && n.is_multiple_of(hops);
        let n_fft = rows.checked_sub(2).filter(|&n| of_window(n));
        if n_fft.is_none() {
            wrong.push(format!(
                "head.out.weight is {out:?}: its rows are n_fft + 2, and n_fft = {} is not a positive multiple of \
                 {hops}",
                rows as i128 - 2
            ));
        }
        let Some(n_fft) = n_fft.filter(|_| wrong.is_empty()) else {
            return Err(refuse_shape(weights, &wrong));
        };
        let layers = blocks.len();
        Ok(Self { input_channels, dim, intermediate_dim, layers, input_kernel, dw_kernel, n_fft })
    }

    /// The tensors of a decoder, in the order of its modules: names and shapes.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Self { dim, intermediate_dim, n_fft, .. } = *self;
        let mut tensors = vec![
            ("decoder.embed.weight".to_owned(), vec![dim, self.input_channels, self.input_kernel]),
            ("decoder.embed.bias".to_owned(), vec![dim]),
            ("decoder.norm.weight".to_owned(), vec![dim]),
            ("decoder.norm.bias".to_owned(), vec![dim]),
        ];
        for layer in 0..self.layers {
            tensors.extend(
                [
                    ("gamma", vec![dim]),
                    ("dwconv.weight", vec![dim, 1, self.dw_kernel]),
                    ("dwconv.bias", vec![dim]),
                    ("norm.weight", vec![dim]),
                    ("norm.bias", vec![dim]),
                    ("pwconv1.weight", vec![intermediate_dim, dim]),
                    ("pwconv1.bias", vec![intermediate_dim]),
                    ("pwconv2.weight", vec![dim, intermediate_dim]),
                    ("pwconv2.bias", vec![dim]),
                ]
                .map(|(part, shape)| (format!("decoder.convnext.{layer}.{part}"), shape)),
            );
        }
        tensors.extend([
            ("decoder.final_layer_norm.weight".to_owned(), vec![dim]),
            ("decoder.final_layer_norm.bias".to_owned(), vec![dim]),
            ("head.out.weight".to_owned(), vec![n_fft + 2, dim]),
            ("head.out.bias".to_owned(), vec![n_fft + 2]),
            (WINDOW.to_owned(), vec![n_fft]),
        ]);
        tensors
    }

    /// The dimensions by the names that a manifest has for them, and what no tensor says.
    pub(super) fn describe(&self, of: &Vocos, parameters: usize) -> Map<String, Value> {
        let numbers = [
            ("input_channels", self.input_channels),
            ("dim", self.dim),
            ("intermediate_dim", self.intermediate_dim),
            ("layers", self.layers),
            ("input_kernel", self.input_kernel),
            ("dw_kernel", self.dw_kernel),
            ("n_fft", self.n_fft),
            ("hop_length", self.n_fft / of.hops),
            ("upscale", of.upscale),
            ("sample_rate", of.sample_rate),
            ("parameters", parameters),
        ];
        let version = ("version".to_owned(), (of.version)(self).into());
        let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number.into()));
        std::iter::once(version).chain(numbers).collect()
    }
}

/// The numbers of the blocks that have a tensor.
fn blocks(weights: &Weights) -> BTreeSet<u64> {
    let number = |name: &str| {
        let (number, _) = name.strip_prefix("decoder.convnext.")?.split_once('.')?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        // One that is larger than any is still the last.
        is_number.then(|| number.parse().unwrap_or(u64::MAX))
    };
    weights.iter().filter_map(|(name, _)| number(name)).collect()
}

/// The first number that is not there, although a larger one is.
fn first_gap(blocks: &BTreeSet<u64>) -> Option<u64> {
    (0..).zip(blocks).find(|(at, block)| at != *block).map(|(at, _)| at)
}

/// Holds names and shapes against those of a decoder of these dimensions.
fn whole(weights: &Weights, dimensions: &Dimensions) -> Result<(), Refused> {
    let expected = dimensions.tensors();
    let wrong =
        expected.iter().filter_map(|(name, shape)| match weights.get(name).map(Stored::shape) {
            None => Some(format!("{name} is missing, expected {shape:?}")),
            Some(is) if is != shape => Some(format!("{name} is {is:?}, expected {shape:?}")),
            Some(_) => None,
        });
    let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let more = weights.iter().filter(|(name, _)| !known.contains(name));
    let more = more.map(|(name, stored)| format!("{name} {:?} is not expected", stored.shape()));
    let wrong: Vec<String> = wrong.chain(more).collect();
    if wrong.is_empty() { Ok(()) } else { Err(refuse_shape(weights, &wrong)) }
}

/// Whether every sample has a window that is not zero there, four times over: `window` [n_fft].
fn check_window(window: &[f32], hop: usize) -> Result<(), &'static str> {
    let why = "leaves samples without energy, so its STFT has no inverse";
    let envelope = |at: usize| window.iter().skip(at).step_by(hop).map(|w| w * w).sum::<f32>();
    let middle = window.get(window.len() / 2).copied().unwrap_or_default();
    if middle.abs() < LEAST_MIDDLE || (0..hop).any(|at| envelope(at) < LEAST_ENVELOPE) {
        return Err(why);
    }
    InverseStft::new(window.len(), hop, window, false, true).map(drop).map_err(|_| why)
}

/// Refuses values that are NaN or infinite.
fn check_finite(weights: &Weights) -> Result<(), Refused> {
    for (name, stored) in weights.iter() {
        let values = widened(weights, name)?;
        let count = values.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            let (place, all) = (weights.place(name).display(), stored.len());
            let message = format!(
                "{place}: tensor `{name}` has {count} of {all} values that are NaN or infinite"
            );
            let hint = "the checkpoint is damaged or training diverged; use another one";
            return Err(Refused::new("checkpoint-nan", message, hint));
        }
    }
    Ok(())
}

/// A tensor's values.
fn widened(weights: &Weights, name: &str) -> Result<Vec<f32>, Refused> {
    let stored = weights.get(name).ok_or_else(|| missing(weights, name))?;
    stored.to_f32().map_err(|why| {
        let message = format!("{}: tensor `{name}`: {why}", weights.listing.display());
        Refused::new("checkpoint-dtype", message, "")
    })
}

fn missing(weights: &Weights, name: &str) -> Refused {
    refuse_shape(weights, &[format!("{name} is missing")])
}

fn refuse_architecture(weights: &Weights) -> Refused {
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_owned()).collect();
    let message = format!(
        "{} is not a Vocos decoder: none of its {} tensors is decoder.embed.weight or head.out.weight; it holds {}",
        weights.listing.display(),
        names.len(),
        some(&names, ", ")
    );
    let hint = "the language model is another file; a checkpoint directory holds both";
    Refused::new("checkpoint-architecture", message, hint)
}

fn refuse_shape(weights: &Weights, wrong: &[String]) -> Refused {
    let message = format!("{}: {}", weights.listing.display(), some(wrong, "; "));
    let hint = "not the decoder of this model, or of a version that upstream's code does not know";
    Refused::new("checkpoint-shape", message, hint)
}

/// The first of them, and how many more there are.
fn some(items: &[String], separator: &str) -> String {
    let Some(more) = items.len().checked_sub(SHOWN).filter(|&more| more > 0) else {
        return if items.is_empty() { "nothing".to_owned() } else { items.join(separator) };
    };
    format!("{}{separator}and {more} more", items[..SHOWN].join(separator))
}
