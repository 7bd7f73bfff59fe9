use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{ArtifactEntry, MANIFEST, Manifest};
use crate::digest::Digest;
use crate::interface::Interface;
use crate::ir;
use crate::runtime::{self, Format};
use crate::speech;
use crate::validate::{self, Artifact, References, Weights};

/// A bundle whose manifest was read. A path to one of its files comes from here alone, after the file was found inside
/// the folder and has the digest that the manifest gives it.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
}

/// How a file of a bundle can't be trusted, or read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum OpenError {
    /// A file of the manifest leads out of the folder, by its name or by a link.
    #[error("{}: {file:?} leads out of the bundle", folder.join(MANIFEST).display())]
    #[diagnostic(
        code(bundle::outside),
        help("a bundle's files lie in its own folder: build or fetch it again")
    )]
    Outside { folder: PathBuf, file: String },
    /// The manifest does not list the file.
    #[error("{}: it doesn't list {file:?}", folder.join(MANIFEST).display())]
    #[diagnostic(
        code(bundle::unlisted),
        help("a bundle's manifest lists all of its files: build or fetch it again")
    )]
    Unlisted { folder: PathBuf, file: String },
    /// The manifest gives the file more than one digest.
    #[error("{}: it gives {file:?} more than one digest", folder.join(MANIFEST).display())]
    #[diagnostic(code(bundle::disputed), help("build or fetch the bundle again"))]
    Disputed { folder: PathBuf, file: String },
    /// A graph would be loaded with other weights than those that the manifest names.
    #[error("{}: the weights of {file:?} are not the file next to it", folder.join(MANIFEST).display())]
    #[diagnostic(
        code(bundle::weights),
        help("a .xml has its weights in the .bin of its name: build or fetch the bundle again")
    )]
    Weights { folder: PathBuf, file: String },
    /// The file's digest is not that of the manifest.
    #[error("{}: its digest is {found}, and {expected} was validated", folder.join(file).display())]
    #[diagnostic(
        code(bundle::altered),
        help(
            "soprano-export verify {} lists every file that was changed; build or fetch the bundle again",
            folder.display()
        )
    )]
    Changed { folder: PathBuf, file: String, expected: Digest, found: Digest },
    /// The file could not be read.
    #[error("{}: {source}", folder.join(file).display())]
    #[diagnostic(
        code(bundle::unreadable),
        help("soprano-export verify {} lists every file that is missing", folder.display())
    )]
    Io { folder: PathBuf, file: String, source: std::io::Error },
    /// The bundle's graphs are not those of a voice.
    #[error("the bundle's graphs, of the family {family:?}, make no voice")]
    #[diagnostic(
        code(bundle::no_voice),
        help(
            "a bundle that speaks is of a family with a text front end: soprano-export build soprano-1.1"
        )
    )]
    NoVoice { family: String },
    /// The runtime takes no file of a graph that speaks.
    #[error("the bundle has no {graph} that {runtime} would speak with")]
    #[diagnostic(
        code(bundle::no_file),
        help("its manifest.json lists what it has: ask for another precision, or another runtime")
    )]
    NoFile { graph: String, runtime: &'static str },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interface(#[from] crate::interface::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    References(#[from] validate::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ir::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Speech(#[from] speech::Error),
}

impl Bundle {
    /// Opens the bundle in a folder: reads its manifest, and none of its files yet.
    pub fn open(folder: &Path) -> Result<Self, super::Error> {
        Ok(Self { manifest: Manifest::read(folder)?, folder: folder.to_owned() })
    }

    /// Its folder, as it was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the manifest lists a file.
    pub fn lists(&self, file: &str) -> bool {
        self.manifest.files.contains_key(file)
    }

    /// The path of a file by its name in the manifest, which is all of it that was hashed: a name leads
    /// nowhere out of the folder, by its words or by a link.
    ///
    /// # Errors
    /// [`OpenError`] where the manifest doesn't list it, or it isn't there as the manifest says.
    pub fn file(&self, file: &str) -> Result<PathBuf, OpenError> {
        let (folder, name) = (|| self.folder.clone(), || file.to_owned());
        let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !plain {
            return Err(OpenError::Outside { folder: folder(), file: name() });
        }
        let expected = self.digest(file)?;
        let io = |source| OpenError::Io { folder: folder(), file: name(), source };
        let path = self.folder.join(file);
        let real = std::fs::canonicalize(&path).map_err(io)?;
        if !real.starts_with(std::fs::canonicalize(&self.folder).map_err(io)?) {
            return Err(OpenError::Outside { folder: folder(), file: name() });
        }
        let found = Digest::of_file(&path).map_err(io)?;
        if found != expected {
            return Err(OpenError::Changed { folder: folder(), file: name(), expected, found });
        }
        Ok(path)
    }

    /// The digest that a manifest gives a file, wherever it names it.
    fn digest(&self, file: &str) -> Result<Digest, OpenError> {
        let listed = self.manifest.files.get(file).map(|entry| entry.sha256);
        let named = self.manifest.artifacts.iter().flat_map(ArtifactEntry::files);
        let named = named.filter(|(name, _)| *name == file).map(|(_, entry)| entry.sha256);
        let digests: BTreeSet<Digest> = listed.into_iter().chain(named).collect();
        let (folder, file) = (self.folder.clone(), file.to_owned());
        match digests.len() {
            0 => Err(OpenError::Unlisted { folder, file }),
            1 => Ok(digests.into_iter().next().expect("one")),
            _ => Err(OpenError::Disputed { folder, file }),
        }
    }

    /// A model, with its weights where they are a file of their own: the one that a runtime takes.
    ///
    /// # Errors
    /// As [`Bundle::file`], for each; [`OpenError::Weights`] where a runtime would take others.
    pub fn model(&self, entry: &ArtifactEntry) -> Result<Artifact, OpenError> {
        let path = self.file(&entry.file)?;
        let weights = entry.weights.as_ref().map(|weights| {
            let path = self.file(&weights.file)?;
            Ok::<_, OpenError>(Weights { path, sha256: weights.sha256, bytes: weights.bytes })
        });
        let weights = weights.transpose()?;
        let named = entry.weights.as_ref().map(|weights| PathBuf::from(&weights.file));
        let beside = Path::new(&entry.file).with_extension("bin");
        if named != (entry.format == Format::OpenVino).then_some(beside) {
            return Err(OpenError::Weights { folder: self.folder.clone(), file: entry.file.clone() });
        }
        Ok(Artifact { path, sha256: entry.sha256, bytes: entry.bytes, weights })
    }

    /// What was recorded for a model.
    ///
    /// # Errors
    /// As [`Bundle::file`]; [`OpenError::Interface`] where the model's inputs and outputs are not those that its graph
    /// names, [`OpenError::References`] where the references prove nothing.
    pub fn references(&self, entry: &ArtifactEntry) -> Result<References, OpenError> {
        self.references_in(entry, &self.file(&entry.references)?)
    }

    /// References of another file, for the inputs of an artifact.
    ///
    /// # Errors
    /// As [`Bundle::references`], of that file.
    pub fn references_in(&self, entry: &ArtifactEntry, path: &Path) -> Result<References, OpenError> {
        let ports = &self.manifest.graph(entry).interface;
        Interface::bind_whole(ports, &entry.signature())?;
        let inputs = entry.signature().recorded_inputs(ports);
        Ok(References::read(path, &inputs)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::{Value, json};

    use super::*;

    const CARD: &str = "README.md";
    const GRAPH: &str = "openvino/lm.xml";
    const WEIGHTS: &str = "openvino/lm.bin";

    /// A bundle of a card and an IR, after an edit of its manifest.
    fn bundle(folder: &Path, edit: impl FnOnce(&mut Value)) -> Bundle {
        let mut files = serde_json::Map::new();
        for (name, text) in [(CARD, "# a card\n"), (GRAPH, "<net/>"), (WEIGHTS, "weights")] {
            let path = folder.join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
            let entry = json!({"sha256": Digest::of(text.as_bytes()), "bytes": text.len()});
            files.insert(name.to_owned(), entry);
        }
        let mut manifest = json!({
            "format": 2, "name": "small", "key": Digest::of(b""),
            "tool": {"name": "soprano-export", "version": "0"},
            "checkpoint": {"source": "local", "files": []},
            "family": "soprano", "environment": {},
            "graphs": {"lm": {"interface": {"role": "causal"}, "architecture": {}}},
            "artifacts": [{
                "file": GRAPH, "graph": "lm", "precision": "fp32", "format": "openvino",
                "sha256": files[GRAPH]["sha256"], "bytes": 6,
                "weights": {"file": WEIGHTS, "sha256": files[WEIGHTS]["sha256"], "bytes": 7},
                "inputs": [], "outputs": [], "references": "reference/lm.safetensors",
                "tolerance": {"max_abs_of_peak": 1e-5, "snr_db": 90.0, "log_spectral_distance_db": 0.05},
            }],
            "files": files,
        });
        edit(&mut manifest);
        fs_err::write(folder.join(MANIFEST), manifest.to_string()).unwrap();
        Bundle::open(folder).unwrap()
    }

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_whole_bundle_gives_its_files() {
        let folder = temporary();
        let bundle = bundle(folder.path(), |_| {});
        assert!(bundle.lists(CARD) && !bundle.lists(MANIFEST));
        assert_eq!(bundle.file(CARD).unwrap(), folder.path().join(CARD));
        let model = bundle.model(&bundle.manifest().artifacts[0]).unwrap();
        assert_eq!(model.path, folder.path().join(GRAPH));
        assert_eq!(model.weights.unwrap().path, folder.path().join(WEIGHTS));
        // A link that stays inside shows what was hashed.
        fs_err::rename(folder.path().join(CARD), folder.path().join("card")).unwrap();
        symlink("card", folder.path().join(CARD)).unwrap();
        bundle.file(CARD).unwrap();
    }

    #[test]
    fn no_name_and_no_link_leads_out() {
        let (folder, other) = (temporary(), temporary());
        let secret = other.path().join("secret");
        fs_err::write(&secret, "secret").unwrap();
        let entry = json!({"sha256": Digest::of(b"secret"), "bytes": 6});
        let up = format!("../{}/secret", other.path().file_name().unwrap().to_str().unwrap());
        let names = ["", "..", ".", "./README.md", "onnx/../README.md", &up, secret.to_str().unwrap()];
        let links = ["file", "folder/secret"];
        let bundle = bundle(folder.path(), |manifest| {
            for name in names.into_iter().chain(links) {
                manifest["files"][name] = entry.clone();
            }
        });
        symlink(&secret, folder.path().join("file")).unwrap();
        symlink(other.path(), folder.path().join("folder")).unwrap();
        for name in names.into_iter().chain(links) {
            let found = bundle.file(name);
            assert!(matches!(found, Err(OpenError::Outside { .. })), "{name:?}: {found:?}");
        }
    }

    #[test]
    fn a_file_is_what_the_manifest_says() {
        let folder = temporary();
        let whole = bundle(folder.path(), |_| {});
        assert!(matches!(whole.file(MANIFEST), Err(OpenError::Unlisted { .. })));
        let entry = whole.manifest().artifacts[0].clone();
        assert!(matches!(whole.references(&entry), Err(OpenError::Unlisted { .. })));
        for name in [CARD, GRAPH, WEIGHTS] {
            let path = folder.path().join(name);
            let text = fs_err::read(&path).unwrap();
            fs_err::write(&path, "something else").unwrap();
            assert!(matches!(whole.file(name), Err(OpenError::Changed { .. })), "{name}");
            assert_eq!(whole.model(&entry).is_ok(), name == CARD);
            fs_err::remove_file(&path).unwrap();
            assert!(matches!(whole.file(name), Err(OpenError::Io { .. })), "{name}");
            fs_err::create_dir(&path).unwrap();
            assert!(matches!(whole.file(name), Err(OpenError::Io { .. })), "{name}");
            fs_err::remove_dir(&path).unwrap();
            fs_err::write(&path, text).unwrap();
        }
        let twice = bundle(folder.path(), |manifest| {
            manifest["files"][GRAPH]["sha256"] = json!(Digest::of(b"another"));
        });
        assert!(matches!(twice.file(GRAPH), Err(OpenError::Disputed { .. })));
    }

    #[test]
    fn weights_are_those_that_a_runtime_takes() {
        let folder = temporary();
        for (field, value) in [("weights", Value::Null), ("format", json!("onnx"))] {
            let bundle = bundle(folder.path(), |manifest| manifest["artifacts"][0][field] = value);
            let found = bundle.model(&bundle.manifest().artifacts[0]);
            assert!(matches!(found, Err(OpenError::Weights { .. })), "{found:?}");
        }
        let elsewhere = bundle(folder.path(), |manifest| {
            fs_err::write(folder.path().join("lm.bin"), "weights").unwrap();
            manifest["artifacts"][0]["weights"]["file"] = json!("lm.bin");
        });
        let found = elsewhere.model(&elsewhere.manifest().artifacts[0]);
        assert!(matches!(found, Err(OpenError::Weights { .. })), "{found:?}");
    }
}
