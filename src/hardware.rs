//! What machine this is.
//!
//! Readers take text, so that tests cover machines that aren't here. Names come from the processor (`/proc/cpuinfo`,
//! CPUID, `sysctl`); cores and memory are those that this process may use, not those of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

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

/// The fields of `/proc/cpuinfo`: one map per processor; a last one for lines about the whole machine.
fn blocks(cpuinfo: &str) -> Vec<BTreeMap<&str, &str>> {
    cpuinfo
        .split("\n\n")
        .map(|block| {
            let fields = block.lines().filter_map(|line| line.split_once(':'));
            fields.map(|(key, value)| (key.trim(), value.trim())).collect::<BTreeMap<_, _>>()
        })
        .filter(|block| !block.is_empty())
        .collect()
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    x86_name(cpuinfo)
        .or_else(cpuid_name)
        .or_else(|| sysctl("machdep.cpu.brand_string"))
        .or_else(|| {
            let board = fs::read_to_string("/proc/device-tree/model").unwrap_or_default();
            arm_name(cpuinfo, board.trim_matches(['\0', '\n', ' ']))
        })
        .filter(|name| !name.is_empty())
}

fn x86_name(cpuinfo: &str) -> Option<String> {
    let name = blocks(cpuinfo).iter().find_map(|block| block.get("model name").copied())?;
    Some(one_spaced(name)).filter(|name| !name.is_empty())
}

/// Vendors pad brand strings with runs of spaces.
fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(target_arch = "x86_64")]
fn cpuid_name() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return None;
    }
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004 {
        let part = __cpuid(leaf);
        for register in [part.eax, part.ebx, part.ecx, part.edx] {
            bytes.extend(register.to_le_bytes());
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    Some(one_spaced(text.trim_matches('\0'))).filter(|name| !name.is_empty())
}

#[cfg(not(target_arch = "x86_64"))]
fn cpuid_name() -> Option<String> {
    None
}

/// The board and its kinds of cores: ARM's cpuinfo has numbers where x86's has a name.
fn arm_name(cpuinfo: &str, board: &str) -> Option<String> {
    let blocks = blocks(cpuinfo);
    let board = blocks.iter().find_map(|block| block.get("Model").copied()).unwrap_or(board);
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for block in &blocks {
        let (Some(maker), Some(part)) = (block.get("CPU implementer"), block.get("CPU part")) else {
            continue;
        };
        let kind = arm_core(maker, part).map_or_else(|| format!("core {maker}:{part}"), str::to_owned);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let cores: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count}x {kind}")).collect();
    match (board, cores.join(" + ")) {
        ("", cores) if cores.is_empty() => None,
        ("", cores) => Some(cores),
        (board, cores) if cores.is_empty() => Some(board.to_owned()),
        (board, cores) => Some(format!("{board} ({cores})")),
    }
}

fn arm_core(implementer: &str, part: &str) -> Option<&'static str> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some(match (number(implementer)?, number(part)?) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd04) => "Cortex-A35",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd09) => "Cortex-A73",
        (0x41, 0xd0a) => "Cortex-A75",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse-N1",
        (0x41, 0xd0d) => "Cortex-A77",
        (0x41, 0xd40) => "Neoverse-V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd44) => "Cortex-X1",
        (0x41, 0xd46) => "Cortex-A510",
        (0x41, 0xd47) => "Cortex-A710",
        (0x41, 0xd48) => "Cortex-X2",
        (0x41, 0xd49) => "Neoverse-N2",
        (0x41, 0xd4d) => "Cortex-A715",
        (0x41, 0xd4e) => "Cortex-X3",
        (0x41, 0xd4f) => "Neoverse-V2",
        (0x41, 0xd80) => "Cortex-A520",
        (0x41, 0xd81) => "Cortex-A720",
        (0x41, 0xd82) => "Cortex-X4",
        (0xc0, 0xac3) => "Ampere-1",
        _ => return None,
    })
}

/// The processors a process may run on, from the `Cpus_allowed_list` of its status: `0-3,8`.
fn allowed_cpus(status: &str) -> Option<BTreeSet<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cpus = BTreeSet::new();
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        // The kernel's own limit is 8192.
        cpus.extend(from..=to.min(1 << 16));
    }
    Some(cpus)
}

/// Different cores among the processors; one that doesn't name its core, as on ARM, is a core.
fn physical_cores(cpuinfo: &str, allowed: Option<&BTreeSet<usize>>) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for block in blocks(cpuinfo) {
        let Some(processor) = block.get("processor").and_then(|p| p.parse::<usize>().ok()) else {
            continue;
        };
        if allowed.is_none_or(|set| set.contains(&processor)) {
            cores.insert(match (block.get("physical id"), block.get("core id")) {
                (package, Some(core)) => {
                    (package.copied().unwrap_or("0").to_owned(), (*core).to_owned())
                }
                _ => ("processor".to_owned(), processor.to_string()),
            });
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Our name, Linux's name in `flags` (x86) or `Features` (ARM).
const LISTED: &[(&str, &str)] = &[
    ("amx_bf16", "amx_bf16"),
    ("amx_int8", "amx_int8"),
    ("amx_tile", "amx_tile"),
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("avx512_bf16", "avx512_bf16"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx512bw", "avx512bw"),
    ("avx512f", "avx512f"),
    ("avx_vnni", "avx_vnni"),
    ("bf16", "bf16"),
    ("dotprod", "asimddp"),
    ("f16c", "f16c"),
    ("fma", "fma"),
    ("fp16", "asimdhp"),
    ("i8mm", "i8mm"),
    ("neon", "asimd"),
    ("sve", "sve"),
    ("sve2", "sve2"),
];

/// Features that every processor lists: on a big.LITTLE machine threads move between kinds of cores.
fn listed_features(cpuinfo: &str) -> BTreeSet<&'static str> {
    let blocks = blocks(cpuinfo);
    let lists: Vec<BTreeSet<&str>> = blocks
        .iter()
        .filter_map(|block| block.get("flags").or_else(|| block.get("Features")))
        .map(|list| list.split_whitespace().collect())
        .collect();
    let everywhere = |flag: &str| !lists.is_empty() && lists.iter().all(|list| list.contains(flag));
    LISTED.iter().filter(|(_, flag)| everywhere(flag)).map(|(name, _)| *name).collect()
}

/// What the standard library finds: the processor and the system's consent, on every system.
#[allow(unused_macros, unused_mut)]
fn detected_features() -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    macro_rules! ask {
        ($detected:ident: $($name:literal $asked:tt),*) => {
            $(if std::arch::$detected!($asked) { found.insert($name); })*
        };
    }
    // AMX can't be asked for in stable Rust: Linux lists it, and elsewhere it stays unknown.
    #[cfg(target_arch = "x86_64")]
    ask!(is_x86_feature_detected: "avx" "avx", "avx2" "avx2", "f16c" "f16c", "fma" "fma",
        "avx512f" "avx512f", "avx512bw" "avx512bw", "avx512_vnni" "avx512vnni",
        "avx512_bf16" "avx512bf16", "avx_vnni" "avxvnni");
    #[cfg(target_arch = "aarch64")]
    ask!(is_aarch64_feature_detected: "neon" "neon", "dotprod" "dotprod", "i8mm" "i8mm",
        "bf16" "bf16", "fp16" "fp16", "sve" "sve", "sve2" "sve2");
    found
}

/// Memory and what of it is free, within the container's limits.
fn memory() -> (u64, u64) {
    let mut memory = match fs::read_to_string("/proc/meminfo") {
        Ok(meminfo) => meminfo_bytes(&meminfo),
        Err(_) => {
            let total = sysctl("hw.memsize").and_then(|n| n.parse().ok()).unwrap_or(0);
            (total, vm_stat().and_then(|text| vm_stat_bytes(&text)).unwrap_or(0).min(total))
        }
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for folder in memory_groups(&groups, Path::new("/sys/fs/cgroup")) {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
        let used = read("memory.current").or_else(|| read("memory.usage_in_bytes"));
        let stat = read("memory.stat");
        memory = within_limit(memory, limit.as_deref(), used.as_deref(), stat.as_deref());
    }
    memory
}

/// `MemTotal` and `MemAvailable`, which says more than `MemFree`: the page cache gives way.
fn meminfo_bytes(meminfo: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal").unwrap_or(0);
    (total, field("MemAvailable").or_else(|| field("MemFree")).unwrap_or(0).min(total))
}

/// The folders whose limits apply to a process, its own and those above, in cgroup versions 1 and 2. In a container
/// the root is often its own folder, and the long path doesn't exist.
fn memory_groups(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let base = match controllers {
            "" => root.to_owned(),
            list if list.split(',').any(|c| c == "memory") => root.join("memory"),
            _ => continue,
        };
        let own = base.join(path.trim_start_matches('/'));
        let within = own.ancestors().take_while(|folder| folder.starts_with(&base)).map(Path::to_owned);
        folders.extend(within);
    }
    folders
}

fn within_limit(
    (total, available): (u64, u64),
    limit: Option<&str>,
    used: Option<&str>,
    stat: Option<&str>,
) -> (u64, u64) {
    let number = |text: Option<&str>| text?.trim().parse::<u64>().ok();
    // Without a limit: `max`, a file that isn't there, or a number beyond any machine.
    let Some(limit) = number(limit).filter(|&limit| limit < total || total == 0) else {
        return (total, available);
    };
    let cache = stat
        .and_then(|stat| {
            let field =
                |name: &str| stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
            field("total_inactive_file ").or_else(|| field("inactive_file "))
        })
        .unwrap_or(0);
    let left = limit.saturating_sub(number(used).unwrap_or(0).saturating_sub(cache));
    (limit, if total == 0 { left } else { available.min(left) })
}

/// Free, inactive and speculative pages of macOS's `vm_stat`.
fn vm_stat_bytes(text: &str) -> Option<u64> {
    let page: u64 = text.split_once("page size of ")?.1.split(' ').next()?.parse().ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches('.').parse::<u64>().ok()).unwrap_or(0)
    };
    let pages = field("Pages free") + field("Pages inactive") + field("Pages speculative");
    pages.checked_mul(page)
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

fn vm_stat() -> Option<String> {
    printed("/usr/bin/vm_stat", &[])
}

/// Gives memory that was freed back to the system, where the allocator would keep it for later.
pub(crate) fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer, and touches only what nothing uses.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM)  i5-1334U
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c avx_vnni
vmx flags\t: vnmi avx512f

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM)  i5-1334U
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c avx_vnni

processor\t: 2
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM)  i5-1334U
physical id\t: 0
core id\t\t: 8
flags\t\t: fpu sse2 avx avx2 fma f16c avx_vnni
";

    const AMD: &str = "\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen 5 5500U with Radeon Graphics        \n\
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c

processor\t: 1
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen 5 5500U with Radeon Graphics        \n\
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c
";

    const PI5: &str = "\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

processor\t: 1
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

Revision\t: c04170
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
";

    const ROCK: &str = "\
processor\t: 0
Features\t: fp asimd asimdhp
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 4
Features\t: fp asimd asimdhp asimddp i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd0b

processor\t: 5
Features\t: fp asimd asimdhp asimddp i8mm
CPU implementer\t: 0x7f
CPU part\t: 0x001
";

    #[test]
    fn processors_are_called_what_they_call_themselves() {
        assert_eq!(x86_name(INTEL).unwrap(), "13th Gen Intel(R) Core(TM) i5-1334U");
        assert_eq!(x86_name(AMD).unwrap(), "AMD Ryzen 5 5500U with Radeon Graphics");
        assert_eq!(x86_name(PI5), None);
        assert_eq!(arm_name(PI5, "").unwrap(), "Raspberry Pi 5 Model B Rev 1.0 (2x Cortex-A76)");
        assert_eq!(
            arm_name(ROCK, "Radxa ROCK 5B").unwrap(),
            "Radxa ROCK 5B (1x Cortex-A55 + 1x Cortex-A76 + 1x core 0x7f:0x001)"
        );
        assert_eq!(arm_name(ROCK, "").unwrap(), "1x Cortex-A55 + 1x Cortex-A76 + 1x core 0x7f:0x001");
        assert_eq!(arm_name("", ""), None);
    }

    #[test]
    fn two_threads_of_a_core_count_once_and_only_allowed_ones_count() {
        assert_eq!(physical_cores(INTEL, None), Some(2));
        assert_eq!(physical_cores(AMD, None), Some(2), "the same core number in two packages");
        assert_eq!(physical_cores(PI5, None), Some(2));
        assert_eq!(physical_cores("", None), None);
        let status = "Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n";
        assert_eq!(physical_cores(INTEL, allowed_cpus(status).as_ref()), Some(1));
        assert_eq!(allowed_cpus("Cpus_allowed_list:\t0-2,8\n"), Some(BTreeSet::from([0, 1, 2, 8])));
        assert_eq!(allowed_cpus("Cpus_allowed_list:\tmany\n"), None);
        assert_eq!(allowed_cpus(""), None);
    }

    #[test]
    fn features_have_one_name_on_every_system() {
        let features = |text| Vec::from_iter(listed_features(text));
        assert_eq!(features(INTEL), ["avx", "avx2", "avx_vnni", "f16c", "fma"], "not the `vmx flags`");
        assert_eq!(features(AMD), ["avx", "avx2", "f16c", "fma"]);
        assert_eq!(features(PI5), ["dotprod", "fp16", "neon"]);
        assert_eq!(features(ROCK), ["fp16", "neon"], "only what every core has");
        assert!(features("").is_empty());
    }

    #[test]
    fn memory_is_what_is_available_within_the_container() {
        let meminfo = "MemTotal:  8000000 kB\nMemFree: 100 kB\nMemAvailable:  6000000 kB\n";
        let host = meminfo_bytes(meminfo);
        assert_eq!(host, (8_192_000_000, 6_144_000_000));
        assert_eq!(meminfo_bytes("MemTotal: 10 kB\nMemFree: 4 kB\n"), (10_240, 4_096), "old kernels");
        assert_eq!(meminfo_bytes("nonsense"), (0, 0));
        for none in [None, Some("max\n"), Some("9223372036854771712\n")] {
            assert_eq!(within_limit(host, none, Some("5"), None), host);
        }
        let stat = "anon 7\ninactive_file 500000000\n";
        let limited = within_limit(host, Some("2000000000\n"), Some("1500000000\n"), Some(stat));
        assert_eq!(limited, (2_000_000_000, 1_000_000_000));
        let full = within_limit(host, Some("1000"), Some("2000"), None);
        assert_eq!(full, (1000, 0));
    }

    #[test]
    fn limits_are_looked_for_from_the_process_up() {
        let found = |text| -> Vec<String> {
            let folders = memory_groups(text, Path::new("/c"));
            folders.iter().map(|folder| folder.display().to_string()).collect()
        };
        assert_eq!(found("0::/a/b\n"), ["/c/a/b", "/c/a", "/c"]);
        assert_eq!(found("5:cpu:/x\n4:memory:/d\n"), ["/c/memory/d", "/c/memory"]);
        assert_eq!(found("0::/\n"), ["/c/"]);
        assert!(found("nonsense").is_empty());
    }

    #[test]
    fn mac_memory_is_pages_times_their_size() {
        let text = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:      10.\n\
                    Pages active:    99.\nPages inactive:  20.\nPages speculative: 3.\n";
        assert_eq!(vm_stat_bytes(text), Some(33 * 16384));
        assert_eq!(vm_stat_bytes("nonsense"), None);
    }

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
