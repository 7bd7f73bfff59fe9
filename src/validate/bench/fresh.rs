//! What needs a fresh process to measure: the time to load, the first call, peak memory.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Spread, inputs, seconds};
use crate::interface::{Call, Interface};
use crate::runtime::Runtime;
use crate::validate::Error;

/// Loading and first use, each in a process that had done nothing before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fresh {
    /// Milliseconds to load the file; its bytes are in the system's cache.
    pub load_ms: Spread,
    /// Milliseconds of the first call after that.
    pub first_ms: Spread,
    /// The peak memory of the process, with a call of the longest kind after the first; none where it isn't known.
    pub peak_bytes: Option<u64>,
}

impl Fresh {
    /// What several processes showed, as one: of memory the most.
    pub fn of(processes: &[Self]) -> Option<Self> {
        let all = |of: fn(&Self) -> f64| Spread::of(&processes.iter().map(of).collect::<Vec<_>>());
        Some(Self {
            load_ms: all(|fresh| fresh.load_ms.median)?,
            first_ms: all(|fresh| fresh.first_ms.median)?,
            peak_bytes: processes.iter().filter_map(|fresh| fresh.peak_bytes).max(),
        })
    }
}

/// Loads a model and calls it, in this process, which should have done nothing else.
pub fn fresh(path: &Path, graph: &Interface, runtime: &dyn Runtime) -> Result<Fresh, Error> {
    let (first, longest) = match graph {
        Interface::Causal(_) => {
            let [prompt, step] = [Call::Prefill { tokens: 128 }, Call::Step { past: 512, batch: 1 }];
            (Call::Step { past: 0, batch: 1 }, vec![prompt, step])
        }
        Interface::Signal(_) => {
            let of = |frames| Call::Frames { frames, batch: 1 };
            (of(8), vec![of(128)])
        }
    };
    let given = inputs(graph, first)?;
    let start = Instant::now();
    let session = runtime.load(path)?;
    let load_ms = 1e3 * start.elapsed().as_secs_f64();
    let first_ms = 1e3 * seconds(graph, first, session.as_ref(), &given)?;
    for point in longest {
        seconds(graph, point, session.as_ref(), &inputs(graph, point)?)?;
    }
    let (load_ms, first_ms) = (Spread::once(load_ms), Spread::once(first_ms));
    Ok(Fresh { load_ms, first_ms, peak_bytes: peak_memory_bytes() })
}

/// The most memory that this process has held at once, as Linux counts it; none elsewhere.
pub fn peak_memory_bytes() -> Option<u64> {
    peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak("VmPeak:\t 9 kB\nVmHWM:\t    1640 kB\nVmRSS:\t 8 kB\n"), Some(1640 * 1024));
        assert_eq!(peak("VmHWM: many kB"), None);
        assert_eq!(peak(""), None);
    }

    #[test]
    fn several_processes_are_one_figure() {
        let once = |ms: f64| Spread { median: ms, least: ms, greatest: ms, runs: 1 };
        let of =
            |ms: f64, peak| Fresh { load_ms: once(ms), first_ms: once(2.0 * ms), peak_bytes: peak };
        let all = Fresh::of(&[of(1.0, Some(5)), of(3.0, Some(9)), of(2.0, None)]).unwrap();
        assert_eq!((all.load_ms.median, all.first_ms.greatest, all.peak_bytes), (2.0, 6.0, Some(9)));
        assert_eq!(Fresh::of(&[]), None);
    }
}
