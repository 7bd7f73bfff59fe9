//! A checkpoint: a folder in upstream's layout, a hub repository, or a synthetic one.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};

/// Files of upstream's layout that a bundle carries along, where the checkpoint has them.
pub const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// The decoder's weights in upstream's layout.
pub const DECODER: &str = "decoder.pth";

/// The language model's weights in upstream's layout.
pub const LANGUAGE_MODEL: &str = "model.safetensors";

/// What lists a language model's files where there are several.
pub const SHARD_INDEX: &str = "model.safetensors.index.json";

/// Which weights of a checkpoint are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The decoder's.
    pub decoder: bool,
    /// The language model's.
    pub lm: bool,
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
    /// Upstream's own class with seeded weights.
    Synthetic {
        /// Which size: `soprano-1.0`, `soprano-1.1`, `tiny`, `tiny-1.0`.
        preset: String,
        /// Seed of the weights.
        seed: u64,
    },
}

/// How a source or a checkpoint can't be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{text:?} is no checkpoint: neither a folder here, nor a hub id, nor synthetic:PRESET")]
    #[diagnostic(
        code(source::unknown),
        help(
            "a folder that holds decoder.pth, or ekwek/Soprano-1.1-80M[@REVISION], or synthetic:soprano-1.1"
        )
    )]
    Unknown { text: String },
    #[error("{text:?}: {why}")]
    #[diagnostic(
        code(source::home),
        help("write the folder whole, as /home/NAME/checkpoint; one that is named so lies in ./~NAME")
    )]
    Home { text: String, why: &'static str },
    #[error("synthetic preset {preset:?}: the seed {seed:?} is not a whole number")]
    #[diagnostic(code(source::seed), help("synthetic:soprano-1.1#7"))]
    Seed { preset: String, seed: String },
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(source::io), help("is the path right, and may you read it?"))]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: no {missing} in this folder; it holds: {found}", path.display())]
    #[diagnostic(
        code(source::layout),
        help("point --model at the folder that upstream's files lie in")
    )]
    Layout { path: PathBuf, missing: &'static str, found: String },
}

impl Source {
    /// Reads `DIR`, `OWNER/NAME[@REVISION]` or `synthetic:PRESET[#SEED]`. A leading `~/` is the home folder:
    /// no shell reads a recipe, or what stands in quotes.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Seed`], [`Error::Home`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(preset) = text.strip_prefix("synthetic:") {
            let (preset, seed) = preset.split_once('#').unwrap_or((preset, "0"));
            let number =
                seed.parse().map_err(|_| Error::Seed { preset: preset.into(), seed: seed.into() })?;
            return Ok(Source::Synthetic { preset: preset.to_owned(), seed: number });
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
        }
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Opens a folder in upstream's layout and hashes what the export will read: the decoder, the language
    /// model in one file or in shards, whichever are needed, and the companions.
    ///
    /// # Errors
    /// [`Error::Layout`] where weights that are needed are missing, [`Error::Io`].
    pub fn open(folder: &Path, needs: Needs) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .map_err(io(folder))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        found.sort();
        let has = |name: &str| found.iter().any(|f| f == name);
        let missing = match needs {
            Needs { decoder: true, .. } if !has(DECODER) => Some(DECODER),
            Needs { lm: true, .. } if !has(LANGUAGE_MODEL) && !has(SHARD_INDEX) => Some(LANGUAGE_MODEL),
            _ => None,
        };
        if let Some(missing) = missing {
            found.truncate(8);
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            return Err(Error::Layout { path: folder.to_owned(), missing, found });
        }
        let weights = |name: &str| {
            let shard = name == LANGUAGE_MODEL
                || name == SHARD_INDEX
                || (name.starts_with("model-") && name.ends_with(".safetensors"));
            (needs.decoder && name == DECODER) || (needs.lm && shard)
        };
        let files = found
            .iter()
            .filter(|name| weights(name) || COMPANIONS.contains(&name.as_str()))
            .map(|name| {
                let path = folder.join(name);
                let sha256 = Digest::of_file(&path).map_err(io(&path))?;
                Ok(File { name: name.clone(), sha256 })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// One digest over names and contents.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for file in &self.files {
            hasher.field(&file.name, file.sha256.to_string());
        }
        hasher.finish()
    }
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
        assert_eq!(read("./nowhere"), Source::Directory("./nowhere".into()));
        assert_eq!(read("synthetic:tiny").to_string(), "synthetic:tiny");
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
        assert!(matches!(Source::parse("synthetic:tiny#x"), Err(Error::Seed { .. })));
    }

    #[test]
    fn a_folder_without_weights_says_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("readme.txt"), "").unwrap();
        let error = Checkpoint::open(dir.path(), Needs { decoder: true, lm: false }).unwrap_err();
        assert!(error.to_string().contains("no decoder.pth in this folder; it holds: readme.txt"));
    }
}
