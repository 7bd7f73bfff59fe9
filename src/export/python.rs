//! Finding the interpreter of a model family, without starting it.

use std::path::{Path, PathBuf};

use super::Error;
use crate::digest::{Digest, Hasher};

/// The oldest Python that the exporters run on.
const OLDEST: &str = "3.11";

/// A Python interpreter with the packages of one model family.
#[derive(Clone, Debug)]
pub struct Python {
    interpreter: PathBuf,
    packages: Vec<String>,
    version: String,
}

impl Python {
    /// The interpreter named explicitly, or `.venv` in this folder or one above it, or the newest
    /// environment of the family that `make setup` left in `cache`.
    ///
    /// # Errors
    /// [`Error::NoPython`]; [`Error::BadPython`] where a named interpreter isn't one.
    pub fn find(explicit: Option<&Path>, family: &str, cache: &Path) -> Result<Self, Error> {
        if let Some(named) = explicit {
            let path = if named.is_dir() { named.join("bin/python") } else { named.to_owned() };
            let refuse = |why: String| Error::BadPython { path: named.to_owned(), why };
            let python = Self::at(&path)
                .ok_or_else(|| refuse("not an interpreter of a virtual environment".into()))?;
            if !python.is_supported() {
                return Err(refuse(format!("Python {}; {OLDEST} or newer is needed", python.version)));
            }
            return Ok(python);
        }
        let here = std::env::current_dir().unwrap_or_default();
        let local = here.ancestors().map(|folder| folder.join(".venv/bin/python"));
        let mut environments: Vec<PathBuf> = std::fs::read_dir(cache.join("python"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join(".complete").is_file())
            .filter(|path| {
                path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{family}-")))
            })
            .collect();
        environments.sort_by_key(|path| {
            std::fs::metadata(path.join(".complete")).and_then(|m| m.modified()).ok()
        });
        let cached = environments.into_iter().rev().map(|path| path.join("bin/python"));
        local
            .chain(cached)
            .filter_map(|path| Self::at(&path))
            .find(Self::is_supported)
            .ok_or_else(|| Error::NoPython { family: family.to_owned() })
    }

    fn is_supported(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(3), Some(11))
    }

    /// The environment of an interpreter, from `pyvenv.cfg` and the names of distributions.
    fn at(interpreter: &Path) -> Option<Self> {
        if !interpreter.is_file() {
            return None;
        }
        let home = interpreter.parent()?.parent()?;
        let config = String::from_utf8(crate::files::read(&home.join("pyvenv.cfg")).ok()?).ok()?;
        let value = |key: &str| {
            config.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        let version = value("version_info").or_else(|| value("version")).unwrap_or_default();
        let mut packages: Vec<String> = site_packages(home)
            .into_iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().to_string_lossy().into_owned();
                name.strip_suffix(".dist-info").map(str::to_owned)
            })
            .collect();
        packages.sort();
        Some(Self { interpreter: interpreter.to_owned(), packages, version })
    }

    /// The interpreter's path.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// The interpreter's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Installed distributions, `name-version`, sorted.
    pub fn packages(&self) -> &[String] {
        &self.packages
    }

    /// The folders that packages lie in.
    pub fn site_packages(&self) -> Vec<PathBuf> {
        self.interpreter.parent().and_then(Path::parent).map(site_packages).unwrap_or_default()
    }

    /// What the outputs of an exporter may depend on: the version and the packages.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field("python", &self.version);
        for package in &self.packages {
            hasher.field("package", package);
        }
        hasher.finish()
    }
}

/// The folders of an environment that packages lie in.
fn site_packages(home: &Path) -> Vec<PathBuf> {
    let libraries = std::fs::read_dir(home.join("lib")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = libraries
        .map(|entry| entry.path().join("site-packages"))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(version: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let site = home.path().join("lib/python3/site-packages/torch-2.15.0.dist-info");
        std::fs::create_dir_all(site).unwrap();
        std::fs::create_dir(home.path().join("bin")).unwrap();
        std::fs::write(home.path().join("bin/python"), "").unwrap();
        std::fs::write(home.path().join("pyvenv.cfg"), format!("version_info = {version}\n")).unwrap();
        home
    }

    #[test]
    fn an_environment_is_known_by_its_files() {
        let home = environment("3.12.1");
        let python = Python::find(Some(home.path()), "soprano", Path::new("/nowhere")).unwrap();
        assert_eq!(python.packages(), ["torch-2.15.0"]);
        assert_eq!(python.version(), "3.12.1");
    }

    #[test]
    fn an_old_python_is_refused() {
        let home = environment("3.9.2");
        let error = Python::find(Some(home.path()), "soprano", Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().ends_with("Python 3.9.2; 3.11 or newer is needed"), "{error}");
    }

    #[test]
    fn what_is_no_environment_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let error = Python::find(Some(home.path()), "soprano", Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, Error::BadPython { .. }));
    }
}
