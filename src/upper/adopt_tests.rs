//! What is made of uppers that others wrote.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, XattrFlags};

use super::format::Writer;
use super::marks::Namespace;
use super::tests::Form;
use super::{Looked, Upper, UpperError};
use crate::model::Name;

struct Dirs(tempfile::TempDir);

impl Dirs {
    /// With these names, which end in a slash for directories, in the upper.
    fn new(paths: &[&str]) -> Self {
        let dirs = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(dirs.upper("")).unwrap();
        for path in paths {
            match path.strip_suffix('/') {
                Some(dir) => std::fs::create_dir_all(dirs.upper(dir)).unwrap(),
                None => std::fs::write(dirs.upper(path), "").unwrap(),
            }
        }
        dirs
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.0.path().join("upper").join(path)
    }

    fn work(&self, path: &str) -> PathBuf {
        self.0.path().join("work").join(path)
    }

    fn try_open(&self) -> Result<Upper, UpperError> {
        Upper::open(&self.upper(""), &self.work(""))
    }

    /// What kernel overlayfs leaves in `work`.
    fn mounted_by_kernel(&self) {
        std::fs::create_dir_all(self.work("work")).unwrap();
        std::fs::set_permissions(self.work("work"), PermissionsExt::from_mode(0o0)).unwrap();
    }

    fn set(&self, path: &str, mark: &str, value: &str) {
        rustix::fs::setxattr(self.upper(path), mark, value.as_bytes(), XattrFlags::empty()).unwrap();
    }

    fn device(&self, path: &str) {
        let (file_type, mode) = (FileType::CharacterDevice, Mode::empty());
        rustix::fs::mknodat(rustix::fs::CWD, self.upper(path), file_type, mode, 0).unwrap();
    }
}

/// Names and whether they are whiteouts.
fn listed(upper: &Upper, path: &str) -> BTreeSet<(String, bool)> {
    let mut dir = upper.root().unwrap().pinned;
    for part in Path::new(path) {
        let part = part.to_str().unwrap();
        let Looked::Object(object) = upper.look(&dir, Name::new(part.as_bytes()).unwrap()).unwrap() else {
            panic!("{path}")
        };
        dir = object.pinned;
    }
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    upper.list(&dir).unwrap().into_iter().map(|one| (text(one.name.as_bytes()), one.whiteout)).collect()
}

fn names(expected: &[(&str, bool)]) -> BTreeSet<(String, bool)> {
    expected.iter().map(|(name, whiteout)| ((*name).to_owned(), *whiteout)).collect()
}

fn is_opaque(upper: &Upper, name: &str) -> bool {
    let name = Name::new(name.as_bytes()).unwrap();
    match upper.look(upper.root().unwrap().pinned, name).unwrap() {
        Looked::Object(object) => object.marks.opaque,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_that_hide_become_what_hides_here() {
    for form in [Form::Found, Form::NamedWhiteouts, Form::Rootless, Form::RootlessNamed] {
        let dirs = Dirs::new(&[
            "d/",
            "e/",
            "f",
            ".wh.gone",
            "d/.wh..wh..opq",
            ".wh.e",
            ".wh.f",
            "d/.wh.in",
            "e/.wh.",
        ]);
        drop(dirs.try_open().unwrap());
        // Where it can be forced, in every form.
        let dirs = Dirs::new(&[]);
        let upper = dirs.try_open().unwrap().in_form(form);
        for path in ["d", "e"] {
            std::fs::create_dir(dirs.upper(path)).unwrap();
        }
        for path in ["f", ".wh.gone", "d/.wh..wh..opq", ".wh.e", ".wh.f", "d/.wh.in", "e/.wh."] {
            std::fs::write(dirs.upper(path), "").unwrap();
        }
        dirs.device("d/.wh..opq");
        dirs.device("device");
        let before = std::fs::metadata(dirs.upper("d")).unwrap();
        for _ in 0..2 {
            upper.adopt(Writer::Others).unwrap();
            let expected = [("d", false), ("device", true), ("e", false), ("f", false), ("gone", true)];
            assert_eq!(listed(&upper, ""), names(&expected), "{form:?}");
            assert_eq!(listed(&upper, "d"), names(&[("in", true)]), "{form:?}");
            assert_eq!(listed(&upper, "e"), names(&[]), "{form:?}");
            assert!(is_opaque(&upper, "d") && is_opaque(&upper, "e"), "{form:?}");
        }
        let after = std::fs::metadata(dirs.upper("d")).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    }
}

#[test]
fn names_mean_nothing_in_an_upper_of_the_kernel() {
    let dirs = Dirs::new(&["d/", "d/.wh..wh..opq", ".wh.x", "empty", "hidden"]);
    dirs.mounted_by_kernel();
    dirs.set("", "user.overlay.impure", "y");
    dirs.set("hidden", "user.overlay.whiteout", "");
    let upper = dirs.try_open().unwrap();
    let expected = [("d", false), (".wh.x", false), ("empty", false), ("hidden", true)];
    assert_eq!(listed(&upper, ""), names(&expected));
    assert_eq!(listed(&upper, "d"), names(&[(".wh..wh..opq", false)]));
    assert!(!is_opaque(&upper, "d"));
    assert_eq!(upper.namespace, Namespace::User, "as its marks are, whoever mounts it");
    assert!(upper.is_taking_over() && !dirs.work("format").exists());
    upper.taken_over().unwrap();
    drop(upper);
    assert!(!dirs.work("work").exists());
    let upper = dirs.try_open().unwrap();
    assert_eq!((upper.is_taking_over(), upper.namespace), (false, Namespace::User));
    assert_eq!(listed(&upper, ""), names(&expected), "what a program called so is no whiteout later either");
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let refused = |dirs: &Dirs| match dirs.try_open() {
        Err(error @ (UpperError::Form { .. } | UpperError::Mark { .. } | UpperError::Volatile(_))) => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    let dirs = Dirs::new(&["d/", "d/f"]);
    dirs.mounted_by_kernel();
    dirs.set("", "user.overlay.impure", "y");
    dirs.set("d", "user.overlay.redirect", "../up");
    assert!(refused(&dirs).contains("/upper/d: damaged mark user.overlay.redirect"));
    dirs.set("d", "user.overlay.redirect", "/up");
    std::fs::set_permissions(dirs.work("work"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir_all(dirs.work("work/incompat/volatile")).unwrap();
    assert!(refused(&dirs).contains("volatile"));
    std::fs::remove_dir(dirs.work("work/incompat/volatile")).unwrap();
    dirs.try_open().unwrap().taken_over().unwrap();
    std::fs::write(dirs.work("format"), "layerfs-upper 2 device user\n").unwrap();
    assert!(refused(&dirs).contains("work/format: damaged, or written by a later layerfs"));
}

#[test]
fn owners_that_fuse_overlayfs_recorded() {
    let dirs = Dirs::new(&["f"]);
    dirs.set("f", "user.fuseoverlayfs.override_stat", "3:4:104711");
    let upper = dirs.try_open().unwrap();
    let name = Name::new(b"f").unwrap();
    let Looked::Object(object) = upper.look(upper.root().unwrap().pinned, name).unwrap() else { panic!() };
    let metadata = object.attr.metadata;
    assert_eq!((metadata.uid, metadata.gid, metadata.mode), (3, 4, 0o4711));
    let mut value = [0; 100];
    assert!(
        rustix::fs::getxattr(dirs.upper("f"), "user.fuseoverlayfs.override_stat", &mut value[..]).is_err()
    );
}
