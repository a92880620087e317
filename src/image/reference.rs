//! Names of images as docker writes and completes them (distribution/reference): `[HOST/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use crate::model::Digest;
use crate::model::digest::DigestError;

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest tag (distribution-spec, "Pulling manifests").
const TAG_BYTES_MAX: usize = 128;
/// Longest host and path together, as distribution/reference has it.
const NAME_BYTES_MAX: usize = 255;

/// A complete name: host and tag are never left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no name of an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// The part before the tag.
    #[error("{0:?} may only have lower-case letters, digits and single separators . _ - / between them")]
    Path(String),
    /// Longer than any registry takes.
    #[error("the name is longer than 255 bytes")]
    TooLong,
    /// The registry.
    #[error("{0:?} is not a host name")]
    Host(String),
    /// The part after the colon.
    #[error(
        "{0:?} is not a tag: letters, digits, _ . - only, at most 128, beginning with a letter, a digit or _"
    )]
    Tag(String),
    /// The part after `@`.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository in the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` only when there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, when the name says it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// As people write it: without `docker.io/`, `library/`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        match short.strip_prefix("library/") {
            // `docker.io/library/a/b` is not `a/b`, and `docker.io/localhost/x` is not `localhost/x`.
            Some(shorter) if !shorter.contains('/') => shorter.to_owned(),
            _ if short.split('/').next().is_some_and(is_host) => full,
            _ => short.to_owned(),
        }
    }

    /// What identifies the image: beside a digest, the tag says nothing more.
    pub(super) fn essential(&self) -> Self {
        Self { tag: self.tag.clone().filter(|_| self.digest.is_none()), ..self.clone() }
    }

    /// The same repository, and this tag.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`] for what is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !valid_tag(tag) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// This name and, for a short one, the name that podman and buildah give to what they make: `localhost/NAME`.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Self> {
        let short = self.path.strip_prefix("library/").filter(|_| self.host == DEFAULT_HOST);
        let local =
            short.map(|path| Self { host: "localhost".to_owned(), path: path.to_owned(), ..self.clone() });
        std::iter::once(self.clone()).chain(local)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the host's port.
        let tag_start = named.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match named[tag_start..].find(':') {
            Some(colon) => (&named[..tag_start + colon], Some(&named[tag_start + colon + 1..])),
            None => (named, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_HOST, name.to_owned()),
            None => (DEFAULT_HOST, format!("library/{name}")),
        };
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let path = if host == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path };
        if host.len() + path.len() >= NAME_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        if !valid_host(host) {
            return Err(ReferenceError::Host(host.to_owned()));
        }
        if !path.split('/').all(valid_component) {
            return Err(ReferenceError::Path(name.to_owned()));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) if !valid_tag(tag) => return Err(ReferenceError::Tag(tag.to_owned())),
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A name that some tool wrote down, as people write it; one that is no reference stays as it is, but for what a
/// terminal would obey.
pub(super) fn familiar(name: &str) -> String {
    let other = |_| name.escape_debug().to_string();
    name.parse().map_or_else(other, |reference: Reference| reference.familiar())
}

/// Whether the first component of a name is a registry rather than a user.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn valid_host(host: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    port.is_none_or(is_port) && name.split('.').all(label)
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn valid_component(component: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges =
        bytes.first().is_some_and(|first| plain(*first)) && bytes.last().is_some_and(|last| plain(*last));
    let separator =
        |run: &[u8]| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-');
    edges && bytes.split(|byte| plain(*byte)).all(separator)
}

fn valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= TAG_BYTES_MAX
        && bytes.first().is_some_and(|first| word(*first))
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn completes_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("ghcr.io/a/b__c--d:V1.0_x", "ghcr.io/a/b__c--d:V1.0_x", "ghcr.io/a/b__c--d:V1.0_x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("[2001:db8::1]/a:1", "[2001:db8::1]/a:1", "[2001:db8::1]/a:1"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        let pinned: Reference = format!("debian@{digest}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.to_string()), (None, format!("docker.io/library/debian@{digest}")));
        let candidates = |text: &str| -> Vec<String> {
            text.parse::<Reference>().unwrap().candidates().map(|one| one.to_string()).collect()
        };
        assert_eq!(candidates("x"), ["docker.io/library/x:latest", "localhost/x:latest"]);
        assert_eq!(candidates("a/x"), ["docker.io/a/x:latest"]);
    }

    #[test]
    fn names_are_printed_harmlessly() {
        assert_eq!(familiar("docker.io/library/a:b"), "a:b");
        assert_eq!(familiar("\u{1b}[2J:evil"), "\\u{1b}[2J:evil");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "Debian", "a//b", "-a", "a-", "a._b", "a___b", "a b", "/a", "a/", "\u{e9}"] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Path(_))), "{text:?}");
        }
        assert!(matches!("a:".parse::<Reference>(), Err(ReferenceError::Tag(_))));
        assert!(matches!("a:.b".parse::<Reference>(), Err(ReferenceError::Tag(_))));
        assert!(matches!(format!("a:{}", "x".repeat(129)).parse::<Reference>(), Err(ReferenceError::Tag(_))));
        assert!(matches!("h_.x/a".parse::<Reference>(), Err(ReferenceError::Host(_))));
        for host in ["[::1", "[::1]x", "[::1]:", "[x:y]", "[::1%lo]"] {
            let text = format!("{host}/a");
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Host(_))), "{text}");
        }
        assert!(matches!("h:99999/a".parse::<Reference>(), Err(ReferenceError::Host(_))));
        assert!(matches!("a@md5:00".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        assert!(matches!("a".repeat(256).parse::<Reference>(), Err(ReferenceError::TooLong)));
    }

    proptest! {
        /// What is printed, long or short, means the same again.
        #[test]
        fn print_and_parse(host in prop_oneof![Just(""), Just("docker.io/"), Just("localhost/"), Just("a.b:1/")],
                           path in "[a-z0-9]{1,4}([._-][a-z0-9]{1,3})?(/[a-z0-9]{1,3}){0,2}",
                           tag in prop_oneof![Just(String::new()), ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,5}"]) {
            let reference: Reference = format!("{host}{path}{tag}").parse().unwrap();
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }

        /// No text makes it panic, and what it takes it prints.
        #[test]
        fn any_text(text in "\\PC{0,12}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
