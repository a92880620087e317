//! Ids and names of containers.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};

use crate::model::Digest;

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clever", "cosmic", "crisp", "daring", "eager", "fair", "fleet",
    "gentle", "golden", "happy", "hidden", "jolly", "keen", "light", "lucky", "mellow", "nimble", "patient",
    "plucky", "polar", "proud", "quiet", "rapid", "silver", "sturdy", "sunny", "tidy", "witty",
];
const NOUNS: [&str; 32] = [
    "acorn", "badger", "beacon", "birch", "canyon", "cedar", "comet", "coral", "dune", "falcon", "fern",
    "glacier", "harbor", "heron", "island", "lantern", "lynx", "maple", "meadow", "otter", "pebble", "pine",
    "puffin", "raven", "reef", "river", "sparrow", "spruce", "summit", "tundra", "walrus", "willow",
];
/// A name is also the name of a link.
const NAME_BYTES_MAX: usize = 255;
/// Digits that people see.
const SHORT_DIGITS: usize = 12;

/// A random 256-bit number: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(Digest);

impl ContainerId {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> io::Result<Self> {
        random().map(Digest::from_bytes).map(Self)
    }

    /// The number.
    #[must_use]
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// As a number.
    #[must_use]
    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Reads 64 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Digest::from_hex(text).ok().map(Self)
    }

    /// The first 12 digits.
    #[must_use]
    pub fn short(&self) -> String {
        let mut digits = self.0.hex();
        digits.truncate(SHORT_DIGITS);
        digits
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0.hex()
    }
}

impl TryFrom<String> for ContainerId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a container id (64 hex digits)"))
    }
}

/// A name for who gives none: `brave_otter`; with a number from the third attempt on, when many are taken.
pub(super) fn random_name(attempt: u32) -> io::Result<String> {
    let bytes = random()?;
    let pick = |words: &[&'static str; 32], byte: u8| words[usize::from(byte % 32)];
    let name = format!("{}_{}", pick(&ADJECTIVES, bytes[0]), pick(&NOUNS, bytes[1]));
    Ok(if attempt < 2 { name } else { format!("{name}{}", u16::from_le_bytes([bytes[2], bytes[3]])) })
}

/// Whether a text can be a name: what docker allows.
pub(super) fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let (one, two) = (ContainerId::random().unwrap(), ContainerId::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(ContainerId::parse(&one.to_string()), Some(one));
        assert_eq!((one.to_string().len(), one.short().len()), (64, 12));
        assert_eq!(ContainerId::parse("abc"), None);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<ContainerId>(&text).unwrap(), one);
        assert!(serde_json::from_str::<ContainerId>("\"xyz\"").is_err());
    }

    #[test]
    fn names() {
        for name in ["a", "A.b-c_d", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".a", "-a", "_a", "a/b", "a b", "..", "\u{e9}", &"x".repeat(256)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name(&random_name(0).unwrap()) && is_name(&random_name(9).unwrap()));
    }
}
