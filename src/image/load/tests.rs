//! Archives of all forms come into a store whole, or nothing of them does.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::Sha256;
use tempfile::TempDir;

use super::super::tests::new_store;
use super::super::{ImageError, SaveFormat, Saving, Sought};
use super::*;

type Members = Vec<(String, Vec<u8>)>;

fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(diff_ids: &[Digest], salt: &str) -> Vec<u8> {
    let ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
    serde_json::json!({"os": "linux", "architecture": "amd64", "author": salt,
        "rootfs": {"type": "layers", "diff_ids": ids}})
    .to_string()
    .into_bytes()
}

/// Two images: the layer of the first is the base of the second, whose own is compressed.
fn members() -> Members {
    let (base, top) = (vec![b'b'; 300_000], vec![b't'; 5000]);
    let one = config(&[digest(&base)], "one");
    let two = config(&[digest(&base), digest(&top)], "two");
    let name = |config: &[u8]| format!("{}.json", digest(config).hex());
    let manifest = serde_json::json!([
        {"Config": name(&one), "RepoTags": ["localhost/one:1", "docker.io/library/uno:latest"], "Layers": ["a/layer.tar"]},
        {"Config": name(&two), "RepoTags": null, "Layers": ["a/layer.tar", "c/layer.tar"]},
    ]);
    vec![
        ("a/layer.tar".to_owned(), base),
        ("c/layer.tar".to_owned(), gzip(&top)),
        (name(&one), one),
        (name(&two), two),
        ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
    ]
}

fn tar_of(members: &Members) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn by_stream(store: &Store, mut bytes: &[u8]) -> Result<Vec<Loaded>, ImageError> {
    load(store, LoadSource::Stream(&mut bytes, Path::new("stream")), &[], &Sought::default())
}

fn by_file(dir: &TempDir, store: &Store, bytes: &[u8]) -> Result<Vec<Loaded>, ImageError> {
    let path = dir.path().join("archive");
    fs::write(&path, bytes).unwrap();
    load(store, LoadSource::Path(&path), &[], &Sought::default())
}

fn blobs(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(store.blobs().dir()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Every blob is what its name says, and nothing else is there.
fn assert_sound(store: &Store) {
    for name in blobs(store) {
        let bytes = fs::read(store.blobs().dir().join(&name)).unwrap();
        assert_eq!(digest(&bytes).hex(), name);
    }
}

#[test]
fn everything_comes_once() {
    let tar = tar_of(&members());
    let mut stores = Vec::new();
    for bytes in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()] {
        for is_stream in [false, true] {
            let (dir, store) = new_store();
            let loaded = if is_stream { by_stream(&store, &bytes) } else { by_file(&dir, &store, &bytes) };
            let loaded = loaded.unwrap();
            assert_eq!(loaded[0].names, ["localhost/one:1", "uno:latest"]);
            assert!(loaded[1].names.is_empty());
            let ids: Vec<String> = loaded.iter().map(|one| one.config_digest.to_string()).collect();
            let expected =
                [config(&[digest(&[b'b'; 300_000])], "one")].map(|config| digest(&config).to_string());
            assert_eq!(ids[0], expected[0]);
            assert_sound(&store);
            // Two layers, two configs, two manifests.
            assert_eq!(blobs(&store).len(), 6);
            let by_id = super::super::open(&ids[1], &store).unwrap();
            assert_eq!(by_id.layers.len(), 2);
            assert_eq!(super::super::open("one:1", &store).unwrap().config_digest.to_string(), ids[0]);
            // Again: nothing is written.
            let path = store.blobs().path(digest(&[b'b'; 300_000]));
            let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
            by_stream(&store, &bytes).unwrap();
            assert_eq!(inode, std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()));
            assert_eq!(blobs(&store).len(), 6);
            let mut names = blobs(&store);
            names.sort();
            stores.push(names);
        }
    }
    assert!(stores.windows(2).all(|two| two[0] == two[1]), "the same whatever way it came");
}

#[test]
fn a_name_in_other_words_moves_too() {
    let (dir, store) = new_store();
    let (digest, size) = store.blobs().put_unnamed(&mut &b"old"[..]).unwrap();
    let old = Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest, size);
    store.refs().set("docker.io/library/uno:latest", &old).unwrap();
    by_file(&dir, &store, &tar_of(&members())).unwrap();
    let names: Vec<String> = store.refs().list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| name.contains("uno")).collect::<Vec<_>>(), ["uno:latest"]);
    let opened = crate::image::open("uno", &store).unwrap();
    assert_ne!(opened.documents.manifest.unwrap().descriptor.digest, digest);
}

/// As other tools leave it after a power cut.
#[test]
fn a_blob_that_is_not_whole_is_written_again() {
    let (dir, store) = new_store();
    by_file(&dir, &store, &tar_of(&members())).unwrap();
    let all = blobs(&store);
    for name in &all {
        fs::write(store.blobs().dir().join(name), "").unwrap();
    }
    by_file(&dir, &store, &tar_of(&members())).unwrap();
    assert_eq!(blobs(&store), all);
    for name in &all {
        assert_eq!(digest(&fs::read(store.blobs().dir().join(name)).unwrap()).hex(), *name);
    }
}

#[test]
fn chosen_by_name() {
    let (dir, store) = new_store();
    let path = dir.path().join("archive");
    fs::write(&path, tar_of(&members())).unwrap();
    let chosen = |name: &str| load(&store, LoadSource::Path(&path), &[name.to_owned()], &Sought::default());
    assert_eq!(chosen("uno").unwrap()[0].names, ["uno:latest"]);
    assert_eq!(store.refs().list().unwrap().len(), 1);
    let error = chosen("other").unwrap_err().to_string();
    assert!(error.contains("\"other\"") && error.contains("localhost/one:1"), "{error}");
}

#[test]
fn what_is_cut_off_leaves_nothing() {
    let tar = tar_of(&members());
    // Without the end mark, of which there are two blocks, and the padding of the last member, it is whole.
    let needed = tar.len() - 2 * 512;
    for bytes in [tar.clone(), gzip(&tar)] {
        let end = if bytes == tar { needed } else { bytes.len() };
        for part in 0..40 {
            let (dir, store) = new_store();
            let cut = &bytes[..end * part / 40];
            for done in [by_stream(&store, cut), by_file(&dir, &store, cut)] {
                let error = done.unwrap_err();
                assert!(!error.to_string().is_empty(), "{error}");
            }
            assert!(blobs(&store).is_empty() && store.refs().list().unwrap().is_empty());
        }
    }
}

#[test]
fn flipped_bits_leave_nothing() {
    let tar = tar_of(&members());
    // In the base layer, in the compressed one, in a config.
    let config = tar.windows(12).position(|bytes| bytes == b"architecture").unwrap();
    let places = [700, 200_000, 300_000, config];
    let top = tar.windows(4).rposition(|bytes| bytes == b"\"two").unwrap();
    for place in places.into_iter().chain([top]) {
        for how in [|bytes: Vec<u8>| bytes, |bytes: Vec<u8>| gzip(&bytes)] {
            let mut bytes = tar.clone();
            bytes[place] ^= 1;
            let bytes = how(bytes);
            let (dir, store) = new_store();
            for done in [by_stream(&store, &bytes), by_file(&dir, &store, &bytes)] {
                assert!(done.is_err(), "loaded with a flipped bit at {place}");
                assert!(blobs(&store).is_empty() && store.refs().list().unwrap().is_empty(), "{place}");
            }
        }
    }
    let compressed = gzip(&tar);
    let mut bytes = compressed.clone();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    let (_dir, store) = new_store();
    assert!(matches!(by_stream(&store, &bytes), Err(ImageError::Encoded { .. })));
    assert!(blobs(&store).is_empty());
}

#[test]
fn hostile_archives_are_refused() {
    let (_dir, store) = new_store();
    let error = |members: &Members| by_stream(&store, &tar_of(members)).unwrap_err().to_string();
    let manifest = |text: &str| vec![("manifest.json".to_owned(), text.as_bytes().to_vec())];
    assert!(error(&manifest("[]")).contains("no image in it"));
    assert!(error(&manifest("{")).contains("not a list of images"));
    assert!(error(&manifest(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#)).contains("is missing"));
    assert!(error(&vec![("x".to_owned(), vec![1])]).contains("neither manifest.json"));
    // A thousand and one images with the same config.
    let config = config(&[], "x");
    let one = r#"{"Config":"c","RepoTags":[],"Layers":[]}"#;
    let all = vec![one; IMAGES_MAX + 1].join(",");
    let mut many = manifest(&format!("[{all}]"));
    many.push(("c".to_owned(), config));
    assert!(error(&many).contains("images in one archive"), "{}", error(&many));
    let names: Vec<String> = (0..=NAMES_MAX).map(|number| format!("\"n:{number}\"")).collect();
    many[0].1 = format!(r#"[{{"Config":"c","RepoTags":[{}],"Layers":[]}}]"#, names.join(",")).into_bytes();
    assert!(error(&many).contains("names in one archive"), "{}", error(&many));
    // Names that are none, or hold what a terminal obeys.
    many[0].1 = br#"[{"Config":"c","RepoTags":["A b","\u001b[2J","sha256:00"],"Layers":[]}]"#.to_vec();
    let loaded = by_stream(&store, &tar_of(&many)).unwrap();
    assert_eq!(loaded[0].names, ["sha256:00"]);
    let zeros = gzip(&vec![0; 1 << 20]);
    assert!(by_stream(&store, &zeros).unwrap_err().to_string().contains("neither manifest.json"));
    assert!(by_stream(&store, b"").unwrap_err().to_string().contains("empty"));
    assert!(by_stream(&store, b"text\n").unwrap_err().to_string().contains("not an image"));
}

/// Saves images of a store as an archive.
fn saved(store: &Store, specs: &[&str], format: SaveFormat) -> Vec<u8> {
    let specs: Vec<String> = specs.iter().map(|spec| (*spec).to_owned()).collect();
    let mut out = Vec::new();
    let saving = Saving::of(&specs, store, &Sought::default()).unwrap();
    saving.archive(format, &mut out, Path::new("out")).unwrap();
    out
}

#[test]
fn there_and_back_again() {
    let (_dir, store) = new_store();
    let two = by_stream(&store, &tar_of(&members())).unwrap()[1].config_digest.to_string();
    let mut before = blobs(&store);
    before.sort();
    for format in [SaveFormat::DockerArchive, SaveFormat::OciArchive] {
        let archive = saved(&store, &["one:1", &two, "uno"], format);
        assert!(archive == saved(&store, &["one:1", &two, "uno"], format), "the same bytes");
        let (_dir, other) = new_store();
        let loaded = by_stream(&other, &archive).unwrap();
        assert_eq!(loaded.len(), 2, "{format:?}");
        let first = loaded.iter().find(|one| !one.names.is_empty()).unwrap();
        assert_eq!(first.names, ["uno:latest", "localhost/one:1"], "{format:?}");
        assert!(loaded.iter().any(|one| one.config_digest.to_string() == two));
        assert_sound(&other);
        let mut after = blobs(&other);
        after.sort();
        if format == SaveFormat::OciArchive {
            assert_eq!(before, after, "blobs and manifests keep their bytes");
        }
    }
    // As those before 1.10 read it.
    let archive = saved(&store, &["one:1", &two], SaveFormat::DockerArchive);
    let mut entries = tar::Archive::new(&archive[..]);
    let is_layer = |entry: &tar::Entry<'_, &[u8]>| {
        entry.header().entry_type().is_file() && entry.path().unwrap().ends_with("layer.tar")
    };
    let layers = entries.entries().unwrap().filter(|entry| is_layer(entry.as_ref().unwrap())).count();
    assert_eq!(layers, 2, "each layer once");
    let (_dir, other) = new_store();
    by_stream(&other, &archive_without(&archive, "manifest.json")).unwrap();
    let names: Vec<String> = other.refs().list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["localhost/one:1"]);
}

/// The archive with that member called otherwise.
fn archive_without(archive: &[u8], name: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some(name) {
            let header = entry.header().clone();
            builder.append(&header, &mut entry).unwrap();
        }
    }
    builder.into_inner().unwrap()
}
