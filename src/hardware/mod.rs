//! What machine this is.
//!
//! Readers take text, so that tests cover machines that aren't here. Names come from the processor (`/proc/cpuinfo`,
//! CPUID, `sysctl`); cores and memory are those that this process may use, not those of the host.

mod memory;
mod processor;

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

#[cfg(feature = "report")]
pub(crate) use memory::give_back_memory;
use memory::memory;
use processor::{allowed_cpus, cpu_name, detected_features, listed_features, physical_cores};

/// The machine as this process sees it; a number that can't be found out is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub cpu: String,
    /// `x86_64`, `aarch64`, …
    pub arch: &'static str,
    /// Cores that this process may run on; two threads of one core count once.
    pub physical_cores: usize,
    /// Threads that run at once within affinity and container limits.
    pub logical_cores: usize,
    /// Memory of the machine, or of the container where that is less.
    pub memory_bytes: u64,
    /// What of it can be had without swapping.
    pub memory_available_bytes: u64,
    /// Instructions that matter to inference, sorted, under one name on every system.
    pub features: Vec<&'static str>,
}

impl Machine {
    /// Looks at this machine.
    pub fn detect() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let logical_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let physical = physical_cores(&cpuinfo, allowed_cpus(&status).as_ref())
            .or_else(|| sysctl("hw.physicalcpu")?.parse().ok())
            .unwrap_or(logical_cores);
        let (memory_bytes, memory_available_bytes) = memory();
        let mut features = detected_features();
        features.extend(listed_features(&cpuinfo));
        Machine {
            cpu: cpu_name(&cpuinfo).unwrap_or_else(|| std::env::consts::ARCH.into()),
            arch: std::env::consts::ARCH,
            physical_cores: physical.clamp(1, logical_cores),
            logical_cores,
            memory_bytes,
            memory_available_bytes,
            features: features.into_iter().collect(),
        }
    }
}

/// The bytes that this user may still write to the file system of a path; the path or a folder above it
/// must exist.
///
/// # Errors
/// Where no folder above the path can be asked.
pub fn disk_free_bytes(path: &Path) -> io::Result<u64> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(&path);
    statvfs(there)
}

#[cfg(unix)]
#[allow(unsafe_code, clippy::unnecessary_cast)]
fn statvfs(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in a zero byte and `answer` is writable, both for the whole call.
    if unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the struct is plain integers, for which zeros are valid, and the call has filled it.
    let answer = unsafe { answer.assume_init() };
    // The integers' widths differ between systems.
    Ok((answer.f_bavail as u64).saturating_mul(answer.f_frsize as u64))
}

#[cfg(not(unix))]
fn statvfs(_: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "macos")]
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(not(target_os = "macos"))]
fn printed(_: &str, _: &[&str]) -> Option<String> {
    None
}

fn sysctl(name: &str) -> Option<String> {
    printed("/usr/sbin/sysctl", &["-n", name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_makes_sense() {
        let machine = Machine::detect();
        assert!(!machine.cpu.is_empty());
        assert!(1 <= machine.physical_cores && machine.physical_cores <= machine.logical_cores);
        assert!(machine.memory_available_bytes <= machine.memory_bytes);
        assert!(machine.features.is_sorted());
        if cfg!(target_os = "linux") {
            assert!(machine.memory_bytes > 1 << 26);
        }
    }

    #[cfg(unix)]
    #[test]
    fn free_space_is_that_of_the_nearest_folder_there_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(disk_free_bytes(folder.path()).unwrap() > 0);
        assert!(disk_free_bytes(&folder.path().join("not/yet/made")).unwrap() > 0);
        assert!(disk_free_bytes(Path::new("not-yet-made")).is_ok());
        assert!(disk_free_bytes(Path::new("")).is_err());
    }
}
