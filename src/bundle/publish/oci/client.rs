//! Requests to one repository of a registry: addresses, log-in, second attempts, errors in words.

use std::cell::RefCell;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Request, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::super::Error;
use super::address::Address;
use super::auth::{Challenge, Credentials};

/// No answer, and no byte, for so long: the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(60);
/// A registry reads what it was sent once more before it says that it has it.
const ANSWER: Duration = Duration::from_secs(120);
/// Pauses before further attempts.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// What a request carries; it can be sent again.
#[derive(Clone, Copy)]
pub(super) enum Load<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// Bytes of a file: from where, and how many.
    Part(&'a Path, u64, u64),
}

/// A request.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub load: Load<'a>,
}

impl<'a> Ask<'a> {
    pub fn new(method: Method, url: String) -> Self {
        Ask { method, url, headers: Vec::new(), load: Load::Nothing }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn carrying(mut self, load: Load<'a>) -> Self {
        self.load = load;
        self.with("Content-Type", "application/octet-stream")
    }
}

pub(super) struct Client {
    agent: Agent,
    /// `https://host`.
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    authorization: RefCell<Option<String>>,
}

impl Client {
    pub fn new(address: &Address, plain_http: bool) -> Self {
        let local = address.is_loopback();
        let plain = plain_http || local;
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!plain)
            .tls_config(tls)
            .user_agent(concat!("soprano-export/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE));
        if local {
            config = config.proxy(None);
        }
        let host = match address.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        Self {
            agent: config.build().new_agent(),
            base: format!("{}://{host}", if plain { "http" } else { "https" }),
            repository: address.repository.clone(),
            credentials: Credentials::find(&address.host),
            authorization: RefCell::new(None),
        }
    }

    /// An address below the repository's own.
    pub fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// Where a `Location` leads. To another machine it may, but not from TLS to none.
    pub fn location(&self, response: &Response<Body>, url: &str) -> Result<String, Error> {
        let refuse = |why: String| Error::Foreign { url: url.to_owned(), why };
        let location = header(response, "location")
            .ok_or_else(|| refuse("the registry says not where to upload".to_owned()))?;
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(format!("{}{location}", self.base));
        }
        let safe = location.starts_with("https://")
            || (location.starts_with("http://") && self.base.starts_with("http://"));
        match safe {
            true => Ok(location),
            false => Err(refuse(format!("the registry wants the upload at {location:?}"))),
        }
    }

    /// Sends a request, again where it is lost on the way or answered with "later". Any other answer is returned.
    pub fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>, Error> {
        let mut pauses = PAUSES.iter();
        loop {
            let outcome = self.send_once(ask);
            let again = match &outcome {
                Ok(response) => matches!(response.status().as_u16(), 429 | 500 | 502..=504),
                Err(Error::Network { .. }) => true,
                Err(_) => false,
            };
            match pauses.next() {
                Some(pause) if again => std::thread::sleep(*pause),
                _ => return outcome,
            }
        }
    }

    fn send_once(&self, ask: &Ask<'_>) -> Result<Response<Body>, Error> {
        let response = self.attempt(ask)?;
        if response.status() != 401 {
            return Ok(response);
        }
        let challenge = header(&response, "www-authenticate").and_then(|text| Challenge::parse(&text));
        let Some(challenge) = challenge else { return Ok(response) };
        let Some(authorization) = self.log_in(&challenge)? else { return Ok(response) };
        *self.authorization.borrow_mut() = Some(authorization);
        self.attempt(ask)
    }

    fn attempt(&self, ask: &Ask<'_>) -> Result<Response<Body>, Error> {
        let lost = |e: ureq::Error| network(&ask.url, &e);
        let mut request = Request::builder().method(ask.method.clone()).uri(&ask.url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        // Only to the registry itself, wherever else it sends us.
        let own = ask.url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'));
        if let (true, Some(authorization)) = (own, &*self.authorization.borrow()) {
            request = request.header("Authorization", authorization);
        }
        let bodied = matches!(ask.method, Method::POST | Method::PUT);
        match ask.load {
            Load::Nothing if !bodied => {
                self.agent.run(request.body(()).map_err(|e| lost(e.into()))?).map_err(lost)
            }
            Load::Nothing => self.put(request, &mut std::io::empty(), 0, lost),
            Load::Bytes(mut bytes) => {
                let length = bytes.len() as u64;
                self.put(request, &mut bytes, length, lost)
            }
            Load::Part(path, start, length) => {
                let mut file = crate::files::open(path).map_err(Error::io(path))?;
                file.seek(SeekFrom::Start(start)).map_err(Error::io(path))?;
                self.put(request, &mut file.take(length), length, lost)
            }
        }
    }

    fn put(
        &self,
        request: ureq::http::request::Builder,
        mut body: &mut dyn Read,
        length: u64,
        lost: impl Fn(ureq::Error) -> Error,
    ) -> Result<Response<Body>, Error> {
        let request = request.header("Content-Length", length);
        let body = SendBody::from_reader(&mut body);
        self.agent.run(request.body(body).map_err(|e| lost(e.into()))?).map_err(lost)
    }

    /// The value of the header `Authorization`; none where nobody is logged in.
    fn log_in(&self, challenge: &Challenge) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let (realm, service, scope) = match challenge {
            Challenge::Basic => return Ok(self.credentials.as_ref().map(Credentials::basic)),
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let foreign = |why: &str| Error::Foreign { url: realm.clone(), why: why.to_owned() };
        let safe = realm.starts_with("https://")
            || (realm.starts_with("http://") && self.base.starts_with("http://"));
        if !safe {
            return Err(foreign("the registry sends us there for a token, without TLS"));
        }
        let mut request = self.agent.get(realm);
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        if let Some(credentials) = &self.credentials {
            request = request.header("Authorization", credentials.basic());
        }
        let mut response = request.call().map_err(|e| network(realm, &e))?;
        if !response.status().is_success() {
            return Err(refused(realm, response));
        }
        let text = bytes(&mut response, 1 << 20).map_err(|_| foreign("no token came from there"))?;
        let Token { token } =
            serde_json::from_slice(&text).map_err(|_| foreign("no token came from there"))?;
        Ok(Some(format!("Bearer {token}")))
    }
}

/// A header's value.
pub(super) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The body, up to a length.
pub(super) fn bytes(response: &mut Response<Body>, limit: u64) -> Result<Vec<u8>, ureq::Error> {
    response.body_mut().with_config().limit(limit).read_to_vec()
}

/// An answer that is none of those that were hoped for.
pub(super) fn refused(url: &str, mut response: Response<Body>) -> Error {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        message: String,
    }
    let status = response.status().as_u16();
    let text = bytes(&mut response, 64 << 10).unwrap_or_default();
    let reason = serde_json::from_slice::<Answer>(&text).ok().and_then(|a| a.errors.into_iter().next());
    let clean = |reason: Reason| -> String {
        let words = reason.message.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        format!(": {words}")
    };
    let hint = match status {
        401 | 403 => {
            "log in with docker login HOST, or set SOPRANO_EXPORT_REGISTRY_USER and SOPRANO_EXPORT_REGISTRY_PASSWORD"
        }
        404 => "check the address; some registries want a repository to be made first",
        413 => "the registry takes no parts of this size",
        429 | 500.. => "the registry can't at the moment; the same command goes on from here",
        _ => "does this registry take OCI artifacts?",
    };
    Error::Refused { url: url.to_owned(), status, why: reason.map(clean).unwrap_or_default(), hint }
}

pub(super) fn network(url: &str, error: &ureq::Error) -> Error {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    if let ureq::Error::Timeout(_) = error {
        return Error::Silent { url: url.to_owned(), seconds: SILENCE.as_secs() };
    }
    let why = match error {
        ureq::Error::Io(e) if e.kind() == ConnectionRefused => "the connection was refused".to_owned(),
        ureq::Error::Io(e) if e.kind() == ConnectionReset => "the connection was lost".to_owned(),
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    };
    Error::Network { url: url.to_owned(), why }
}
