//! Vocos: a ConvNeXt backbone whose head writes the spectrum that an inverse STFT turns into sound.

use super::{Asked, Drafted, Front};
use crate::source::Refused;

/// What no tensor of a Vocos decoder says: a family's own.
#[derive(Clone, Copy, Debug)]
pub struct Vocos {
    /// The file of its weights in a checkpoint.
    pub file: &'static str,
    /// Frames of the spectrum for each frame of the input, linearly between.
    pub upscale: usize,
    /// `n_fft` over the hop.
    pub hops: usize,
    /// Where magnitudes are clipped.
    pub magnitude_limit: f32,
    /// Samples a second.
    pub sample_rate: usize,
    /// The version that these dimensions belong to.
    pub version: fn(&Dimensions) -> &'static str,
}

impl Front for Vocos {
    fn draft(&self, _asked: &Asked<'_>) -> Result<Drafted, Refused> {
        Err(Refused::new("checkpoint-architecture", "not yet", ""))
    }
}

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
