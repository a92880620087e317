//! What credentials are for: a registry, or a part of one.

use std::fmt;
use std::str::FromStr;

/// docker.io as podman writes it.
pub(super) const DOCKER_HOST: &str = "docker.io";
/// docker.io as docker writes it.
pub(super) const DOCKER_URL: &str = "https://index.docker.io/v1/";
/// Longest key: as distribution/reference allows for host and path.
const KEY_BYTES_MAX: usize = 255;

/// `HOST[:PORT][/NAMESPACE...]`; docker.io is called just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryKey {
    host: String,
    path: String,
}

/// Why a text names no registry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a registry: expected HOST[:PORT], or HOST[:PORT]/NAMESPACE without a tag")]
pub struct RegistryKeyError {
    text: String,
}

impl RegistryKey {
    /// A repository in a registry; an empty path means all of it.
    #[must_use]
    pub fn new(host: &str, path: &str) -> Self {
        Self { host: usual_host(host).to_owned(), path: path.to_owned() }
    }

    /// The registry.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The namespace or repository in it; empty for all.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is a registry as a whole.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.path.is_empty()
    }

    /// This key, and all that it lies in, the nearest first.
    pub(super) fn hierarchy(&self) -> impl Iterator<Item = String> {
        std::iter::successors(Some(self.path.as_str()), |path| above(path)).map(|path| match path {
            "" => self.host.clone(),
            path => format!("{}/{path}", self.host),
        })
    }

    /// What helpers may know the host by.
    pub(super) fn servers(&self) -> Vec<&str> {
        if self.host == DOCKER_HOST { vec![DOCKER_HOST, DOCKER_URL] } else { vec![&self.host] }
    }
}

impl FromStr for RegistryKey {
    type Err = RegistryKeyError;

    /// A URL means its host, as `docker login` takes it.
    fn from_str(text: &str) -> Result<Self, RegistryKeyError> {
        let wrong = || RegistryKeyError { text: text.to_owned() };
        let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (host, path) = match url {
            Some(url) => (url.split('/').next().unwrap_or_default(), ""),
            None => text.split_once('/').unwrap_or((text, "")),
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let of_path =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._/".contains(&byte);
        let right = !host.is_empty()
            && text.len() <= KEY_BYTES_MAX
            && host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && host.bytes().all(of_host)
            && path.bytes().all(of_path)
            && (path.is_empty() || path.split('/').all(|part| !part.is_empty()));
        if right { Ok(Self::new(host, path)) } else { Err(wrong()) }
    }
}

impl fmt::Display for RegistryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// The namespace that a path lies in; empty is the registry as a whole, which lies in nothing.
fn above(path: &str) -> Option<&str> {
    (!path.is_empty()).then(|| path.rsplit_once('/').map_or("", |(front, _)| front))
}

/// docker.io by its usual name; all others as they are.
pub(super) fn usual_host(host: &str) -> &str {
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HOST } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_registry() {
        for (text, host, path) in [
            ("docker.io", "docker.io", ""),
            ("https://index.docker.io/v1/", "docker.io", ""),
            ("registry-1.docker.io", "docker.io", ""),
            ("http://r.io:5000", "r.io:5000", ""),
            ("[::1]:5000", "[::1]:5000", ""),
            ("quay.io/me/", "quay.io", "me"),
            ("quay.io/me/app_1.x", "quay.io", "me/app_1.x"),
        ] {
            let key: RegistryKey = text.parse().unwrap();
            assert_eq!((key.host(), key.path()), (host, path), "{text}");
        }
        for text in
            ["", "/x", "https://", "r.io/a:tag", "r.io/a@b", "r.io//a", "a b", "-x", "r.io/A", "\u{e9}"]
        {
            assert!(text.parse::<RegistryKey>().is_err(), "{text}");
        }
        assert!(format!("r.io/{}", "a".repeat(300)).parse::<RegistryKey>().is_err());
    }

    #[test]
    fn from_the_repository_up() {
        let all = |host, path| RegistryKey::new(host, path).hierarchy().collect::<Vec<_>>();
        assert_eq!(all("r.io:1", "a/b/c"), ["r.io:1/a/b/c", "r.io:1/a/b", "r.io:1/a", "r.io:1"]);
        assert_eq!(all("registry-1.docker.io", ""), ["docker.io"]);
    }
}
