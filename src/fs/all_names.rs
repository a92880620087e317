//! Hard links of a layer in an upper that others read too: they know nothing of the link index.

use std::ops::ControlFlow;

use super::node::{Home, LowerPart, Node};
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::union::LowerRef;
use crate::upper::Upper;

impl Fs {
    /// Whether an object of the link index should have got all of its names in the upper, but has not: there may have
    /// been no room.
    pub(super) fn lacks_names(&self, node: &Node) -> Option<LowerRef> {
        if !self.upper.as_ref().is_some_and(Upper::is_shared) {
            return None;
        }
        let state = node.state();
        let is_indexed = state.upper.as_ref().is_some_and(|part| part.home == Home::Index);
        match state.lower {
            LowerPart::Leaf(lower, names) if is_indexed && names > 0 => Some(lower),
            _ => None,
        }
    }

    /// At mount: gives objects their names that the mount before could not. What cannot be done is done before the next
    /// change of the object.
    pub(super) fn name_the_rest(&self) -> Result<(), FsError> {
        let Some(upper) = self.upper.as_ref().filter(|upper| upper.is_shared()) else { return Ok(()) };
        for ino in upper.all_indexed()? {
            let Some(lower) = LowerRef::of_number(ino) else { continue };
            let named = || {
                let names = self.visible_names(lower, ino)?;
                if names == 0 {
                    return Ok(());
                }
                let kind = self.union.metadata(lower)?.kind;
                self.name_everywhere(&Node::new(ino, kind, LowerPart::Leaf(lower, names), None), lower)
            };
            if let Err(error) = named() {
                let error: FsError = error;
                tracing::warn!("inode {}: others do not see all of its names: {error}", ino.0);
            }
        }
        Ok(())
    }

    /// Gives an object that was just copied into the link index all of its names in the upper.
    pub(super) fn name_everywhere(&self, node: &Node, lower: LowerRef) -> Result<(), FsError> {
        let _using = self.using_layers();
        for path in self.union.paths(lower)? {
            let mut held = Vec::new();
            let named = self.name_at(node, &path, &mut held);
            for ino in held {
                self.forget(ino, 1);
            }
            named?;
        }
        Ok(())
    }

    /// `held`: the directories that were looked up on the way. A path that leads elsewhere by now is passed over.
    fn name_at(&self, node: &Node, path: &[u8], held: &mut Vec<Ino>) -> Result<(), FsError> {
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let Some(name) = parts.pop() else { return Ok(()) };
        let walked = parts.into_iter().try_fold(Ino::ROOT, |dir, part| {
            let step = || self.lookup(dir, Name::new(part)?);
            match step() {
                Ok(Some(attr)) => {
                    held.push(attr.ino);
                    let is_dir = attr.metadata.kind == FileKind::Directory;
                    if is_dir { ControlFlow::Continue(attr.ino) } else { ControlFlow::Break(Ok(())) }
                }
                Ok(None) => ControlFlow::Break(Ok(())),
                Err(error) => ControlFlow::Break(Err(error)),
            }
        });
        let dir = match walked {
            ControlFlow::Continue(ino) => self.node(ino)?,
            ControlFlow::Break(result) => return result,
        };
        let name = Name::new(name)?;
        let found = self.find(&self.view(&dir)?, name)?;
        if found.is_some_and(|found| found.ino == node.ino) {
            let pinned = self.raise(&dir, 0)?;
            self.name_in_upper(node, &dir, &pinned, name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use rustix::io::Errno;

    use crate::fs::{Fs, OwnerView};
    use crate::layer::Layer;
    use crate::layer::fake::FakeLayer;
    use crate::model::{Ino, Name};
    use crate::sys::fault::{self, Fault};
    use crate::union::Union;
    use crate::upper::{Upper, UpperOptions};

    #[test]
    fn others_see_every_name_of_a_copied_file() {
        let dir = tempfile::tempdir().unwrap();
        let layer = FakeLayer::new().dir("d", 0o755).file("d/a", b"old").link("d/b", "d/a").link("c", "d/a");
        let options = UpperOptions { shared: true, ..UpperOptions::default() };
        let upper = Upper::open_as(&dir.path().join("upper"), &dir.path().join("work"), options).unwrap();
        let fs = Fs::new(Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]), Some(upper), OwnerView::Image)
            .unwrap();
        let name = |text: &'static str| Name::new(text.as_bytes()).unwrap();
        let at = |path: &'static str| {
            path.split('/').fold(Ino::ROOT, |here, part| fs.lookup(here, name(part)).unwrap().unwrap().ino)
        };
        let (d, a) = (at("d"), at("d/a"));
        fs.unlink(d, name("b")).unwrap();
        fs.write(a, 0, b"new", None).unwrap();
        let found = |path: &str| std::fs::symlink_metadata(dir.path().join("upper").join(path)).unwrap();
        assert_eq!(std::fs::read(dir.path().join("upper/c")).unwrap(), b"new");
        assert_eq!(found("c").ino(), found("d/a").ino());
        assert_ne!(found("d/b").ino(), found("c").ino(), "a deleted name stays deleted");
        assert_eq!((fs.getattr(a).unwrap().nlink, at("c")), (2, a));
        fs.unlink(d, name("a")).unwrap();
        assert_eq!(fs.getattr(a).unwrap().nlink, 1);
    }

    fn shared(dir: &tempfile::TempDir) -> Fs {
        let layer =
            FakeLayer::new().dir("d", 0o755).file("d/a", b"old").link("d/b", "d/a").link("e/c", "d/a");
        let options = UpperOptions { shared: true, ..UpperOptions::default() };
        let upper = Upper::open_as(&dir.path().join("upper"), &dir.path().join("work"), options).unwrap();
        Fs::new(Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]), Some(upper), OwnerView::Image).unwrap()
    }

    fn at(fs: &Fs, path: &str) -> Ino {
        let step =
            |here, part: &str| fs.lookup(here, Name::new(part.as_bytes()).unwrap()).unwrap().unwrap().ino;
        path.split('/').fold(Ino::ROOT, step)
    }

    /// How many of the file's names there are in the upper, or that none is.
    fn named(dir: &tempfile::TempDir) -> usize {
        let found = |path: &&str| std::fs::symlink_metadata(dir.path().join("upper").join(path)).is_ok();
        ["d/a", "d/b", "e/c"].iter().filter(|path| found(path)).count()
    }

    /// Lets each call of a copy-up fail in turn; `go_on` is given what is there then.
    fn each_failure(go_on: impl Fn(Fs, &tempfile::TempDir, usize)) {
        let mut partly = 0;
        for call in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let fs = shared(&dir);
            let a = at(&fs, "d/a");
            fault::arm(Fault::Error(Errno::NOSPC), call);
            let written = fs.write(a, 0, b"new", None);
            if fault::disarm().is_none() {
                break;
            }
            let names = named(&dir);
            partly += usize::from(written.is_err() && names > 0 && names < 3);
            go_on(fs, &dir, names);
        }
        assert!(partly > 5, "{partly} times there were some names");
    }

    #[test]
    fn names_that_found_no_room_are_given_before_the_next_change() {
        each_failure(|fs, dir, _| {
            fs.write(at(&fs, "d/a"), 0, b"new", None).unwrap();
            assert_eq!(named(dir), 3);
            let attr = fs.getattr(at(&fs, "e/c")).unwrap();
            assert_eq!((attr.nlink, attr.ino), (3, at(&fs, "d/b")));
        });
    }

    #[test]
    fn names_that_found_no_room_are_given_by_the_next_mount() {
        each_failure(|fs, dir, names| {
            drop(fs);
            let fs = shared(dir);
            let in_index = std::fs::read_dir(dir.path().join("work/links")).unwrap().count() > 0;
            assert_eq!(named(dir), if in_index || names > 0 { 3 } else { 0 });
            assert_eq!(fs.getattr(at(&fs, "e/c")).unwrap().nlink, 3);
        });
    }
}
