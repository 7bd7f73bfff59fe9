//! Ctrl-c and kill -9 at every stage: nothing half-written, and the next run goes on from there.

use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Run, Shared, World, lives, replay, signal, tree, until};
use crate::shared_or_skip;

/// Starts a replayed build that takes its time, and waits until it is in `task`.
fn stuck_in(task: &str, world: &World, shared: &Shared) -> (Child, i32) {
    let marks = world.path("home");
    let child = replay(world, shared)
        .env("FAKE_DELAY", if task == "synthesize" { "600" } else { "1800" })
        .env("FAKE_MARKS", &marks)
        .spawn()
        .unwrap();
    let mark = marks.join(task);
    until(&format!("{task} begins"), || mark.exists());
    let pid = std::fs::read_to_string(mark).unwrap().parse().unwrap();
    assert!(lives(pid));
    (child, pid)
}

/// What a build without incidents leaves.
fn undisturbed(shared: &Shared) -> std::collections::BTreeMap<String, Vec<u8>> {
    let world = World::new();
    Run::from(replay(&world, shared).output().unwrap()).exits(0);
    tree(&world.work("out"))
}

#[test]
fn ctrl_c_during_an_export_ends_the_exporter_too() {
    let shared = shared_or_skip!();
    let world = World::new();
    for (task, which) in
        [("synthesize", libc::SIGINT), ("export", libc::SIGINT), ("export", libc::SIGTERM)]
    {
        let _ = std::fs::remove_file(world.path("home").join(task));
        if task == "export" {
            // The checkpoint is there already: only the export is slow.
            finish_checkpoint(&world, shared);
        }
        let (child, pid) = stuck_in(task, &world, shared);
        signal(&child, which);
        let run = Run::from(child.wait_with_output().unwrap()).exits(130);
        let run = run.says("interrupted; finished stages are kept");
        assert_eq!(run.stdout, "");
        until("the exporter is gone", || !lives(pid));
        world.is_clean();
        assert!(!world.work("out/bundle").exists());
    }
    let run = Run::from(replay(&world, shared).output().unwrap()).exits(0);
    run.says("checkpoint               cached");
    assert!(tree(&world.work("out")) == undisturbed(shared));
}

/// Runs the checkpoint stage only: the export that follows refuses.
fn finish_checkpoint(world: &World, shared: &Shared) {
    let run = replay(world, shared).env("FAKE_EXPORT", "/nowhere").output().unwrap();
    Run::from(run).exits(2);
}

#[test]
fn kill_9_during_an_export_leaves_what_the_next_run_sweeps() {
    let shared = shared_or_skip!();
    let world = World::new();
    for task in ["synthesize", "export"] {
        if task == "export" {
            finish_checkpoint(&world, shared);
        }
        let (mut child, pid) = stuck_in(task, &world, shared);
        child.kill().unwrap();
        child.wait().unwrap();
        if cfg!(target_os = "linux") {
            until("the exporter is gone", || !lives(pid));
        }
        assert!(!world.work("out/bundle").exists());
    }
    // Its request is left in the temporary folder, which the system empties.
    std::fs::remove_dir_all(world.path("tmp")).unwrap();
    std::fs::create_dir(world.path("tmp")).unwrap();
    Run::from(replay(&world, shared).output().unwrap()).exits(0);
    world.is_clean();
    assert!(tree(&world.work("out")) == undisturbed(shared));
}

/// Rewrite, validation and packing, hit at many moments: the cache goes on from kill to kill, so that
/// each stage is the one that is hit.
#[test]
fn signals_at_any_moment_leave_a_whole_bundle_or_none() {
    let shared = shared_or_skip!();
    let expected = undisturbed(shared);
    for (which, code) in [(libc::SIGKILL, -libc::SIGKILL), (libc::SIGINT, 130)] {
        let world = World::new();
        let start = Instant::now();
        Run::from(replay(&world, shared).output().unwrap()).exits(0);
        let whole = start.elapsed();
        let export = tree(&world.path("cache/stages"));
        let export = export.keys().filter(|n| {
            !n.starts_with("checkpoint") && !n.starts_with("export") && !n.starts_with("record")
        });
        let later: Vec<String> = export.filter(|n| n.ends_with('/')).cloned().collect();
        let forget = || {
            for stage in &later {
                let _ = std::fs::remove_dir_all(world.path("cache/stages").join(stage));
            }
        };
        forget();
        std::fs::remove_dir_all(world.work("out")).unwrap();
        let mut hit = 0;
        for step in 0..12u32 {
            let child = quiet(replay(&world, shared).arg("--overwrite"));
            std::thread::sleep(whole * (step % 6 + 1) / 7);
            signal(&child, which);
            let run = Run::from(child.wait_with_output().unwrap());
            assert!(run.code == code || run.code == 0, "{}", run.show());
            hit += u32::from(run.code == code);
            if world.work("out/bundle").exists() {
                assert!(tree(&world.work("out/bundle")) == subtree(&expected, "bundle/"));
                std::fs::remove_dir_all(world.work("out/bundle")).unwrap();
            }
            if which != libc::SIGKILL {
                world.is_clean();
            }
            if step == 5 {
                forget();
            }
        }
        assert!(hit > 0, "no signal came in time");
        let run = Run::from(replay(&world, shared).output().unwrap()).exits(0);
        drop(run);
        world.is_clean();
        assert!(tree(&world.work("out")) == expected);
    }
}

fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn subtree(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    folder: &str,
) -> std::collections::BTreeMap<String, Vec<u8>> {
    let inside = files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(folder)?, bytes)));
    inside.filter(|(n, _)| !n.is_empty()).map(|(n, b)| (n.to_owned(), b.clone())).collect()
}

/// Verbs that don't watch for ctrl-c end at once, at the first one.
#[test]
fn ctrl_c_ends_other_verbs() {
    let world = World::new();
    // A reader that takes nothing from a small pipe holds a writer up for as long as it likes.
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the descriptor is open; the call takes no pointer.
    assert!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } > 0);
    let mut command = world.command(["completions", "bash"]);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(reader);
}
