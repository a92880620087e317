//! Archives that are compressed as a whole.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::import::{Import, bytes_max, encoding_of};
use super::{Decompressing, Image, ImageError, Sought, open_sought};
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::store::Store;
use crate::sys::file_range::FileRange;

/// Whether, and how far, something was decompressed.
#[derive(Debug, Default)]
struct Seen(AtomicU64);

impl Decompressing for Seen {
    fn decompressed(&self, done: u64, total: u64) {
        assert!(done <= total);
        self.0.store(done, Ordering::Relaxed);
    }
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let (dir, store) = super::tests::new_store();
        Self { dir, store }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The image, and whether anything was decompressed for it.
    fn open(&self, spec: &str) -> (Result<Image, ImageError>, bool) {
        let seen = Arc::new(Seen::default());
        let sought =
            Sought { progress: Some(Arc::clone(&seen) as Arc<dyn Decompressing>), ..Sought::default() };
        let image = open_sought(spec, &self.store, &sought);
        (image, seen.0.load(Ordering::Relaxed) > 0)
    }

    fn error(&self, spec: &str) -> String {
        self.open(spec).0.unwrap_err().to_string()
    }

    /// What is in the store of compressed archives.
    fn imports(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.store.root().join("imported")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A docker-archive of one image with this layer.
fn archive(layer: &[u8]) -> Vec<u8> {
    let config =
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{}"]}}}}"#, digest(layer));
    let name = format!("{}.json", digest(config.as_bytes()).hex());
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["app:1"],"Layers":["layer.tar"]}}]"#);
    tar_of(&[(&name, config.as_bytes()), ("layer.tar", layer), ("manifest.json", manifest.as_bytes())])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_at(bytes, Compression::default())
}

fn gzip_at(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a program makes of it.
fn filtered(program: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program[0]);
    let mut child = command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program:?}");
    output.stdout
}

fn layer_of(image: &Image) -> Vec<u8> {
    let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
    let mut bytes = vec![0; usize::try_from(tar.blob.len()).unwrap()];
    assert_eq!(tar.blob.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn noise(len: usize) -> Vec<u8> {
    let mut seed = 1_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn whatever_it_is_compressed_with() {
    let bench = Bench::new();
    let layer = noise(700_000);
    let tar = archive(&layer);
    let (one, two) = tar.split_at(tar.len() / 2);
    let forms = [
        ("gzip", gzip(&tar)),
        ("members", [gzip(one), gzip(two), vec![0; 512]].concat()),
        ("zstd", zstd::bulk::compress(&tar, 3).unwrap()),
        ("frames", [zstd::bulk::compress(one, 3).unwrap(), zstd::bulk::compress(two, 3).unwrap()].concat()),
        ("xz", filtered(&["xz", "-c"], &tar)),
        ("bzip2", filtered(&["bzip2", "-c"], &tar)),
    ];
    for (count, (name, bytes)) in forms.iter().enumerate() {
        let path = bench.write(name, bytes);
        for (spec, is_first) in [
            (path.clone(), true),
            (path.clone(), false),
            (format!("{path}:app:1"), false),
            (format!("docker-archive:{path}"), false),
        ] {
            let (image, decompressed) = bench.open(&spec);
            let image = image.unwrap();
            assert_eq!((layer_of(&image) == layer, decompressed), (true, is_first), "{spec}");
            // It is known by the user's file.
            assert_eq!(image.source, format!("docker-archive:{path}:@{}", image.config_digest));
            let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
            assert_eq!(tar.blob.path().to_str().unwrap(), path);
            let described: serde_json::Value = serde_json::from_str(&image.describe().unwrap()).unwrap();
            let described = &described[0]["Layers"][0];
            assert_eq!((described["Path"].as_str(), described["Offset"].as_u64()), (Some(&*path), None));
        }
        assert_eq!(bench.imports().len(), count + 1);
    }
}

#[test]
fn a_changed_file_is_another() {
    let bench = Bench::new();
    let stored = |layer: &[u8]| gzip_at(&archive(layer), Compression::none());
    let path = bench.write("a.tar.gz", &stored(b"one"));
    let image = bench.open(&path).0.unwrap();
    let before = fs::metadata(&path).unwrap();
    // As long, with the same times, in the same inode.
    let other = stored(b"two");
    let mut same = File::options().write(true).open(&path).unwrap();
    same.write_all(&other).unwrap();
    same.set_len(before.len()).unwrap();
    same.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.ino(), before.len(), before.mtime_nsec()),
        (after.ino(), after.len(), after.mtime_nsec())
    );
    assert_eq!(other.len() as u64, before.len(), "the test needs archives of the same length");
    let (changed, decompressed) = bench.open(&path);
    assert!(decompressed);
    assert_eq!((layer_of(&image), layer_of(&changed.unwrap())), (b"one".to_vec(), b"two".to_vec()));
    drop(image);
    // Nobody asks for the old one again: it goes with the next, unless somebody reads it.
    bench.write("a.tar.gz", &gzip(&archive(b"three")));
    assert_eq!(layer_of(&bench.open(&path).0.unwrap()), b"three");
    assert_eq!(bench.imports().len(), 1);
    // By another name it is the same file; a copy of it is not.
    let link = format!("{path}.link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(!bench.open(&link).1);
    let copy = format!("{path}.copy");
    fs::copy(&path, &copy).unwrap();
    assert!(bench.open(&copy).1);
    assert_eq!(bench.imports().len(), 2);
}

#[test]
fn what_is_no_image_is_not_kept() {
    let bench = Bench::new();
    let whole = gzip(&archive(&noise(700_000)));
    for (name, bytes, parts) in [
        ("text.gz", gzip(&[b"text ".repeat(1000)].concat()), ["compressed with gzip", "no tar archive"]),
        ("empty.gz", gzip(b""), ["compressed with gzip", "nothing is in it"]),
        ("twice.gz", gzip(&gzip(&archive(b"x"))), ["compressed with gzip", "no tar archive"]),
        (
            "root.tar.gz",
            gzip(&tar_of(&[("etc/passwd", b"root")])),
            ["neither manifest.json", "unpack a plain root"],
        ),
        ("cut.tar.gz", whole[..whole.len() / 2].to_vec(), ["damaged gzip data", "cut off"]),
        ("trailer.gz", [&whole[..whole.len() - 8], &[0; 8]].concat(), ["damaged gzip data", "CRC"]),
        ("inner.gz", gzip(&archive(&noise(5000))[..3000]), ["inner.gz: bad archive", "truncated"]),
        ("head.gz", vec![0x1f, 0x8b, 8, 0], ["damaged gzip data", "cut off"]),
    ] {
        let path = bench.write(name, &bytes);
        for spec in [path.clone(), format!("docker-archive:{path}"), format!("oci-archive:{path}")] {
            let error = bench.error(&spec);
            assert!(
                parts.iter().all(|part| error.contains(part)) && error.contains(&path),
                "{spec}: {error}"
            );
        }
        assert_eq!(bench.imports(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn bombs() {
    let bench = Bench::new();
    let member = gzip(&vec![0; 4 << 20]);
    let path = bench.write("bomb.gz", &[gzip(&archive(b"x")), member.repeat(4)].concat());
    let file = FileRange::open(Path::new(&path)).unwrap();
    let sought = Sought::default();
    let encoding = encoding_of(&file).unwrap();
    let import = Import {
        file: &file,
        encoding,
        imports: bench.store.imports(),
        sought: &sought,
        bytes_max: 10 << 20,
    };
    let error = import.tar(&|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("bytes that come out of") && error.contains("gzip -dc"), "{error}");
    assert_eq!(bench.imports(), Vec::<String>::new());
    assert_eq!(bytes_max(1000), 4 << 30);
    assert_eq!(bytes_max(1 << 30), 200 << 30);
    assert_eq!(bytes_max(u64::MAX / 2), 1 << 40);
}

#[test]
fn a_store_that_takes_nothing() {
    let bench = Bench::new();
    let path = bench.write("a.tar.zst", &zstd::bulk::compress(&archive(b"one"), 3).unwrap());
    // Nobody, not even root, can make a directory there.
    fs::write(bench.store.root().join("imported"), "in the way").unwrap();
    let error = bench.error(&path);
    let command = format!("`zstd -dc {path} >NEW.tar`");
    assert!(
        error.starts_with(&path) && error.contains("compressed with zstd") && error.contains(&command),
        "{error}"
    );
}

#[test]
fn several_at_once() {
    let bench = Bench::new();
    let layer = noise(3_000_000);
    let path = bench.write("a.tar.gz", &gzip(&archive(&layer)));
    let decompressed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (image, was) = bench.open(&path);
                decompressed.fetch_add(u64::from(was), Ordering::Relaxed);
                assert!(layer_of(&image.unwrap()) == layer);
            });
        }
    });
    assert_eq!((decompressed.into_inner(), bench.imports().len()), (1, 1));
}

#[test]
fn what_rots_in_the_store_is_never_read_and_made_again() {
    let bench = Bench::new();
    let layer = tar_of(&[("file", b"content of some file")]);
    let archive = archive(&layer);
    let spec = bench.write("rots.tar.gz", &gzip(&archive));
    let read = || -> Result<Vec<u8>, String> {
        let image = bench
            .open(&spec)
            .0
            .map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
        let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
        let mut bytes = vec![0; layer.len()];
        tar.blob.read_at(0, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    };
    assert!(read().unwrap() == layer);
    let path = bench.store.root().join("imported").join(&bench.imports()[0]);
    let whole = fs::read(&path).unwrap();
    assert!(whole.starts_with(&archive) && whole.len() > archive.len());
    let mut told = 0;
    for place in (0..whole.len()).step_by(397).chain([archive.len(), whole.len() - 1]) {
        let mut bad = whole.clone();
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        let found = read();
        if let Err(error) = &found {
            assert!(error.contains("damaged") && error.contains("made again"), "{place}: {error}");
            told += 1;
        }
        // Whether the first or the second: it is right, and so is the file in the store.
        assert!(found.or_else(|_| read()).unwrap() == layer, "{place}");
        assert!(fs::read(&path).unwrap() == whole, "{place}");
    }
    assert!(told > 0);
}
