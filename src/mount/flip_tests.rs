//! Single bytes of what a mount reads, flipped: every answer is an error or the right one, and what can be made again is.
//!
//! Always the same flips, spread over all files; `LAYERFS_FLIPS` says how many.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::model::{Digest, Name};
use crate::sys::file_range::FileRange;
use crate::union::{Lower, LowerDir};

/// In a run of all tests: a few seconds.
const FLIPS: usize = 2000;

struct Silent;

impl Progress for Silent {
    fn indexed(&self, _: usize, _: usize, _: u64, _: u64) {}
}

/// Numbers without any order, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX; the upper half is good enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Bytes that compress by half.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len).map(|_| b"0123456789abcdef"[dice.below(16)]).collect()
}

/// An entry with attributes of every sort.
fn add(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) {
    let number = u64::try_from(path.len()).unwrap();
    let value = format!("value of {path}");
    tar.append_pax_extensions([("SCHILY.xattr.user.name", value.as_bytes()), ("mtime", b"-1.25")]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o4751);
    header.set_uid(1000 + number);
    header.set_gid(number);
    header.set_size(u64::try_from(data.len()).unwrap());
    match link {
        "" => tar.append_data(&mut header, path, data).unwrap(),
        link => tar.append_link(&mut header, path, link).unwrap(),
    }
}

/// Three layers: a plain tar, one gzip member over several spans, and many members.
fn layers() -> Vec<(Vec<u8>, Digest)> {
    use tar::EntryType as Type;
    let tar = |make: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut tar = tar::Builder::new(Vec::new());
        make(&mut tar);
        tar.into_inner().unwrap()
    };
    let gzip = |data: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let base = tar(&|tar| {
        add(tar, Type::Directory, "etc/", "", b"");
        add(tar, Type::Regular, "etc/passwd", "", b"root:x:0:0\n");
        add(tar, Type::Regular, "etc/hidden", "", b"hidden");
        add(tar, Type::Regular, "etc/target", "", &noise(5000, 1));
        add(tar, Type::Symlink, "lib", "usr/lib", b"");
    });
    let middle = tar(&|tar| {
        add(tar, Type::Regular, "usr/lib/large", "", &noise(620_000, 2));
        add(tar, Type::Link, "usr/lib/other", "usr/lib/large", b"");
        add(tar, Type::Regular, "etc/.wh.hidden", "", b"");
        add(tar, Type::Link, "etc/link", "etc/target", b"");
        add(tar, Type::Char, "dev/null", "", b"");
    });
    let top = tar(&|tar| {
        (0..30).for_each(|n| add(tar, Type::Regular, &format!("many/{n}"), "", format!("{n}").as_bytes()));
        add(tar, Type::Regular, "usr/lib/second", "", &noise(20_000, 3));
    });
    let members = top.chunks(9000).flat_map(gzip).collect();
    let diff_id = |tar: &[u8]| Digest::from_bytes(Sha256::digest(tar).into());
    vec![(base.clone(), diff_id(&base)), (gzip(&middle), diff_id(&middle)), (members, diff_id(&top))]
}

/// Paths, each with everything that can be asked about it; what cannot be answered is missing, and so is all below it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    answers: BTreeMap<Vec<u8>, String>,
    failures: usize,
}

impl Seen {
    fn take<T: std::fmt::Debug>(
        &mut self,
        path: &[u8],
        what: &str,
        answer: Result<T, LayerError>,
    ) -> Option<T> {
        match answer {
            Ok(answer) => {
                let path = [path, b" ", what.as_bytes()].concat();
                self.answers.insert(path, format!("{answer:?}"));
                Some(answer)
            }
            Err(_) => {
                self.failures += 1;
                None
            }
        }
    }

    fn dir(&mut self, union: &Union, dir: &LowerDir) {
        self.take(&dir.path, "metadata", union.dir_metadata(dir));
        self.take(&dir.path, "xattrs", union.dir_xattrs(dir));
        let Some(names) = self.take(&dir.path, "names", union.list(dir)) else { return };
        for name in names.keys() {
            let path = [&dir.path, &b"/"[..], name.as_bytes()].concat();
            let found = union.lookup(dir, Name::new(name.as_bytes()).unwrap());
            match self.take(&path, "lookup", found).flatten() {
                Some(Lower::Dir(dir)) => self.dir(union, &dir),
                Some(Lower::Leaf(lower, kind) | Lower::Link(lower, kind)) => {
                    let metadata = self.take(&path, "metadata", union.metadata(lower));
                    self.take(&path, "xattrs", union.xattrs(lower));
                    self.take(&path, "paths", union.paths(lower));
                    match kind {
                        crate::model::FileKind::Symlink => {
                            drop(self.take(&path, "link", union.read_link(lower)))
                        }
                        crate::model::FileKind::Regular => {
                            let size = metadata.map_or(0, |metadata| metadata.size);
                            self.content(union, &path, lower, size);
                        }
                        _ => {}
                    }
                }
                None => {}
            }
        }
    }

    fn content(&mut self, union: &Union, path: &[u8], lower: crate::union::LowerRef, size: u64) {
        // A size that is not true would be seen before: no need to read a petabyte.
        for offset in (0..size.min(1 << 20)).step_by(100_000) {
            let mut buffer = vec![0; 100_000];
            let read = union.read_at(lower, offset, &mut buffer);
            let hash = read.map(|count| blake3::hash(&buffer[..count]));
            self.take(path, &format!("content {offset}"), hash);
        }
    }
}

/// An image on disk.
struct Image {
    dir: tempfile::TempDir,
    layers: Vec<(PathBuf, Digest)>,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |(number, (blob, diff_id)): (usize, (Vec<u8>, Digest))| {
            let path = dir.path().join(format!("blob-{number}"));
            std::fs::write(&path, blob).unwrap();
            (path, diff_id)
        };
        let layers = layers().into_iter().enumerate().map(write).collect();
        std::fs::create_dir(dir.path().join("index")).unwrap();
        Self { dir, layers }
    }

    fn spec(&self, index_dir: &Path) -> MountSpec {
        let source = |(path, diff_id): &(PathBuf, Digest)| {
            let blob = FileRange::open(path).unwrap();
            LayerSource::Tar(TarSource::new(blob, None, *diff_id))
        };
        MountSpec {
            layers: self.layers.iter().map(source).collect(),
            index_dir: index_dir.to_owned(),
            caches: Caches::default(),
        }
    }

    fn index_dir(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    /// What a mount shows; `None` when there is none.
    fn look(&self, index_dir: &Path) -> Option<Seen> {
        let layers = self.spec(index_dir).layers(&Silent).ok()?;
        let mut seen = Seen { answers: BTreeMap::new(), failures: 0 };
        match layers.union.root() {
            Ok(root) => seen.dir(&layers.union, &root),
            Err(_) => seen.failures += 1,
        }
        Some(seen)
    }

    /// Everything that a mount reads: blobs, and what was made of them.
    fn victims(&self) -> Vec<PathBuf> {
        let made = std::fs::read_dir(self.index_dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut made: Vec<PathBuf> = made.collect();
        made.sort();
        self.layers.iter().map(|(path, _)| path.clone()).chain(made).collect()
    }
}

fn flip(path: &Path, place: usize, bit: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[place] ^= 1 << bit;
    std::fs::remove_file(path).ok();
    std::fs::write(path, bytes).unwrap();
}

/// Checks the answers, and returns how many there were none of.
#[track_caller]
fn assert_right(what: &str, right: &Seen, seen: &Seen) -> usize {
    for (question, answer) in &seen.answers {
        let name = question.escape_ascii();
        assert_eq!(Some(answer), right.answers.get(question), "{what}: a wrong answer about \"{name}\"");
    }
    if seen.failures == 0 {
        assert_eq!(
            seen.answers.len(),
            right.answers.len(),
            "{what}: something is missing, and nobody says so"
        );
    }
    seen.failures
}

#[test]
fn thousands_of_flipped_bytes_and_not_one_wrong_answer() {
    let flips = std::env::var("LAYERFS_FLIPS").ok().map_or(FLIPS, |flips| flips.parse().unwrap());
    let image = Image::new();
    let right = image.look(&image.index_dir()).unwrap();
    assert_eq!(right.failures, 0);
    let victims = image.victims();
    assert_eq!(victims.len(), 6);
    let mut dice = Dice(std::env::var("LAYERFS_FLIPS_SEED").ok().map_or(1, |seed| seed.parse().unwrap()));
    let mut noticed = vec![0; victims.len()];
    for number in 0..flips {
        let chosen = number % victims.len();
        let victim = &victims[chosen];
        let whole = std::fs::read(victim).unwrap();
        let (place, bit) = (dice.below(whole.len()), u32::try_from(dice.below(8)).unwrap());
        let what = format!("bit {bit} of byte {place} of {}", victim.display());
        flip(victim, place, bit);
        if chosen < image.layers.len() {
            // Under a known index: at most an error; at its ends it is not even taken for the same. Never seen before:
            // refused, unless no byte of the tar is another.
            let seen = image.look(&image.index_dir());
            noticed[chosen] += usize::from(seen.is_none_or(|seen| assert_right(&what, &right, &seen) > 0));
            if number % 16 < 3 {
                let fresh = tempfile::tempdir().unwrap();
                if let Some(seen) = image.look(fresh.path()) {
                    assert_eq!(
                        assert_right(&what, &right, &seen),
                        0,
                        "{what}: published, but cannot be read"
                    );
                }
            }
            std::fs::write(victim, whole).unwrap();
        } else {
            // Built again at once, or found out later and built again by the next mount.
            let seen = image.look(&image.index_dir()).unwrap();
            let failures = assert_right(&what, &right, &seen);
            noticed[chosen] += usize::from(failures > 0 || std::fs::read(victim).unwrap() == whole);
            let again = image.look(&image.index_dir()).unwrap();
            assert_eq!(assert_right(&what, &right, &again), 0, "{what}: not built again");
            std::fs::write(victim, whole).unwrap();
        }
    }
    // Headers and trailers of gzip, and paddings of tars, are of no use to a reader.
    assert!(noticed.iter().sum::<usize>() > flips * 2 / 3, "of {flips} only {noticed:?} were noticed");
}
