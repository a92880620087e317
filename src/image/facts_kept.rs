//! `images.json` beside the layout: what was read of images, so that a list of a thousand reads one file.
//!
//! ```text
//! <blake3 of all that follows, 64 hex digits>\n
//! {"version":1,"platform":"linux/amd64","facts":{"<digest of the entry in index.json>":{...},...}}
//! ```
//!
//! The documents of an image are named by their digests, so what was read of them stays true, but for which of several an
//! index means on another kind of machine: hence the platform. A file that does not hash to its first line, of another
//! version or platform, or that is too long is as if it were not there. It holds entries of the index as it was only, so it is
//! bounded by that. It is not flushed, and may be removed at any time.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::model::Digest;
use crate::sys::atomic;

const VERSION: u32 = 1;
/// The longest file: index.json has at most 8 MiB, and facts take about twice what an entry takes there.
const BYTES_MAX: u64 = 32 << 20;
/// Labels of one image beyond that are read each time.
const LABEL_BYTES_MAX: usize = 16 << 10;
/// Hex digits of the first line.
const SEAL_DIGITS: usize = 64;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    platform: &'a str,
    facts: BTreeMap<Digest, &'a Facts>,
}

#[derive(Deserialize)]
struct Kept {
    version: u32,
    platform: String,
    facts: HashMap<Digest, Facts>,
}

/// What was kept, if all of it can be believed.
pub(super) fn read(path: &Path, platform: &str) -> HashMap<Digest, Facts> {
    parsed(path).filter(|kept| kept.platform == platform).map(|kept| kept.facts).unwrap_or_default()
}

/// Whether the file is there and cannot be believed. Nobody does, but somebody may want to know.
#[must_use]
pub fn is_damaged(path: &Path) -> bool {
    path.exists() && parsed(path).is_none()
}

fn parsed(path: &Path) -> Option<Kept> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > BYTES_MAX {
        return None;
    }
    let (seal, text) = bytes.split_at_checked(SEAL_DIGITS + 1)?;
    if seal != format!("{}\n", blake3::hash(text).to_hex()).as_bytes() {
        return None;
    }
    serde_json::from_slice(text).ok().filter(|kept: &Kept| kept.version == VERSION)
}

/// Keeps what is known. Best effort: the next list reads again what is not kept.
pub(super) fn write<'a>(path: &Path, platform: &str, known: impl Iterator<Item = (Digest, &'a Facts)>) {
    let label_bytes =
        |facts: &Facts| facts.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let facts = known.filter(|(_, facts)| label_bytes(facts) <= LABEL_BYTES_MAX).collect();
    let written = || {
        let text = serde_json::to_vec(&Written { version: VERSION, platform, facts })?;
        if (text.len() + SEAL_DIGITS) as u64 >= BYTES_MAX {
            return Ok(());
        }
        let mut bytes = format!("{}\n", blake3::hash(&text).to_hex()).into_bytes();
        bytes.extend(text);
        atomic::write_volatile(path, &bytes, 0o600)
    };
    if let Err(error) = written() {
        tracing::debug!(path = %path.display(), %error, "what was read of images is not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(label: &str) -> Facts {
        let digest = Digest::from_bytes([7; 32]);
        Facts {
            id: digest,
            manifest: digest,
            created: Some(1),
            size: 2,
            labels: BTreeMap::from([("key".to_owned(), label.to_owned())]),
            architecture: "amd64".to_owned(),
            is_stand_in: false,
            os: "linux".to_owned(),
        }
    }

    #[test]
    fn kept_and_believed_only_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.json");
        assert!(read(&path, "p").is_empty() && !is_damaged(&path));
        let (one, large) = (facts("one"), facts(&"x".repeat(LABEL_BYTES_MAX)));
        let [first, second] = [[1; 32], [2; 32]].map(Digest::from_bytes);
        write(&path, "p", [(first, &one), (second, &large)].into_iter());
        assert_eq!(read(&path, "p"), HashMap::from([(first, one)]));
        assert!(read(&path, "q").is_empty() && !is_damaged(&path));
        let good = std::fs::read(&path).unwrap();
        for at in [0, SEAL_DIGITS, SEAL_DIGITS + 30, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path, "p").is_empty() && is_damaged(&path), "{at}");
        }
        for length in [0, 10, SEAL_DIGITS + 1, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(read(&path, "p").is_empty() && is_damaged(&path), "{length}");
        }
    }
}
