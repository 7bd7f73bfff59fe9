//! Finished stages, by the digest of everything they depend on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::bundle::FileEntry;
use crate::digest::{Digest, Hasher};
use crate::files;

/// Everything that a stage depends on: the fields' digest finds it, their difference says why it isn't there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The stage's name.
    pub stage: String,
    fields: BTreeMap<&'static str, String>,
}

impl Key {
    /// A key without fields.
    pub fn new(stage: &str) -> Self {
        Self { stage: stage.to_owned(), fields: BTreeMap::new() }
    }

    /// Adds a field.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.insert(name, value.to_string());
        self
    }

    /// The digest of stage and fields.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field("stage", &self.stage);
        for (name, value) in &self.fields {
            hasher.field(name, value);
        }
        hasher.finish()
    }
}

/// What a finished stage left.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    fields: BTreeMap<String, String>,
    files: BTreeMap<String, FileEntry>,
    result: serde_json::Value,
}

impl Record {
    /// Whether another run of the stage left the same.
    fn is_same(&self, other: &Record) -> bool {
        self.files == other.files && self.result == other.result
    }
}

/// A finished stage.
#[derive(Clone, Debug)]
pub struct Stage {
    folder: PathBuf,
    record: Record,
}

impl Stage {
    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the stage.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the stage has no such file.
    pub fn file(&self, name: &str) -> Result<(PathBuf, FileEntry), Error> {
        match self.record.files.get(name) {
            Some(entry) => Ok((self.folder.join(name), *entry)),
            None => Err(Error::Damaged { path: self.folder.join(name), why: "it isn't there".into() }),
        }
    }

    /// What the stage found out.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it has another form.
    pub fn result<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_value(self.record.result.clone())
            .map_err(|e| Error::Damaged { path: self.folder.clone(), why: e.to_string() })
    }

    /// Whether every file still has the digest it was left with.
    fn is_whole(&self) -> bool {
        self.record.files.iter().all(|(name, entry)| {
            Digest::of_file(&self.folder.join(name)).is_ok_and(|found| found == entry.sha256)
        })
    }
}

/// What the work of a stage found out, and the files that it hashed while it wrote them: these aren't read again.
pub(super) struct Made {
    pub(super) result: serde_json::Value,
    pub(super) files: BTreeMap<&'static str, FileEntry>,
}

impl From<serde_json::Value> for Made {
    fn from(result: serde_json::Value) -> Self {
        Self { result, files: BTreeMap::new() }
    }
}

const RECORD: &str = "stage.json";

/// The folder of finished stages.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache below a folder.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// `$SOPRANO_EXPORT_CACHE`, or `soprano-export` in the user's cache folder.
    pub fn default_root() -> PathBuf {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        variable("SOPRANO_EXPORT_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|home| home.join("soprano-export")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/soprano-export")))
            .unwrap_or_else(|| std::env::temp_dir().join("soprano-export"))
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn stages(&self) -> PathBuf {
        self.root.join("stages")
    }

    /// Where a stage lies once it is finished.
    pub fn folder(&self, key: &Key) -> PathBuf {
        self.stages().join(format!("{}-{}", key.stage, key.digest().short()))
    }

    /// A finished stage, if its record reads and its files have their lengths.
    pub fn get(&self, key: &Key) -> Option<Stage> {
        let folder = self.folder(key);
        let record: Record = serde_json::from_slice(&files::read(&folder.join(RECORD)).ok()?).ok()?;
        let present = record.files.iter().all(|(name, entry)| {
            std::fs::metadata(folder.join(name)).is_ok_and(|m| m.is_file() && m.len() == entry.bytes)
        });
        present.then_some(Stage { folder, record })
    }

    /// A finished stage whose files are hashed again; a damaged one is removed.
    pub fn get_whole(&self, key: &Key) -> Option<Stage> {
        let stage = self.get(key)?;
        if stage.is_whole() {
            return Some(stage);
        }
        let _ = std::fs::remove_dir_all(&stage.folder);
        None
    }

    /// Makes a stage in a folder of its own and renames it into place; what fails or is killed on the
    /// way leaves nothing that could be taken for it.
    ///
    /// # Errors
    /// Whatever `work` gives; [`Error::Io`].
    pub(super) fn make(
        &self,
        key: &Key,
        work: impl FnOnce(&Path) -> Result<Made, Error>,
    ) -> Result<Stage, Error> {
        let (stages, folder) = (self.stages(), self.folder(key));
        if let Some(path) = [&stages, &folder].into_iter().find(|path| path.exists() && !path.is_dir())
        {
            let why = "a file, where the cache has a folder".to_owned();
            return Err(Error::Damaged { path: path.clone(), why });
        }
        std::fs::create_dir_all(&stages).map_err(Error::io(&stages))?;
        self.sweep();
        let staging = tempfile::Builder::new()
            .prefix(&format!("{PARTIAL}{}-{}-", std::process::id(), host()))
            .tempdir_in(&stages)
            .map_err(Error::io(&stages))?;
        let Made { result, files: hashed } = work(staging.path())?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(staging.path()).map_err(Error::io(staging.path()))? {
            let path = entry.map_err(Error::io(staging.path()))?.path();
            if path.is_file() {
                let name = path.file_name().expect("a folder's entry").to_string_lossy().into_owned();
                let bytes = path.metadata().map_err(Error::io(&path))?.len();
                let entry = match hashed.get(name.as_str()).filter(|entry| entry.bytes == bytes) {
                    Some(entry) => *entry,
                    None => {
                        FileEntry { sha256: Digest::of_file(&path).map_err(Error::io(&path))?, bytes }
                    }
                };
                files.insert(name, entry);
            }
        }
        let fields = key.fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let record = Record { fields, files, result };
        let text = serde_json::to_vec_pretty(&record).expect("plain data");
        let place = staging.path().join(RECORD);
        std::fs::write(&place, text).map_err(Error::io(&place))?;
        // Another process that shares the cache may have made the same meanwhile, and others may be reading it.
        if let Some(there) =
            self.get(key).filter(|there| there.record.is_same(&record) && there.is_whole())
        {
            return Ok(there);
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        match std::fs::rename(staging.path(), &folder) {
            Ok(()) => {
                let _ = staging.keep();
                Ok(Stage { folder, record })
            }
            Err(error) => self.get(key).ok_or_else(|| Error::io(&folder)(error)),
        }
    }

    /// Why a stage is not there: which fields the nearest finished one differs in.
    pub fn why(&self, key: &Key) -> String {
        let prefix = format!("{}-", key.stage);
        let others = std::fs::read_dir(self.stages()).into_iter().flatten().flatten();
        let nearest = others
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.strip_prefix(&prefix).is_some_and(|digest| !digest.contains('-'))
            })
            .filter_map(|entry| files::read(&entry.path().join(RECORD)).ok())
            .filter_map(|text| serde_json::from_slice::<Record>(&text).ok())
            .map(|record| differences(key, &record.fields))
            .min_by_key(Vec::len);
        match nearest {
            None => "never made".to_owned(),
            Some(fields) if fields.is_empty() => "its files are damaged".to_owned(),
            Some(fields) => fields.join(", "),
        }
    }

    /// Removes folders of processes that are gone.
    fn sweep(&self) {
        for entry in std::fs::read_dir(self.stages()).into_iter().flatten().flatten() {
            if is_abandoned(&entry.file_name().to_string_lossy()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Finished stages with their size in bytes, largest first.
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let mut sizes: Vec<(String, u64)> = std::fs::read_dir(self.stages())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), tree_bytes(&entry.path())))
            .collect();
        sizes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        sizes
    }

    /// Removes every stage, and returns how many there were and their bytes.
    pub fn prune(&self) -> Result<(usize, u64), Error> {
        let sizes = self.sizes();
        let stages = self.stages();
        if stages.exists() {
            let remove = if stages.is_dir() { std::fs::remove_dir_all } else { std::fs::remove_file };
            remove(&stages).map_err(Error::io(&stages))?;
        }
        Ok((sizes.len(), sizes.iter().map(|(_, bytes)| bytes).sum()))
    }
}

const PARTIAL: &str = ".partial-";

/// This machine among those that may share a cache, where process numbers mean nothing to each other.
fn host() -> String {
    let mut name = [0u8; 256];
    #[allow(unsafe_code)]
    // SAFETY: the buffer is as long as is said; a name that doesn't fit is cut, maybe without its zero.
    let _ = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    let mut hasher = Hasher::default();
    hasher.field("host", name);
    hasher.finish().short()
}

fn is_abandoned(name: &str) -> bool {
    let mut parts = name.strip_prefix(PARTIAL).into_iter().flat_map(|rest| rest.split('-'));
    let owner = parts.next().and_then(|pid| pid.parse::<i32>().ok());
    parts.next() == Some(host().as_str()) && owner.is_some_and(files::is_gone)
}

fn tree_bytes(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().map_or(0, |m| m.len());
    }
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| tree_bytes(&entry.path())).sum()
}

/// The fields in which a key differs from a finished stage, in words.
fn differences(key: &Key, fields: &BTreeMap<String, String>) -> Vec<String> {
    let changed = key.fields.iter().filter(|(name, value)| fields.get(**name) != Some(value)).map(
        |(name, value)| match fields.get(*name) {
            Some(old) => format!("{name} {}", change(old, value)),
            None => format!("{name} is new"),
        },
    );
    let gone = fields.keys().filter(|name| !key.fields.contains_key(name.as_str()));
    changed.chain(gone.map(|name| format!("{name} is gone"))).collect()
}

/// How a value changed: in full where it is short, word by word for a list, otherwise only that it changed.
fn change(old: &str, new: &str) -> String {
    const SHORT: usize = 24;
    let without = |list: &str, other: &str, sign: char| {
        let others: Vec<&str> = other.split(' ').collect();
        let gone = list.split(' ').filter(|word| !others.contains(word));
        gone.map(|word| format!("{sign}{word}")).collect::<Vec<_>>()
    };
    let is_digest = |text: &str| text.len() >= 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest(old) || is_digest(new) {
        return "changed".to_owned();
    }
    if old.len() <= SHORT && new.len() <= SHORT {
        return format!("{old} -> {new}");
    }
    let words = [without(old, new, '-'), without(new, old, '+')].concat();
    match words.len() {
        1..=4 if words.iter().all(|word| word.len() <= 2 * SHORT) => words.join(" "),
        _ => "changed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(opset: u32) -> Key {
        Key::new("export").with("opset", opset).with("exporters", "a".repeat(16))
    }

    #[test]
    fn a_stage_is_found_by_its_key_and_misses_say_why() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        assert_eq!(cache.why(&key(17)), "never made");
        let work = |folder: &Path| {
            std::fs::write(folder.join("a.txt"), "a").unwrap();
            Ok(serde_json::json!({"n": 1}).into())
        };
        cache.make(&key(17), work).unwrap();
        let stage = cache.get_whole(&key(17)).unwrap();
        assert_eq!(std::fs::read_to_string(stage.file("a.txt").unwrap().0).unwrap(), "a");
        assert!(cache.get(&key(18)).is_none());
        assert_eq!(cache.why(&key(18)), "opset 17 -> 18");
        assert_eq!(cache.why(&Key::new("export").with("opset", 17)), "exporters is gone");
        assert_eq!(cache.why(&key(17).with("exporters", "b".repeat(16))), "exporters changed");
    }

    #[test]
    fn what_was_hashed_while_it_was_written_is_not_read_again() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let made = |opset, bytes| {
            let entry = FileEntry { sha256: Digest::of(b"told"), bytes };
            let work = move |folder: &Path| {
                std::fs::write(folder.join("a.txt"), "a").unwrap();
                Ok(Made { result: serde_json::Value::Null, files: [("a.txt", entry)].into() })
            };
            cache.make(&key(opset), work).unwrap().file("a.txt").unwrap().1
        };
        assert_eq!(made(17, 1), FileEntry { sha256: Digest::of(b"told"), bytes: 1 });
        assert!(cache.get_whole(&key(17)).is_none(), "a later run finds out");
        let shorter = made(18, 2);
        assert_eq!(shorter, FileEntry { sha256: Digest::of(b"a"), bytes: 1 }, "another file");
    }

    #[test]
    fn a_damaged_stage_is_no_hit() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let stage = cache
            .make(&key(17), |folder| {
                std::fs::write(folder.join("a.txt"), "a").unwrap();
                Ok(serde_json::Value::Null.into())
            })
            .unwrap();
        std::fs::write(stage.file("a.txt").unwrap().0, "b").unwrap();
        assert!(cache.get(&key(17)).is_some(), "its length is right");
        assert!(cache.get_whole(&key(17)).is_none(), "its digest is not");
        assert!(cache.get(&key(17)).is_none(), "a damaged stage is removed");
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_told() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let make = || cache.make(&key(17), |_| Ok(serde_json::Value::Null.into()));
        let refused = |path: &Path| {
            let error = make().unwrap_err();
            assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
            assert!(error.to_string().ends_with(": a file, where the cache has a folder"), "{error}");
            let help = miette::Diagnostic::help(&error).unwrap().to_string();
            assert_eq!(help, "soprano-export cache prune");
            cache.prune().unwrap();
            make().unwrap();
        };
        let stage = make().unwrap().folder().to_owned();
        std::fs::remove_dir_all(&stage).unwrap();
        std::fs::write(&stage, "").unwrap();
        refused(&stage);
        cache.prune().unwrap();
        std::fs::write(cache.stages(), "").unwrap();
        refused(&cache.stages());
    }

    #[test]
    fn the_first_of_two_that_make_the_same_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let work = |text: &'static str| {
            move |folder: &Path| {
                std::fs::write(folder.join("a.txt"), text).unwrap();
                Ok(serde_json::Value::Null.into())
            }
        };
        let first = cache.make(&key(17), work("a")).unwrap();
        let marked = first.folder().join("untouched");
        std::fs::write(&marked, "").unwrap();
        cache.make(&key(17), work("a")).unwrap();
        assert!(marked.exists(), "whoever reads it is not disturbed");
        cache.make(&key(17), work("b")).unwrap();
        assert!(!marked.exists(), "what is not the same is replaced");
        assert_eq!(cache.sizes().len(), 1);
    }

    #[test]
    fn only_folders_of_this_machine_can_be_known_to_be_abandoned() {
        let name = |pid: i32, host: &str| format!("{PARTIAL}{pid}-{host}-abc");
        let gone = i32::MAX - 1;
        assert!(is_abandoned(&name(gone, &host())));
        assert!(!is_abandoned(&name(std::process::id() as i32, &host())));
        assert!(!is_abandoned(&name(gone, "0123456789abcdef")));
        assert!(!is_abandoned("export-0123456789abcdef"));
    }

    #[test]
    fn work_that_fails_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        assert!(cache.make(&key(17), |_| Err(Error::Interrupted)).is_err());
        assert!(cache.get(&key(17)).is_none());
        assert!(cache.sizes().is_empty());
    }

    #[test]
    fn changes_are_told_as_shortly_as_they_can_be() {
        assert_eq!(change("17", "18"), "17 -> 18");
        assert_eq!(
            change("one two three four five six", "one two four five six seven"),
            "-three +seven"
        );
        assert_eq!(change(&"a".repeat(64), &"b".repeat(64)), "changed");
    }
}
