//! In which repositories blobs were seen: pulled from there or pushed to there. The registry can take them over from one
//! repository into another, so that they need not be sent.
//!
//! `pushed.json` of the store. Nothing depends on it: missing, damaged or wrong, blobs are sent once more. Of two processes
//! that write it at once the last one wins.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::Digest;
use crate::store::Store;
use crate::sys::atomic;

const VERSION: u32 = 1;
/// Blobs that are remembered: a few hundred images. Those that were not seen for longest go.
const BLOBS_MAX: usize = 4000;
/// Repositories of one blob: base images are everywhere, and one place will do.
const PLACES_MAX: usize = 4;
/// Of names of 255 bytes each, both limits together are less.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What is remembered.
#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
}

#[derive(Default, Deserialize, Serialize)]
struct Written {
    version: u32,
    /// Those seen last are last.
    blobs: VecDeque<Blob>,
}

#[derive(Deserialize, Serialize)]
struct Blob {
    digest: Digest,
    /// `HOST/REPOSITORY`; those seen last are last.
    at: VecDeque<String>,
}

impl Seen {
    pub(super) fn of(store: &Store) -> Self {
        Self { path: store.root().join("pushed.json") }
    }

    /// Other repositories of a registry that had the blob, those seen last first.
    pub(super) fn elsewhere(&self, host: &str, repository: &str, digest: Digest) -> Vec<String> {
        let blobs = self.read().blobs;
        let Some(blob) = blobs.into_iter().find(|blob| blob.digest == digest) else { return Vec::new() };
        let of_host = |place: &String| Some(place.strip_prefix(host)?.strip_prefix('/')?.to_owned());
        blob.at.iter().rev().filter_map(of_host).filter(|other| other != repository).collect()
    }

    /// Remembers that a repository has these blobs. That it cannot be written is told to the log alone.
    pub(super) fn note(&self, host: &str, repository: &str, digests: impl Iterator<Item = Digest>) {
        let place = format!("{host}/{repository}");
        let mut written = self.read();
        for digest in digests {
            let known = written.blobs.iter().position(|blob| blob.digest == digest);
            let known = known.and_then(|position| written.blobs.remove(position));
            let mut blob = known.unwrap_or_else(|| Blob { digest, at: VecDeque::new() });
            blob.at.retain(|other| *other != place);
            blob.at.push_back(place.clone());
            while blob.at.len() > PLACES_MAX {
                blob.at.pop_front();
            }
            written.blobs.push_back(blob);
        }
        while written.blobs.len() > BLOBS_MAX {
            written.blobs.pop_front();
        }
        if let Err(error) = self.write(&written) {
            tracing::warn!(path = %self.path.display(), %error, "what was pushed is not remembered");
        }
    }

    fn read(&self) -> Written {
        let bytes = match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() <= FILE_BYTES_MAX => std::fs::read(&self.path),
            Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
            Err(error) => Err(error),
        };
        let read = bytes.and_then(|bytes| serde_json::from_slice::<Written>(&bytes).map_err(io::Error::from));
        match read {
            Ok(written) if written.version == VERSION => written,
            Ok(_) => Written { version: VERSION, ..Written::default() },
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(path = %self.path.display(), %error, "made anew");
                }
                Written { version: VERSION, ..Written::default() }
            }
        }
    }

    fn write(&self, written: &Written) -> io::Result<()> {
        atomic::write_volatile(&self.path, &serde_json::to_vec(written)?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    #[test]
    fn repositories_are_remembered_by_registry() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let seen = Seen::of(&store);
        assert!(seen.elsewhere("r:5000", "a", digest(1)).is_empty());
        seen.note("r:5000", "a/b", [digest(1), digest(2)].into_iter());
        seen.note("r:50", "c", [digest(1)].into_iter());
        seen.note("r:5000", "d", [digest(1)].into_iter());
        assert_eq!(Seen::of(&store).elsewhere("r:5000", "x", digest(1)), ["d", "a/b"]);
        assert_eq!(seen.elsewhere("r:5000", "d", digest(1)), ["a/b"]);
        assert_eq!(seen.elsewhere("r", "x", digest(1)), Vec::<String>::new());
        seen.note("r:5000", "a/b", [digest(1)].into_iter());
        assert_eq!(seen.elsewhere("r:5000", "x", digest(1)), ["a/b", "d"]);
    }

    #[test]
    fn damage_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let seen = Seen::of(&store);
        for damage in
            ["", "{", r#"{"version":2,"blobs":[]}"#, r#"{"version":1,"blobs":[{"digest":"x","at":[]}]}"#]
        {
            std::fs::write(&seen.path, damage).unwrap();
            assert!(seen.elsewhere("r", "x", digest(1)).is_empty(), "{damage}");
            seen.note("r", "a", [digest(1)].into_iter());
            assert_eq!(seen.elsewhere("r", "x", digest(1)), ["a"], "{damage}");
        }
    }

    #[test]
    fn what_was_seen_long_ago_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let seen = Seen::of(&store);
        let numbered = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Digest::from_bytes(bytes)
        };
        seen.note("r", "a", (0..BLOBS_MAX + 10).map(numbered));
        assert!(seen.elsewhere("r", "x", numbered(9)).is_empty());
        assert_eq!(seen.elsewhere("r", "x", numbered(10)), ["a"]);
        for repository in 0..PLACES_MAX + 3 {
            seen.note("r", &format!("r{repository}"), [numbered(11)].into_iter());
        }
        assert_eq!(seen.elsewhere("r", "x", numbered(11)).len(), PLACES_MAX);
    }
}
