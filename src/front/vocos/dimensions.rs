//! A decoder's checkpoint: its dimensions, read off the shapes of its tensors, and the checks that it is whole.

use std::collections::BTreeSet;

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
    /// Holds weights against the decoder that their shapes tell of.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-architecture`, `-shape`, `-nan` or `-window`.
    pub(super) fn of(of: &Vocos, weights: Weights) -> Result<Self, Refused> {
        let place = weights.listing.display();
        let dimensions = Dimensions::of(&weights, of.hops)?;
        whole(&weights, &dimensions)?;
        let Dimensions { n_fft, .. } = dimensions;
        InverseStft::fits(n_fft, n_fft / of.hops, n_fft)
            .map_err(|why| refuse_shape(&weights, &[format!("n_fft is {n_fft}, and {why}")]))?;
        weights.check_finite()?;
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
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{State, VOCOS, small};
    use super::*;

    /// What is said of a checkpoint that was changed: code and message, or nothing.
    #[track_caller]
    fn refused(change: impl FnOnce(&mut State)) -> (&'static str, String) {
        let mut state = small();
        change(&mut state);
        match Checkpoint::of(&VOCOS, state.weights()) {
            Ok(_) => ("", String::new()),
            Err(refused) => {
                assert!(!refused.hint.is_empty(), "{refused}");
                (refused.code, refused.message)
            }
        }
    }

    #[track_caller]
    fn refuses(code: &str, words: &str, change: impl FnOnce(&mut State)) {
        let (is, message) = refused(change);
        assert_eq!(is, code, "{message}");
        assert!(message.contains(words) && message.contains("decoder.pth"), "{message}");
    }

    #[test]
    fn every_dimension_is_read_off_the_shapes() {
        let checkpoint = Checkpoint::of(&VOCOS, small().weights()).unwrap();
        let dimensions = Dimensions {
            input_channels: 5,
            dim: 6,
            intermediate_dim: 8,
            layers: 2,
            input_kernel: 3,
            dw_kernel: 7,
            n_fft: 16,
        };
        assert_eq!(checkpoint.dimensions, dimensions);
        let described = dimensions.describe(&VOCOS, checkpoint.parameters());
        let text = serde_json::to_string(&described).unwrap();
        let block = 6 + 6 * 7 + 6 + 2 * 6 + (6 + 1) * 8 + (8 + 1) * 6;
        let parameters = 6 * 5 * 3 + 6 + 2 * 6 + 2 * block + 2 * 6 + (6 + 1) * 18;
        assert_eq!(
            text,
            format!(
                r#"{{"version":"test","input_channels":5,"dim":6,"intermediate_dim":8,"layers":2,"input_kernel":3,"dw_kernel":7,"n_fft":16,"hop_length":4,"upscale":4,"sample_rate":32000,"parameters":{parameters}}}"#
            )
        );
    }

    #[test]
    fn what_is_another_model_is_told_from_what_is_not_whole() {
        refuses("checkpoint-architecture", "it holds decoder.convnext.0.dwconv.bias, ", |state| {
            state.remove("decoder.embed.weight");
            state.remove("head.out.weight");
        });
        let message = refused(|state| {
            state.keep(|name| name == "head.out.bias");
        });
        assert!(message.1.ends_with("head.out.weight; it holds head.out.bias"), "{message:?}");
        refuses("checkpoint-shape", "decoder.pth: decoder.embed.weight is missing", |state| {
            state.remove("decoder.embed.weight");
        });
        assert_eq!(refused(|_| ()).0, "");
    }

    #[test]
    fn a_tensor_that_is_missing_too_many_or_of_another_shape_is_named() {
        let shape = "checkpoint-shape";
        for name in small().names() {
            refuses(shape, &format!("{name} is missing"), |state| state.remove(&name));
            refuses(shape, &format!("{name} is [1, "), |state| state.widen(&name));
        }
        refuses(shape, "decoder.norm.gain [1] is not expected", |state| {
            state.put("decoder.norm.gain", &[1], |_| 1.0);
        });
        refuses(shape, "; and 4 more", |state| {
            state.keep(|name| !name.starts_with("decoder.convnext.1.") || name.ends_with("gamma"));
            state.put("decoder.convnext.1.other", &[1], |_| 1.0);
        });
    }

    #[test]
    fn dimensions_that_no_decoder_has_are_refused() {
        let shape = "checkpoint-shape";
        refuses(shape, "head.out.weight is [0, 6], expected 2 dimensions, none of them 0", |state| {
            state.put("head.out.weight", &[0, 6], |_| 0.0);
        });
        refuses(
            shape,
            "decoder.convnext.1 is missing, although decoder.convnext.2 is there",
            |state| state.rename("decoder.convnext.1.", "decoder.convnext.2."),
        );
        // A number that no integer holds, and none of the blocks' own.
        let huge = "decoder.convnext.99999999999999999999999.";
        refuses(shape, "decoder.convnext.1 is missing, although decoder.convnext.", |state| {
            state.rename("decoder.convnext.1.", huge);
        });
        refuses(shape, "decoder.convnext.x.gamma [6] is not expected", |state| {
            state.put("decoder.convnext.x.gamma", &[6], |_| 1.0);
        });
        for (name, dims) in
            [("decoder.embed.weight", [6, 5, 2]), ("decoder.convnext.0.dwconv.weight", [6, 1, 4])]
        {
            let words = format!("{name} is {dims:?}: an even kernel ({}) changes the length", dims[2]);
            refuses(shape, &words, |state| state.put(name, &dims, |_| 0.5));
        }
        for (rows, n_fft) in [(1, -1), (2, 0), (17, 15), (20, 18)] {
            let words = format!("n_fft + 2, and n_fft = {n_fft} is not a positive multiple of 4");
            refuses(shape, &words, |state| state.put("head.out.weight", &[rows, 6], |_| 0.5));
        }
    }

    #[test]
    fn a_transform_beyond_what_is_written_is_refused() {
        let sized = |n_fft: usize| {
            refused(|state| {
                state.put("head.out.weight", &[n_fft + 2, 6], |_| 0.5);
                state.put("head.out.bias", &[n_fft + 2], |_| 0.5);
                state.put("head.istft.window", &[n_fft], |_| 1.0);
            })
        };
        assert_eq!(sized(8192).0, "");
        let (code, message) = sized(8196);
        assert_eq!(code, "checkpoint-shape");
        assert!(message.contains("n_fft is 8196, and n_fft is above 8192"), "{message}");
    }

    #[test]
    fn values_that_are_not_finite_are_counted() {
        for (value, finite) in
            [(f32::NAN, false), (f32::INFINITY, false), (f32::NEG_INFINITY, false), (f32::MAX, true)]
        {
            let (code, message) = refused(|state| {
                state.put("decoder.convnext.1.gamma", &[6], |at| if at < 2 { value } else { 0.5 });
            });
            assert_eq!(code.is_empty(), finite, "{message}");
            let words = "tensor `decoder.convnext.1.gamma` has 2 of 6 values that are NaN or infinite";
            assert!(finite || code == "checkpoint-nan" && message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_window_without_an_inverse_is_refused() {
        let window = |value: fn(usize) -> f32| refused(|state| state.put(WINDOW, &[16], value));
        let why = "`head.istft.window` leaves samples without energy, so its STFT has no inverse";
        let lacks = |value: fn(usize) -> f32| {
            let (code, message) = window(value);
            assert_eq!(code, "checkpoint-window", "{message}");
            assert!(message.contains(why), "{message}");
        };
        assert_eq!(window(|_| 1.0).0, "");
        lacks(|_| 0.0);
        // Nothing at the second sample of each hop; nothing in the middle.
        lacks(|at| f32::from(at % 4 != 1));
        lacks(|at| f32::from(at != 8));
        // Enough in the sum of four frames, nothing where there are but two.
        lacks(|at| f32::from(at == 8 || !(4..12).contains(&at)));
        assert_eq!(window(|at| f32::from(at == 8 || !(4..8).contains(&at))).0, "");
    }
}
