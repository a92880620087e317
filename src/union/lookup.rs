//! One name in one merged directory.

use super::{Lower, LowerDir, LowerRef, Merge, Union};
use crate::layer::{Found, LayerError};
use crate::model::{FileKind, Name};

impl Union {
    /// What `name` leads to in `dir`; `None` when no layer has it or one hides it.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer.
    pub fn lookup(&self, dir: &LowerDir, name: Name<'_>) -> Result<Option<Lower>, LayerError> {
        let mut merge = Merge::default();
        for part in &dir.parts {
            let entry = match self.layer(*part)?.lookup(part.entry, name)? {
                Found::Absent => continue,
                Found::Whiteout => break,
                Found::LinkBelow(target) => match self.link_below(part.layer, &target)? {
                    Some((lower, kind)) if merge.parts.is_empty() => {
                        return Ok(Some(Lower::Link(lower, kind)));
                    }
                    _ => break,
                },
                Found::Entry(entry) => entry,
            };
            let lower = LowerRef { layer: part.layer, entry };
            let found = self.entry(lower)?;
            if found.metadata.kind != FileKind::Directory {
                // Below a directory a file is only what the directory hides.
                return Ok(match merge.parts.is_empty() {
                    true => Some(Lower::Leaf(lower, found.metadata.kind)),
                    false => Some(child_dir(dir, name, merge)),
                });
            }
            if !merge.add(lower, &found) {
                break;
            }
        }
        Ok((!merge.parts.is_empty()).then(|| child_dir(dir, name, merge)))
    }

    /// Walks a path of the union, relative to its root, following no symlink; `None` when there is nothing.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<Lower>, LayerError> {
        let mut here = self.root()?;
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let Ok(name) = Name::new(name) else { return Ok(None) };
            match self.lookup(&here, name)? {
                Some(Lower::Dir(dir)) => here = dir,
                leaf if names.peek().is_none() => return Ok(leaf),
                _ => return Ok(None),
            }
        }
        Ok(Some(Lower::Dir(here)))
    }
}

fn child_dir(parent: &LowerDir, name: Name<'_>, merge: Merge) -> Lower {
    let mut path = parent.path.clone();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    Lower::Dir(merge.into_dir(path))
}
