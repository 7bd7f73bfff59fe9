//! A registry on the loopback interface that does what a test wants of it, well or badly.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use soprano_export::digest::Digest;

/// How it behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    Sound,
    /// Answers everything with this status.
    Refuses(u16),
    /// Reads so many bytes of every upload and hangs up.
    DropsUploads(usize),
    /// Hangs up after so many bytes of every blob; never sends more of it than that at once.
    BreaksOff(usize),
    /// Sends each blob in pieces, with a pause before each.
    Slow(usize, Duration),
    /// Waits before it takes each upload.
    SlowUploads(Duration),
    /// Says that what it has has another digest.
    ClaimsDigest(String),
    /// Sends blobs with one byte changed.
    Spoils,
    /// Sends blobs that don't end where they should.
    Overlong,
    /// Answers ranges with another range.
    WrongRange(usize),
    /// Knows no ranges.
    NoRanges(usize),
    /// Says that it has every blob, with another length.
    HasOtherLengths,
    /// Takes a manifest and forgets it.
    Forgets,
    /// While a manifest is being sent, another publisher puts one of its own.
    Overtaken,
    /// Sends uploads to a place without TLS, or to nowhere.
    Misleads(String),
    /// Asks for a token, which only this name and password get.
    Token(&'static str),
    /// Asks for this name and password.
    Basic(&'static str),
    /// Speaks no HTTP.
    Babbles,
}

#[derive(Default)]
pub struct State {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifests: BTreeMap<String, Vec<u8>>,
    /// Every request, `METHOD path`, with its range where it has one.
    pub asked: Vec<String>,
}

pub struct Registry {
    pub host: String,
    pub state: Arc<Mutex<State>>,
    mode: Arc<Mutex<Mode>>,
}

impl Registry {
    pub fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (state, mode) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(mode)));
        let shared = (Arc::clone(&state), Arc::clone(&mode), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, mode, host) = shared.clone();
                std::thread::spawn(move || {
                    let mode = mode.lock().unwrap().clone();
                    let _ = Connection { stream, state, mode, host }.serve();
                });
            }
        });
        Registry { host, state, mode }
    }

    pub fn becomes(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// The address of a repository.
    pub fn at(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.host)
    }

    pub fn asked(&self, what: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|line| line.contains(what)).count()
    }

    pub fn forget_requests(&self) {
        self.state.lock().unwrap().asked.clear();
    }
}

struct Connection {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    mode: Mode,
    host: String,
}

struct Head {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    /// What came of the body with the head.
    rest: Vec<u8>,
}

impl Connection {
    fn head(&mut self) -> std::io::Result<Head> {
        let mut bytes = Vec::new();
        let mut block = [0; 4096];
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            match self.stream.read(&mut block)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => bytes.extend_from_slice(&block[..n]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or("").split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Ok(Head { method, path, headers, rest: bytes[end + 4..].to_vec() })
    }

    fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        self.stream.write_all((text + "\r\n").as_bytes())?;
        self.stream.write_all(body)?;
        self.stream.shutdown(std::net::Shutdown::Write)?;
        // Until the other side has read all of it: what is unread when a socket closes takes it along.
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
        Ok(())
    }

    fn serve(mut self) -> std::io::Result<()> {
        let head = self.head()?;
        let range = head.headers.get("range").map(|r| format!(" {r}")).unwrap_or_default();
        let line = format!("{} {}{range}", head.method, head.path);
        self.state.lock().unwrap().asked.push(line);
        let length: usize = head.headers.get("content-length").map_or(0, |n| n.parse().unwrap());
        let authorization = head.headers.get("authorization").map(String::as_str);
        match &self.mode {
            Mode::Babbles => {
                self.stream.write_all(b"220 smtp.example ready\r\n\r\n")?;
                return Ok(());
            }
            Mode::Refuses(status) => {
                let body = br#"{"errors":[{"code":"DENIED","message":"not \u001b[31mtoday"}]}"#;
                return self.answer(*status, &[], body);
            }
            Mode::Basic(right) if authorization != Some(right) => {
                return self.answer(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b"");
            }
            Mode::Token(right) => {
                if head.path.starts_with("/token") {
                    return match authorization == Some(right) {
                        true => self.answer(200, &[], br#"{"token": "let-me-in"}"#),
                        false => self.answer(401, &[], b""),
                    };
                }
                if authorization != Some("Bearer let-me-in") {
                    let challenge = format!(
                        "Bearer realm=\"http://{}/token\",service=\"x\",scope=\"repository:a:pull,push\"",
                        self.host
                    );
                    return self.answer(401, &[("WWW-Authenticate", &challenge)], b"");
                }
            }
            Mode::DropsUploads(after) if head.method == "PUT" && length > 0 => {
                let mut sink = vec![0; length.min(*after).saturating_sub(head.rest.len())];
                return self.stream.read_exact(&mut sink);
            }
            Mode::SlowUploads(pause) if head.path.contains("/uploads/") && head.method == "PUT" => {
                std::thread::sleep(*pause);
            }
            _ => {}
        }
        let mut body = head.rest.clone();
        let mut more = vec![0; length.saturating_sub(body.len())];
        self.stream.read_exact(&mut more)?;
        body.extend(more);
        self.route(&head, body)
    }

    fn route(&mut self, head: &Head, body: Vec<u8>) -> std::io::Result<()> {
        let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        if path.ends_with("/tags/list") {
            let tags: Vec<String> = self.state.lock().unwrap().manifests.keys().cloned().collect();
            let text = serde_json::json!({"name": "x", "tags": tags}).to_string();
            return self.answer(200, &[], text.as_bytes());
        }
        if path.contains("/uploads/") {
            return match (head.method.as_str(), &self.mode) {
                ("POST", Mode::Misleads(place)) => {
                    let place = place.clone();
                    self.answer(202, &[("Location", &place)], b"")
                }
                ("POST", _) => self.answer(202, &[("Location", "/v2/x/blobs/uploads/1?state=s")], b""),
                _ => self.take_blob(query, body),
            };
        }
        if path.contains("/blobs/") {
            return self.give_blob(head, &last);
        }
        match head.method.as_str() {
            "PUT" => self.take_manifest(last, body),
            _ => self.give_manifest(&last),
        }
    }

    fn take_blob(&mut self, query: &str, body: Vec<u8>) -> std::io::Result<()> {
        let found = format!("sha256:{}", Digest::of(&body));
        let asked = query.split('&').find_map(|part| part.strip_prefix("digest=")).unwrap_or("");
        if asked != found {
            let message = br#"{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}"#;
            return self.answer(400, &[], message);
        }
        self.state.lock().unwrap().blobs.insert(found.clone(), body);
        let claimed = match &self.mode {
            Mode::ClaimsDigest(digest) => digest.clone(),
            _ => found,
        };
        self.answer(201, &[("Docker-Content-Digest", &claimed)], b"")
    }

    fn give_blob(&mut self, head: &Head, digest: &str) -> std::io::Result<()> {
        let blob = self.state.lock().unwrap().blobs.get(digest).cloned();
        let Some(mut blob) = blob else { return self.answer(404, &[], b"") };
        if head.method == "HEAD" {
            let length = match self.mode {
                Mode::HasOtherLengths => blob.len() + 1,
                _ => blob.len(),
            };
            return self.answer(200, &[("Content-Length", &length.to_string())], b"");
        }
        let from: Option<usize> = head
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        match self.mode {
            Mode::Spoils => {
                if let Some(byte) = blob.last_mut() {
                    *byte ^= 1;
                }
            }
            Mode::Overlong => blob.extend([0; 100]),
            _ => {}
        }
        let whole = blob.len();
        let (status, start) = match (from, &self.mode) {
            (None, _) | (Some(_), Mode::NoRanges(_)) => (200, 0),
            (Some(_), Mode::WrongRange(_)) => (206, 1),
            (Some(from), _) => (206, from),
        };
        let rest = blob.split_off(start.min(whole));
        let range = format!("bytes {start}-{}/{whole}", whole.saturating_sub(1));
        let length = rest.len().to_string();
        let mut headers = vec![("Content-Length", length.as_str())];
        if status == 206 {
            headers.push(("Content-Range", &range));
        }
        match self.mode {
            Mode::BreaksOff(after) => self.answer(status, &headers, &rest[..after.min(rest.len())]),
            // Only the first answer breaks off: the range that is asked for then is what is looked at.
            Mode::WrongRange(after) | Mode::NoRanges(after) if from.is_none() => {
                let first = self.asked_once(digest);
                let after = if first { after.min(rest.len()) } else { rest.len() };
                self.answer(status, &headers, &rest[..after])
            }
            Mode::Slow(piece, pause) => {
                let text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
                self.stream.write_all(text.as_bytes())?;
                for (name, value) in headers {
                    self.stream.write_all(format!("{name}: {value}\r\n").as_bytes())?;
                }
                self.stream.write_all(b"\r\n")?;
                for piece in rest.chunks(piece) {
                    std::thread::sleep(pause);
                    self.stream.write_all(piece)?;
                }
                Ok(())
            }
            _ => self.answer(status, &headers, &rest),
        }
    }

    fn asked_once(&self, digest: &str) -> bool {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|l| l.starts_with("GET") && l.contains(digest)).count() == 1
    }

    fn take_manifest(&mut self, reference: String, body: Vec<u8>) -> std::io::Result<()> {
        let digest = format!("sha256:{}", Digest::of(&body));
        let body = match self.mode {
            Mode::Forgets => None,
            Mode::Overtaken => Some(b"{\"another\": \"manifest\"}".to_vec()),
            _ => Some(body),
        };
        if let Some(body) = body {
            self.state.lock().unwrap().manifests.insert(reference, body);
        }
        self.answer(201, &[("Docker-Content-Digest", &digest)], b"")
    }

    fn give_manifest(&mut self, reference: &str) -> std::io::Result<()> {
        let state = self.state.lock().unwrap();
        let named = |text: &&Vec<u8>| format!("sha256:{}", Digest::of(text)) == reference;
        let found = state.manifests.get(reference).or_else(|| state.manifests.values().find(named));
        let found = found.cloned();
        drop(state);
        let Some(text) = found else { return self.answer(404, &[], b"") };
        let digest = match &self.mode {
            Mode::ClaimsDigest(digest) => digest.clone(),
            _ => format!("sha256:{}", Digest::of(&text)),
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.answer(200, &[("Docker-Content-Digest", &digest), ("Content-Type", kind)], &text)
    }
}
