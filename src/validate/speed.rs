//! Whether an int8 artifact is faster than its fp32 one on this machine.

use serde::{Deserialize, Serialize};

use super::{Artifact, Error, References};
use crate::interface::{Call, Interface, Signature};
use crate::ir::Model;
use crate::names::Ports;
use crate::runtime::Runtime;

/// Milliseconds of one call, each the least of several interleaved ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// What was timed.
    pub what: String,
    /// The runtime, with its version.
    pub runtime: String,
    /// The fp32 artifact.
    pub fp32_ms: f64,
    /// The int8 artifact.
    pub int8_ms: f64,
}

impl Speed {
    /// How many times faster int8 is.
    pub fn ratio(&self) -> f64 {
        self.fp32_ms / self.int8_ms
    }

    /// Whether int8 is slower, by calls long enough to tell.
    pub fn is_slower(&self) -> bool {
        self.ratio() < 1.0 && self.fp32_ms >= LEAST_MS
    }
}

/// Below this a call is mostly what any call costs, and its products too little to be judged by it.
pub const LEAST_MS: f64 = 0.2;
const PAST: usize = 256;
/// The signal graph's case whose length is nearest to this is timed.
const LENGTH: usize = 100;
const ROUNDS: usize = 12;

/// Times a decode step with 256 cached positions, or a signal graph's recorded case of about 100 frames, on one
/// thread.
///
/// # Errors
/// [`Error::Runtime`] where a model can't be loaded or run, [`Error::NothingToMeasure`] without a case.
pub fn speed(
    ports: &Ports,
    [fp32, int8]: [&Artifact; 2],
    references: &References,
    runtime: &dyn Runtime,
) -> Result<Speed, Error> {
    let interface = Interface::bind(ports, &Signature::from(&Model::open(&fp32.path)?))?;
    let (what, inputs) = match interface.feed(Call::Step { past: PAST, batch: 1 }) {
        Some(step) => (format!("a decode step with {PAST} cached positions"), step),
        None => {
            let cases = references.cases.iter().filter(|case| case.is_one_call() && case.batch == 1);
            let case = cases
                .min_by_key(|case| case.length.abs_diff(LENGTH))
                .ok_or(Error::NothingToMeasure("no reference of batch 1 can be timed"))?;
            (format!("{} frames", case.length), references.inputs(case))
        }
    };
    let sessions = [runtime.load(&fp32.path)?, runtime.load(&int8.path)?];
    let mut least = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (session, least) in sessions.iter().zip(&mut least) {
            *least = least.min(1e3 * session.seconds(&inputs)?);
        }
    }
    let [fp32_ms, int8_ms] = least;
    Ok(Speed { what, runtime: runtime.name_and_version(), fp32_ms, int8_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_is_told_by_calls_that_are_long_enough() {
        let speed =
            |fp32_ms, int8_ms| Speed { what: String::new(), runtime: String::new(), fp32_ms, int8_ms };
        assert!(speed(0.2, 0.21).is_slower());
        assert!(!speed(0.19, 0.3).is_slower());
        assert!(!speed(0.2, 0.2).is_slower());
        assert!(!speed(5.0, 4.0).is_slower());
    }
}
