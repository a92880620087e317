//! What the upper changes, as a layer says it: the union with its upper against the layers alone.
//!
//! Both are walked in full. That costs a walk of metadata, but nothing has to be known of how the upper hides, renames
//! and links things: a renamed directory of a layer is simply there in full under its new name and gone from its old one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::find::{DirView, Found, FoundLower};
use super::node::Home;
use super::sharing::Sharing;
use super::{Fs, FsError};
use crate::layer::Xattr;
use crate::model::limits::PATH_BYTES_MAX;
use crate::model::name::NameError;
use crate::model::{FileKind, FileName, Ino, Metadata};
use crate::union::{Lower, LowerDir, LowerRef};
use crate::upper::is_private;

/// One path that is not as the layers have it.
pub enum Change<'a> {
    /// The layers have something there, the union has nothing.
    Removed,
    /// One more name of the object at this path, which was told before; and whether the layers have nothing of that name.
    Link(&'a [u8], bool),
    /// An object in full.
    Object(Changed<'a>),
}

/// An object that is new, or not as the layers have it.
pub struct Changed<'a> {
    /// What stat(2) says of it.
    pub metadata: Metadata,
    /// Its extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The target of a symlink.
    pub target: Vec<u8>,
    /// The content of a regular file.
    pub content: &'a mut dyn Read,
    /// What stat(2) says of what the layers have of that name, if anything.
    pub before: Option<Metadata>,
}

/// Why the changes could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The union could not answer.
    #[error("/{path}: {source}")]
    Fs {
        /// About what.
        path: String,
        /// Why.
        source: FsError,
    },
    /// Whoever was told did not take it.
    #[error("/{path}: {source}")]
    Told {
        /// What was told.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// Hears of each change: its path, relative to the root and empty for the root itself, and what is there.
type Each<'a> = &'a mut dyn FnMut(&[u8], Change<'_>) -> io::Result<()>;

/// What the walk meets.
enum Met<'a> {
    Gone,
    Object { found: &'a Found, below: Option<&'a Lower> },
}

/// The names of an object that may have several.
struct Linked {
    first: Vec<u8>,
    /// One of its names is not as the layers have it, so that all have to be told for the links to stay links.
    changed: bool,
}

impl std::fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Removed => f.write_str("Removed"),
            Self::Link(to, _) => write!(f, "Link({})", to.escape_ascii()),
            Self::Object(object) => object.fmt(f),
        }
    }
}

impl std::fmt::Debug for Changed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changed").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Fs {
    /// Tells everything that is not as the layers have it, sorted by name, directories before what is in them. The
    /// filesystem must not be in use.
    ///
    /// # Errors
    /// [`ChangesError`], with the path.
    pub fn changes(&self, each: Each<'_>) -> Result<(), ChangesError> {
        let _using = self.using_layers();
        let mut links: HashMap<Identity, Linked> = HashMap::new();
        self.walk(&mut |path, met| {
            if let Met::Object { found, below } = met
                && self.may_have_links(found)?
            {
                let fresh = || Linked { first: path.to_vec(), changed: false };
                links.entry(identity(found)).or_insert_with(fresh).changed |= !is_of_layers(found, below);
            }
            Ok(Ok(()))
        })?;
        self.tell_root(each)?;
        self.walk(&mut |path, met| match met {
            Met::Gone => Ok(each(path, Change::Removed)),
            Met::Object { found, below } => match links.get(&identity(found)) {
                Some(linked) if linked.changed && linked.first == path => {
                    self.tell_whole(path, found, below, each)
                }
                Some(linked) if linked.changed => {
                    Ok(each(path, Change::Link(&linked.first, below.is_none())))
                }
                Some(_) => Ok(Ok(())),
                None if is_of_layers(found, below) || self.is_same_dir(found, below)? => Ok(Ok(())),
                None => self.tell_whole(path, found, below, each),
            },
        })
    }

    fn tell_root(&self, each: Each<'_>) -> Result<(), ChangesError> {
        let mut tell = || -> Result<io::Result<()>, FsError> {
            let Some(upper) = &self.upper else { return Ok(Ok(())) };
            let below = self.union.root()?;
            let lower = FoundLower::Dir(Arc::new(below.clone()));
            let upper = Some((upper.root()?, Home::Named));
            let root = Found { ino: Ino::ROOT, kind: FileKind::Directory, lower, upper };
            let below = Lower::Dir(below);
            if self.is_same_dir(&root, Some(&below))? {
                return Ok(Ok(()));
            }
            self.tell_whole(b"", &root, Some(&below), each)
        };
        at(b"", tell())
    }

    fn walk(&self, visit: Visit<'_>) -> Result<(), ChangesError> {
        let start = || Ok((self.view(&*self.node(Ino::ROOT)?)?, self.union.root()?));
        let (root, below) = start().map_err(|source| failed(b"", source))?;
        self.walk_dir(&root, Some(&below), &mut Vec::new(), visit)
    }

    fn walk_dir(
        &self,
        dir: &DirView,
        below: Option<&LowerDir>,
        path: &mut Vec<u8>,
        visit: Visit<'_>,
    ) -> Result<(), ChangesError> {
        let names = self.both_names(dir, below).map_err(|source| failed(path, source))?;
        let parent = path.len();
        for (name, is_there) in names {
            path.truncate(parent);
            if parent > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if !is_there {
                at(path, visit(path, Met::Gone))?;
                continue;
            }
            let look = || -> Result<_, FsError> {
                if path.len() >= PATH_BYTES_MAX {
                    return Err(NameError::TooLong.into());
                }
                let found = self.find(dir, name.as_name())?.ok_or(FsError::NotFound)?;
                let below =
                    below.map(|below| self.union.lookup(below, name.as_name())).transpose()?.flatten();
                Ok((found, below))
            };
            let (found, below) = look().map_err(|source| failed(path, source))?;
            at(path, visit(path, Met::Object { found: &found, below: below.as_ref() }))?;
            if found.kind == FileKind::Directory {
                let below = below.as_ref().and_then(|below| match below {
                    Lower::Dir(below) => Some(below),
                    Lower::Leaf(..) | Lower::Link(..) => None,
                });
                self.walk_dir(&found.into_view(), below, path, visit)?;
            }
        }
        path.truncate(parent);
        Ok(())
    }

    /// All names of a directory, and those that only the layers have (`false`).
    fn both_names(
        &self,
        dir: &DirView,
        below: Option<&LowerDir>,
    ) -> Result<BTreeMap<FileName, bool>, FsError> {
        let mut names = BTreeMap::new();
        if let Some(below) = below {
            names.extend(self.union.list(below)?.into_keys().map(|name| (name, false)));
        }
        let there = self.merged_names(&dir.lower, dir.upper.as_ref().map(Arc::as_ref))?;
        names.extend(there.into_iter().map(|name| (name, true)));
        Ok(names)
    }

    fn may_have_links(&self, found: &Found) -> Result<bool, FsError> {
        Ok(match (&found.upper, &found.lower) {
            _ if found.kind == FileKind::Directory => false,
            (Some((_, Home::Index)), _) => true,
            (Some((object, Home::Named | Home::Kept(_))), _) => object.attr.nlink > 1,
            (None, FoundLower::Leaf(lower)) => self.is_linked(*lower, found.ino)?,
            (None, _) => false,
        })
    }

    /// Whether both are directories with the same attributes; what is in them is another matter.
    fn is_same_dir(&self, found: &Found, below: Option<&Lower>) -> Result<bool, FsError> {
        let Some(Lower::Dir(below)) = below.filter(|_| found.kind == FileKind::Directory) else {
            return Ok(false);
        };
        if below.parts.is_empty() {
            return Ok(false);
        }
        let (metadata, xattrs) = self.attributes(found)?;
        let same_size = |metadata| Metadata { size: 0, ..metadata };
        Ok(same_size(metadata) == same_size(self.union.dir_metadata(below)?)
            && xattrs == shown(self.union.dir_xattrs(below)?))
    }

    fn attributes(&self, found: &Found) -> Result<(Metadata, Vec<Xattr>), FsError> {
        let (metadata, xattrs) = match (&found.upper, &found.lower) {
            (Some((object, _)), _) => {
                let upper = self.upper()?;
                let mut xattrs: Vec<Xattr> = Vec::new();
                for name in upper.xattr_names(&object.pinned)? {
                    if let Some(value) = upper.xattr(&object.pinned, &name)? {
                        xattrs.push((name.into(), value.into()));
                    }
                }
                (object.attr.metadata, xattrs)
            }
            (None, FoundLower::Leaf(lower)) => (self.union.metadata(*lower)?, self.union.xattrs(*lower)?),
            (None, FoundLower::Dir(dir)) => (self.union.dir_metadata(dir)?, self.union.dir_xattrs(dir)?),
            (None, FoundLower::None) => return Err(FsError::Lost(found.ino)),
        };
        Ok((metadata, shown(xattrs)))
    }

    fn tell_whole(
        &self,
        path: &[u8],
        found: &Found,
        below: Option<&Lower>,
        each: Each<'_>,
    ) -> Result<io::Result<()>, FsError> {
        let (metadata, xattrs) = self.attributes(found)?;
        let mut target = Vec::new();
        let mut source = Source::Nothing;
        match (metadata.kind, &found.upper, &found.lower) {
            (FileKind::Regular, Some((object, _)), _) => {
                let file = self.upper()?.open_file(&object.pinned, false)?;
                source = match Sharing::of(object) {
                    Some(sharing) => Source::Shared(self, file, sharing),
                    None => Source::Upper(file),
                };
            }
            (FileKind::Regular, None, FoundLower::Leaf(lower)) => source = Source::Layers(self, *lower),
            (FileKind::Symlink, Some((object, _)), _) => target = self.upper()?.read_link(&object.pinned)?,
            (FileKind::Symlink, None, FoundLower::Leaf(lower)) => target = self.union.read_link(*lower)?,
            _ => {}
        }
        let mut content = Content { source, offset: 0 };
        let before = match below {
            Some(Lower::Dir(dir)) => Some(self.union.dir_metadata(dir)?),
            Some(Lower::Leaf(lower, _) | Lower::Link(lower, _)) => Some(self.union.metadata(*lower)?),
            None => None,
        };
        Ok(each(path, Change::Object(Changed { metadata, xattrs, target, content: &mut content, before })))
    }
}

/// An inner result is that of whoever is told.
type Visit<'a> = &'a mut dyn FnMut(&[u8], Met<'_>) -> Result<io::Result<()>, FsError>;

impl Found {
    fn into_view(self) -> DirView {
        let lower = if let FoundLower::Dir(dir) = self.lower { dir } else { Arc::default() };
        DirView { lower, upper: self.upper.map(|(object, _)| Arc::new(object.pinned)) }
    }
}

/// What all names of an object have in common: its number, and that in the upper.
type Identity = (Ino, Option<u64>);

fn identity(found: &Found) -> Identity {
    (found.ino, found.upper.as_ref().map(|(object, _)| object.attr.st_ino))
}

/// Whether this is the very object that the layers have there.
fn is_of_layers(found: &Found, below: Option<&Lower>) -> bool {
    match (&found.upper, &found.lower, below) {
        (None, FoundLower::Leaf(lower), Some(Lower::Leaf(below, _) | Lower::Link(below, _))) => {
            lower == below
        }
        _ => false,
    }
}

fn shown(mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
    xattrs.retain(|(name, _)| !is_private(name));
    xattrs.sort();
    xattrs
}

fn failed(path: &[u8], source: FsError) -> ChangesError {
    ChangesError::Fs { path: path.escape_ascii().to_string(), source }
}

fn at(path: &[u8], result: Result<io::Result<()>, FsError>) -> Result<(), ChangesError> {
    let told = |source| ChangesError::Told { path: path.escape_ascii().to_string(), source };
    result.map_err(|source| failed(path, source))?.map_err(told)
}

/// The bytes of a regular file, wherever they are.
struct Content<'a> {
    source: Source<'a>,
    offset: u64,
}

enum Source<'a> {
    Nothing,
    Upper(Arc<File>),
    Shared(&'a Fs, Arc<File>, Sharing),
    Layers(&'a Fs, LowerRef),
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &self.source {
            Source::Nothing => 0,
            Source::Upper(file) => file.read_at(buffer, self.offset)?,
            Source::Shared(fs, file, sharing) => {
                fs.read_shared(file, sharing, self.offset, buffer).map_err(io::Error::other)?
            }
            Source::Layers(fs, lower) => {
                fs.union.read_at(*lower, self.offset, buffer).map_err(io::Error::other)?
            }
        };
        self.offset += count as u64;
        Ok(count)
    }
}
