//! Keys, signatures, and what `verify` makes of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use soprano_export::bundle::{self, sign};

use crate::bundles::{forge, small_bundle};
use crate::harness::{Run, World, tree};

/// A signed bundle `small`, and the keys `key` and `key.pub`.
fn signed() -> World {
    let world = World::new();
    small_bundle(&world.work("small"));
    world.run(["sign", "--generate", "key", "--no-password"]).exits(0);
    let run = world.run(["sign", "small", "--key", "key"]).exits(0);
    assert_eq!(run.stdout, "small/manifest.json.minisig\n");
    world
}

#[test]
fn a_signature_is_made_and_verified() {
    let world = signed();
    let mode = std::fs::metadata(world.work("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.run(["verify", "small"]).exits(0).says("small is whole\n");
    let run = world.run(["verify", "small", "--key", "key.pub"]).exits(0);
    run.says("small is whole, and signed by ");
    // minisign's second line alone is a key too.
    let key = std::fs::read_to_string(world.work("key.pub")).unwrap();
    world.write("line.pub", key.lines().nth(1).unwrap());
    world.run(["verify", "small", "--key", "line.pub"]).exits(0);
    // Nothing in it tells when it was made.
    let text = std::fs::read_to_string(world.work("small/manifest.json.minisig")).unwrap();
    assert!(text.contains("\ntrusted comment: soprano-export bundle, sha256:"), "{text}");
    world.is_clean();
}

#[test]
fn what_a_signature_does_not_cover_is_found() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, &str); 6] = [
        (
            "a file, with every digest made to fit",
            |b| {
                std::fs::write(b.join("README.md"), "# another card\n").unwrap();
                forge(b, |_| {});
            },
            "the signature does not fit manifest.json",
        ),
        (
            "a file alone",
            |b| std::fs::write(b.join("README.md"), "# another card\n").unwrap(),
            "README.md: changed",
        ),
        (
            "the list of digests",
            |b| {
                let path = b.join("SHA256SUMS");
                let text = std::fs::read_to_string(&path).unwrap();
                let kept: Vec<&str> = text.lines().filter(|l| !l.ends_with("README.md")).collect();
                std::fs::write(path, kept.join("\n") + "\n").unwrap();
            },
            "README.md: the manifest disagrees with the digests, or with itself",
        ),
        (
            "no signature",
            |b| std::fs::remove_file(b.join("manifest.json.minisig")).unwrap(),
            "it is not signed",
        ),
        (
            "a signature that is none",
            |b| std::fs::write(b.join("manifest.json.minisig"), "untrusted comment: x\n").unwrap(),
            "manifest.json.minisig: changed",
        ),
        (
            "no manifest",
            |b| std::fs::remove_file(b.join("manifest.json")).unwrap(),
            "manifest.json: missing",
        ),
    ];
    for (what, harm, words) in cases {
        let world = signed();
        harm(&world.work("small"));
        let run = world.run(["verify", "small", "--key", "key.pub"]).exits(1);
        let printed = format!("{}{}", run.stdout, run.stderr);
        assert!(printed.contains(words), "{what}: {}", run.show());
    }
    let world = signed();
    world.run(["sign", "--generate", "other", "--no-password"]).exits(0);
    let run = world.run(["verify", "small", "--key", "other.pub"]).exits(1);
    run.says("it is signed by the key ").says(", not by ");
}

#[test]
fn keys_that_are_none_are_refused() {
    let world = signed();
    let whole = std::fs::read_to_string(world.work("key")).unwrap();
    world.write("cut", &whole[..whole.len() - 20]);
    world.write("bytes", b"\xff\xfe");
    world.write("empty", "");
    world.write("one-line", "untrusted comment: x\n");
    for key in ["cut", "bytes", "empty", "one-line", "key.pub", "nowhere", "small"] {
        world.run(["sign", "small", "--key", key, "--overwrite"]).exits(2).hints();
    }
    for key in ["cut", "bytes", "empty", "nowhere", "small"] {
        world.run(["verify", "small", "--key", key]).exits(2).hints();
    }
    world.run(["verify", "small", "--key", "key"]).exits(2).says("it is a secret one");
    world.run(["sign", "small", "--key", "key"]).exits(2).says("exists already").hints();
    world.run(["sign", "small", "--key", "key", "--overwrite"]).exits(0);
    let run = world.run(["sign", "--generate", "key", "--no-password"]).exits(2);
    run.says("key exists already");
    assert_eq!(std::fs::read_to_string(world.work("key")).unwrap(), whole);
    world.run(["sign", "--generate", "new"]).exits(2).says("no password").hints();
    for call in [&["sign"][..], &["sign", "small"], &["sign", "--key", "key"]] {
        world.run(call).exits(2);
    }
    // A damaged signature can be replaced, a damaged file not be signed.
    std::fs::write(world.work("small/manifest.json.minisig"), "x").unwrap();
    world.run(["publish", "small", "shelf"]).exits(1).says("manifest.json.minisig: changed");
    world.run(["sign", "small", "--key", "key", "--overwrite"]).exits(0);
    std::fs::write(world.work("small/README.md"), "# a curd\n").unwrap();
    world.run(["sign", "small", "--key", "key", "--overwrite"]).exits(1).says("README.md: changed");
    world.run(["verify", "small", "--key", "key.pub"]).exits(1);
    world.is_clean();
}

#[test]
fn a_secret_key_with_a_password() {
    let world = World::new();
    small_bundle(&world.work("small"));
    world.write("password", "correct horse\n");
    world.run(["sign", "--generate", "key", "--password-file", "password"]).exits(0);
    assert!(std::fs::read_to_string(world.work("key")).unwrap().contains("encrypted"));
    let sign = ["sign", "small", "--key", "key"];
    world.run(sign).exits(2).says("no password is given").hints();
    let mut wrong = world.command(sign);
    let wrong = wrong.env("SOPRANO_EXPORT_KEY_PASSWORD", "wrong horse").output().unwrap();
    Run::from(wrong).exits(2).says("the password does not open this secret key").hints();
    let mut right = world.command(sign);
    let right = right.env("SOPRANO_EXPORT_KEY_PASSWORD", "correct horse").output().unwrap();
    let run = Run::from(right).exits(0);
    assert!(!run.show().contains("horse"));
    world.run(["verify", "small", "--key", "key.pub"]).exits(0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]
    /// Every file counts by its length, as a fault of a disk or a wire would hit it.
    #[test]
    fn every_flipped_byte_of_a_signed_bundle_is_found(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("small");
        small_bundle(&bundle);
        let key = folder.path().join("key");
        let public = sign::generate(&key, None).unwrap();
        sign::SecretKey::read(&key, None).unwrap().sign(&bundle, false).unwrap();
        let public = sign::PublicKey::read(&public).unwrap();
        prop_assert_eq!(bundle::verify(&bundle).unwrap(), vec![]);
        prop_assert_eq!(public.check(&bundle).unwrap(), Ok(()));

        let files: Vec<_> = tree(&bundle).into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut at = at.index(total);
        let (name, mut bytes) = files
            .into_iter()
            .find(|(_, bytes)| {
                let inside = at < bytes.len();
                at -= if inside { 0 } else { bytes.len() };
                inside
            })
            .unwrap();
        bytes[at] ^= flip;
        std::fs::write(bundle.join(&name), bytes).unwrap();
        let found = bundle::verify(&bundle).unwrap();
        prop_assert!(!found.is_empty(), "{name}, byte {at}");
    }
}
