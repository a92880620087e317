//! Images of every form, made here or by skopeo and buildah's own archives, and every kind of bad one.

use std::fs;
use std::io::Read as _;
use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST};
use crate::sys::file_range::FileRange;

const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An empty store, and the directory that it is in.
pub(super) fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

struct Bench {
    dir: TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let (dir, store) = new_store();
        Self { dir, store }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn open(&self, spec: &str) -> Result<Image, ImageError> {
        open(spec, &self.store)
    }

    /// The message of what must fail.
    fn error(&self, spec: &str) -> String {
        self.open(spec).unwrap_err().to_string()
    }

    /// An OCI layout directory with one image per tag.
    fn layout(&self, name: &str, tags: &[&str]) -> String {
        let path = self.path(name);
        fs::create_dir_all(format!("{path}/blobs/sha256")).unwrap();
        fs::write(format!("{path}/oci-layout"), crate::store::OCI_LAYOUT).unwrap();
        let entry = |tag: &&str| {
            let (digest, size) = put_image(&path, tag, GZIP_LAYER);
            format!(
                r#"{{"mediaType":"{MEDIA_TYPE_MANIFEST}","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}"#
            )
        };
        let entries: Vec<String> = tags.iter().map(entry).collect();
        write_index(&path, &entries.join(","));
        path
    }

    /// A tar of these members.
    fn archive(&self, name: &str, members: &[(&str, &[u8])]) -> String {
        let path = self.path(name);
        let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    fn docker_archive(&self, name: &str, images: &[(&str, &str)]) -> String {
        let mut members = Vec::new();
        let mut manifest = Vec::new();
        for (index, (tags, salt)) in images.iter().enumerate() {
            let layer = format!("layer {salt}").into_bytes();
            let config = config(&[digest(&layer)], salt).into_bytes();
            let config_name = format!("{}.json", digest(&config).hex());
            manifest.push(format!(
                r#"{{"Config":"{config_name}","RepoTags":{tags},"Layers":["{index}/layer.tar"]}}"#
            ));
            members.push((config_name, config));
            members.push((format!("{index}/layer.tar"), layer));
        }
        members.push(("manifest.json".into(), format!("[{}]", manifest.join(",")).into_bytes()));
        let members: Vec<_> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        self.archive(name, &members)
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn config(diff_ids: &[Digest], salt: &str) -> String {
    let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!(
        r#"{{"os":"linux","architecture":"amd64","config":{{"Cmd":["{salt}"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

fn put(layout: &str, bytes: &[u8]) -> (Digest, usize) {
    let digest = digest(bytes);
    fs::write(format!("{layout}/blobs/sha256/{}", digest.hex()), bytes).unwrap();
    (digest, bytes.len())
}

fn put_image(layout: &str, salt: &str, media_type: &str) -> (Digest, usize) {
    let layer = format!("layer {salt}");
    let (layer, layer_size) = put(layout, layer.as_bytes());
    let (config, config_size) = put(layout, config(&[Digest::from_bytes([9; 32])], salt).as_bytes());
    put_manifest(layout, (config, config_size), &[(media_type, layer, layer_size)])
}

fn put_manifest(layout: &str, config: (Digest, usize), layers: &[(&str, Digest, usize)]) -> (Digest, usize) {
    let layer = |(media_type, digest, size): &(&str, Digest, usize)| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let layers: Vec<String> = layers.iter().map(layer).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        config.0,
        config.1,
        layers.join(",")
    );
    put(layout, manifest.as_bytes())
}

fn write_index(layout: &str, entries: &str) {
    fs::write(format!("{layout}/index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#))
        .unwrap();
}

fn point_index_at(layout: &str, manifest: (Digest, usize)) {
    write_index(layout, &format!(r#"{{"mediaType":"","digest":"{}","size":{}}}"#, manifest.0, manifest.1));
}

fn salt(image: &Image) -> &str {
    &image.config.config.cmd[0]
}

fn first_layer(image: &Image) -> Vec<u8> {
    let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
    let mut bytes = Vec::new();
    tar.blob.reader().read_to_end(&mut bytes).unwrap();
    bytes
}

fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn layout_directory() {
    let bench = Bench::new();
    let one = bench.layout("one", &["v1"]);
    for spec in [one.clone(), format!("{one}:v1"), format!("oci:{one}"), format!("oci:{one}:v1")] {
        let image = bench.open(&spec).unwrap();
        assert_eq!((image.name.as_str(), salt(&image)), (format!("{one}:v1").as_str(), "v1"), "{spec}");
        assert_eq!(first_layer(&image), b"layer v1");
        let again = bench.open(&image.source).unwrap();
        assert_eq!(again.config_digest, image.config_digest);
    }
    let two = bench.layout("two", &["v1", "me/app:2"]);
    let image = bench.open(&format!("{two}:me/app:2")).unwrap();
    assert_eq!((image.name.as_str(), salt(&image)), ("me/app:2", "me/app:2"));
    assert_eq!(salt(&bench.open(&format!("{two}:docker.io/me/app:2")).unwrap()), "me/app:2");
    assert_parts(&bench.error(&two), &["two", "several images", "v1, me/app:2"]);
    assert_parts(&bench.error(&format!("{two}:v9")), &["no image \"v9\"", "v1, me/app:2"]);
    let none = bench.layout("none", &[]);
    assert_parts(&bench.error(&none), &["none", "without any image"]);
    fs::remove_file(format!("{none}/index.json")).unwrap();
    assert_parts(&bench.error(&none), &["without index.json"]);
    fs::write(format!("{none}/index.json"), "{").unwrap();
    assert_parts(&bench.error(&none), &["index.json", "not an OCI index"]);
    assert_parts(&bench.error(&format!("oci:{}", bench.path("."))), &["no oci-layout file"]);
}

#[test]
fn damaged_layouts() {
    let bench = Bench::new();
    let path = bench.layout("l", &["v1"]);
    let manifest = put_image(&path, "v1", GZIP_LAYER);
    let blob = |digest: Digest| format!("{path}/blobs/sha256/{}", digest.hex());
    let layer = digest(b"layer v1");
    fs::write(blob(layer), "short").unwrap();
    assert_parts(&bench.error(&path), &["layer", &layer.to_string(), "has 5 bytes", "says 8"]);
    fs::remove_file(blob(layer)).unwrap();
    assert_parts(&bench.error(&path), &["layer", "is missing", &layer.to_string(), "blobs/sha256/"]);
    let bytes = fs::read(blob(manifest.0)).unwrap();
    fs::write(blob(manifest.0), vec![b'x'; bytes.len()]).unwrap();
    assert_parts(&bench.error(&path), &["manifest", "corrupt", &manifest.0.to_string()]);
    fs::remove_file(blob(manifest.0)).unwrap();
    assert_parts(&bench.error(&path), &["manifest", "is missing", &manifest.0.to_string()]);
}

#[test]
fn a_config_that_was_changed() {
    let bench = Bench::new();
    let path = bench.layout("l", &["v1"]);
    let good = config(&[Digest::from_bytes([9; 32])], "v1");
    let name = format!("{path}/blobs/sha256/{}", digest(good.as_bytes()).hex());
    fs::write(name, good.replace("amd64", "arm64")).unwrap();
    assert_parts(&bench.error(&path), &["config is corrupt", &digest(good.as_bytes()).to_string()]);
}

#[test]
fn contradictions() {
    let bench = Bench::new();
    let path = bench.layout("l", &["v1"]);
    let layer = put(&path, b"layer");
    let config_of = |count: usize| put(&path, config(&vec![layer.0; count], "x").as_bytes());
    point_index_at(&path, put_manifest(&path, config_of(1), &[(GZIP_LAYER, layer.0, layer.1); 2]));
    assert_parts(&bench.error(&path), &["manifest has 2 layers", "names 1"]);
    point_index_at(&path, put_manifest(&path, config_of(501), &vec![(GZIP_LAYER, layer.0, layer.1); 501]));
    assert_parts(&bench.error(&path), &["layers in one image: 501", "at most 500"]);
    for (media_type, hint) in
        [("text/plain", "not a layer"), ("application/vnd.oci.image.layer.v1.tar+encrypted", "decrypt")]
    {
        point_index_at(&path, put_image(&path, "x", media_type));
        assert_parts(&bench.error(&path), &[media_type, hint, &digest(b"layer x").to_string()]);
    }
    let windows = put(&path, br#"{"os":"windows","rootfs":{"diff_ids":[]}}"#);
    point_index_at(&path, put_manifest(&path, windows, &[]));
    assert_parts(&bench.error(&path), &["image for windows"]);
    assert!(!bench.open(&path).unwrap_err().is_damage());
    let text = put(&path, b"no json");
    point_index_at(&path, put_manifest(&path, text, &[]));
    assert_parts(&bench.error(&path), &["not an image config", &text.0.to_string()]);
    let huge = put(&path, &vec![b' '; 9 << 20]);
    point_index_at(&path, huge);
    assert_parts(&bench.error(&path), &["bytes in manifest", "at most 8388608"]);
}

#[test]
fn several_platforms() {
    let bench = Bench::new();
    let path = bench.layout("l", &[]);
    let here = manifest::host_architecture();
    let entry = |(digest, size): (Digest, usize), architecture: &str| {
        format!(
            r#"{{"mediaType":"{MEDIA_TYPE_MANIFEST}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    };
    let foreign = entry(put_image(&path, "foreign", GZIP_LAYER), "pdp11");
    let native = entry(put_image(&path, "native", GZIP_LAYER), here);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{foreign},{native}]}}"#);
    point_index_at(&path, put(&path, index.as_bytes()));
    assert_eq!(salt(&bench.open(&path).unwrap()), "native");
    let chosen = |platform: &str| {
        let sought = Sought { platform: Some(platform.parse().unwrap()), ..Sought::default() };
        open_sought(&path, &bench.store, &sought)
    };
    let image = chosen("linux/pdp11").unwrap();
    assert_eq!(salt(&image), "foreign");
    // What was chosen is found again without choosing.
    assert_eq!(salt(&bench.open(&image.source).unwrap()), "foreign");
    assert_parts(
        &chosen("linux/s390x").unwrap_err().to_string(),
        &["no image for linux/s390x", "linux/pdp11"],
    );
    // One that is the only one is no other platform's because of that.
    let index = std::fs::read_to_string(format!("{path}/index.json")).unwrap();
    std::fs::write(format!("{path}/index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{foreign}]}}"#))
        .unwrap();
    assert_eq!(salt(&chosen("linux/pdp11").unwrap()), "foreign");
    let error = chosen(&format!("linux/{here}")).unwrap_err().to_string();
    assert_parts(&error, &["no image for linux/", "linux/pdp11"]);
    std::fs::write(format!("{path}/index.json"), index).unwrap();
    // Without an index the config says what it is for.
    let single = bench.layout("single", &["one"]);
    let sought = Sought { platform: Some("linux/pdp11".parse().unwrap()), ..Sought::default() };
    let error = open_sought(&single, &bench.store, &sought).unwrap_err().to_string();
    assert_parts(&error, &["no image for linux/pdp11", "linux/amd64"]);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{foreign}]}}"#);
    let (mut digest, mut size) = put(&path, index.as_bytes());
    point_index_at(&path, (digest, size));
    assert_parts(&bench.error(&path), &["no image for linux/", here, "linux/pdp11"]);
    // Indexes in each other.
    for _ in 0..5 {
        let outer = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":{size}}}]}}"#);
        (digest, size) = put(&path, outer.as_bytes());
    }
    point_index_at(&path, (digest, size));
    assert_parts(&bench.error(&path), &["more than 4 indexes"]);
}

#[test]
fn docker_archives() {
    let bench = Bench::new();
    let path = bench.docker_archive("a.tar", &[(r#"["docker.io/library/app:1","localhost/app:1"]"#, "one")]);
    for spec in [
        path.clone(),
        format!("docker-archive:{path}"),
        format!("{path}:app:1"),
        format!("{path}:localhost/app:1"),
    ] {
        let image = bench.open(&spec).unwrap();
        assert_eq!((salt(&image), first_layer(&image).as_slice()), ("one", &b"layer one"[..]), "{spec}");
        let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
        assert_eq!((tar.diff_id, tar.blob_digest), (digest(b"layer one"), None));
        assert_eq!(bench.open(&image.source).unwrap().config_digest, image.config_digest);
    }
    assert_parts(&bench.error(&format!("{path}:app:2")), &["no image \"app:2\"", "docker.io/library/app:1"]);
    let other = format!("{path}:@{}", Digest::from_bytes([3; 32]));
    assert_parts(&bench.error(&other), &["no image \"@sha256:0303", "it has: @sha256:"]);
    let two = bench.docker_archive("two.tar", &[(r#"["a:1"]"#, "one"), (r#"["b:1","b:2"]"#, "two")]);
    assert_parts(&bench.error(&two), &["several images", "a:1, b:1, b:2"]);
    assert_parts(&bench.error(&format!("{two}:1")), &["several images"]);
    let image = bench.open(&format!("{two}:2")).unwrap();
    assert_eq!((salt(&image), image.name.as_str()), ("two", "b:2"));
    assert_eq!(salt(&bench.open(&image.source).unwrap()), "two");
    let podman = bench
        .docker_archive("podman.tar", &[(r#"["localhost/a:1"]"#, "one"), (r#"["localhost/b:1"]"#, "two")]);
    assert_eq!(salt(&bench.open(&format!("{podman}:b:1")).unwrap()), "two");
    let untagged = bench.docker_archive("untagged.tar", &[("null", "one")]);
    assert_eq!(bench.open(&untagged).unwrap().name, untagged);
}

/// Dockers with the containerd image store write an archive that is both: the names are those of `manifest.json`.
#[test]
fn archives_that_are_layouts_too() {
    let bench = Bench::new();
    let layer = b"layer";
    let text = config(&[digest(layer)], "both");
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
    let manifest = format!(
        r#"[{{"Config":"{}","RepoTags":["a:1"],"Layers":["{}"],"LayerSources":{{}}}}]"#,
        blob(text.as_bytes()),
        blob(layer)
    );
    let members: [(&str, &[u8]); 5] = [
        (&blob(layer), layer),
        (&blob(text.as_bytes()), text.as_bytes()),
        ("index.json", br#"{"schemaVersion":2,"manifests":[]}"#),
        ("manifest.json", manifest.as_bytes()),
        ("oci-layout", crate::store::OCI_LAYOUT.as_bytes()),
    ];
    let image = bench.open(&bench.archive("a.tar", &members)).unwrap();
    assert_eq!((image.name.as_str(), salt(&image)), ("a:1", "both"));
    let LayerSource::Tar(tar) = &image.layers[0] else { panic!("a directory") };
    assert_eq!(tar.blob_digest, Some(digest(layer)));
}

/// Sizes that overflow, with a checksum that is right.
#[test]
fn sizes_that_lie() {
    let bench = Bench::new();
    for (name, size) in [
        ("max", [0xff; 12]),
        ("signed", *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ("octal", *b"777777777777"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_path("manifest.json").unwrap();
        header.as_old_mut().size = size;
        header.set_cksum();
        let path = bench.path(name);
        fs::write(&path, [&header.as_bytes()[..], &[b'x'; 512], &[0; 1024]].concat()).unwrap();
        let error = bench.error(&path);
        assert!(error.contains("truncated") || error.contains("not an image"), "{name}: {error}");
    }
    let path = bench.path("pax");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    builder.append_pax_extensions([("size", &b"18446744073709551615"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    builder.append_data(&mut header, "manifest.json", &b"x"[..]).unwrap();
    builder.finish().unwrap();
    drop(builder);
    assert_parts(&bench.error(&path), &["truncated", "manifest.json has 18446744073709551615 bytes"]);
}

#[test]
fn linked_layers() {
    let bench = Bench::new();
    let path = bench.path("links.tar");
    let layer = b"the layer";
    let config = config(&[digest(layer); 3], "x");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8], link: Option<(tar::EntryType, &str)>| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        match link {
            Some((kind, target)) => {
                header.set_entry_type(kind);
                builder.append_link(&mut header, name, target).unwrap();
            }
            None => builder.append_data(&mut header, name, bytes).unwrap(),
        }
    };
    let long = format!("{}/layer.tar", "d".repeat(200));
    add("abc.tar", layer, None);
    add("id1/layer.tar", b"", Some((tar::EntryType::Symlink, "../abc.tar")));
    add(&long, b"", Some((tar::EntryType::Link, "abc.tar")));
    add("loop/layer.tar", b"", Some((tar::EntryType::Symlink, "layer.tar")));
    add("config", config.as_bytes(), None);
    let text =
        format!(r#"[{{"Config":"config","RepoTags":null,"Layers":["id1/layer.tar","{long}","LAST"]}}]"#);
    add("manifest.json", text.replace("LAST", "id1/layer.tar").as_bytes(), None);
    builder.finish().unwrap();
    drop(builder);
    let image = bench.open(&path).unwrap();
    assert_eq!(image.layers.len(), 3);
    assert_eq!(first_layer(&image), layer);

    // A link to itself is an error, not a loop.
    let bytes = fs::read(&path).unwrap();
    let files = Archive::of(FileRange::open(Path::new(&path)).unwrap()).unwrap();
    assert_parts(
        &files.open("loop/layer.tar").unwrap_err().to_string(),
        &["loop/layer.tar", "too many links"],
    );
    assert!(files.open("../../etc/passwd").unwrap().is_none());
    drop(bytes);
}

#[test]
fn damaged_docker_archives() {
    let bench = Bench::new();
    let archive = |name: &str, members: &[(&str, &[u8])]| bench.archive(name, members);
    assert_parts(
        &bench.error(&archive("plain.tar", &[("etc/passwd", b"x")])),
        &["neither manifest.json", "unpack"],
    );
    assert_parts(&bench.error(&format!("docker-archive:{}", bench.path("plain.tar"))), &["no manifest.json"]);
    assert_parts(
        &bench.error(&archive("bad.tar", &[("manifest.json", b"{}")])),
        &["manifest.json", "not a list"],
    );
    assert_parts(&bench.error(&archive("none.tar", &[("manifest.json", b"[]")])), &["lists no image"]);
    let text = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
    assert_parts(
        &bench.error(&archive("noconf.tar", &[("manifest.json", text)])),
        &["config is missing", "c.json"],
    );
    let id = digest(b"layer");
    let conf = config(&[id], "x");
    let error = bench.error(&archive("nolayer.tar", &[("manifest.json", text), ("c.json", conf.as_bytes())]));
    assert_parts(&error, &["layer", &id.to_string(), "is missing", "no l.tar"]);
    let two = config(&[id, id], "x");
    let error = bench
        .error(&archive("count.tar", &[("manifest.json", text), ("c.json", two.as_bytes()), ("l.tar", b"")]));
    assert_parts(&error, &["manifest has 1 layers", "names 2"]);
    let name = format!("{}.json", "0".repeat(64));
    let text = format!(r#"[{{"Config":"{name}","Layers":[]}}]"#);
    let error =
        bench.error(&archive("digest.tar", &[("manifest.json", text.as_bytes()), (&name, two.as_bytes())]));
    assert_parts(&error, &["config is corrupt", &digest(two.as_bytes()).to_string()]);
}

#[test]
fn files_that_are_no_archives() {
    let bench = Bench::new();
    let whole = fs::read(bench.docker_archive("a.tar", &[("null", "one")])).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(bench.path(name), bytes).unwrap();
        bench.error(&bench.path(name))
    };
    assert_parts(&file("text", b"hello"), &["not an image", "neither a directory nor a tar"]);
    assert_parts(&file("noise", &[b'x'; 4096]), &["not an image", "neither a directory nor a tar"]);
    assert_parts(&file("empty", b""), &["not an image", "empty"]);
    // In the data of the last member, and in its header.
    let manifest_at = whole.windows(13).rposition(|window| window == b"manifest.json").unwrap();
    assert_parts(
        &file("cut1.tar", &whole[..manifest_at + 512 + 10]),
        &["truncated", "manifest.json", "10 are left"],
    );
    assert_parts(&file("cut2.tar", &whole[..manifest_at + 100]), &["bad archive at offset", "truncated"]);
    let mut damaged = whole.clone();
    damaged[manifest_at + 30] ^= 1;
    assert_parts(&file("sum.tar", &damaged), &["bad archive at offset", &manifest_at.to_string()]);
    // Without the zero blocks at the end it is still whole.
    let end = whole.len() - whole.iter().rev().position(|byte| *byte != 0).unwrap();
    fs::write(bench.path("noend.tar"), &whole[..end.next_multiple_of(512)]).unwrap();
    bench.open(&bench.path("noend.tar")).unwrap();
    let fifo = bench.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_parts(&bench.error(&fifo), &["neither a regular file nor a directory"]);
}

#[test]
fn root_directories() {
    let bench = Bench::new();
    let root = bench.path("rootfs");
    fs::create_dir(&root).unwrap();
    for spec in [root.clone(), format!("dir:{root}")] {
        let image = bench.open(&spec).unwrap();
        assert!(matches!(&image.layers[..], [LayerSource::Directory(path)] if path.is_absolute()));
        assert_eq!(bench.open(&image.source).unwrap().config_digest, image.config_digest);
    }
    assert_parts(&bench.error(&format!("dir:{root}:tag")), &["no such file"]);
    fs::write(bench.path("file"), "").unwrap();
    assert_parts(&bench.error(&format!("dir:{}", bench.path("file"))), &["not a directory"]);
}

#[test]
fn a_directory_of_blobs_is_no_root_directory() {
    let bench = Bench::new();
    let path = bench.path("blobs");
    fs::create_dir(&path).unwrap();
    fs::write(format!("{path}/version"), "Directory Transport Version: 1.1\n").unwrap();
    assert!(bench.open(&path).is_ok(), "any directory may have a file of that name");
    fs::write(format!("{path}/manifest.json"), "{}").unwrap();
    assert_parts(&bench.error(&path), &["skopeo copy dir:", "oci:OUT"]);
    assert!(bench.open(&format!("dir:{path}")).is_ok(), "who insists");
}

#[test]
fn names_in_the_store() {
    let bench = Bench::new();
    let oci = bench.store.oci_dir().to_str().unwrap().to_owned();
    for (name, text) in
        [("docker.io/library/app:latest", "full"), ("short:1", "short"), ("localhost/mine:latest", "mine")]
    {
        let (digest, size) = put_image(&oci, text, GZIP_LAYER);
        bench.store.refs().set(name, &Descriptor::new(MEDIA_TYPE_MANIFEST, digest, size as u64)).unwrap();
    }
    let pinned = bench.store.refs().resolve("short:1").unwrap().unwrap().digest;
    for (spec, text, name) in [
        ("app", "full", "app:latest"),
        ("app:latest", "full", "app:latest"),
        ("docker.io/library/app", "full", "app:latest"),
        ("docker.io/library/short:1", "short", "short:1"),
        ("short:1", "short", "short:1"),
        ("docker://short:1", "short", "short:1"),
        ("mine", "mine", "localhost/mine:latest"),
        (&format!("short@{pinned}"), "short", "short:1"),
    ] {
        let image = bench.open(spec).unwrap();
        assert_eq!((salt(&image), image.name.as_str()), (text, name), "{spec}");
        assert_eq!(bench.open(&image.source).unwrap().config_digest, image.config_digest);
    }
    let error = bench.error("short:2");
    assert_parts(&error, &["short:2", "no image of that name", "layerfs pull short:2", &oci]);
    assert_parts(&bench.error("ghcr.io/a/b"), &["layerfs pull ghcr.io/a/b:latest"]);
    assert_parts(&bench.error("No Such"), &["\"No Such\"", "not an image name"]);
    for path in ["/no/such.tar", "./no.tar", "oci:/no/such", "docker-archive:no.tar", "dir:no"] {
        assert_parts(&bench.error(path), &["no such file or directory"]);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What skopeo writes into the store is found there by name; what the store names, skopeo reads; and its archives open.
#[test]
fn skopeo_and_the_store() {
    let bench = Bench::new();
    let source = bench.path("source.tar");
    let layer = fs::read(bench.archive("layer.tar", &[("hello", b"world")])).unwrap();
    let config =
        config(&[digest(&layer)], "skopeo").replace(r#""os""#, r#""created":"2020-01-01T00:00:00Z","os""#);
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["docker.io/library/app:1"],"Layers":["layer.tar"]}]"#;
    bench.archive(
        "source.tar",
        &[("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())],
    );
    let oci = bench.store.oci_dir().to_str().unwrap().to_owned();
    run("skopeo", &["copy", &format!("docker-archive:{source}"), &format!("oci:{oci}:app:1")]);
    let stored = bench.open("app:1").unwrap();
    let LayerSource::Tar(tar) = &stored.layers[0] else { panic!("a directory") };
    assert_eq!(tar.diff_id, digest(&layer));
    assert_eq!(digest(&first_layer(&stored)), tar.blob_digest.unwrap());

    let descriptor = bench.store.refs().resolve("app:1").unwrap().unwrap();
    bench.store.refs().set("docker.io/library/other:2", &descriptor).unwrap();
    let seen = run("skopeo", &["inspect", &format!("oci:{oci}:docker.io/library/other:2")]);
    assert_parts(&seen, &["\"amd64\"", &tar.blob_digest.unwrap().to_string()]);
    let archive = bench.path("copy.tar");
    run("skopeo", &["copy", &format!("oci:{oci}:app:1"), &format!("oci-archive:{archive}:app:1")]);
    for spec in [archive.clone(), format!("oci-archive:{archive}"), format!("{archive}:app:1")] {
        let image = bench.open(&spec).unwrap();
        assert_eq!(image.config_digest, stored.config_digest);
        assert_eq!(first_layer(&image), first_layer(&stored));
        assert_eq!(bench.open(&image.source).unwrap().config_digest, image.config_digest);
    }
    let docker = bench.path("docker.tar");
    run("skopeo", &["copy", &format!("oci:{oci}:app:1"), &format!("docker-archive:{docker}:app:1")]);
    let image = bench.open(&docker).unwrap();
    assert_eq!((image.config_digest, first_layer(&image)), (stored.config_digest, layer));
}

/// An archive that was made with `tar --sparse`, and one whose sparse member claims more than there is.
#[test]
fn sparse_archives() {
    let bench = Bench::new();
    let dir = bench.path("members");
    fs::create_dir(&dir).unwrap();
    let hole = fs::File::create(format!("{dir}/layer.tar")).unwrap();
    hole.set_len(4 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&hole, b"end", (4 << 20) - 3).unwrap();
    fs::write(format!("{dir}/c.json"), config(&[Digest::from_bytes([1; 32])], "x")).unwrap();
    let text = br#"[{"Config":"c.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
    fs::write(format!("{dir}/manifest.json"), text).unwrap();
    let path = bench.path("sparse.tar");
    run(
        "tar",
        &["-C", &dir, "--format=gnu", "--sparse", "-cf", &path, "layer.tar", "c.json", "manifest.json"],
    );
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    assert_parts(&bench.error(&path), &["layer.tar", "without --sparse"]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..1024]).unwrap();
    assert_parts(&bench.error(&path), &["truncated", "layer.tar"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever is done to an archive, the answer is an image or an error, and every layer lies inside the file.
    #[test]
    fn any_damage(flips in prop::collection::vec((0..8192_usize, any::<u8>()), 0..6), cut in prop::option::of(0..8192_usize)) {
        let bench = Bench::new();
        let path = bench.docker_archive("a.tar", &[(r#"["a:1"]"#, "one"), (r#"["b:1"]"#, "two")]);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in flips {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        fs::write(&path, &bytes).unwrap();
        if let Ok(image) = bench.open(&format!("{path}:b:1")) {
            for layer in &image.layers {
                let LayerSource::Tar(tar) = layer else { panic!("a directory") };
                prop_assert!(tar.blob.offset() + tar.blob.len() <= bytes.len() as u64);
            }
        }
    }
}
