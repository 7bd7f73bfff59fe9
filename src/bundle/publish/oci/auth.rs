//! Credentials for a registry: those set for this tool, or those that `docker login` and `podman login` left in files.
//! Credential helpers are not asked.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A name with its password.
#[derive(Clone)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// From SOPRANO_EXPORT_REGISTRY_USER and …_PASSWORD; else from REGISTRY_AUTH_FILE, from
    /// `config.json` in DOCKER_CONFIG, or from that in `~/.docker`.
    pub fn find(host: &str) -> Option<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let ours = ["SOPRANO_EXPORT_REGISTRY_USER", "SOPRANO_EXPORT_REGISTRY_PASSWORD"].map(set);
        if let [Some(user), Some(password)] = ours {
            return Some(Self { user, password });
        }
        let docker = set("DOCKER_CONFIG").map(PathBuf::from);
        let home = set("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let folders = [docker, home].into_iter().flatten().map(|folder| folder.join("config.json"));
        let files = set("REGISTRY_AUTH_FILE").map(PathBuf::from).into_iter().chain(folders);
        files
            .filter_map(|path| crate::files::read(&path).ok())
            .find_map(|text| Self::in_config(&text, host))
    }

    fn in_config(text: &[u8], host: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            auths: std::collections::BTreeMap<String, Auth>,
        }
        #[derive(Deserialize)]
        struct Auth {
            auth: Option<String>,
            username: Option<String>,
            password: Option<String>,
        }
        let config: Config = serde_json::from_slice(text).ok()?;
        let bare = |name: &str| -> String {
            let name = name.trim_start_matches("https://").trim_start_matches("http://");
            name.split('/').next().unwrap_or_default().to_owned()
        };
        // Docker's own registry has one name for people and another here.
        let host = if host == "docker.io" { "index.docker.io" } else { host };
        let auth = config.auths.into_iter().find(|(name, _)| bare(name) == host)?.1;
        if let (Some(user), Some(password)) = (auth.username, auth.password) {
            return Some(Self { user, password });
        }
        let text = String::from_utf8(STANDARD.decode(auth.auth?).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The header's value.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// What a registry asks for before it answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from another address.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads the header `WWW-Authenticate`.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        while let Some((name, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            let value = Some(value.to_owned());
            match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = value,
                "service" => service = value,
                "scope" => scope = value,
                _ => {}
            }
            rest = next;
        }
        Some(Challenge::Bearer { realm: realm?, service, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = Challenge::parse;
        assert_eq!(read("Basic realm=\"x\""), Some(Challenge::Basic));
        let text = r#"Bearer realm="https://a/token",service="a",scope="repository:x:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://a/token".into(),
            service: Some("a".into()),
            scope: Some("repository:x:pull,push".into()),
        };
        assert_eq!(read(text), Some(bearer));
        for text in ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"x", "Bearer service=a"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_login_is_found_by_its_host() {
        let text = br#"{"auths": {"https://ghcr.io/v2/": {"auth": "dTpwOnE="}, "b": {}}}"#;
        let found = Credentials::in_config(text, "ghcr.io").unwrap();
        assert_eq!(found.basic(), "Basic dTpwOnE=");
        assert_eq!((found.user.as_str(), found.password.as_str()), ("u", "p:q"));
        for host in ["b", "c"] {
            assert!(Credentials::in_config(text, host).is_none());
        }
        assert!(Credentials::in_config(b"{", "b").is_none());
    }
}
