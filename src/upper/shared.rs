//! Uppers that container engines and other overlays write too, between our mounts: whiteouts and opaque directories are
//! understood in every form, as they are, and names that would be taken for them are not given to programs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{path_of, pin};
use super::{Marks, Upper, UpperError, Whiteouts, marks};
use crate::model::whiteout::{self, Meaning};
use crate::model::{FileKind, Name};
use crate::sys::files;

/// What the kernel leaves on files of which it copied attributes only.
const METACOPY: [&str; 2] = ["trusted.overlay.metacopy", "user.overlay.metacopy"];
/// Every spelling of an opaque mark.
const OPAQUE: [&str; 3] = ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];

impl Upper {
    /// Whether others use it too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether names like those of aufs hide something here.
    pub(super) fn has_markers(&self) -> bool {
        self.shared || self.whiteouts == Whiteouts::Named
    }

    /// Whether a name only says something of others.
    pub(super) fn is_marker(&self, name: Name<'_>) -> bool {
        self.has_markers() && !matches!(whiteout::meaning(name.as_bytes()), Ok(Meaning::Object(_)))
    }

    /// Adds to the marks of an object what others would say in another way.
    pub(super) fn with_marks_of_others(
        &self,
        mut own: Marks,
        pinned: &OwnedFd,
        kind: FileKind,
    ) -> Result<Marks, UpperError> {
        if self.shared && kind == FileKind::Directory && !own.opaque {
            own.opaque = is_opaque_somehow(pinned)?;
        }
        if self.shared && kind == FileKind::Regular {
            for mark in METACOPY {
                if marks::get(pinned, mark)?.is_some() {
                    return Err(UpperError::Form {
                        path: path_of(pinned, b"(file)"),
                        problem: format!("its content was not copied ({mark})"),
                        remedy: "mount it with the kernel's overlayfs, which did that, and rewrite the file",
                    });
                }
            }
        }
        Ok(own)
    }

    /// Turns a marker that hides a name into a device, which can give way to an object in one step.
    pub(super) fn turn_marker_into_device(&self, dir: impl AsFd, name: Name<'_>) -> Result<(), UpperError> {
        if !self.shared || self.whiteouts != Whiteouts::Device {
            return Ok(());
        }
        let Ok(marker) = whiteout::hiding(name) else { return Ok(()) };
        match pin(&dir, marker.as_bytes()) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).at("open"),
        }
        let scratch = self.scratch_whiteout()?;
        let flags = RenameFlags::NOREPLACE;
        match files::renameat_with(&self.scratch, &scratch.name, &dir, name.as_bytes(), flags) {
            Ok(()) => scratch.published(),
            // Both are there already.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("rename a whiteout into place"),
        }
        files::unlinkat(&dir, marker.as_bytes(), AtFlags::empty()).at("unlink a whiteout")
    }
}

fn is_opaque_somehow(pinned: &OwnedFd) -> Result<bool, UpperError> {
    for mark in OPAQUE {
        if marks::get(pinned, mark)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    let Ok(marker) = whiteout::opaque_marker() else { return Ok(false) };
    match pin(pinned, marker.as_bytes()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("open"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::fs::XattrFlags;
    use tempfile::TempDir;

    use super::*;
    use crate::upper::{Fresh, Looked, UpperOptions, What};

    fn open(dir: &Path) -> Upper {
        let options = UpperOptions { shared: true, ..UpperOptions::default() };
        Upper::open_as(&dir.join("upper"), &dir.join("work"), options).unwrap()
    }

    fn written(paths: &[&str]) -> TempDir {
        let dir =
            tempfile::tempdir_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into())).unwrap();
        for path in paths {
            let path = dir.path().join("upper").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn name(text: &str) -> Name<'_> {
        Name::new(text.as_bytes()).unwrap()
    }

    fn kind(upper: &Upper, dir: &impl AsFd, text: &str) -> &'static str {
        match upper.look(dir, name(text)).unwrap() {
            Looked::Absent => "absent",
            Looked::Whiteout => "whiteout",
            Looked::Object(object) if object.marks.opaque => "opaque",
            Looked::Object(_) => "object",
        }
    }

    fn fresh(what: What<'_>) -> Fresh<'_> {
        Fresh { what, mode: 0o755, uid: 0, gid: 0, default_acl: None, over_whiteout: true }
    }

    #[test]
    fn what_others_left_is_understood_and_stays() {
        let dir = written(&["d/.wh.gone", "d/.wh.both", "d/both", "o/.wh..wh..opq", "f/x", "k/x"]);
        let set = |path: &str, mark: &str| {
            rustix::fs::setxattr(dir.path().join("upper").join(path), mark, b"y", XattrFlags::empty())
                .unwrap();
        };
        set("f", "user.fuseoverlayfs.opaque");
        set("k", "user.overlay.opaque");
        let upper = open(dir.path());
        let root = upper.root().unwrap().pinned;
        assert_eq!(
            ["d", "o", "f", "k"].map(|text| kind(&upper, &root, text)),
            ["object", "opaque", "opaque", "opaque"]
        );
        let d = pin(&root, b"d").unwrap();
        let names = ["gone", "both", ".wh.gone", "other"];
        assert_eq!(names.map(|text| kind(&upper, &d, text)), ["whiteout", "object", "absent", "absent"]);
        let mut listed: Vec<_> =
            upper.list(&d).unwrap().into_iter().map(|item| (item.name, item.whiteout)).collect();
        listed.sort();
        let expected = [("both", false), ("both", true), ("gone", true)];
        assert_eq!(listed, expected.map(|(text, whiteout)| (name(text).to_owned(), whiteout)));
        assert!(dir.path().join("upper/d/.wh.gone").exists());
    }

    #[test]
    fn objects_replace_markers() {
        let dir = written(&["d/.wh.file", "d/.wh.dir", "d/x"]);
        let upper = open(dir.path());
        let d = pin(&upper.root().unwrap().pinned, b"d").unwrap();
        upper.create(&d, name("file"), &fresh(What::File)).unwrap();
        upper.create(&d, name("dir"), &fresh(What::Dir)).unwrap();
        assert_eq!(["file", "dir"].map(|text| kind(&upper, &d, text)), ["object", "opaque"]);
        let mut left: Vec<_> = fs::read_dir(dir.path().join("upper/d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["dir", "file", "x"]);
        assert!(upper.may_be_created(name(".wh.x")).is_err());
        assert!(fs::read_dir(dir.path().join("work/tmp")).unwrap().next().is_none());
    }
}
