//! Lists the Python package for the program to carry, fingerprints the source, so that a stage made by other code is never taken for this code's, and reads the
//! versions of built-in runtimes off the lock file.

use std::path::{Path, PathBuf};

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, into) } else { into.push(path) }
    }
}

/// The version of a package in the lock file.
fn locked<'a>(lock: &'a str, package: &str) -> &'a str {
    let entry = lock.split_once(&format!("name = \"{package}\"\nversion = \""));
    entry.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("of unknown version")
}

/// Writes a list of every module of the Python package with its text: what the program carries.
fn carry_package() {
    let home = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let home = home.join("python/soprano_export");
    let mut modules = Vec::new();
    walk(&home, &mut modules);
    modules.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    modules.sort();
    let entry = |path: &PathBuf| {
        let name = path.strip_prefix(&home).expect("inside the package");
        format!("({:?}, include_str!({path:?})),\n", name.to_string_lossy())
    };
    let list = format!("&[\n{}]", modules.iter().map(entry).collect::<String>());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("package.rs"), list).expect("the build's own folder can be written");
    println!("cargo::rerun-if-changed=python/soprano_export");
}

fn main() {
    carry_package();
    let mut files = vec![PathBuf::from("Cargo.lock")];
    walk(Path::new("src"), &mut files);
    files.sort();
    // FNV-1a, 64 bits: it tells versions of one's own source apart, and guards nothing.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for file in &files {
        for byte in std::fs::read(file).unwrap_or_default() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    println!("cargo::rustc-env=SOPRANO_EXPORT_TRACT={}", locked(&lock, "tract-onnx"));
    println!("cargo::rustc-env=SOPRANO_EXPORT_RTEN={}", locked(&lock, "rten"));
    println!("cargo::rustc-env=SOPRANO_EXPORT_FINGERPRINT={hash:016x}");
}
