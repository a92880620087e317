//! What operations mean: a tree of nodes, and nothing else.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::fs::RenameMode;
use crate::model::FileKind;
use crate::union::tests::unpack::{Node, Tree};

type Changed = Result<Tree, Errno>;

impl Tree {
    /// Directory and last name of a path; `None` when the directory is none.
    pub(super) fn place<'a>(&self, path: &'a str) -> Option<(usize, &'a str)> {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        self.at(parent).filter(|id| self.nodes[*id].is_dir()).map(|id| (id, last))
    }

    /// How many names lead to each node that some path leads to.
    pub(super) fn reachable(&self) -> HashMap<usize, u32> {
        let mut names = HashMap::from([(0, 1)]);
        let mut walk = vec![0];
        while let Some(dir) = walk.pop() {
            for id in self.nodes[dir].names.values() {
                *names.entry(*id).or_default() += 1;
                walk.push(*id);
            }
        }
        names
    }

    pub(super) fn nlink(&self, id: usize) -> u32 {
        self.reachable().get(&id).copied().unwrap_or(0)
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Changed {
        let mut tree = self.clone();
        change(&mut tree);
        Ok(tree)
    }

    pub(super) fn make(&self, (dir, name): (usize, &str), mut node: Node) -> Changed {
        let parent = &self.nodes[dir];
        if parent.names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if parent.mode & 0o2000 != 0 {
            node.gid = parent.gid;
            node.mode |= if node.is_dir() { 0o2000 } else { 0 };
        }
        self.changed(|tree| {
            let id = tree.push(node);
            tree.nodes[dir].names.insert(name.to_owned(), id);
        })
    }

    pub(super) fn link(&self, source: usize, (dir, name): (usize, &str)) -> Changed {
        if self.nodes[source].is_dir() {
            return Err(Errno::PERM);
        }
        if self.nodes[dir].names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        self.changed(|tree| {
            tree.nodes[dir].names.insert(name.to_owned(), source);
        })
    }

    pub(super) fn remove(&self, (dir, name): (usize, &str), directory: bool) -> Changed {
        let id = *self.nodes[dir].names.get(name).ok_or(Errno::NOENT)?;
        let node = &self.nodes[id];
        match (node.is_dir(), directory) {
            (true, false) => Err(Errno::ISDIR),
            (false, true) => Err(Errno::NOTDIR),
            (true, true) if !node.names.is_empty() => Err(Errno::NOTEMPTY),
            _ => self.changed(|tree| {
                tree.nodes[dir].names.remove(name);
            }),
        }
    }

    pub(super) fn rename(&self, from: (usize, &str), to: (usize, &str), mode: RenameMode) -> Changed {
        let source = *self.nodes[from.0].names.get(from.1).ok_or(Errno::NOENT)?;
        let target = self.nodes[to.0].names.get(to.1).copied();
        match (target, mode) {
            (None, RenameMode::Exchange) => return Err(Errno::NOENT),
            (Some(_), RenameMode::NoReplace) => return Err(Errno::EXIST),
            (Some(target), RenameMode::Replace) => {
                match (self.nodes[source].is_dir(), self.nodes[target].is_dir()) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) if !self.nodes[target].names.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
            }
            _ => {}
        }
        self.changed(|tree| {
            tree.nodes[from.0].names.remove(from.1);
            tree.nodes[to.0].names.insert(to.1.to_owned(), source);
            if let (RenameMode::Exchange, Some(target)) = (mode, target) {
                tree.nodes[from.0].names.insert(from.1.to_owned(), target);
            }
        })
    }

    pub(super) fn write(&self, id: usize, offset: usize, data: &[u8]) -> Changed {
        self.changed(|tree| {
            let content = &mut tree.nodes[id].content;
            content.resize(content.len().max(offset + data.len()), 0);
            content[offset..offset + data.len()].copy_from_slice(data);
        })
    }

    pub(super) fn truncate(&self, id: usize, size: usize) -> Changed {
        self.changed(|tree| {
            let node = &mut tree.nodes[id];
            node.content.resize(size, 0);
            // By somebody without privileges, of group 0.
            node.mode &= !0o4000;
            if node.mode & 0o010 != 0 || node.gid != 0 {
                node.mode &= !0o2000;
            }
        })
    }

    pub(super) fn chmod(&self, id: usize, mode: u16) -> Changed {
        self.changed(|tree| tree.nodes[id].mode = mode)
    }

    pub(super) fn chown(&self, id: usize, uid: u32) -> Changed {
        self.changed(|tree| {
            let node = &mut tree.nodes[id];
            node.uid = uid;
            if node.kind != FileKind::Directory {
                // chown(2): "the set-group-ID bit is not cleared when the file is not group executable".
                let keep_sgid = node.mode & 0o010 == 0;
                node.mode &= if keep_sgid { 0o3777 } else { 0o1777 };
            }
        })
    }

    pub(super) fn set_xattr(&self, id: usize, key: &[u8], value: &[u8]) -> Changed {
        self.changed(|tree| {
            tree.nodes[id].xattrs.insert(key.to_vec(), value.to_vec());
        })
    }

    pub(super) fn remove_xattr(&self, id: usize, key: &[u8]) -> Changed {
        if !self.nodes[id].xattrs.contains_key(key) {
            return Err(Errno::NODATA);
        }
        self.changed(|tree| {
            tree.nodes[id].xattrs.remove(key);
        })
    }

    /// Whether `inner` is `outer` or somewhere in it.
    pub(super) fn is_within(&self, inner: usize, outer: usize) -> bool {
        inner == outer || self.nodes[outer].names.values().any(|id| self.is_within(inner, *id))
    }
}
