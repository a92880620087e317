//! The keys that detach a terminal from its container, in docker's notation.

use std::fmt;
use std::str::FromStr;

/// A sequence of keys; an empty one is never typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// A text that is no sequence of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no key: keys are characters, or ctrl- and one of a-z, @, [, \\, ], ^ and _, separated by commas"
)]
pub struct NoKey(String);

impl Default for DetachKeys {
    /// Docker's and podman's: ctrl-p, ctrl-q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// None: nothing that is typed detaches.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }
}

impl FromStr for DetachKeys {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        if text.is_empty() {
            return Ok(Self::none());
        }
        text.split(',')
            .map(|key| byte(key).ok_or_else(|| NoKey(key.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What a terminal in raw mode sends for a key.
fn byte(key: &str) -> Option<u8> {
    if let [character] = key.as_bytes() {
        return character.is_ascii_graphic().then_some(*character);
    }
    match key.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'@'),
        _ => None,
    }
}

/// Looks for the keys in what is typed. What may be their beginning is kept back until the next key.
#[derive(Debug)]
pub(super) struct Typed {
    keys: Vec<u8>,
    kept: Vec<u8>,
}

impl Typed {
    pub(super) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), kept: Vec::new() }
    }

    /// What is to be passed on of `bytes`; `None` once all keys were typed.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.keys.is_empty() {
            return Some(bytes.to_vec());
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.kept.push(*byte);
            while !self.keys.starts_with(&self.kept) {
                passed.push(self.kept.remove(0));
            }
            if self.kept.len() == self.keys.len() {
                return None;
            }
        }
        Some(passed)
    }
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |byte: &u8| match byte {
            1..=26 => format!("ctrl-{}", char::from(b'a' + byte - 1)),
            0..=31 => format!("ctrl-{}", char::from(b'@' + byte)),
            _ => char::from(*byte).to_string(),
        };
        formatter.write_str(&self.0.iter().map(name).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_notation() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("", &[]),
            ("a,B,1", b"aB1"),
            ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", &[0, 27, 28, 29, 30, 31]),
        ] {
            let keys: DetachKeys = text.parse().unwrap();
            assert_eq!((keys.0.as_slice(), keys.to_string().as_str()), (bytes, text));
        }
        for wrong in ["ctrl-", "ctrl-A", "ctrl-1", "ab", "a,,b", "\u{e4}", "ctrl-pp", " "] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_wherever_they_are_split() {
        let passed = |keys: &str, typed: &[&[u8]]| {
            let mut watched = Typed::new(&keys.parse().unwrap());
            let mut all = Vec::new();
            for piece in typed {
                match watched.pass(piece) {
                    Some(bytes) => all.extend(bytes),
                    None => return None,
                }
            }
            Some(all)
        };
        assert_eq!(passed("a,b", &[b"xab"]), None);
        assert_eq!(passed("a,b", &[b"xa", b"b"]), None);
        assert_eq!(passed("a,b", &[b"xaa", b"b"]), None);
        assert_eq!(passed("a,a,b", &[b"aaab"]), None);
        assert_eq!(passed("a,b", &[b"xa", b"xab"]), None);
        assert_eq!(passed("a,b", &[b"xa", b"xb"]), Some(b"xaxb".to_vec()));
        assert_eq!(passed("", &[&[16, 17]]), Some(vec![16, 17]));
    }
}
