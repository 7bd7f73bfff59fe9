//! Vocos: a ConvNeXt backbone whose head writes the spectrum that an inverse STFT turns into sound.

mod dimensions;
mod float64;
mod graph;
#[cfg(test)]
pub(crate) mod testing;
mod weights;

use std::path::Path;

pub use dimensions::Dimensions;
pub use float64::InDouble;

use super::{Asked, Drafted, Front, Sound};
use crate::names::Ports;
use crate::source::{Refused, Weights};
use dimensions::Checkpoint;

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
    fn draft(&self, asked: &Asked<'_>) -> Result<Drafted, Refused> {
        self.draft_of(self.weights(asked.checkpoint)?, asked)
    }

    fn in_double(&self, checkpoint: &Path) -> Result<super::InDouble, Refused> {
        let checkpoint = Checkpoint::of(self, self.weights(checkpoint)?)?;
        let model = InDouble::new(self, &checkpoint.dimensions, checkpoint.weights())?;
        Ok(super::InDouble::Signal(Box::new(model)))
    }
}

impl Vocos {
    /// The tensors of a checkpoint's folder.
    fn weights(&self, folder: &Path) -> Result<Weights, Refused> {
        Weights::of_state_dict(&folder.join(self.file))
    }

    /// Writes the graph of weights that were read from wherever they were.
    pub(crate) fn draft_of(&self, weights: Weights, asked: &Asked<'_>) -> Result<Drafted, Refused> {
        let Ports::Signal(ports) = asked.ports else {
            return Err(Refused::new(
                "checkpoint-architecture",
                "a Vocos decoder is a signal graph",
                "",
            ));
        };
        let checkpoint = Checkpoint::of(self, weights)?;
        let dimensions = &checkpoint.dimensions;
        Ok(Drafted {
            architecture: dimensions.describe(self, checkpoint.parameters()),
            sound: Some(Sound {
                sample_rate: self.sample_rate,
                per_frame: dimensions.n_fft / self.hops * self.upscale,
                lead: 1,
            }),
            draft: graph::draft(self, &checkpoint, ports, asked.opset)?,
        })
    }
}
