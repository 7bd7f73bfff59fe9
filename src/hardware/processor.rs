//! What the processor calls itself, its cores, and the instructions it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::sysctl;

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

pub(super) fn cpu_name(cpuinfo: &str) -> Option<String> {
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
pub(super) fn allowed_cpus(status: &str) -> Option<BTreeSet<usize>> {
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
pub(super) fn physical_cores(cpuinfo: &str, allowed: Option<&BTreeSet<usize>>) -> Option<usize> {
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
pub(super) fn listed_features(cpuinfo: &str) -> BTreeSet<&'static str> {
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
pub(super) fn detected_features() -> BTreeSet<&'static str> {
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
}
