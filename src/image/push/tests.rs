//! What an image is sent as. That it arrives is tested with a real registry.

use std::fs;

use sha2::{Digest as _, Sha256};

use super::super::open;
use super::super::tests::new_store;
use super::*;

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn config(layer: &[u8], architecture: &str) -> Vec<u8> {
    let id = digest(layer);
    format!(
        r#"{{"os":"linux","architecture":"{architecture}","rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
    )
    .into_bytes()
}

/// Puts a blob into the store and gives its descriptor.
fn put(store: &Store, media_type: &str, bytes: &[u8]) -> String {
    store.blobs().put(digest(bytes), &mut &bytes[..]).unwrap();
    let (digest, size) = (digest(bytes), bytes.len());
    format!(r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"{digest}","size":{size}"#)
}

/// One image in the store, as a descriptor without its closing brace.
fn put_image(store: &Store, architecture: &str) -> String {
    // Both architectures have this layer.
    let layer = put(store, "layer.v1.tar", b"layer");
    let config = put(store, "config.v1+json", &config(b"layer", architecture));
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config}}},"layers":[{layer}}}]}}"#);
    put(store, "manifest.v1+json", manifest.as_bytes())
}

/// An image for two platforms under the name `both:1`; what the index hashes to.
fn put_both(store: &Store) -> Digest {
    let child = |architecture: &str| {
        let image = put_image(store, architecture);
        format!(r#"{image},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
    };
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, child("amd64"), child("arm64"));
    let entry = put(store, "index.v1+json", index.as_bytes()) + "}";
    store.refs().set("both:1", &serde_json::from_str(&entry).unwrap()).unwrap();
    digest(index.as_bytes())
}

#[test]
fn all_platforms_go_if_all_are_there() {
    let (_dir, store) = new_store();
    let index = put_both(&store);
    let parcel = Parcel::of(&open("both:1", &store).unwrap(), &store).unwrap();
    assert_eq!((parcel.top.digest, parcel.children.len()), (index, 2));
    assert_eq!(parcel.top.media_type, "application/vnd.oci.image.index.v1+json");
    // Two configs, and the layer that both have.
    assert_eq!(parcel.pieces.len(), 3);
    // Only the one that is there, else: the digest of its manifest stays as it is.
    let image = open("both:1", &store).unwrap();
    let other = parcel.children.iter().find(|child| {
        Some(child.digest) != image.documents.manifest.as_ref().map(|manifest| manifest.descriptor.digest)
    });
    fs::remove_file(store.blobs().path(other.unwrap().digest)).unwrap();
    let parcel = Parcel::of(&image, &store).unwrap();
    assert_eq!(parcel.top.digest, image.documents.manifest.unwrap().descriptor.digest);
    assert_eq!((parcel.children.len(), parcel.pieces.len()), (0, 2));
}

#[test]
fn one_platform_that_was_asked_for_goes_alone() {
    let (_dir, store) = new_store();
    put_both(&store);
    let mut image = open("both:1", &store).unwrap();
    image.documents.index = None;
    let parcel = Parcel::of(&image, &store).unwrap();
    assert_eq!(parcel.top.bytes, image.documents.manifest.unwrap().bytes);
    assert!(matches!(parcel.pieces[0].place, Place::Store));
}

#[test]
fn archives_get_the_same_manifest_each_time() {
    let (dir, store) = new_store();
    let path = dir.path().join("saved.tar");
    let config = config(b"layer", "amd64");
    let manifest = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#;
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in [("c.json", &config[..]), ("l.tar", b"layer"), ("manifest.json", manifest)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    builder.finish().unwrap();
    let parcel = || Parcel::of(&open(path.to_str().unwrap(), &store).unwrap(), &store).unwrap();
    let (one, two) = (parcel(), parcel());
    assert_eq!((one.top.digest, &one.top.bytes), (two.top.digest, &two.top.bytes));
    assert_eq!(one.top.digest, digest(&one.top.bytes));
    let written: serde_json::Value = serde_json::from_slice(&one.top.bytes).unwrap();
    assert_eq!(written["layers"][0]["digest"], digest(b"layer").to_string());
    assert_eq!(written["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(written["config"]["digest"], digest(&config).to_string());
    let pieces: Vec<Digest> = one.pieces.iter().map(|piece| piece.digest).collect();
    assert_eq!(pieces, [digest(b"layer"), digest(&config)]);
}

#[test]
fn plain_directories_are_no_images() {
    let (dir, store) = new_store();
    let image = open(dir.path().to_str().unwrap(), &store).unwrap();
    let error = Parcel::of(&image, &store).unwrap_err().to_string();
    assert!(error.contains("layerfs build"), "{error}");
}

#[test]
fn the_first_failure_ends_the_rest() {
    let stop = AtomicBool::new(false);
    let items: Vec<u32> = (0..100).collect();
    let doubled = in_parallel(&items, &stop, |item| Ok::<_, PushError>(item * 2)).unwrap();
    assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
    let begun = std::sync::atomic::AtomicU32::new(0);
    let failed = in_parallel(&items, &stop, |item| {
        begun.fetch_add(1, Ordering::Relaxed);
        match item {
            3 => Err(PushError::Unfit { image: "x".into(), reason: "y".into() }),
            _ => {
                std::thread::sleep(std::time::Duration::from_millis(5));
                Ok(())
            }
        }
    });
    assert_eq!(failed.unwrap_err().to_string(), "x: y");
    assert!(stop.load(Ordering::Relaxed) && begun.into_inner() < 20);
}
