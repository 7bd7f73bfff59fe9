//! `publish`, `fetch` and `sign`.

use std::path::Path;
use std::sync::Mutex;

use miette::Diagnostic;

use super::arguments::{Fetch, Publish, Sign};
use super::here::Here;
use super::terminal::{Bar, bytes, plain, row, table};
use super::{Answer, Failure, Outcome, json, say};
use crate::bundle::publish::{self, Context, Error, Package, Reporter};
use crate::bundle::sign::{self, PublicKey, SecretKey};
use crate::bundle::verify;
use crate::files;

/// Where a password for a secret key may stand.
const PASSWORD: &str = "SOPRANO_EXPORT_KEY_PASSWORD";

pub(super) fn publish(options: &Publish, here: &Here) -> Outcome {
    let key = options.key.as_deref().map(PublicKey::read).transpose()?;
    let package = match Package::open(&options.bundle, key.as_ref()) {
        Ok(package) => package,
        Err(error) => return refused(error),
    };
    let moves = Moves::new();
    let context = context(here, options.version.as_deref(), options.plain_http, &moves);
    if options.dry_run {
        return dry_run(options, &package, &context);
    }
    let published = publish::publish(&package, &options.destination, &context);
    drop(moves);
    let published = match published {
        Ok(published) => published,
        Err(error) => return refused(error),
    };
    tellln!(
        "{} {} {}: {} files, {}{}",
        package.name(),
        published.version,
        if published.unchanged { "is there already, the same" } else { "published" },
        package.files().len(),
        bytes(package.bytes()),
        match (published.unchanged, published.kept) {
            (false, kept) if kept > 0 =>
                format!(" ({} sent, {} were there)", bytes(published.sent), bytes(kept)),
            _ => String::new(),
        }
    );
    match options.json {
        true => say(&json(&published)),
        false => say(&format!("{}\n", published.place)),
    }
}

fn context<'a>(
    here: &'a Here,
    version: Option<&'a str>,
    plain_http: bool,
    reporter: &'a Moves,
) -> Context<'a> {
    let (cache, python) = (here.cache().root(), here.named_python());
    Context { cache, python, version, plain_http, reporter }
}

fn dry_run(options: &Publish, package: &Package, context: &Context<'_>) -> Outcome {
    let place = publish::address(package, &options.destination, context)?;
    if options.json {
        return say(&json(&serde_json::json!({
            "place": place, "files": package.files(), "bytes": package.bytes(),
        })));
    }
    let mut rows = vec![row!["bytes", "file"]];
    rows.extend(package.files().iter().map(|file| row![file.entry.bytes, file.file]));
    tellln!(
        "would go to {place}: {} files, {}; nothing was sent",
        package.files().len(),
        bytes(package.bytes())
    );
    say(&table(&rows))
}

pub(super) fn fetch(options: &Fetch, here: &Here) -> Outcome {
    let key = options.key.as_deref().map(PublicKey::read).transpose()?;
    let moves = Moves::new();
    let context = context(here, options.version.as_deref(), options.plain_http, &moves);
    let output = options.output.as_deref();
    let fetched = publish::fetch(&options.source, output, options.overwrite, key.as_ref(), &context);
    drop(moves);
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return refused(error),
    };
    let signed = key.map(|key| format!(", signed by {}", key.id())).unwrap_or_default();
    tellln!("{} fetched from {}: whole{signed}", fetched.name, fetched.place);
    match options.json {
        true => say(&json(&fetched)),
        false => say(&format!("{}\n", fetched.folder.display())),
    }
}

/// A bundle that doesn't verify is an answer: no.
fn refused(error: Error) -> Outcome {
    match &error {
        Error::Unverified { .. } | Error::Unsigned { .. } => {
            tellln!("error: {error}");
            if let Some(help) = error.help() {
                tellln!("hint: {help}");
            }
            Ok(Answer::No)
        }
        _ => Err(Box::new(error)),
    }
}

pub(super) fn sign(options: &Sign) -> Outcome {
    if let Some(path) = &options.generate {
        let password = match options.no_password {
            true => None,
            false => Some(password(options.password_file.as_deref())?.ok_or(NoPassword)?),
        };
        let public = sign::generate(path, password)?;
        tellln!("{} signs, {} verifies; keep the first to yourself", path.display(), public.display());
        return say(&format!("{}\n", public.display()));
    }
    let (Some(bundle), Some(key)) = (&options.bundle, &options.key) else {
        unreachable!("the arguments require each other")
    };
    // Only what verifies is worth a signature; an old one may be replaced.
    let mut findings = verify(bundle)?;
    if options.overwrite {
        findings.retain(|finding| finding.file != sign::SIGNATURE);
    }
    if !findings.is_empty() {
        return refused(Error::Unverified { path: bundle.clone(), findings });
    }
    let key = SecretKey::read(key, password(options.password_file.as_deref())?)?;
    let written = key.sign(bundle, options.overwrite)?;
    say(&format!("{}\n", written.display()))
}

/// A password from a file (its first line), or from the environment.
fn password(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = file else { return Ok(std::env::var(PASSWORD).ok()) };
    let text = files::open_text(path)
        .and_then(std::io::read_to_string)
        .map_err(|source| sign::Error::Io { path: path.to_owned(), source })?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("no password for the new secret key is given")]
#[diagnostic(
    code(cli::no_password),
    help("set {PASSWORD}, name a file with --password-file FILE, or take --no-password")
)]
struct NoPassword;

/// Shows how files move: a bar on a terminal, nothing elsewhere.
struct Moves {
    bar: Bar,
    file: Mutex<String>,
}

impl Moves {
    fn new() -> Self {
        let bar = Bar::new("{bar:24} {bytes}/{total_bytes} {msg} [{elapsed}]");
        Self { bar, file: Mutex::default() }
    }
}

impl Reporter for Moves {
    fn moved(&self, file: &str, done: u64, total: u64) {
        let Some(bar) = &self.bar.0 else { return };
        let mut last = self.file.lock().expect("no panic holds it");
        if *last != file {
            file.clone_into(&mut last);
            bar.set_message(plain(file).into_owned());
        }
        bar.set_length(total);
        bar.set_position(done);
    }
}

/// The public key that `verify` was given, and what it says of a bundle.
pub(super) fn signature(folder: &Path, key: &Path) -> Result<(PublicKey, Option<String>), Failure> {
    let key = PublicKey::read(key)?;
    let problem = key.check(folder)?.err().map(|why| why.to_string());
    Ok((key, problem))
}
