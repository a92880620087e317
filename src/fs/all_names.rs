//! Hard links of a layer in an upper that others read too: they know nothing of the link index.

use std::ops::ControlFlow;

use super::node::Node;
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::union::LowerRef;

impl Fs {
    /// Gives an object that was just copied into the link index all of its names in the upper.
    pub(super) fn name_everywhere(&self, node: &Node, lower: LowerRef) -> Result<(), FsError> {
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

    use crate::fs::{Fs, OwnerView};
    use crate::layer::Layer;
    use crate::layer::fake::FakeLayer;
    use crate::model::{Ino, Name};
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
}
