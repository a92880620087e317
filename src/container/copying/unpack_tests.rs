//! What hostile and odd streams become.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::model::pax::{BLOCK, Header, nothing};
use crate::model::{FileKind, Metadata};

/// Path, type, target, content.
type Given<'a> = (&'a str, u8, &'a str, &'a [u8]);

fn stream(entries: &[Given<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, type_flag, target, content) in entries {
        let kind = if *type_flag == b'5' { FileKind::Directory } else { FileKind::Regular };
        let metadata = Metadata { kind, mode: 0o6755, ..nothing() };
        let header = Header {
            path: path.as_bytes(),
            type_flag: *type_flag,
            metadata: &metadata,
            size: content.len() as u64,
            target: target.as_bytes(),
            xattrs: &[],
        };
        bytes.extend(header.blocks().unwrap());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

fn unpack_to(path: &Path, entries: &[Given<'_>]) -> io::Result<u64> {
    let destination = Destination::find(World::Host, path)?;
    unpack(World::Host, destination, Owners::Receivers, &stream(entries)[..])
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A directory `dest`, and beside it a file and a directory that nothing may reach.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["dest", "outside"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        fs::write(place.path("outside/secret"), "secret").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.path("outside")).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = self.path("outside/secret");
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!(fs::metadata(secret).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn nothing_leaves_the_destination() {
    let place = Place::new();
    let outside = place.path("outside");
    let outside = outside.to_str().unwrap();
    let secret = format!("{outside}/secret");
    let attacks: &[&[Given<'_>]] = &[
        &[("../outside/new", b'0', "", b"x")],
        &[("a/../../outside/new", b'0', "", b"x")],
        &[("link", b'2', outside, b""), ("link/new", b'0', "", b"x")],
        &[("link", b'2', "../outside", b""), ("link/secret", b'0', "", b"x")],
        &[("link", b'2', outside, b""), ("link", b'5', "", b""), ("link/new", b'0', "", b"x")],
        &[("d", b'5', "", b""), ("d/up", b'2', "../..", b""), ("d/up/outside/new", b'0', "", b"x")],
        &[("hard", b'1', &secret, b""), ("hard", b'0', "", b"x")],
        &[("hard", b'1', "../outside/secret", b"")],
        &[("link", b'2', outside, b""), ("hard", b'1', "link/secret", b"")],
        &[("link", b'2', outside, b""), ("link/fifo", b'6', "", b"")],
        &[("..", b'5', "", b"")],
    ];
    for attack in attacks {
        assert!(unpack_to(&place.path("dest"), attack).is_err(), "{attack:?}");
        place.assert_untouched();
        fs::remove_dir_all(place.path("dest")).unwrap();
        fs::create_dir(place.path("dest")).unwrap();
    }
}

#[test]
fn a_symlink_is_replaced_and_never_written_through() {
    let place = Place::new();
    let secret = place.path("outside/secret");
    let entries: &[Given<'_>] =
        &[("link", b'2', secret.to_str().unwrap(), b""), ("link", b'0', "", b"x"), ("/abs", b'0', "", b"y")];
    assert_eq!(unpack_to(&place.path("dest"), entries).unwrap(), 2);
    place.assert_untouched();
    assert!(fs::symlink_metadata(place.path("dest/link")).unwrap().is_file());
    assert_eq!(fs::read(place.path("dest/abs")).unwrap(), b"y");
    // Not even a directory that the user has linked is entered below the destination.
    symlink(place.path("outside"), place.path("dest/linked")).unwrap();
    assert!(unpack_to(&place.path("dest"), &[("linked/new", b'0', "", b"x")]).is_err());
    place.assert_untouched();
}

#[test]
fn names_that_change() {
    let place = Place::new();
    let tree: &[Given<'_>] = &[
        ("etc/", b'5', "", b""),
        ("etc/a", b'0', "", b"a"),
        ("etc/b", b'1', "etc/a", b""),
        ("etc/deep/er/c", b'0', "", b"c"),
    ];
    unpack_to(&place.path("dest"), tree).unwrap();
    unpack_to(&place.path("dest/new"), tree).unwrap();
    for top in ["etc", "new"] {
        let path = |name: &str| place.path("dest").join(top).join(name);
        assert_eq!(fs::read(path("deep/er/c")).unwrap(), b"c");
        assert_eq!(fs::metadata(path("a")).unwrap().ino(), fs::metadata(path("b")).unwrap().ino());
        // Without setuid, which would have become the caller's.
        assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
    let contents: &[Given<'_>] = &[("./", b'5', "", b""), ("./a", b'0', "", b"a")];
    unpack_to(&place.path("dest/contents"), contents).unwrap();
    assert!(place.path("dest/contents/a").exists());
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode();
    let before = mode("dest");
    unpack_to(&place.path("dest"), contents).unwrap();
    assert_eq!(mode("dest"), before, "what is there already stays as it is");
    let refused = |path: &str, entries| unpack_to(&place.path(path), entries).unwrap_err().to_string();
    assert!(refused("dest/a", tree).contains("cannot be copied to a file"));
    assert!(refused("dest/x/", &[("f", b'0', "", b"")]).contains("no such directory"));
    assert!(refused("dest/x", &[("f", b'0', "", b""), ("g", b'0', "", b"")]).contains("beside"));
    assert!(refused("dest", &[("etc", b'0', "", b"")]).contains("etc"));
    assert!(refused("dest", &[("a/", b'5', "", b"")]).contains("take the place"));
}

#[test]
fn zeros_become_holes() {
    let place = Place::new();
    let mut content = vec![0; 4 << 20];
    content[3 << 20] = 7;
    unpack_to(&place.path("dest"), &[("sparse", b'0', "", &content)]).unwrap();
    let file = place.path("dest/sparse");
    assert_eq!(fs::read(&file).unwrap(), content);
    assert!(fs::metadata(&file).unwrap().blocks() * 512 < 1 << 20);
}
