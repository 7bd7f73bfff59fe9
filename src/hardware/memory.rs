//! The memory of a machine, within the limits of its container.

use std::fs;
use std::path::{Path, PathBuf};

use super::{printed, sysctl};

/// Memory and what of it is free, within the container's limits.
pub(super) fn memory() -> (u64, u64) {
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

fn vm_stat() -> Option<String> {
    printed("/usr/bin/vm_stat", &[])
}

/// Gives memory that was freed back to the system, where the allocator would keep it for later.
#[cfg(feature = "report")]
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
}
