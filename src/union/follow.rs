//! Paths through the union as programs in it would follow them: symlinks lead on, and never out of the root.

use super::{Lower, LowerDir, Union};
use crate::layer::LayerError;
use crate::model::{FileKind, Name};

/// As many symlinks as the kernel follows (path_resolution(7)).
const SYMLINKS_MAX: usize = 40;

/// What to do when the last name of a path is a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastSymlink {
    /// As stat(2).
    Follow,
    /// As lstat(2), unless something follows it, be it a slash.
    Keep,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The same place without symlinks, `.` and `..`, relative to the root; also when nothing is there.
    pub path: Vec<u8>,
    /// What is there.
    pub target: Target,
}

/// What a path ends at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object.
    Found(Lower),
    /// A name on the way, or the last, is nowhere.
    Absent,
    /// What is not a directory is used as one; how much of [`Place::path`] leads to it, in bytes.
    NotDirectory(usize),
}

/// Why a path cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A layer could not answer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Symlinks that lead to each other.
    #[error("more than {SYMLINKS_MAX} symlinks on the way")]
    Loop,
}

/// A way down from the root.
struct Way {
    /// The directories from the root on, each with the length of its path.
    dirs: Vec<(LowerDir, usize)>,
    path: Vec<u8>,
    /// Names still ahead, the next one last.
    ahead: Vec<Vec<u8>>,
    symlinks: usize,
}

impl Union {
    /// Follows a path from the root.
    ///
    /// # Errors
    /// [`FollowError`]; that nothing is there is none.
    pub fn follow(&self, path: &[u8], last: LastSymlink) -> Result<Place, FollowError> {
        let root = self.root()?;
        let mut way = Way { dirs: vec![(root, 0)], path: Vec::new(), ahead: Vec::new(), symlinks: 0 };
        way.add(path);
        if path.is_empty() {
            return Ok(way.ends(None, Target::Absent));
        }
        while let Some(name) = way.ahead.pop() {
            match &name[..] {
                // Whatever it is said of is a directory: nothing else gets so far.
                b"." => continue,
                b".." => {
                    way.up();
                    continue;
                }
                _ => {}
            }
            let Some((dir, _)) = way.dirs.last() else { break };
            let Ok(valid) = Name::new(&name) else { return Ok(way.ends(Some(name), Target::Absent)) };
            let is_last = way.ahead.is_empty();
            match self.lookup(dir, valid)? {
                None => return Ok(way.ends(Some(name), Target::Absent)),
                Some(Lower::Dir(dir)) => way.down(&name, dir),
                Some(Lower::Leaf(lower, FileKind::Symlink) | Lower::Link(lower, FileKind::Symlink))
                    if !(is_last && last == LastSymlink::Keep) =>
                {
                    way.symlinks += 1;
                    if way.symlinks > SYMLINKS_MAX {
                        return Err(FollowError::Loop);
                    }
                    let target = self.read_link(lower)?;
                    if target.is_empty() {
                        return Ok(way.ends(Some(name), Target::Absent));
                    }
                    if target.starts_with(b"/") {
                        way.dirs.truncate(1);
                        way.path.clear();
                    }
                    way.add(&target);
                }
                Some(leaf) => {
                    way.push(&name);
                    if is_last {
                        return Ok(way.ends(None, Target::Found(leaf)));
                    }
                    let end = way.path.len();
                    return Ok(way.ends(None, Target::NotDirectory(end)));
                }
            }
        }
        let Some((dir, _)) = way.dirs.pop() else { return Ok(way.ends(None, Target::Absent)) };
        Ok(way.ends(None, Target::Found(Lower::Dir(dir))))
    }
}

impl Way {
    /// A slash at the end is said as `.`: before either there must be a directory, to which a symlink is followed
    /// (path_resolution(7)).
    fn add(&mut self, path: &[u8]) {
        if path.ends_with(b"/") {
            self.ahead.push(b".".to_vec());
        }
        let names = path.split(|byte| *byte == b'/').rev();
        self.ahead.extend(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
    }

    fn push(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn down(&mut self, name: &[u8], dir: LowerDir) {
        self.push(name);
        self.dirs.push((dir, self.path.len()));
    }

    fn up(&mut self) {
        if self.dirs.len() > 1 {
            self.dirs.pop();
        }
        self.path.truncate(self.dirs.last().map_or(0, |(_, length)| *length));
    }

    /// The end, with the names that were not walked as they stand.
    fn ends(mut self, name: Option<Vec<u8>>, target: Target) -> Place {
        let floor = self.path.len();
        for name in name.into_iter().chain(std::mem::take(&mut self.ahead).into_iter().rev()) {
            if name == b"." {
                continue;
            }
            if name == b".." {
                let above = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                self.path.truncate(above.max(floor));
            } else {
                self.push(&name);
            }
        }
        Place { path: self.path, target }
    }
}
