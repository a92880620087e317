//! Attached indexes, from registries that lie and of artifacts that do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::super::push::Parcel;
use super::super::tests::new_store;
use super::super::{Image, open};
use super::push::compress;
use super::*;
use crate::index::{self, Expected, LayerIndex, VERSION};
use crate::mount::Progress;
use crate::registry::scripted_server::{Asked, Reply, Server};
use crate::registry::{Endpoint, Patience, Registry};
use crate::store::Store;
use crate::sys::file_range::FileRange;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Silent;

impl Progress for Silent {
    fn indexed(&self, _: usize, _: usize, _: u64, _: u64) {}
}

/// A tar with one file.
fn layer(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", content).unwrap();
    tar.into_inner().unwrap()
}

/// An index, its layer's blob, and its checksum.
type Indexed = (Vec<u8>, Digest, [u8; 32]);
/// An index, what its artifact says wrong, and what is said of that.
type Case<'a> = (&'a Indexed, fn(&mut Part), &'a str);

/// The index of such a layer.
fn indexed(content: &[u8]) -> Indexed {
    let dir = tempfile::tempdir().unwrap();
    let (blob, path) = (dir.path().join("blob"), dir.path().join("a.lfx"));
    fs::write(&blob, layer(content)).unwrap();
    let expected = Expected::default();
    index::build(&FileRange::open(&blob).unwrap(), &expected, dir.path(), "a.lfx", &|_| {}).unwrap();
    let index = LayerIndex::open(&path).unwrap();
    (index.whole().unwrap().to_vec(), index.blob_digest(), index.checksum())
}

/// A registry with artifacts, all of which refer to one manifest; and where their indexes go.
struct Bench {
    dir: TempDir,
    manifests: BTreeMap<String, Vec<u8>>,
    listed: Vec<Digest>,
    blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, manifests: BTreeMap::new(), listed: Vec::new(), blobs: Arc::default() }
    }

    fn subject() -> Descriptor {
        Descriptor::new(MEDIA_TYPE_MANIFEST, digest_of(b"manifest"), 8)
    }

    fn into(&self) -> PathBuf {
        self.dir.path().join("below/into")
    }

    /// Has a blob that becomes this index.
    fn part(&mut self, index: &Indexed) -> Part {
        let (bytes, layer, checksum) = index;
        let mut file = Vec::new();
        let (packed, packed_bytes) = compress(bytes, &mut file).unwrap();
        assert_eq!((digest_of(&file), file.len() as u64), (packed, packed_bytes));
        self.blobs.lock().unwrap().insert(packed.to_string(), file);
        let (layer, checksum, bytes) = (*layer, *checksum, bytes.len() as u64);
        Part { layer, bytes, version: VERSION, checksum, packed, packed_bytes }
    }

    fn artifact(&mut self, parts: &[Part]) -> Digest {
        self.document(document(&Self::subject(), parts))
    }

    fn document(&mut self, document: Vec<u8>) -> Digest {
        let digest = digest_of(&document);
        self.manifests.insert(digest.to_string(), document);
        self.listed.push(digest);
        digest
    }

    fn start(&self) -> Server {
        let entry = |digest: &Digest| {
            let size = self.manifests[&digest.to_string()].len();
            json!({ "mediaType": MEDIA_TYPE_MANIFEST, "digest": digest, "size": size, "artifactType": ARTIFACT_TYPE })
        };
        let list =
            json!({ "schemaVersion": 2, "manifests": self.listed.iter().map(entry).collect::<Vec<_>>() });
        let (manifests, blobs) = (self.manifests.clone(), Arc::clone(&self.blobs));
        Server::start(move |asked: &Asked| {
            let last = asked.path.rsplit('/').next().unwrap();
            if asked.path == "/v2/" {
                return Reply::of(200, "{}");
            }
            if asked.path.contains("/referrers/") {
                return Reply::of(200, list.to_string()).with("content-type", INDEX);
            }
            let found = manifests.get(last).cloned().or_else(|| blobs.lock().unwrap().get(last).cloned());
            found.map_or_else(|| Reply::of(404, ""), |bytes| Reply::of(200, bytes))
        })
    }

    fn fetch_from(&self, server: &Server, trusted: &[Digest]) -> Result<Attached, ImageError> {
        let registry = Registry::open(&Endpoint::new(&server.host, "a/b"), Patience::short()).unwrap();
        fetch(&registry, Self::subject().digest, trusted, &self.into())
    }

    fn fetch(&self, trusted: &[Digest]) -> Result<Attached, ImageError> {
        self.fetch_from(&self.start(), trusted)
    }

    /// What is in the directory, temporary files too.
    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.into()) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The file of a layer.
    fn file(&self, layer: Digest) -> PathBuf {
        self.into().join(format!("{}.lfx", layer.hex()))
    }
}

#[test]
fn what_is_trusted_comes_once() {
    let mut bench = Bench::new();
    let indexes: Vec<_> = (0..6_u32).map(|number| indexed(&number.to_le_bytes())).collect();
    let parts: Vec<Part> = indexes.iter().map(|index| bench.part(index)).collect();
    let artifact = bench.artifact(&parts);
    let server = bench.start();
    let expected = indexes.iter().map(|(_, layer, _)| (*layer, bench.file(*layer))).collect();
    let expected = Attached::Trusted(expected);
    let others = [digest_of(b"not there"), artifact, artifact];
    assert_eq!(bench.fetch_from(&server, &others).unwrap(), expected);
    assert_eq!((bench.files().len(), server.count("/blobs/")), (6, 6));
    for (bytes, layer, _) in &indexes {
        assert_eq!(&fs::read(bench.file(*layer)).unwrap(), bytes);
        LayerIndex::open(&bench.file(*layer)).unwrap().whole().unwrap();
    }
    assert_eq!(bench.fetch_from(&server, &[artifact]).unwrap(), expected);
    assert_eq!(server.count("/blobs/"), 6, "what is there is not fetched");
    // What is there for a layer, and not what this artifact has for it.
    fs::write(bench.file(indexes[0].1), &indexes[1].0).unwrap();
    fs::write(bench.file(indexes[2].1), &indexes[2].0[..100]).unwrap();
    assert_eq!(bench.fetch_from(&server, &[artifact]).unwrap(), expected);
    assert_eq!((bench.files().len(), server.count("/blobs/")), (6, 8));
    assert_eq!(fs::read(bench.file(indexes[0].1)).unwrap(), indexes[0].0);
}

#[test]
fn nothing_comes_that_is_not_trusted() {
    let mut bench = Bench::new();
    assert_eq!(bench.fetch(&[digest_of(b"x")]).unwrap(), Attached::None);
    let part = bench.part(&indexed(b"a"));
    let artifact = bench.artifact(&[part]);
    for trusted in [&[][..], &[digest_of(b"x")], &[Bench::subject().digest]] {
        let server = bench.start();
        assert_eq!(bench.fetch_from(&server, trusted).unwrap(), Attached::Untrusted(vec![artifact]));
        assert_eq!(server.count("/blobs/"), 0);
    }
    assert!(bench.files().is_empty());
}

#[test]
fn what_is_trusted_need_not_be_listed() {
    let mut bench = Bench::new();
    let part = bench.part(&indexed(b"a"));
    let artifact = bench.artifact(&[part]);
    bench.listed.clear();
    assert!(matches!(bench.fetch(&[artifact]).unwrap(), Attached::Trusted(found) if found.len() == 1));
}

#[test]
fn what_is_meant_for_others_is_passed_over() {
    let mut bench = Bench::new();
    let part = bench.part(&indexed(b"a"));
    let other = Descriptor::new(MEDIA_TYPE_MANIFEST, digest_of(b"other"), 5);
    let text = String::from_utf8(document(&Bench::subject(), &[part])).unwrap();
    let none = [
        document(&other, &[part]),
        text.replace(ARTIFACT_TYPE, "application/vnd.example").into_bytes(),
        text.replace("\"subject\"", "\"object\"").into_bytes(),
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":1").into_bytes(),
    ];
    let trusted: Vec<Digest> = none.into_iter().map(|one| bench.document(one)).collect();
    bench.listed.clear();
    assert_eq!(bench.fetch(&trusted).unwrap(), Attached::None);
}

#[test]
fn artifacts_that_make_no_sense() {
    let mut bench = Bench::new();
    let part = bench.part(&indexed(b"a"));
    let good = String::from_utf8(document(&Bench::subject(), &[part])).unwrap();
    let subject = Bench::subject().digest;
    assert_eq!(parse(good.as_bytes(), subject).unwrap(), Some(vec![part]));
    let many = document(&Bench::subject(), &vec![part; IMAGE_LAYERS_MAX + 1]);
    let with = |from: &str, to: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        text.into_bytes()
    };
    let size = format!("\"size\":{}", part.packed_bytes);
    for (bytes, says) in [
        (b"{".to_vec(), "not a manifest"),
        (with("\"layers\":[", "\"layers\":7,\"x\":["), "not a manifest"),
        (with(MEDIA_TYPE_PACKED, "text/plain"), "media type \"text/plain\""),
        (with(LAYER_DIGEST, "x"), "no annotation org.layerfs.layer.digest"),
        (with(&part.layer.to_string(), "../../x"), "org.layerfs.layer.digest makes no sense"),
        (with(INDEX_SIZE, "x"), "no annotation org.layerfs.index.size"),
        (with(&format!("{:?}", part.bytes.to_string()), "\"-1\""), "org.layerfs.index.size makes no sense"),
        (with(&format!("{:?}", part.bytes.to_string()), "\"4294967297\""), "at most 4294967296"),
        (with(&size, "\"size\":1073741825"), "at most 1073741824"),
        (with(INDEX_VERSION, "x"), "no annotation org.layerfs.index.version"),
        (with(INDEX_CHECKSUM, "x"), "no annotation org.layerfs.index.checksum"),
        (with(&Digest::from_bytes(part.checksum).hex(), "0"), "org.layerfs.index.checksum makes no sense"),
        (many, "501 indexes"),
    ] {
        let error = parse(&bytes, subject).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
        // Trusted, it is an error; nothing is there then.
        let artifact = bench.document(bytes);
        let error = bench.fetch(&[artifact]).unwrap_err().to_string();
        assert!(error.contains(&artifact.to_string()) && error.contains("a/b"), "{error}");
    }
    assert!(bench.files().is_empty());
}

#[test]
fn indexes_that_are_not_what_they_should_be() {
    let (good, other) = (indexed(b"a"), indexed(b"b"));
    let mut garbage = good.clone();
    garbage.0 = vec![7; 5000];
    let mut flipped = good.clone();
    *flipped.0.last_mut().unwrap() ^= 1;
    // Each as its artifact describes it, but for one thing.
    let cases: [Case<'_>; 6] = [
        (&good, |part| part.bytes -= 1, "more bytes than its artifact says"),
        (&good, |part| part.bytes += 1, "ends 1 bytes before its end"),
        (&good, |part| part.layer = digest_of(b"x"), "not the index of layer"),
        (&good, |part| part.checksum[0] ^= 1, "not the index of layer"),
        (&other, |part| part.layer = digest_of(&layer(b"a")), "not the index of layer"),
        (&garbage, |_| {}, "not an index: wrong magic"),
    ];
    for (index, change, says) in cases {
        let mut bench = Bench::new();
        let mut part = bench.part(index);
        change(&mut part);
        let artifact = bench.artifact(&[part]);
        let error = bench.fetch(&[artifact]).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&part.packed.to_string()), "{says}: {error}");
        assert!(bench.files().is_empty(), "{says}: {:?}", bench.files());
    }
    // What the checksum of checksums cannot see is seen when it is looked at.
    let mut bench = Bench::new();
    let part = bench.part(&flipped);
    let artifact = bench.artifact(&[part]);
    bench.fetch(&[artifact]).unwrap();
    assert!(LayerIndex::open(&bench.file(part.layer)).unwrap().whole().is_err());
}

#[test]
fn registries_that_send_something_else() {
    let good = indexed(b"a");
    let swapped = |change: fn(&mut Vec<u8>)| {
        let mut bench = Bench::new();
        let (first, part) = (bench.part(&indexed(b"first")), bench.part(&good));
        change(bench.blobs.lock().unwrap().get_mut(&part.packed.to_string()).unwrap());
        let artifact = bench.artifact(&[first, part]);
        let error = bench.fetch(&[artifact]).unwrap_err();
        assert!(!bench.file(part.layer).exists());
        assert!(bench.files().iter().all(|name| *name == format!("{}.lfx", first.layer.hex())));
        (error.to_string(), part)
    };
    let middle = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let changes: [fn(&mut Vec<u8>); 3] = [middle, |bytes| bytes.fill(0), |bytes| bytes.reverse()];
    for change in changes {
        let (error, part) = swapped(change);
        assert!(error.contains("has the digest") && error.contains(&part.packed.to_string()), "{error}");
    }
    let changes: [fn(&mut Vec<u8>); 2] = [|bytes| bytes.push(0), |bytes| bytes.truncate(9)];
    for change in changes {
        let (error, _) = swapped(change);
        assert!(error.contains("its descriptor says"), "{error}");
    }
    let (error, _) = swapped(Vec::clear);
    assert!(error.contains("attached index"), "{error}");
    // An artifact that is not what it is called.
    let mut bench = Bench::new();
    let part = bench.part(&good);
    let artifact = bench.artifact(&[part]);
    bench.manifests.get_mut(&artifact.to_string()).unwrap().push(b' ');
    let error = bench.fetch(&[artifact]).unwrap_err().to_string();
    assert!(error.contains("has the digest"), "{error}");
}

#[test]
fn other_versions_are_as_good_as_none() {
    let mut bench = Bench::new();
    let mut index = indexed(b"a");
    let part = Part { version: VERSION + 1, ..bench.part(&index) };
    let said = bench.artifact(&[part]);
    // One that says so only itself.
    index.0[8] += 1;
    let part = bench.part(&index);
    let unsaid = bench.artifact(&[part]);
    let right = bench.part(&indexed(b"b"));
    let mixed = bench.artifact(&[Part { version: VERSION + 1, ..part }, right]);
    bench.listed.retain(|one| *one != mixed);
    let server = bench.start();
    assert_eq!(bench.fetch_from(&server, &[said]).unwrap(), Attached::Untrusted(vec![unsaid]));
    assert_eq!(server.count("/blobs/"), 0);
    assert_eq!(bench.fetch_from(&server, &[said, unsaid]).unwrap(), Attached::None);
    assert!(bench.files().is_empty());
    let found = BTreeMap::from([(right.layer, bench.file(right.layer))]);
    assert_eq!(bench.fetch_from(&server, &[said, mixed]).unwrap(), Attached::Trusted(found));
}

/// Puts a blob into the store and gives its descriptor.
fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest_of(bytes);
    store.blobs().put(digest, &mut &bytes[..]).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// The descriptor of a manifest in the store whose layers have a file each with this content.
fn put_image(store: &Store, os: &str, architecture: &str, contents: &[&[u8]]) -> Value {
    let layers: Vec<Vec<u8>> = contents.iter().map(|content| layer(content)).collect();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest_of(layer)).collect();
    let config = json!({ "os": os, "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2,
        "config": put(store, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": layers.iter().map(|layer| put(store, tar, layer)).collect::<Vec<_>>(),
    });
    let mut descriptor = put(store, MEDIA_TYPE_MANIFEST, manifest.to_string().as_bytes());
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

/// What buildkit puts beside images.
fn put_attestation(store: &Store) -> Value {
    let manifest = json!({
        "schemaVersion": 2,
        "config": put(store, "application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [put(store, "application/vnd.in-toto+json", b"{}")],
    });
    put(store, MEDIA_TYPE_MANIFEST, manifest.to_string().as_bytes())
}

/// An image of that name for several platforms, as it is pushed.
fn put_index(store: &Store, manifests: &[Value]) -> (Image, Parcel) {
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    let entry = put(store, INDEX, index.to_string().as_bytes());
    store.refs().set("both:1", &serde_json::from_value(entry).unwrap()).unwrap();
    let image = open("both:1", store).unwrap();
    let parcel = Parcel::of(&image, store).unwrap();
    (image, parcel)
}

fn left_over(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| !name.to_str().unwrap().ends_with(".lfx")).count()
}

#[test]
fn each_platform_gets_its_own() {
    let documents = || {
        let (_dir, store) = new_store();
        let children = [
            put_image(&store, "linux", "amd64", &[b"base", b"amd", b"base"]),
            put_image(&store, "linux", "arm64", &[b"base", b"arm"]),
            put_image(&store, "windows", "amd64", &[b"base"]),
            put_image(&store, "linux", "s390x", &[]),
            put_attestation(&store),
        ];
        let (image, parcel) = put_index(&store, &children);
        assert_eq!(parcel.manifests().len(), 5);
        let mut attachments = Attachments::new(&store);
        attachments.add(&image, &parcel, &Silent).unwrap();
        let found = attachments.documents();
        // The same again adds nothing.
        attachments.add(&image, &parcel, &Silent).unwrap();
        assert_eq!(attachments.documents(), found);
        assert_eq!(left_over(&store.index_dir()), 3);
        drop(attachments);
        assert_eq!(left_over(&store.index_dir()), 0);
        let digest = |child: &Value| child["digest"].as_str().unwrap().parse::<Digest>().unwrap();
        for (child, contents) in [(&children[0], [b"base", &b"amd"[..]]), (&children[1], [b"base", b"arm"])] {
            let parts = parse(&found[&digest(child)], digest(child)).unwrap().unwrap();
            let layers: Vec<Digest> = parts.iter().map(|part| part.layer).collect();
            assert_eq!(layers, contents.map(|content| digest_of(&layer(content))));
        }
        found
    };
    let found = documents();
    assert_eq!(found.len(), 2);
    assert_eq!(documents(), found, "the same bytes in another store");
}

#[test]
fn a_damaged_index_is_not_attached() {
    let (_dir, store) = new_store();
    let (image, parcel) = put_index(&store, &[put_image(&store, "linux", "amd64", &[b"a"])]);
    let documents = || {
        let mut attachments = Attachments::new(&store);
        attachments.add(&image, &parcel, &Silent).unwrap();
        attachments.documents()
    };
    let first = documents();
    let path = store.index_dir().join(format!("{}.lfx", digest_of(&layer(b"a")).hex()));
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, damaged).unwrap();
    assert_eq!(documents(), first);
    assert_eq!(fs::read(&path).unwrap(), whole, "it was built again");
}
