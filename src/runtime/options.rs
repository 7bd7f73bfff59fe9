//! Options of a runtime, in one vocabulary that each runtime translates into its own.

use serde::{Deserialize, Serialize};

/// Options of a runtime, which ignores those that it doesn't have: tract is always exact and on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Threads that share one operator; 1 or more.
    pub threads: usize,
    /// Operators that run side by side where the graph allows it; 1 runs one after the other.
    pub threads_between: usize,
    /// How far the graph is rewritten at load.
    pub optimization: Optimization,
    /// Calls that run side by side on one session, or as many as the runtime thinks best.
    pub streams: Option<usize>,
    /// What to optimize for.
    pub hint: Hint,
    /// Whether threads stay on their cores, or as the runtime thinks best.
    pub pinning: Option<bool>,
    /// Whether threads give up their cores as soon as a call ends. Otherwise they stay awake for the next one,
    /// which comes sooner then, at the cost of other sessions' calls.
    pub yielding: bool,
    /// Arithmetic as in the file: no activations in 8 or 16 bits that it doesn't ask for. Validation is exact.
    pub exact: bool,
}

/// How far a graph is rewritten at load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// Not at all: every node of the file is run.
    None,
    /// Rewrites that keep the file's own operators.
    Basic,
    /// Everything that the runtime has.
    #[default]
    All,
}

/// What a runtime optimizes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hint {
    /// The time that one call takes.
    #[default]
    Latency,
    /// The number of calls an hour.
    Throughput,
}

impl Options {
    /// For validation: exact, on one thread.
    pub const EXACT: Self = Self {
        threads: 1,
        threads_between: 1,
        optimization: Optimization::All,
        streams: None,
        hint: Hint::Latency,
        pinning: None,
        yielding: false,
        exact: true,
    };

    /// As a client would use it: the fastest arithmetic that the runtime has, on so many threads.
    pub const fn fast(threads: usize) -> Self {
        Self { threads, exact: false, ..Self::EXACT }
    }

    /// The same on so many threads; one at least.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::EXACT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_validates_is_exact_and_on_one_thread() {
        let Options { threads, threads_between, exact, .. } = Options::default();
        assert_eq!((threads, threads_between, exact), (1, 1, true));
        assert!(!Options::fast(2).exact);
        assert_eq!(Options::EXACT.with_threads(0).threads, 1, "no runtime has a word for none");
        assert_eq!(Options::EXACT.with_threads(3), Options { threads: 3, ..Options::EXACT });
    }
}
