//! `push --with-index`: what others see of it in Debian's docker-registry, which keeps no lists of referrers, and what comes back.

use std::collections::BTreeMap;

use layerfs::image::attached::{Attached, fetch};
use layerfs::model::Digest;
use layerfs::registry::{Endpoint, Patience};
use serde_json::Value;

use super::*;

fn push(place: &Place, options: &[&str], image: &Path, name: &str) -> Done {
    let mut command = place.command();
    finish(command.arg("push").arg("--with-index").args(options).arg(image).arg(name))
}

/// The digest in the line for an index.
fn index_line(done: &Done) -> String {
    let lines: Vec<&str> = done.ok().lines().collect();
    let [_, index] = lines[..] else { panic!("{done:#?}") };
    index.strip_prefix("index ").unwrap().to_owned()
}

fn raw(name: &str) -> Value {
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    serde_json::from_str(raw.ok()).unwrap()
}

/// The indexes of a store by the digest of the layer's blob.
fn indexes(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(place.store().join("index")).unwrap();
    let file =
        |path: PathBuf| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    entries.map(|entry| file(entry.unwrap().path())).collect()
}

#[test]
fn indexes_are_attached_once() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let mut seen = 0;
    let repository = format!("{}/some/where", registry.host);
    let name = format!("{repository}:1");
    let digest = manifest_digest(&layout());
    let layers: Vec<String> = parts(&layout(), &digest).into_iter().rev().skip(1).rev().collect();
    let done = push(&place, &[], &layout(), &name);
    assert!(done.ok().starts_with(&format!("1: digest: {digest} size: ")), "{done:#?}");
    let attached = index_line(&done);
    // The list that clients keep, and what is in it.
    let list = raw(&format!("{repository}:{}", digest.replace(':', "-")));
    let entry = &list["manifests"][0];
    let artifact_type = "application/vnd.layerfs.index.v1";
    assert_eq!((&entry["digest"], &entry["artifactType"]), (&attached.clone().into(), &artifact_type.into()));
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    let artifact = format!("{repository}@{attached}");
    assert_eq!(found(&place, &artifact), attached);
    let manifest = raw(&artifact);
    assert_eq!(
        (&manifest["subject"]["digest"], &manifest["artifactType"]),
        (&digest.clone().into(), &artifact_type.into())
    );
    let of = |layer: &Value| layer["annotations"]["org.layerfs.layer.digest"].as_str().unwrap().to_owned();
    let described: Vec<String> = manifest["layers"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(described, layers);
    // Nothing is sent twice, and it is the same from anywhere.
    registry.changes(&mut seen);
    let other = Place::new();
    for place in [&place, &other] {
        assert_eq!(index_line(&push(place, &[], &layout(), &name)), attached);
        let sent = registry.changes(&mut seen);
        assert!(matches!(&sent[..], [one] if one.starts_with("PUT /v2/some/where/manifests/1")), "{sent:#?}");
    }
    // The image is as it was.
    let back = place.path("back");
    let to = format!("oci:{}:latest", back.display());
    skopeo(&["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &format!("docker://{name}"), &to])
        .ok();
    assert_eq!(manifest_digest(&back), digest);
    // What comes back is what was made here.
    let reader =
        layerfs::registry::Registry::open(&Endpoint::new(&registry.host, "some/where"), Patience::default());
    let (into, reader) = (place.path("fetched"), reader.unwrap());
    let (subject, attached): (Digest, Digest) = (digest.parse().unwrap(), attached.parse().unwrap());
    assert_eq!(fetch(&reader, subject, &[], &into).unwrap(), Attached::Untrusted(vec![attached]));
    assert!(!into.exists());
    let Attached::Trusted(files) = fetch(&reader, subject, &[attached], &into).unwrap() else { panic!() };
    let read = |(layer, path): (Digest, PathBuf)| (layer.hex(), fs::read(path).unwrap());
    assert!(files.into_iter().map(read).collect::<BTreeMap<_, _>>() == indexes(&place));
    assert_eq!(indexes(&place).len(), layers.len());
}

#[test]
fn indexes_of_archives_and_of_the_store() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let name = format!("{}/some/app", registry.host);
    // Nothing is said, and all is there.
    let (archive, digestfile) = (image("tiny").join("docker-gzip.tar"), place.path("digest"));
    let quiet = push(&place, &["-q", "--digestfile", digestfile.to_str().unwrap()], &archive, &name);
    assert_eq!((quiet.ok(), quiet.err.as_str()), ("", ""));
    let digest = fs::read_to_string(digestfile).unwrap();
    assert_eq!(digest, found(&place, &name));
    let list = raw(&format!("{name}:{}", digest.replace(':', "-")));
    let attached = index_line(&push(&place, &[], &archive, &name));
    assert_eq!(list["manifests"][0]["digest"], attached.as_str());
    // Of two names of an image each gets its own list entry once.
    fill(&place, &[&format!("{name}:1"), &format!("{name}:2")]);
    let done = place.layerfs(&["push", "--with-index", "--all-tags", &name]);
    let lines: Vec<&str> = done.ok().lines().collect();
    assert!(lines.len() == 4 && lines[1].starts_with("index sha256:") && lines[1] == lines[3], "{done:#?}");
    let list = raw(&format!("{name}:{}", manifest_digest(&layout()).replace(':', "-")));
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    // Temporary files are gone.
    let rest = indexes(&place).into_keys().filter(|stem| stem.len() != 64).count();
    assert_eq!(rest, 0);
}

#[test]
fn an_image_that_cannot_be_indexed_is_not_pushed() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let name = format!("{}/some/app:1", registry.host);
    fill(&place, &[&name]);
    let layer = parts(&layout(), &manifest_digest(&layout())).remove(0);
    let path = place.store().join("oci/blobs/sha256").join(&layer[7..]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut seen = 0;
    registry.changes(&mut seen);
    let done = place.layerfs(&["push", "--with-index", &name]);
    assert!(done.code == 125 && done.err.contains("layer 1") && done.out.is_empty(), "{done:#?}");
    assert!(registry.changes(&mut seen).is_empty());
}
