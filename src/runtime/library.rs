//! A runtime's shared library: where it is looked for, and checks that turn a loader's failures into readable
//! errors.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use crate::files;

/// Where shared libraries are looked for, before those of the system.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The library of a runtime, by the runtime's name; it must be there.
    pub named: BTreeMap<String, PathBuf>,
    /// Folders of Python packages (`site-packages`), some of which bring a library along.
    pub folders: Vec<PathBuf>,
}

/// How the shared library of a runtime is named and found.
#[derive(Debug)]
pub struct Library {
    /// What it is, in a line of help.
    pub about: &'static str,
    /// The option that names its file, without dashes.
    pub option: &'static str,
    /// The environment variable that names its file.
    pub variable: &'static str,
    /// The Python package that brings it along.
    pub package: &'static str,
    /// The folder inside `site-packages`.
    pub(super) folder: &'static str,
    /// Its file's name, without an ending.
    pub(super) stem: &'static str,
    /// What every one of its files exports.
    pub(super) symbol: &'static str,
}

impl Library {
    /// Whether a file's name is the library's; the Python package puts a version into it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.stem) else { return false };
        rest == ".so" || rest.starts_with(".so.") || (rest.starts_with('.') && rest.ends_with(".dylib"))
    }

    /// The library that is named, which must be a file, else the one of a Python package, with the package's
    /// version, else the system's, by its bare name.
    pub(super) fn locate(
        &self,
        runtime: &'static str,
        places: &Places,
    ) -> Result<(PathBuf, Option<String>), Error> {
        if let Some(named) = places.named.get(runtime) {
            let missing = |why: &str| self.missing(runtime, format!("{}: {why}", named.display()));
            files::plain(named).map_err(|e| missing(&e.to_string()))?;
            return match named.is_file() {
                true => Ok((named.clone(), None)),
                false => Err(missing("no such file")),
            };
        }
        let packaged = places.folders.iter().find_map(|folder| {
            let library = first(&folder.join(self.folder), |name| self.is_called(name))?;
            let version = first(folder, |name| self.version(name).is_some())?;
            let version = version.file_name().and_then(|name| self.version(name.to_str()?))?.to_owned();
            Some((library, Some(version)))
        });
        let ending = if cfg!(target_os = "macos") { "dylib" } else { "so" };
        Ok(packaged.unwrap_or_else(|| (format!("{}.{ending}", self.stem).into(), None)))
    }

    /// The package's version, from the name of the folder in which Python keeps what it says of itself.
    fn version<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.package)?.strip_prefix('-')?.strip_suffix(".dist-info")
    }

    /// Why the runtime is not here.
    pub(super) fn missing(&self, runtime: &'static str, why: String) -> Error {
        Error::Missing { runtime, why, variable: self.variable }
    }

    /// Checks that a file is a shared library of this machine which exports the symbol. A bare name is for the
    /// system's loader to find. The error begins with the path.
    pub(super) fn check(&self, path: &Path) -> Result<(), String> {
        check(path, self.symbol)
    }
}

/// The first entry of a folder, by name, whose name is one that is looked for.
fn first(folder: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&fits)).min()
}

fn check(path: &Path, symbol: &str) -> Result<(), String> {
    let name = path.display().to_string();
    // The loader's words may begin with the path already.
    let refuse = |why: String| if why.starts_with(&name) { why } else { format!("{name}: {why}") };
    // A file that is not there is in the loader's own words, which name what it looked for.
    if path.exists() {
        machine(path).map_err(refuse)?;
    }
    #[allow(unsafe_code)]
    // SAFETY: loading runs the library's initializers, as using it does; the symbol is only looked up,
    // never called. The library stays loaded, so that nothing of it is torn down under a later user.
    unsafe {
        let library = libloading::Library::new(path).map_err(|e| refuse(loader(&e)))?;
        let exports = library.get::<*const ()>(symbol).is_ok();
        std::mem::forget(library);
        if exports { Ok(()) } else { Err(refuse(format!("it is another library: it has no {symbol}"))) }
    }
}

/// The loader's words, which may already begin with a path.
fn loader(error: &libloading::Error) -> String {
    let whole = error.to_string();
    std::error::Error::source(error).map_or(whole, ToString::to_string)
}

/// ELF's numbers for the machines that this program runs on.
const MACHINES: [(u16, &str); 4] =
    [(0x3e, "x86_64"), (0xb7, "aarch64"), (0x03, "x86"), (0xf3, "riscv64")];

/// Refuses what is not a shared library, and one for another processor, which Linux reports as missing.
fn machine(path: &Path) -> Result<(), String> {
    let mut start = Vec::new();
    let mut file = files::open(path).map_err(|e| e.to_string())?;
    file.by_ref().take(20).read_to_end(&mut start).map_err(|e| e.to_string())?;
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let &[0x7f, b'E', b'L', b'F', _class, order, .., a, b] = start.as_slice() else {
        return Err("it is not a shared library".to_owned());
    };
    if start.len() < 20 {
        return Err("it is cut off".to_owned());
    }
    let machine = if order == 2 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
    let name = MACHINES.iter().find(|(code, _)| *code == machine).map(|(_, name)| *name);
    if name == Some(std::env::consts::ARCH) {
        return Ok(());
    }
    let target = name.map_or_else(|| format!("another processor ({machine:#x})"), str::to_owned);
    Err(format!("it is made for {target}; this program runs on {}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libopenvino_c.so.1");
        std::fs::write(&path, contents).unwrap();
        (folder, path)
    }

    /// The first bytes of an ELF file for a machine.
    fn elf(machine: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        header.extend(3u16.to_le_bytes());
        header.extend(machine.to_le_bytes());
        header.resize(64, 0);
        header
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_wrong_kind_of_file_is_told() {
        let other = if cfg!(target_arch = "x86_64") { (0xb7, "aarch64") } else { (0x3e, "x86_64") };
        let cases = [
            (b"a letter to the editor, of some length".to_vec(), "it is not a shared library"),
            (Vec::new(), "it is not a shared library"),
            (elf(0)[..12].to_vec(), "it is cut off"),
            (elf(other.0), other.1),
            (elf(0x1234), "another processor (0x1234)"),
        ];
        for (contents, words) in cases {
            let (_folder, path) = file(&contents);
            let error = check(&path, "ov_get_openvino_version").unwrap_err();
            assert!(error.starts_with(path.to_str().unwrap()) && error.contains(words), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path(), "x").unwrap_err().ends_with(": a folder, not a plain file"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_header_with_nothing_behind_it_is_the_loaders_to_refuse() {
        let machine = MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).unwrap().0;
        let (_folder, path) = file(&elf(machine));
        assert!(check(&path, "ov_get_openvino_version").is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_without_the_symbol_is_another_one() {
        let error = check(Path::new("libc.so.6"), "ov_get_openvino_version").unwrap_err();
        assert_eq!(error, "libc.so.6: it is another library: it has no ov_get_openvino_version");
        check(Path::new("libc.so.6"), "malloc").unwrap();
    }

    #[test]
    fn a_name_that_nobody_finds_is_an_error() {
        let error = check(Path::new("libnobody-has-this.so"), "x").unwrap_err();
        assert!(error.contains("libnobody-has-this.so"), "{error}");
    }
}
