use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Error, Python, Request, package};
use crate::digest::Digest;

/// A line longer than this breaks the protocol.
const LINE_LIMIT: u64 = 4 << 20;
/// How often the child's life, the time limit and an interruption are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long what an ended child said is waited for, where something else keeps its output open.
const GRACE: Duration = Duration::from_secs(2);

/// How far a child has come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub step: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// A file that a child left, hashed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path inside the output folder.
    pub path: String,
    /// SHA-256, as found on disk.
    pub sha256: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

/// What a child did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Files by the name the child gave them.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Versions of Python and packages.
    pub environment: BTreeMap<String, String>,
    /// The task's own result.
    pub result: serde_json::Value,
}

/// How to run a child.
pub struct Child<'a> {
    /// The interpreter.
    pub python: &'a Python,
    /// Where the package is unpacked.
    pub cache: &'a Path,
    /// Its standard error goes here.
    pub log: &'a Path,
    /// If it says nothing for so long, it is ended.
    pub time_limit: Duration,
    /// Set from outside to end it.
    pub interrupted: &'a AtomicBool,
    /// Called with every progress line.
    pub progress: &'a (dyn Fn(&Progress) + 'a),
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Environment { python: String, packages: BTreeMap<String, String> },
    Progress(Progress),
    Artifact { name: String, path: String, sha256: String, bytes: u64 },
    Result(serde_json::Map<String, serde_json::Value>),
    Error { code: String, message: String, hint: String },
}

/// A process group, ended when dropped: the exporter's own children too, also where it left them behind.
struct Group {
    child: std::process::Child,
    reaped: bool,
}

impl Group {
    /// Whether the leader has ended. It isn't reaped, so that its number goes on naming the group.
    fn has_ended(&self) -> bool {
        #[allow(unsafe_code)]
        // SAFETY: `siginfo_t` is plain data, for which zeroes are a value; the call writes only to it.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.child.id(), &mut info, how) != 0 || info.si_signo != 0
        }
    }

    fn kill(&self) {
        #[allow(unsafe_code)]
        // SAFETY: no pointers; the child was not waited for, so its number still names the group that it leads.
        unsafe {
            libc::kill(-(self.child.id() as i32), libc::SIGKILL);
        }
    }

    /// Ends what is left of the group; a leader that had ended keeps the status it ended with.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.kill();
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// The lines of a child's output as they come, read by a thread of their own.
fn lines_of(stdout: std::process::ChildStdout) -> mpsc::Receiver<Vec<u8>> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if send.send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    });
    lines
}

impl Child<'_> {
    /// Runs one task with `output` as its folder.
    ///
    /// # Errors
    /// [`Error::Refused`] carries the child's own words; the others say how it crashed, hung, broke
    /// the protocol or lied about a file.
    pub fn run(&self, request: &Request<'_>, output: &Path) -> Result<Outcome, Error> {
        let output = std::fs::canonicalize(output).map_err(Error::io(output))?;
        let package = package::unpack(self.cache)?;
        let mut message = serde_json::to_value(request).expect("plain data");
        message["protocol"] = 2.into();
        message["output"] = output.to_string_lossy().into();
        let mut file =
            tempfile::Builder::new().suffix(".json").tempfile().map_err(Error::io("a request"))?;
        std::io::Write::write_all(&mut file, message.to_string().as_bytes())
            .map_err(Error::io(file.path()))?;
        let log = File::create(self.log).map_err(Error::io(self.log))?;

        let interpreter = self.python.interpreter();
        let mut command = Command::new(interpreter);
        command
            .args(["-m", "soprano_export"])
            .arg(file.path())
            .env("PYTHONPATH", &package)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("PYTHONHOME")
            .current_dir(&output)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|e| Error::BadPython {
            path: interpreter.to_owned(),
            why: format!("it can't be started: {e}"),
        })?;
        let mut group = Group { child, reaped: false };
        let outcome = self.listen(&mut group);
        // Whatever is still running is ended first, then the files are looked at.
        drop(group);
        let outcome = outcome?;
        outcome.artifacts.iter().try_for_each(|(name, claim)| check(name, claim, &output))?;
        Ok(outcome)
    }

    /// What the child says that it did; its files are not looked at yet.
    fn listen(&self, group: &mut Group) -> Result<Outcome, Error> {
        let stdout = group.child.stdout.take().expect("piped");
        let lines = lines_of(stdout);
        let protocol = |why: String| Error::Protocol { why, log: self.log.to_owned() };
        let mut step = "start".to_owned();
        let mut artifacts = BTreeMap::new();
        let mut environment = BTreeMap::new();
        let mut result = None;
        let mut end = Instant::now() + self.time_limit;
        let mut orphaned: Option<Instant> = None;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if Instant::now() > end {
                let (tail, log) = (self.tail(), self.log.to_owned());
                return Err(Error::TimeLimit { seconds: self.time_limit.as_secs(), step, tail, log });
            }
            let line = match lines.recv_timeout(TICK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    match orphaned {
                        Some(since) if since.elapsed() > GRACE => break,
                        Some(_) => {}
                        None if group.has_ended() => {
                            group.kill();
                            orphaned = Some(Instant::now());
                        }
                        None => {}
                    }
                    continue;
                }
            };
            end = Instant::now() + self.time_limit;
            let event = serde_json::from_slice(&line).map_err(|e| {
                let text = String::from_utf8_lossy(&line[..line.len().min(120)]);
                protocol(format!("a line of its output is {:?} ({e})", text.trim_end()))
            })?;
            if result.is_some() {
                return Err(protocol("it went on after its result".into()));
            }
            match event {
                Event::Environment { python, packages } => {
                    environment = packages;
                    environment.insert("python".into(), python);
                }
                Event::Progress(progress) => {
                    step.clone_from(&progress.step);
                    (self.progress)(&progress);
                }
                Event::Artifact { name, path, sha256, bytes } => {
                    let sha256 =
                        sha256.parse().map_err(|e| protocol(format!("artifact {name:?}: {e}")))?;
                    if artifacts.insert(name.clone(), Artifact { path, sha256, bytes }).is_some() {
                        return Err(protocol(format!("it reports {name:?} twice")));
                    }
                }
                Event::Result(fields) => result = Some(serde_json::Value::Object(fields)),
                Event::Error { code, message, hint } => return Err(self.refusal(code, message, hint)),
            }
        }
        let status = self.wait(group, end)?;
        match result {
            Some(result) if status.success() => Ok(Outcome { artifacts, environment, result }),
            _ => Err(Error::Crashed {
                status: describe(status),
                tail: self.tail(),
                log: self.log.to_owned(),
            }),
        }
    }

    fn refusal(&self, code: String, message: String, hint: String) -> Error {
        let fallback = || format!("the whole log: {}", self.log.display());
        Error::Refused { code, message, hint: if hint.is_empty() { fallback() } else { hint } }
    }

    /// A child that has closed its output may still linger.
    fn wait(&self, group: &mut Group, end: Instant) -> Result<ExitStatus, Error> {
        loop {
            if group.has_ended() {
                return group.end().map_err(Error::io("the exporter"));
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if Instant::now() > end {
                return Err(Error::TimeLimit {
                    seconds: self.time_limit.as_secs(),
                    step: "exit".into(),
                    tail: self.tail(),
                    log: self.log.to_owned(),
                });
            }
            std::thread::sleep(TICK);
        }
    }

    /// The last lines of the child's standard error.
    fn tail(&self) -> String {
        let text = crate::files::read(self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut last = VecDeque::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            last.push_back(format!("  | {line}"));
            if last.len() > 8 {
                last.pop_front();
            }
        }
        if last.is_empty() { "  | (nothing)".to_owned() } else { Vec::from(last).join("\n") }
    }
}

/// Hashes a file again that a child claims to have written.
fn check(name: &str, claim: &Artifact, output: &Path) -> Result<(), Error> {
    let lie = |what, claimed: String, found: String| {
        Err(Error::Lie { name: name.to_owned(), what, claimed, found })
    };
    let relative = Path::new(&claim.path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return lie("the path", claim.path.clone(), "to lie in the output folder".into());
    }
    let path: PathBuf = output.join(relative);
    let real = match std::fs::canonicalize(&path) {
        Ok(real) => real,
        Err(e) => return lie("the path", claim.path.clone(), e.to_string()),
    };
    if !real.starts_with(output) || !real.is_file() {
        return lie("the path", claim.path.clone(), "no plain file there".into());
    }
    let bytes = real.metadata().map_err(Error::io(&real))?.len();
    if bytes != claim.bytes {
        return lie("the length", claim.bytes.to_string(), bytes.to_string());
    }
    let sha256 = Digest::of_file(&real).map_err(Error::io(&real))?;
    if sha256 != claim.sha256 {
        return lie("the digest", claim.sha256.to_string(), sha256.to_string());
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The child must not outlive a parent that is killed outright.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from(std::io::ErrorKind::Interrupted));
            }
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
