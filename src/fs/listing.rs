//! The position of every name in its directory, stable for as long as the directory is known.
//!
//! Without OPENDIR there is no handle to hang a snapshot on, and a reader that deletes what it reads (`rm -r`) must
//! meet every name once. So a name keeps its position from the first time it was told; new ones come at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::FileName;
use crate::union::Listed;

/// The names of a directory, each with what the layers have under it, where that is known and will stay: it counts where the
/// upper has nothing.
pub(super) type Names = BTreeMap<FileName, Option<Listed>>;

/// The names of a directory by position.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their positions. What comes has the next one, so this only grows at its end.
    names: Vec<Position>,
    /// The version of the directory that this shows; `None` before the first time.
    version: Option<u64>,
    next: u64,
    pub(super) readers: Readers,
}

/// Those who are reading the directory, as far as they can be told apart: they have no handles either.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// How many began and did not come to the end. Some never will.
    reading: u64,
    /// The version of the directory when the first of them began.
    since: u64,
    last: Option<Instant>,
}

/// After this time without a word from any reader none counts as reading any more.
const GIVEN_UP: Duration = Duration::from_secs(60);

impl Readers {
    /// One of them begins, or goes on, while the directory is at `version`.
    pub(super) fn read_on(&mut self, begins: bool, version: u64, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) > GIVEN_UP) {
            self.reading = 0;
        }
        self.last = Some(now);
        if begins {
            if self.reading == 0 {
                self.since = version;
            }
            self.reading += 1;
        }
    }

    /// One of them has come to the end, with the directory at `version`. Returns whether it changed meanwhile.
    pub(super) fn end(&mut self, version: u64) -> bool {
        self.reading = self.reading.saturating_sub(1);
        std::mem::replace(&mut self.since, version) != version
    }
}

impl Listing {
    /// Whether this shows that version of the directory.
    pub(super) fn is_current(&self, version: u64) -> bool {
        self.version == Some(version)
    }

    /// Takes over the names that were there at that version or since. Of several readers who listed the directory at
    /// once, the one who began last is right: an older list takes nothing back.
    pub(super) fn update(&mut self, version: u64, mut names: Names) {
        match self.version {
            Some(shown) if shown > version => return,
            // One of the two was made while a name came or went, which is about to be a version of its own.
            Some(shown) if shown == version => {
                for known in &self.names {
                    names.remove(known.name.as_bytes());
                }
            }
            Some(_) | None => self.names.retain_mut(|one| {
                let now = names.remove(one.name.as_bytes());
                one.known = now.flatten();
                now.is_some()
            }),
        }
        self.names.reserve_exact(names.len());
        for (name, known) in names {
            self.names.push(Position { position: self.next, name, known });
            self.next += 1;
        }
        self.version = Some(version);
    }

    /// Up to `count` names from `position` on, with their positions. What is known of them holds while the directory is at
    /// `version`.
    pub(super) fn from(&self, position: u64, count: usize, version: u64) -> Vec<Position> {
        let is_current = self.is_current(version);
        let first = self.names.partition_point(|one| one.position < position);
        let names = self.names[first..].iter().take(count);
        names.map(|one| Position { known: one.known.filter(|_| is_current), ..one.clone() }).collect()
    }
}

/// One name at its position.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) position: u64,
    pub(super) name: FileName,
    /// As in [`Names`].
    pub(super) known: Option<Listed>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntryId, FileKind, LayerOrdinal, Name};
    use crate::union::LowerRef;

    fn names(texts: &[&str]) -> Names {
        texts.iter().map(|text| (Name::new(text.as_bytes()).unwrap().to_owned(), None)).collect()
    }

    fn shown(listing: &Listing, position: u64) -> Vec<(u64, String)> {
        let text = |name: FileName| String::from_utf8(name.as_bytes().to_vec()).unwrap();
        listing.from(position, 100, 0).into_iter().map(|one| (one.position, text(one.name))).collect()
    }

    #[test]
    fn positions_stay() {
        let mut listing = Listing::default();
        listing.update(1, names(&["a", "b", "c"]));
        listing.update(2, names(&["b", "c", "A"]));
        let expected = [(1, "b".to_owned()), (2, "c".to_owned()), (3, "A".to_owned())];
        assert_eq!(shown(&listing, 0), expected);
        assert_eq!(shown(&listing, 3), expected[2..]);
        assert!(listing.is_current(2) && !listing.is_current(1));
    }

    #[test]
    fn what_is_known_is_of_one_version() {
        let lower = LowerRef { layer: LayerOrdinal(0), entry: EntryId(1) };
        let known = Some(Listed { lower, kind: FileKind::Regular, is_link: false });
        let names = |known| Names::from([(Name::new(b"a").unwrap().to_owned(), known)]);
        let mut listing = Listing::default();
        listing.update(1, names(known));
        assert_eq!(listing.from(0, 1, 1)[0].known, known);
        // It has changed, and nobody has listed it since.
        assert_eq!(listing.from(0, 1, 2)[0].known, None);
        listing.update(2, names(None));
        assert_eq!(listing.from(0, 1, 2)[0].known, None);
        listing.update(3, names(known));
        assert_eq!(listing.from(0, 1, 3)[0].known, known);
    }

    #[test]
    fn readers_of_a_directory_that_changes() {
        let (mut readers, now) = (Readers::default(), Instant::now());
        readers.read_on(true, 5, now);
        assert!(!readers.end(5), "alone, and nothing changed");
        readers.read_on(true, 6, now);
        readers.read_on(false, 7, now);
        readers.read_on(true, 7, now);
        assert!(readers.end(7), "the first began before the change");
        assert!(!readers.end(7), "the second after it");
        readers.read_on(true, 8, now);
        let later = now + GIVEN_UP + Duration::from_secs(1);
        readers.read_on(true, 9, later);
        assert!(!readers.end(9), "the first will never end");
    }

    #[test]
    fn the_latest_of_several_readers_wins() {
        let mut listing = Listing::default();
        listing.update(2, names(&["a", "b", "new"]));
        listing.update(1, names(&["a", "gone"]));
        let expected = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "new".to_owned())];
        assert_eq!(shown(&listing, 0), expected);
        assert!(listing.is_current(2));
        // While "later" was being made, two readers began at one version.
        listing.update(3, names(&["a", "b", "new", "later"]));
        listing.update(3, names(&["a", "b", "new"]));
        assert_eq!(shown(&listing, 3), [(3, "later".to_owned())]);
    }
}
