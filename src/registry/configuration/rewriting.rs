//! From the name of an image to where it can be had: mirrors first, the registry itself, or what stands for it, last.

use std::fmt;
use std::path::PathBuf;

use super::super::credentials::RegistryKey;
use super::{ConfigurationError, Registries};

/// Longest prefix or location: a name has at most 255 bytes (distribution/reference), a tag 128, a digest 71.
const PLACE_BYTES_MAX: usize = 512;
const DOCKER_HOST: &str = "docker.io";

/// An image by its complete name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The registry.
    pub host: &'a str,
    /// The repository in it, with docker.io's `library/`.
    pub path: &'a str,
    /// The tag.
    pub tag: Option<&'a str>,
    /// The manifest's digest.
    pub digest: Option<&'a str>,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host)?;
        if !self.path.is_empty() {
            write!(f, "/{}", self.path)?;
        }
        if let Some(tag) = self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// One place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The registry.
    pub host: String,
    /// The repository in it.
    pub path: String,
    /// The tag, which a rule for one tag may have changed.
    pub tag: Option<String>,
    /// The manifest's digest.
    pub digest: Option<String>,
    /// Whether certificates need not be valid, and plain HTTP will do.
    pub insecure: bool,
}

/// One `[[registry]]`.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) prefix: Prefix,
    /// What stands in place of the prefix; nothing leaves names as they are.
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file that has it.
    pub(super) path: PathBuf,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) pulls: Pulls,
}

/// `pull-from-mirror`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulls {
    All,
    Digests,
    Tags,
}

/// What the names begin with that a rule is for.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    text: String,
    kind: PrefixKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PrefixKind {
    /// `*.example.com`
    Subdomains,
    /// `example.com[:5000]`
    Host,
    /// `example.com/namespace`, `example.com/namespace/repository[:tag]`
    Path,
}

impl Prefix {
    /// The error is the reason.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if let Some(domain) = text.strip_prefix("*.") {
            if domain.is_empty() || domain.contains(['/', '*', '@']) {
                return Err(format!("prefix: {text:?}: behind *. only a host can stand"));
            }
            return Ok(Self { text: text.to_owned(), kind: PrefixKind::Subdomains });
        }
        let text = place(text).map_err(|reason| format!("prefix: {reason}"))?;
        let kind = if text.contains('/') { PrefixKind::Path } else { PrefixKind::Host };
        Ok(Self { text, kind })
    }

    /// How many bytes of a name it stands for; `None` when the name does not begin with it. A port belongs to the host: a
    /// rule for `example.com` is none for `example.com:5000`.
    fn matches(&self, name: &str) -> Option<usize> {
        let host = &name[..name.find('/').unwrap_or(name.len())];
        match self.kind {
            PrefixKind::Subdomains => {
                let domain = &self.text[1..];
                let plain = host.rsplit_once(':').map_or(host, |(plain, _)| plain);
                let below = |host: &str| host.len() > domain.len() && host.ends_with(domain);
                (below(host) || below(plain)).then_some(host.len())
            }
            PrefixKind::Host => (host == self.text).then_some(host.len()),
            PrefixKind::Path => {
                let rest = name.strip_prefix(self.text.as_str())?;
                (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(self.text.len())
            }
        }
    }
}

impl Rule {
    pub(super) fn prefix(&self) -> &str {
        &self.prefix.text
    }

    /// The name with a location in place of the prefix.
    fn rewritten(
        &self,
        wanted: &Named<'_>,
        location: Option<&str>,
        insecure: bool,
    ) -> Result<Source, ConfigurationError> {
        let name = wanted.to_string();
        let made = match (location, self.prefix.matches(&name)) {
            (Some(location), Some(length)) => format!("{location}{}", &name[length..]),
            _ => name.clone(),
        };
        source(&made, insecure).ok_or_else(|| ConfigurationError::Rewritten {
            name,
            prefix: self.prefix.text.clone(),
            made,
            path: self.path.clone(),
        })
    }
}

impl Registries {
    /// Where an image can be had, in the order in which it is to be tried.
    ///
    /// # Errors
    /// [`ConfigurationError::Blocked`], and [`ConfigurationError::Rewritten`] for a rule that leads nowhere.
    pub fn sources(&self, wanted: &Named<'_>) -> Result<Vec<Source>, ConfigurationError> {
        let Some(rule) = self.rule_for(&wanted.to_string()) else {
            let Named { host, path, tag, digest } = wanted;
            let [tag, digest] = [tag, digest].map(|text| text.map(str::to_owned));
            let [host, path] = [host, path].map(|text| String::from(*text));
            return Ok(vec![Source { host, path, tag, digest, insecure: false }]);
        };
        if rule.blocked {
            let (prefix, path) = (rule.prefix.text.clone(), rule.path.clone());
            return Err(ConfigurationError::Blocked { name: wanted.to_string(), prefix, path });
        }
        let serves = |mirror: &&Mirror| match mirror.pulls {
            Pulls::All => true,
            Pulls::Digests => wanted.digest.is_some(),
            Pulls::Tags => wanted.digest.is_none(),
        };
        let mirrors = rule.mirrors.iter().filter(serves);
        let mirrors = mirrors.map(|mirror| rule.rewritten(wanted, Some(&mirror.location), mirror.insecure));
        let itself = rule.rewritten(wanted, rule.location.as_deref(), rule.insecure);
        mirrors.chain([itself]).collect()
    }

    /// Whether a registry, or the part of it that a login is for, may be spoken to without valid certificates.
    #[must_use]
    pub fn is_insecure(&self, key: &RegistryKey) -> bool {
        self.rule_for(&key.to_string()).is_some_and(|rule| rule.insecure)
    }

    /// The rule with the longest prefix: a path before its host, a host before a wildcard.
    fn rule_for(&self, name: &str) -> Option<&Rule> {
        let matching = self.rules.values().filter(|rule| rule.prefix.matches(name).is_some());
        matching.max_by_key(|rule| (rule.prefix.kind, rule.prefix.text.len()))
    }
}

/// A prefix or location as it is compared; the error is the reason.
pub(super) fn place(text: &str) -> Result<String, String> {
    let plain = text.trim_end_matches('/');
    let reason = if plain.is_empty() {
        "a registry is missing"
    } else if plain.len() > PLACE_BYTES_MAX {
        "longer than any name"
    } else if plain.contains("://") {
        "a registry is written without http:// or https://"
    } else if plain.starts_with('/') || !plain.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') {
        "this is no HOST[:PORT][/NAMESPACE]"
    } else {
        return Ok(plain.to_owned());
    };
    Err(format!("{text:?}: {reason}"))
}

fn source(name: &str, insecure: bool) -> Option<Source> {
    let (host, rest) = name.split_once('/')?;
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (rest, None),
    };
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(rest[last + colon + 1..].to_owned())),
        None => (rest, None),
    };
    if host.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    // As references to docker.io are completed.
    let path = match host {
        DOCKER_HOST if !path.contains('/') => format!("library/{path}"),
        _ => path.to_owned(),
    };
    Some(Source { host: host.to_owned(), path, tag, digest, insecure })
}
