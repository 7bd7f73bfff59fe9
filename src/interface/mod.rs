//! What a graph takes and gives, and how a graph of its role is fed: the only reader of caches.

mod causal;
mod signal;
mod signature;

pub use causal::{Cached, Causal};
pub use signal::Signal;
pub use signature::{Port, Signature};

use serde::{Deserialize, Serialize};

use crate::names::{Ports, Role};
use crate::tensor::Tensors;

/// How a graph's inputs or outputs are not those of its role.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Error {
    /// A causal graph's.
    #[error("the causal graph's {name:?} {why}")]
    #[diagnostic(
        code(interface::causal),
        help(
            "a causal graph takes token ids, a mask, positions and cached keys and values [batch, heads, past, size]"
        )
    )]
    Causal {
        /// The input or output.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A signal graph's.
    #[error("the signal graph's {name:?} {why}")]
    #[diagnostic(
        code(interface::signal),
        help("a signal graph takes one input [batch, channels, frames] or [batch, frames, channels]")
    )]
    Signal {
        /// The input or output.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A call of a graph, by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Call {
    /// One token of each sequence, after so many cached positions.
    Step {
        /// Cached positions.
        past: usize,
        /// Sequences.
        batch: usize,
    },
    /// A prompt of one sequence at once.
    Prefill {
        /// Its tokens.
        tokens: usize,
    },
    /// Frames of each sequence at once.
    #[serde(rename = "decode")]
    Frames {
        /// Frames of each.
        #[serde(rename = "tokens")]
        frames: usize,
        /// Sequences.
        batch: usize,
    },
}

impl Call {
    /// The name in tables: `step @256`, `prefill 32`, `frames 32 x4`.
    pub fn label(self) -> String {
        let times = |batch: usize| if batch == 1 { String::new() } else { format!(" x{batch}") };
        match self {
            Call::Step { past, batch } => format!("step @{past}{}", times(batch)),
            Call::Prefill { tokens } => format!("prefill {tokens}"),
            Call::Frames { frames, batch } => format!("frames {frames}{}", times(batch)),
        }
    }
}

/// A graph's role, bound to what it takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Tokens to logits, from a cache.
    Causal(Causal),
    /// Frames to samples.
    Signal(Signal),
}

impl Interface {
    /// Binds the names of a role to a graph's inputs and outputs.
    ///
    /// # Errors
    /// [`Error`] where they aren't those of the role.
    pub fn bind(ports: &Ports, signature: &Signature) -> Result<Self, Error> {
        Ok(match ports {
            Ports::Causal(names) => Interface::Causal(Causal::bind(names, signature)?),
            Ports::Signal(names) => Interface::Signal(Signal::bind(names, signature)?),
        })
    }

    /// Binds the names of a role to a graph's inputs and outputs, of which none that is read may be missing.
    ///
    /// # Errors
    /// As [`Interface::bind`]; [`Error`] for samples, logits or an output of the cache that is not there.
    pub fn bind_whole(ports: &Ports, signature: &Signature) -> Result<Self, Error> {
        let bound = Self::bind(ports, signature)?;
        let is_missing = |name: &String| signature.outputs.iter().all(|output| output.name != *name);
        let why = "is none of the graph's outputs";
        match &bound {
            Interface::Causal(graph) => {
                let cache = graph.cache().iter().map(|cached| &cached.present);
                match std::iter::once(&graph.names().logits).chain(cache).find(|name| is_missing(name))
                {
                    Some(name) => Err(Error::Causal { name: name.clone(), why }),
                    None => Ok(bound),
                }
            }
            Interface::Signal(graph) if is_missing(&graph.names().samples) => {
                Err(Error::Signal { name: graph.names().samples.clone(), why })
            }
            Interface::Signal(_) => Ok(bound),
        }
    }

    /// The role.
    pub fn role(&self) -> Role {
        match self {
            Interface::Causal(_) => Role::Causal,
            Interface::Signal(_) => Role::Signal,
        }
    }

    /// The causal graph.
    pub fn causal(&self) -> Option<&Causal> {
        match self {
            Interface::Causal(causal) => Some(causal),
            Interface::Signal(_) => None,
        }
    }

    /// Inputs of a call of this size, the same each time; none for another role's. A stateful graph gets no cache.
    pub fn feed(&self, call: Call) -> Option<Tensors> {
        match (self, call) {
            (Interface::Causal(graph), Call::Step { past, batch }) => Some(graph.feed(batch, past, 1)),
            (Interface::Causal(graph), Call::Prefill { tokens }) => Some(graph.feed(1, 0, tokens)),
            (Interface::Signal(graph), Call::Frames { frames, batch }) => {
                Some(graph.feed(batch, frames))
            }
            _ => None,
        }
    }

    /// Adds what a recorded call leaves out: the empty cache.
    pub fn complete(&self, recorded: &mut Tensors, batch: usize) {
        if let Interface::Causal(graph) = self {
            recorded.extend(graph.empty_cache(batch));
        }
    }
}

/// Values between -1 and 1, the same each time: all zero would be quantized to nothing.
fn varied(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A dimension that is a number above 0.
fn fixed(dims: &[String], at: usize) -> Option<usize> {
    dims.get(at)?.parse().ok().filter(|&n| n > 0)
}
