//! All names of one merged directory.

use std::collections::BTreeMap;

use super::{Listed, LowerDir, LowerRef, Union};
use crate::layer::{Found, LayerError};
use crate::model::{EntryId, FileKind, FileName, LayerOrdinal};

/// What is known of a name while the layers are walked from the top.
enum Seen {
    Shown(Listed),
    /// A hidden name; what lower layers have under it does not count.
    Hidden,
}

impl Union {
    /// The visible names of a directory, sorted by bytes, each with the object that wins.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer: a listing that misses names is never given.
    pub fn list(&self, dir: &LowerDir) -> Result<BTreeMap<FileName, Listed>, LayerError> {
        let mut names: BTreeMap<FileName, Seen> = BTreeMap::new();
        for part in &dir.parts {
            for item in self.layer(*part)?.read_dir(part.entry)? {
                if names.contains_key(item.name.as_bytes()) {
                    continue;
                }
                let seen = self.seen(part.layer, item.found)?;
                names.insert(item.name, seen);
            }
        }
        Ok(names
            .into_iter()
            .filter_map(|(name, seen)| match seen {
                Seen::Shown(listed) => Some((name, listed)),
                Seen::Hidden => None,
            })
            .collect())
    }

    fn seen(&self, layer: LayerOrdinal, found: Found) -> Result<Seen, LayerError> {
        Ok(match found {
            Found::Entry(entry) => Seen::Shown(self.listed(layer, entry)?),
            Found::LinkBelow(target) => match self.link_below(layer, &target)? {
                Some((lower, kind)) => Seen::Shown(Listed { lower, kind, is_link: true }),
                None => Seen::Hidden,
            },
            Found::Whiteout | Found::Absent => Seen::Hidden,
        })
    }

    fn listed(&self, layer: LayerOrdinal, entry: EntryId) -> Result<Listed, LayerError> {
        let lower = LowerRef { layer, entry };
        let kind: FileKind = self.entry(lower)?.metadata.kind;
        Ok(Listed { lower, kind, is_link: false })
    }
}
