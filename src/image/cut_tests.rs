//! Images cut off at every byte: an error or the right tree, and nothing is published that is not whole.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::open;
use crate::fs::OwnerView;
use crate::index::LayerIndex;
use crate::layer::{LayerSource, TarSource};
use crate::model::{Digest, Ino, Name};
use crate::mount::{Caches, MountError, MountSpec, Progress};
use crate::store::Store;
use crate::sys::file_range::FileRange;

const CONTENT: &[u8] = b"the content of the file";

struct Silent;

impl Progress for Silent {
    fn indexed(&self, _: usize, _: usize, _: u64, _: u64) {}
}

/// A tar of these members.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(bytes.len()).unwrap());
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// What is in the file of the image, if the image can be opened.
fn mounted(layers: Vec<LayerSource>, index_dir: &Path) -> Result<Vec<u8>, MountError> {
    let spec = MountSpec { layers, index_dir: index_dir.to_owned(), caches: Caches::default() };
    let fs = spec.layers(&Silent)?.into_fs(None, OwnerView::Image)?;
    let file = fs.lookup(Ino::ROOT, Name::new(b"f").unwrap())?.expect("the file is there");
    let mut bytes = vec![0; 100];
    let count = fs.read(file.ino, 0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The names of the indexes that are there, each of which must be one.
fn published(index_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(index_dir).unwrap().map(|entry| entry.unwrap().path());
    let indexes: Vec<PathBuf> = entries.collect();
    indexes.iter().for_each(|index| drop(LayerIndex::open(index).unwrap()));
    indexes
}

/// Checks one cut image, and forgets what was made of it.
#[track_caller]
fn check(what: &str, result: Result<Vec<u8>, MountError>, index_dir: &Path) -> bool {
    let indexes = published(index_dir);
    match &result {
        Ok(bytes) => assert_eq!(bytes, CONTENT, "{what}"),
        Err(_) => assert_eq!(indexes, [] as [PathBuf; 0], "{what}: {result:?}"),
    }
    indexes.iter().for_each(|index| fs::remove_file(index).unwrap());
    result.is_ok()
}

#[test]
fn a_layer_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, index_dir) = (dir.path().join("blob"), dir.path().join("index"));
    fs::create_dir(&index_dir).unwrap();
    let layer = tar(&[("f", CONTENT)]);
    for whole in [layer.clone(), gzip(&layer), [gzip(&layer[..700]), gzip(&layer[700..])].concat()] {
        let mut good = 0;
        for len in 0..=whole.len() {
            fs::write(&blob, &whole[..len]).unwrap();
            let blob = FileRange::open(&blob).unwrap();
            let source = TarSource::new(blob, None, digest(&layer));
            let result = mounted(vec![LayerSource::Tar(source)], &index_dir);
            good += usize::from(check(&format!("cut to {len}"), result, &index_dir));
        }
        assert_eq!(good, 1, "only the whole layer has the digest that was promised");
    }
}

#[test]
fn an_archive_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let layer = tar(&[("f", CONTENT)]);
    let blob = gzip(&layer);
    let config =
        format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, digest(&layer));
    let manifest = r#"[{"Config":"config","RepoTags":["a:1"],"Layers":["layer"]}]"#;
    let json = r#"{"id":"top","os":"linux"}"#;
    let mut members =
        [("manifest.json", manifest.as_bytes()), ("config", config.as_bytes()), ("layer", &blob[..])];
    let first = tar(&members);
    members.reverse();
    let last = tar(&members);
    let oldest = tar(&[
        ("repositories", br#"{"a":{"1":"top"}}"#),
        ("top/json", json.as_bytes()),
        ("top/layer.tar", &layer),
    ]);
    for whole in [first, last, oldest] {
        let path = dir.path().join("image.tar");
        let mut good = 0;
        for len in 0..=whole.len() {
            // What is good has zeros behind it: publishing waits for the disk, so not each of these.
            let has_all = whole[len..].iter().all(|byte| *byte == 0);
            if has_all && !len.is_multiple_of(64) {
                continue;
            }
            fs::write(&path, &whole[..len]).unwrap();
            let Ok(image) = open(path.to_str().unwrap(), &store) else { continue };
            let result = mounted(image.layers, &store.index_dir());
            good += usize::from(check(&format!("cut to {len}"), result, &store.index_dir()));
        }
        assert!(good > 0, "zeros at the end, of archive and padding, may be missing");
    }
}

#[test]
fn an_index_cut_at_every_byte_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, index_dir) = (dir.path().join("blob"), dir.path().join("index"));
    fs::create_dir(&index_dir).unwrap();
    let layer = tar(&[("f", CONTENT)]);
    fs::write(&blob, gzip(&layer)).unwrap();
    let look = || {
        let source = TarSource::new(FileRange::open(&blob).unwrap(), None, digest(&layer));
        mounted(vec![LayerSource::Tar(source)], &index_dir).unwrap()
    };
    assert_eq!(look(), CONTENT);
    let [index] = &published(&index_dir)[..] else { panic!("one index for one layer") };
    let whole = fs::read(index).unwrap();
    for len in 0..whole.len() {
        fs::remove_file(index).unwrap();
        fs::write(index, &whole[..len]).unwrap();
        assert!(LayerIndex::open(index).is_err(), "cut to {len}");
        // Publishing waits for the disk: not each time.
        if len % 100 == 0 {
            assert_eq!(look(), CONTENT, "cut to {len}");
            assert_eq!(fs::read(index).unwrap(), whole, "cut to {len}");
        }
    }
}
