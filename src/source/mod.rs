//! A checkpoint: a folder in upstream's layout, a hub repository, or a synthetic one.

mod refused;
pub mod seeded;
mod weights;

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};

pub use refused::Refused;
pub use weights::{INDEX, WEIGHTS, Weights};

/// The files that one graph's weights lie in: names, or patterns with one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(Vec<String>);

impl Files {
    /// The files of these names and patterns; the first is the one that a hub repository must have.
    pub fn of(patterns: &[&str]) -> Self {
        Self(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
    }

    /// The file that a hub repository must have.
    pub fn first(&self) -> &str {
        self.0.first().map_or("weights", String::as_str)
    }

    /// Whether a file of this name is enough to begin with: shards are nothing without their index.
    fn is_enough(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| !pattern.contains('*') && pattern == name)
    }

    fn take(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.split_once('*') {
            None => pattern == name,
            Some((start, end)) => {
                name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
            }
        })
    }
}

/// Which files of a checkpoint are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The weights of each graph: at least one file of each must be there.
    pub weights: Vec<Files>,
    /// Files that are taken where they are there.
    pub companions: &'static [&'static str],
}

impl Selection {
    /// Whether a file of this name is read.
    pub fn takes(&self, name: &str) -> bool {
        self.weights.iter().any(|files| files.take(name)) || self.companions.contains(&name)
    }

    /// The files that a hub repository must have.
    pub fn required(&self) -> Vec<&str> {
        self.weights.iter().map(Files::first).collect()
    }
}

/// Where a checkpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder on this machine.
    Directory(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; `main` where none is given.
        revision: String,
    },
    /// Weights that PyTorch's generator draws, in upstream's layout and shapes.
    Synthetic {
        /// Which size: of the Soprano family `soprano-1.0`, `soprano-1.1`, `tiny`, `tiny-1.0`.
        preset: String,
        /// Seed of the weights.
        seed: u64,
    },
    /// The same shapes and distributions with other numbers: [`seeded`] draws them, without PyTorch.
    Seeded {
        /// Which size; those of [`Source::Synthetic`].
        preset: String,
        /// Seed of the weights.
        seed: u64,
    },
    /// A checkpoint inside this program.
    BuiltIn {
        /// Its name.
        name: String,
    },
}

/// The words for weights that PyTorch draws, and that are drawn here.
const SYNTHETIC: &str = "synthetic";
const SEEDED: &str = "seeded";

/// Whether a source, as a manifest has it, is of random weights: nobody's model.
pub fn is_random(source: &str) -> bool {
    source.split_once(':').is_some_and(|(word, _)| [SYNTHETIC, SEEDED].contains(&word))
}

/// How a source or a checkpoint can't be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// The text names no checkpoint.
    #[error("{text:?} is not a checkpoint: neither a folder here, nor a hub id, nor seeded:PRESET")]
    #[diagnostic(
        code(source::unknown),
        help(
            "a folder, as ./checkpoint; a hub repository, as OWNER/NAME[@REVISION]; or seeded:soprano-1.1"
        )
    )]
    Unknown { text: String },
    /// The text begins with `~` and does not name the user's own home folder.
    #[error("{text:?}: {why}")]
    #[diagnostic(
        code(source::home),
        help("write the folder whole, as /home/NAME/checkpoint; one that is named so lies in ./~NAME")
    )]
    Home { text: String, why: &'static str },
    /// The seed of drawn weights is not a whole number.
    #[error("{word} preset {preset:?}: the seed {seed:?} is not a whole number")]
    #[diagnostic(code(source::seed), help("{word}:soprano-1.1#7"))]
    Seed { word: &'static str, preset: String, seed: String },
    /// The family has no preset of that name.
    #[error("`preset` is {preset:?}{}", guess.map(|g| format!("; did you mean `{g}`?")).unwrap_or_default())]
    #[diagnostic(code(source::preset), help("{known}"))]
    Preset { preset: String, guess: Option<&'static str>, known: String },
    /// PyTorch draws these weights, and there is no PyTorch.
    #[error("{synthetic} is drawn by PyTorch, and no Python environment was found")]
    #[diagnostic(
        code(source::no_pytorch),
        help("{seeded} has the same shapes, and needs none; or make setup")
    )]
    NoPyTorch { synthetic: String, seeded: String },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(source::io), help("is the path right, and may you read it?"))]
    Io { path: PathBuf, source: std::io::Error },
    /// The folder lacks weights that are needed.
    #[error("{}: no {missing} in this folder; it holds: {found}", path.display())]
    #[diagnostic(
        code(source::layout),
        help(
            "`source` in the recipe, or the checkpoint on the command line, names the folder that has it"
        )
    )]
    Layout { path: PathBuf, missing: String, found: String },
}

impl Source {
    /// Reads `DIR`, `OWNER/NAME[@REVISION]`, `synthetic:PRESET[#SEED]`, `seeded:PRESET[#SEED]` or `builtin:NAME`. A leading `~/` is the home folder:
    /// no shell reads a recipe, or what stands in quotes.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Seed`], [`Error::Home`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some((preset, seed)) = drawn(SYNTHETIC, text)? {
            return Ok(Source::Synthetic { preset, seed });
        }
        if let Some((preset, seed)) = drawn(SEEDED, text)? {
            return Ok(Source::Seeded { preset, seed });
        }
        if let Some(name) = text.strip_prefix("builtin:") {
            return Ok(Source::BuiltIn { name: name.to_owned() });
        }
        if text.starts_with('~') {
            return at_home(text, std::env::home_dir()).map(Source::Directory);
        }
        let path = Path::new(text);
        let is_path = path.is_dir() || text.starts_with(['.', '/']) || path.is_absolute();
        if is_path {
            return Ok(Source::Directory(path.to_owned()));
        }
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        match repo.split_once('/') {
            Some((owner, name)) if word(owner) && word(name) && !revision.is_empty() => {
                Ok(Source::Hub { repo: repo.to_owned(), revision: revision.to_owned() })
            }
            _ => Err(Error::Unknown { text: text.to_owned() }),
        }
    }
}

/// `WORD:PRESET` or `WORD:PRESET#SEED`; none of another text.
fn drawn(word: &'static str, text: &str) -> Result<Option<(String, u64)>, Error> {
    let Some(text) = text.strip_prefix(word).and_then(|text| text.strip_prefix(':')) else {
        return Ok(None);
    };
    let (preset, seed) = text.split_once('#').unwrap_or((text, "0"));
    let refuse = |_| Error::Seed { word, preset: preset.into(), seed: seed.into() };
    Ok(Some((preset.to_owned(), seed.parse().map_err(refuse)?)))
}

/// A folder whose name starts with `~`, as a shell reads it.
fn at_home(text: &str, home: Option<PathBuf>) -> Result<PathBuf, Error> {
    let refuse = |why| Error::Home { text: text.to_owned(), why };
    let rest = match text.split_once('/') {
        None if text == "~" => "",
        Some(("~", rest)) => rest,
        _ => return Err(refuse("no home folder but one's own is known here")),
    };
    let home = home.filter(|home| !home.as_os_str().is_empty());
    let home = home.ok_or_else(|| refuse("there is no home folder: HOME is not set"))?;
    Ok(home.join(rest.trim_start_matches('/')))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not the path: a bundle must not depend on where its checkpoint lay.
            Source::Directory(_) => f.write_str("local"),
            Source::Hub { repo, revision } => write!(f, "{repo}@{revision}"),
            Source::Synthetic { preset, seed: 0 } => write!(f, "synthetic:{preset}"),
            Source::Synthetic { preset, seed } => write!(f, "synthetic:{preset}#{seed}"),
            Source::Seeded { preset, seed: 0 } => write!(f, "seeded:{preset}"),
            Source::Seeded { preset, seed } => write!(f, "seeded:{preset}#{seed}"),
            Source::BuiltIn { name } => write!(f, "builtin:{name}"),
        }
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name inside the folder.
    pub name: String,
    /// SHA-256 of its contents.
    pub sha256: Digest,
}

/// A checkpoint on this machine, hashed.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// The weights and those companions that it has, by name.
    pub files: Vec<File>,
}

impl Checkpoint {
    /// Opens a folder and hashes what the export will read: the weights and the companions.
    ///
    /// # Errors
    /// [`Error::Layout`] where weights that are needed are missing, [`Error::Io`].
    pub fn open(folder: &Path, selection: &Selection) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .map_err(io(folder))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        let missing =
            selection.weights.iter().find(|files| !names.iter().any(|name| files.is_enough(name)));
        if let Some(missing) = missing {
            names.truncate(8);
            let present = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            let (path, missing) = (folder.to_owned(), missing.first().to_owned());
            return Err(Error::Layout { path, missing, found: present });
        }
        let files = names
            .iter()
            .filter(|name| selection.takes(name))
            .map(|name| {
                let path = folder.join(name);
                let sha256 = Digest::of_file(&path).map_err(io(&path))?;
                Ok(File { name: name.clone(), sha256 })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// As [`digest`], of its files.
    pub fn digest(&self) -> Digest {
        digest(&self.files)
    }
}

/// One digest over names and contents.
pub fn digest(files: &[File]) -> Digest {
    let mut hasher = Hasher::default();
    for file in files {
        hasher.field(&file.name, file.sha256.to_string());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let read = |text: &str| Source::parse(text).unwrap();
        let hub =
            |repo: &str, revision: &str| Source::Hub { repo: repo.into(), revision: revision.into() };
        assert_eq!(read("ekwek/Soprano-1.1-80M"), hub("ekwek/Soprano-1.1-80M", "main"));
        assert_eq!(read("a/b@v1"), hub("a/b", "v1"));
        assert_eq!(read("synthetic:tiny#7"), Source::Synthetic { preset: "tiny".into(), seed: 7 });
        assert_eq!(read("seeded:tiny#7"), Source::Seeded { preset: "tiny".into(), seed: 7 });
        assert_eq!(read("./nowhere"), Source::Directory("./nowhere".into()));
        for text in ["synthetic:tiny", "seeded:tiny", "synthetic:tiny#7", "seeded:tiny#7"] {
            assert_eq!(read(text).to_string(), text);
            assert!(is_random(text));
        }
        assert_eq!(read("seeded:tiny#0").to_string(), "seeded:tiny");
        for text in ["local", "a/b@v1", "seeded", "synthetic/model@main", "builtin:seeded"] {
            assert!(!is_random(text), "{text:?}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_folder() {
        let home = || Some(PathBuf::from("/home/me"));
        for (text, folder) in [
            ("~/a/b", "/home/me/a/b"),
            ("~", "/home/me"),
            ("~/", "/home/me"),
            ("~//a", "/home/me/a"),
            ("~/a~/~", "/home/me/a~/~"),
        ] {
            assert_eq!(at_home(text, home()).unwrap(), Path::new(folder), "{text:?}");
        }
        for text in ["~someone/a", "~someone", "~~", "~a"] {
            assert!(matches!(at_home(text, home()), Err(Error::Home { .. })), "{text:?}");
        }
        for none in [None, Some(PathBuf::new())] {
            assert!(matches!(at_home("~/a", none), Err(Error::Home { .. })));
        }
        assert_eq!(Source::parse("./~/a").unwrap(), Source::Directory("./~/a".into()));
    }

    #[test]
    fn other_words_are_refused() {
        for text in
            ["", "soprano", "a/b/c", "a/b@", "../x y/z@", "a/.hidden", "https://example.com/a/b"]
        {
            assert!(
                matches!(Source::parse(text), Err(Error::Unknown { .. }) | Ok(Source::Directory(_))),
                "{text:?}"
            );
        }
        for (text, word) in [("synthetic:tiny#x", "synthetic"), ("seeded:tiny#-1", "seeded")] {
            let error = Source::parse(text).unwrap_err();
            assert!(matches!(error, Error::Seed { word: its, .. } if its == word), "{text:?}");
        }
    }

    #[test]
    fn a_folder_without_weights_says_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("readme.txt"), "").unwrap();
        let error = Checkpoint::open(
            dir.path(),
            &Selection { weights: vec![Files::of(&["decoder.pth"])], companions: &[] },
        )
        .unwrap_err();
        assert!(error.to_string().contains("no decoder.pth in this folder; it holds: readme.txt"));
    }
}
