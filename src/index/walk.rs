//! Ways through a tree that is being built.

use super::tree::{NodeId, ROOT};

/// Symlinks followed for one path: as the kernel (`MAXSYMLINKS`).
pub(super) const SYMLINKS_MAX: usize = 40;

/// The components of a path, as if the root were above itself.
pub(super) fn normalise(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    components
}

/// A way down from the root, with the components still ahead.
pub(super) struct Walk {
    pub(super) stack: Vec<NodeId>,
    ahead: Vec<Box<[u8]>>,
    symlinks: usize,
}

impl Walk {
    pub(super) fn new(components: &[&[u8]]) -> Self {
        let ahead = components.iter().rev().map(|component| (*component).into()).collect();
        Self { stack: vec![ROOT], ahead, symlinks: 0 }
    }

    /// The next component that is a name.
    pub(super) fn next(&mut self) -> Option<Box<[u8]>> {
        while let Some(component) = self.ahead.pop() {
            match &component[..] {
                b"" | b"." => {}
                b".." => {
                    if self.stack.len() > 1 {
                        self.stack.pop();
                    }
                }
                _ => return Some(component),
            }
        }
        None
    }

    pub(super) fn is_done(&self) -> bool {
        self.ahead.is_empty()
    }

    pub(super) fn dir(&self) -> NodeId {
        self.stack.last().copied().unwrap_or(ROOT)
    }

    pub(super) fn enter(&mut self, dir: NodeId) {
        self.stack.push(dir);
    }

    pub(super) fn follow(&mut self, target: &[u8]) -> Result<(), String> {
        self.symlinks += 1;
        if self.symlinks > SYMLINKS_MAX {
            return Err("too many symlinks on the way".to_owned());
        }
        if target.starts_with(b"/") {
            self.stack.truncate(1);
        }
        self.ahead.extend(target.split(|byte| *byte == b'/').rev().map(Into::into));
        Ok(())
    }
}
