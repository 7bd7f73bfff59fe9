//! One variant in a process of its own: this program again, with the hidden option `--alone`.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::arguments::Bench as Options;
use super::super::here::Here;
use super::super::parsers::Asked;
use super::super::{Failure, INTERRUPTED, Outcome, json, say};
use super::Error;
use super::variants::Variant;
use crate::bundle::Bundle;
use crate::interface::Interface;
use crate::runtime;
use crate::validate::bench::{self, Fresh};

/// What this process, which has done nothing else, takes to load and run one of the bundle's files.
pub(super) fn alone(options: &Options, file: &str, here: &Here) -> Outcome {
    let bundle = Bundle::open(&options.bundle)?;
    let entry = bundle.manifest().artifacts.iter().find(|entry| entry.file == file);
    let entry = entry.ok_or_else(|| Error::NoModel { file: file.to_owned() })?;
    let ports = &bundle.manifest().graph(entry).interface;
    let interface = Interface::bind(ports, &entry.signature())?;
    let engine = options.runtime.iter().find_map(|choice| match choice {
        Asked::One(engine) => Some(*engine),
        Asked::All => None,
    });
    let options = runtime::Options::fast(options.threads.map_or(1, usize::from));
    let runtime = match engine {
        Some(engine) => here.runtime(engine, options)?,
        None => runtime::built_in()?,
    };
    let fresh = bench::fresh(&bundle.model(entry)?.path, &interface, runtime.as_ref())?;
    say(&json(&fresh))
}

/// A child that doesn't outlive its call.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program for one variant; the inner error is its own message where it can't load or run it.
pub(super) fn start(
    variant: &Variant<'_>,
    options: &Options,
    here: &Here,
    threads: usize,
) -> Result<Result<Fresh, String>, Failure> {
    let fault = |source| Error::Probe { path: variant.path.clone(), source };
    let mut command = Command::new(std::env::current_exe().map_err(fault)?);
    command.args(here.words());
    command.args(["bench", "--runtime", variant.runtime.name(), "--threads", &threads.to_string()]);
    command.args(["--alone", &variant.entry.file, "--"]).arg(&options.bundle);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Ended(command.spawn().map_err(fault)?);
    // Both are a few lines: neither fills its pipe.
    let status = loop {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(Box::new(Error::Interrupted));
        }
        match child.0.try_wait().map_err(fault)? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (mut output, mut errors) = (String::new(), Vec::new());
    if let Some(mut pipe) = child.0.stdout.take() {
        pipe.read_to_string(&mut output).map_err(fault)?;
    }
    if let Some(mut pipe) = child.0.stderr.take() {
        pipe.read_to_end(&mut errors).map_err(fault)?;
    }
    let errors = String::from_utf8_lossy(&errors);
    Ok(match serde_json::from_str(&output) {
        Ok(fresh) if status.success() => Ok(fresh),
        _ => {
            let message = errors.lines().find_map(|line| line.strip_prefix("error: "));
            Err(message.map_or(format!("its process ended with {status}"), str::to_owned))
        }
    })
}
