//! Places where a bundle can't be put: said before any work where possible, and never half-written.

use std::path::Path;
use std::process::Command;

use crate::harness::{Run, World, copy_tree, replay, skipped, tree};
use crate::shared_or_skip;

/// A build that would fail otherwise, too, were it to come as far as starting Python.
#[track_caller]
fn refused(world: &World, arguments: &[&str], words: &str) {
    let before = tree(&world.path("work"));
    let run = world.run(["build", "soprano-tiny"].iter().chain(arguments)).exits(2).hints();
    run.says(words);
    assert!(tree(&world.path("work")) == before, "something was touched");
}

#[test]
fn what_is_in_the_way_stays() {
    let world = World::new();
    world.write("folder/diary.txt", "dear diary");
    world.write("extension/manifest.json", r#"{"manifest_version": 3}"#);
    world.write("file", "text");
    std::fs::create_dir(world.work("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.work("dangling")).unwrap();
    for place in ["folder", "extension", "file", "empty", "dangling"] {
        let words = format!("error: {place} is not a bundle, and nothing else is ever overwritten");
        refused(&world, &["-o", place], &words);
        refused(&world, &["-o", place, "--overwrite"], &words);
    }
    refused(&world, &["-o", "file/bundle"], "error: file");
    refused(&world, &["-o", "/proc/bundle"], "error: /proc");
    refused(&world, &["-o", "/proc/deep/er/bundle"], "error: /proc");
}

#[test]
fn a_bundle_in_the_way_is_replaced_only_when_asked() {
    let shared = shared_or_skip!();
    let world = World::new();
    Run::from(replay(&world, shared).output().unwrap()).exits(0);
    let whole = tree(&world.work("out"));
    let damage = || {
        std::fs::write(world.work("out/bundle/README.md"), "mine now").unwrap();
        std::fs::write(world.work("out/bundle/manifest.json"), "{").unwrap();
        std::fs::write(world.work("out/bundle/notes.txt"), "mine too").unwrap();
    };
    damage();
    let damaged = tree(&world.work("out"));
    let run = Run::from(replay(&world, shared).output().unwrap()).exits(2);
    run.says("error: out/bundle exists already").says("replace it with --overwrite");
    assert!(tree(&world.work("out")) == damaged);
    Run::from(replay(&world, shared).arg("--overwrite").output().unwrap()).exits(0);
    assert!(tree(&world.work("out")) == whole);

    // Through a link, the link is replaced and what it leads to stays.
    let elsewhere = world.work("elsewhere");
    std::fs::rename(world.work("out/bundle"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.work("out/bundle")).unwrap();
    std::fs::write(elsewhere.join("README.md"), "kept").unwrap();
    Run::from(replay(&world, shared).arg("--overwrite").output().unwrap()).exits(0);
    assert!(tree(&world.work("out")) == whole);
    assert_eq!(std::fs::read(elsewhere.join("README.md")).unwrap(), b"kept");
    world.is_clean();
}

#[test]
fn a_folder_that_may_not_be_written_is_said_so() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        return skipped("a_folder_that_may_not_be_written_is_said_so", "root may write anywhere");
    }
    let world = World::new();
    std::fs::create_dir(world.work("locked")).unwrap();
    let lock = |mode: &str| {
        assert!(Command::new("chmod").arg(mode).arg(world.work("locked")).status().unwrap().success())
    };
    lock("555");
    refused(&world, &["-o", "locked/bundle"], "Permission denied");
    lock("755");
}

/// A small file system of its own, where this may be mounted.
pub struct Disk(std::path::PathBuf);

impl Disk {
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Disk(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let shared = shared_or_skip!();
    let world = World::new();
    let place = world.work("out");
    // Smaller than the model, and between the model and the whole bundle.
    for size in ["256k", "1m"] {
        let Some(_disk) = Disk::mount(&place, size) else {
            return skipped("a_full_disk_leaves_nothing_half_written", "no tmpfs can be mounted");
        };
        let run = Run::from(replay(&world, shared).output().unwrap()).exits(2);
        run.says("No space left on device").says("hint: make room on this disk");
        assert!(tree(&place).is_empty(), "{:?}", tree(&place).keys());
    }

    // In the cache, too.
    let cache = world.path("cache");
    std::fs::remove_dir_all(&cache).unwrap();
    let _disk = Disk::mount(&cache, "3200k");
    let run = Run::from(replay(&world, shared).output().unwrap()).exits(2).hints();
    run.says("No space left on device");
    let stages = tree(&cache.join("stages"));
    assert!(!stages.keys().any(|name| name.starts_with('.') || name.starts_with("rewrite")));
}

/// A limit of file sizes works as root and where nothing can be mounted.
#[test]
fn a_file_size_limit_leaves_nothing_half_written() {
    let shared = shared_or_skip!();
    let world = World::new();
    Run::from(replay(&world, shared).output().unwrap()).exits(0);
    std::fs::remove_dir_all(world.work("out")).unwrap();
    let limited = |limit: &str, program: &Command| {
        let mut shell = world.command([""; 0]);
        shell = {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(format!("ulimit -f {limit} && exec \"$0\" \"$@\""));
            command.arg(program.get_program()).args(program.get_args());
            command.current_dir(shell.get_current_dir().unwrap()).env_clear();
            command.envs(program.get_envs().filter_map(|(k, v)| Some((k, v?))));
            command
        };
        Run::from(shell.output().unwrap())
    };
    // Blocks of 512 bytes: a megabyte, less than the references.
    let run = limited("2000", &replay(&world, shared)).exits(2).hints();
    run.says("File too large");
    assert!(!world.work("out/bundle").exists());
    world.is_clean();

    copy_tree(&shared.bundle.join("onnx"), &world.work("onnx"));
    let model = "onnx/soprano_decoder_fp32.onnx";
    // Less than the model.
    let run = limited("600", &world.command(["pass", "run", model, "-o", "rewritten.onnx"]));
    run.exits(2).says("File too large");
    assert!(!world.work("rewritten.onnx").exists());
    world.is_clean();
}

#[test]
fn stdout_that_can_not_be_written_is_an_error() {
    let world = World::new();
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        return skipped("stdout_that_can_not_be_written_is_an_error", "no /dev/full here");
    };
    let run = world.command(["recipe", "list"]).stdout(full).output().unwrap();
    Run::from(run).exits(2).says("error: stdout: No space left on device");
}
