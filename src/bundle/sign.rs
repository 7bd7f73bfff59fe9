//! Signatures: minisign over the manifest, which holds the digest of every other file, so one signature covers all.
//! The list of digests follows from the manifest; [`super::verify`] compares the two.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKeyBox, SecretKeyBox, SignatureBox};

use super::MANIFEST;
use crate::digest::Digest;
use crate::files::{self, Staged};

/// The signature's name, as minisign itself gives it.
pub const SIGNATURE: &str = "manifest.json.minisig";
/// A signature is a few hundred bytes, a key fewer; whatever is longer is neither.
const LONGEST: u64 = 64 << 10;
const COMMENT: &str = "untrusted comment: ";
/// What minisign and rsign write where nobody says otherwise.
const THEIRS: [&str; 2] = ["signature from minisign secret key", "signature from rsign secret key"];
const OURS: &str = "signature of a soprano-export bundle, sha256 of the lines below ";

/// How signing, or reading a key, fails.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(sign::io), help("does the file exist, and may you read or write it?"))]
    Io { path: PathBuf, source: std::io::Error },
    /// The file is not a key.
    #[error("{}: not a minisign {what} key{why}", path.display())]
    #[diagnostic(
        code(sign::key),
        help("soprano-export sign --generate FILE   makes FILE and FILE.pub")
    )]
    Key { path: PathBuf, what: &'static str, why: String },
    /// The secret key needs a password.
    #[error("{}: this secret key is encrypted, and no password is given", path.display())]
    #[diagnostic(
        code(sign::password),
        help("set SOPRANO_EXPORT_KEY_PASSWORD, or name a file with --password-file FILE")
    )]
    Password { path: PathBuf },
    /// The password does not open the secret key.
    #[error("{}: the password does not open this secret key", path.display())]
    #[diagnostic(code(sign::wrong_password), help("is it the password of this key?"))]
    WrongPassword { path: PathBuf },
    /// The output is there already.
    #[error("{} exists already", path.display())]
    #[diagnostic(
        code(sign::exists),
        help("choose another name; a signature is replaced with --overwrite, a key never")
    )]
    Exists { path: PathBuf },
    /// The manifest could not be signed.
    #[error("{} can't be signed: {why}", path.display())]
    #[diagnostic(code(sign::failed), help("was the key file cut or changed?"))]
    Failed { path: PathBuf, why: String },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}

/// How a bundle isn't signed by the key that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// There is no signature.
    #[error("it is not signed: there is no {SIGNATURE}")]
    Missing,
    /// What is there is not one.
    #[error("{SIGNATURE} is damaged, or not a signature")]
    Damaged,
    /// It was made by another key.
    #[error("it is signed by the key {found}, not by {expected}")]
    OtherKey {
        /// The key of the signature.
        found: String,
        /// The key that was asked for.
        expected: String,
    },
    /// The manifest was changed after it was signed.
    #[error("the signature does not fit {MANIFEST}")]
    Forged,
}

/// A key that signatures are checked against.
#[derive(Clone, Debug)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Reads minisign's public key: its file of two lines, or the second one alone.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = text(path)?;
        let boxed = PublicKeyBox::from_string(&text).and_then(PublicKeyBox::into_public_key);
        boxed.or_else(|_| minisign::PublicKey::from_base64(text.trim())).map(Self).map_err(|_| {
            let why = match text.contains("secret key") {
                true => ": it is a secret one, which nobody else should see".to_owned(),
                false => String::new(),
            };
            Error::Key { path: path.to_owned(), what: "public", why }
        })
    }

    /// The key's number, 16 hex digits.
    pub fn id(&self) -> String {
        number(self.0.keynum())
    }

    /// Checks the signature of the bundle in `folder`; [`super::verify`] checks the files.
    ///
    /// # Errors
    /// [`Error::Io`] where the manifest or the signature can't be read.
    pub fn check(&self, folder: &Path) -> Result<Result<(), Unsigned>, Error> {
        let path = folder.join(SIGNATURE);
        if !path.exists() {
            return Ok(Err(Unsigned::Missing));
        }
        let Some(signature) = read(&path)?.as_deref().and_then(parse) else {
            return Ok(Err(Unsigned::Damaged));
        };
        if signature.keynum() != self.0.keynum() {
            let found = number(signature.keynum());
            return Ok(Err(Unsigned::OtherKey { found, expected: self.id() }));
        }
        let manifest = folder.join(MANIFEST);
        if !manifest.is_file() {
            return Ok(Err(Unsigned::Forged));
        }
        let bytes = files::read(&manifest).map_err(Error::io(&manifest))?;
        let sound =
            minisign::verify(&self.0, &signature, Cursor::new(bytes), true, false, false).is_ok();
        Ok(if sound { Ok(()) } else { Err(Unsigned::Forged) })
    }
}

fn number(keynum: &[u8]) -> String {
    keynum.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

/// A key that signs.
pub struct SecretKey {
    key: minisign::SecretKey,
    path: PathBuf,
}

impl SecretKey {
    /// Reads minisign's secret key; one that is encrypted needs its password.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Key`], [`Error::Password`], [`Error::WrongPassword`].
    pub fn read(path: &Path, password: Option<String>) -> Result<Self, Error> {
        let text = text(path)?;
        let refuse = || {
            let why = String::new();
            Error::Key { path: path.to_owned(), what: "secret", why }
        };
        let line = text.lines().nth(1).ok_or_else(refuse)?;
        // The encrypted ones say so in bytes 2 and 3, of which the fourth to sixth letters are part.
        let decoded = base64(line).filter(|bytes| bytes.len() == 158).ok_or_else(refuse)?;
        let boxed = SecretKeyBox::from_string(&text).map_err(|_| refuse())?;
        let key = match &decoded[2..4] {
            // minisign itself writes no checksum here; a damaged key then fails to verify what it signs.
            [0, 0] if decoded[126..].iter().all(|byte| *byte == 0) => {
                minisign::SecretKey::from_bytes(&decoded).map_err(|_| refuse())?
            }
            [0, 0] => boxed.into_unencrypted_secret_key().map_err(|_| refuse())?,
            _ => {
                let password = password.ok_or_else(|| Error::Password { path: path.to_owned() })?;
                let wrong = |_| Error::WrongPassword { path: path.to_owned() };
                boxed.into_secret_key(Some(password)).map_err(wrong)?
            }
        };
        Ok(Self { key, path: path.to_owned() })
    }

    /// Signs the bundle in `folder`, which has to be whole: the signature goes next to the manifest.
    /// Returns its path. Nothing in it tells when or where it was made.
    ///
    /// # Errors
    /// [`Error::Exists`] where there is a signature and `overwrite` isn't set; [`Error::Failed`].
    pub fn sign(&self, folder: &Path, overwrite: bool) -> Result<PathBuf, Error> {
        let target = folder.join(SIGNATURE);
        if target.exists() && !overwrite {
            return Err(Error::Exists { path: target });
        }
        let manifest = folder.join(MANIFEST);
        let bytes = files::read(&manifest).map_err(Error::io(&manifest))?;
        let fail = |e: minisign::PError| Error::Failed { path: self.path.clone(), why: e.to_string() };
        let public = minisign::PublicKey::from_secret_key(&self.key).map_err(fail)?;
        let trusted = format!("soprano-export bundle, sha256:{}", Digest::of(&bytes));
        let signature =
            minisign::sign(Some(&public), &self.key, Cursor::new(&bytes), Some(&trusted), None)
                .map_err(fail)?;
        let text = signature.into_string();
        let below = text.split_once('\n').map_or("", |(_, below)| below);
        let text = format!("{COMMENT}{OURS}{}\n{below}", Digest::of(below.as_bytes()));
        write(Staged::beside(&target), &target, text.as_bytes(), overwrite)?;
        Ok(target)
    }
}

/// Makes a key pair: `path`, which only its owner can read, and `path` with `.pub` after it. Without a
/// password the secret key is not encrypted. Returns the public key's path.
///
/// # Errors
/// [`Error::Exists`] where either is there already; [`Error::Io`].
pub fn generate(path: &Path, password: Option<String>) -> Result<PathBuf, Error> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    if let Some(there) = [path, &public].into_iter().find(|path| path.exists()) {
        return Err(Error::Exists { path: there.to_owned() });
    }
    let fail = |e: minisign::PError| Error::Failed { path: path.to_owned(), why: e.to_string() };
    let encrypted = password.is_some();
    let KeyPair { pk, sk } = match password {
        Some(_) => KeyPair::generate_encrypted_keypair(password),
        None => KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(fail)?;
    let comment = match encrypted {
        true => "minisign encrypted secret key",
        false => "minisign secret key, not encrypted",
    };
    let secret = sk.to_box(Some(comment)).map_err(fail)?.into_string();
    let shown = pk.to_box().map_err(fail)?.into_string();
    write(Staged::private(path), path, secret.as_bytes(), false)?;
    write(Staged::beside(&public), &public, shown.as_bytes(), false)?;
    Ok(public)
}

/// Whether the text of a signature is whole, as far as that can be told without a key: what `sign`
/// writes carries its own digest, what minisign writes has its usual first line.
pub(super) fn is_whole(path: &Path) -> bool {
    matches!(read(path), Ok(Some(text)) if parse(&text).is_some())
}

/// A signature whose text is, byte for byte, what it says.
fn parse(text: &str) -> Option<SignatureBox> {
    let (first, below) = text.split_once('\n')?;
    let comment = first.strip_prefix(COMMENT)?;
    let whole = match comment.strip_prefix(OURS) {
        Some(digest) => digest == Digest::of(below.as_bytes()).to_string(),
        None => THEIRS.contains(&comment),
    };
    let lines: Vec<&str> = below.lines().collect();
    let [signature, _, global] = lines[..] else { return None };
    let lengths = [base64(signature)?.len(), base64(global)?.len()];
    let parsed = (whole && lengths == [74, 64]).then(|| SignatureBox::from_string(text).ok())??;
    (parsed.to_string() == text).then_some(parsed)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

/// The text of a small file; none where it is too long or not text.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let meta = std::fs::metadata(path).map_err(Error::io(path))?;
    if !meta.is_file() || meta.len() > LONGEST {
        return Ok(None);
    }
    Ok(String::from_utf8(files::read(path).map_err(Error::io(path))?).ok())
}

fn text(path: &Path) -> Result<String, Error> {
    read(path)?.ok_or_else(|| Error::Key {
        path: path.to_owned(),
        what: "public or secret",
        why: String::new(),
    })
}

/// Writes next to the target and renames; a file that is there is kept unless it may be overwritten.
fn write(
    file: std::io::Result<Staged>,
    target: &Path,
    bytes: &[u8],
    overwrite: bool,
) -> Result<(), Error> {
    let mut file = file.map_err(Error::io(files::home(target)))?;
    file.file().write_all(bytes).map_err(Error::io(target))?;
    let kept = if overwrite { file.put() } else { file.put_new() };
    kept.map_err(Error::io(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (tempfile::TempDir, PublicKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(dir.path().join(MANIFEST), "{}").unwrap();
        let public = generate(&key, None).unwrap();
        SecretKey::read(&key, None).unwrap().sign(dir.path(), false).unwrap();
        let public = PublicKey::read(&public).unwrap();
        (dir, public)
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_found_without_a_key() {
        let (dir, public) = signed();
        assert_eq!(public.check(dir.path()).unwrap(), Ok(()));
        let path = dir.path().join(SIGNATURE);
        let whole = std::fs::read(&path).unwrap();
        assert!(is_whole(&path));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                std::fs::write(&path, changed).unwrap();
                assert!(!is_whole(&path), "byte {at}, bit {bit}");
                assert!(public.check(dir.path()).unwrap().is_err());
            }
        }
    }

    #[test]
    fn a_signature_of_minisign_itself_is_taken() {
        // Made here as minisign makes it: its own first line, and a time in the trusted comment.
        let (dir, _) = signed();
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().unwrap();
        let comment = Some("signature from minisign secret key");
        let signature =
            minisign::sign(None, &sk, Cursor::new(b"{}"), Some("timestamp:1\tfile:x"), comment);
        std::fs::write(dir.path().join(SIGNATURE), signature.unwrap().to_string()).unwrap();
        assert!(is_whole(&dir.path().join(SIGNATURE)));
        assert_eq!(PublicKey(pk).check(dir.path()).unwrap(), Ok(()));
    }

    #[test]
    fn a_secret_key_of_minisign_without_a_password_is_taken_unless_it_is_damaged() {
        use base64::Engine as _;
        let (dir, public) = signed();
        let key = dir.path().join("key");
        let text = std::fs::read_to_string(&key).unwrap();
        let mut bytes = super::base64(text.lines().nth(1).unwrap()).unwrap();
        bytes[126..].fill(0);
        let write = |bytes: &[u8]| {
            let line = base64::engine::general_purpose::STANDARD.encode(bytes);
            std::fs::write(&key, format!("untrusted comment: x\n{line}\n")).unwrap();
        };
        write(&bytes);
        SecretKey::read(&key, None).unwrap().sign(dir.path(), true).unwrap();
        assert_eq!(public.check(dir.path()).unwrap(), Ok(()));
        bytes[70] ^= 1;
        write(&bytes);
        let damaged = SecretKey::read(&key, None).unwrap().sign(dir.path(), true);
        assert!(matches!(damaged, Err(Error::Failed { .. })));
        assert_eq!(public.check(dir.path()).unwrap(), Ok(()), "the old signature stays");
    }

    #[test]
    fn another_manifest_and_another_key_are_found() {
        let (dir, public) = signed();
        let (_other, stranger) = signed();
        let refused = stranger.check(dir.path()).unwrap();
        assert!(matches!(refused, Err(Unsigned::OtherKey { .. })), "{refused:?}");
        std::fs::write(dir.path().join(MANIFEST), "{ }").unwrap();
        assert_eq!(public.check(dir.path()).unwrap(), Err(Unsigned::Forged));
        std::fs::remove_file(dir.path().join(SIGNATURE)).unwrap();
        assert_eq!(public.check(dir.path()).unwrap(), Err(Unsigned::Missing));
    }
}
