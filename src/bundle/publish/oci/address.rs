use super::super::{Error, is_name};
use crate::digest::Digest;

/// `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// Of the registry's own manifest; a pinned one.
    pub digest: Option<Digest>,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| Error::address(&format!("oci://{text}"), why);
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
                (named, Some(digest.ok_or_else(|| refuse("names no sha256 digest after its @"))?))
            }
            None => (text, None),
        };
        let (host, path) =
            named.split_once('/').ok_or_else(|| refuse("names a registry but no repository"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let sign = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        if host.is_empty() || !host.chars().all(sign) {
            return Err(refuse("has no host that can be one"));
        }
        let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_part = |part: &str| {
            part.starts_with(end)
                && part.ends_with(end)
                && part.chars().all(|c| end(c) || "._-".contains(c))
        };
        if repository.len() > 255 || !repository.split('/').all(is_part) {
            return Err(refuse("has no repository that can be one: lower-case names between slashes"));
        }
        if tag.as_deref().is_some_and(|tag| !is_name(tag)) {
            return Err(refuse("has no tag that can be one"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }

    /// Whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        let name = match self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, _)) => name,
            None => self.host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text: &str| Address::parse(text).unwrap();
        let address = read("localhost:5000/voices/soprano:v1");
        assert_eq!(address.host, "localhost:5000");
        assert_eq!(address.repository, "voices/soprano");
        assert_eq!(address.tag.as_deref(), Some("v1"));
        assert!(address.is_loopback());
        assert!(read("127.0.0.1/a").is_loopback() && read("[::1]:5000/a").is_loopback());
        assert!(!read("ghcr.io/a/b").is_loopback() && !read("127.example.org/a").is_loopback());
        let pinned = read(&format!("ghcr.io/a/b:x@sha256:{}", Digest::of(b"")));
        assert_eq!((pinned.tag.as_deref(), pinned.digest), (Some("x"), Some(Digest::of(b""))));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "host",
            "host/",
            "/a",
            "host/A",
            "host/a/../b",
            "host/a//b",
            "host/a:",
            "host/a:x y",
            "host/a@sha256:12",
            "host/a@md5:12",
            "user@host/a",
            "host/a?b",
            "ho st/a",
            "host/.a",
        ] {
            assert!(matches!(Address::parse(text), Err(Error::Address { .. })), "{text:?}");
        }
    }
}
