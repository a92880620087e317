//! Images of the store are listed, named, removed and checked; skopeo, umoci and podman write it and judge it.
//!
//! Nothing here needs a mount. What skopeo and umoci say of the layout counts, and the layout must be whole at every moment.

macro_rules! needs_judges {
    () => {
        if !$crate::images::has_judges() {
            skip!("must run: no skopeo, or no umoci");
        }
    };
}

mod crowds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::*;

/// Layouts that others copy images from, and a store.
struct Images {
    place: Place,
}

/// Puts a blob into a layout and gives its descriptor.
fn put(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&digest), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

fn tar_of(name: &str, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

/// Writes an image of two layers, the lower of which all have; gives the manifest's descriptor and the id.
fn write_image(layout: &Path, salt: &str, created: u64) -> (Value, String) {
    let tars = [
        tar_of("shared", &"the same in all\n".repeat(1000)),
        tar_of("own", &format!("{salt}\n").repeat(500)),
    ];
    let layers = tars.each_ref().map(|tar| put(layout, "application/vnd.oci.image.layer.v1.tar", tar));
    let minutes = format!("2001-02-03T{:02}:{:02}:{:02}Z", created / 3600, created / 60 % 60, created % 60);
    let config = json!({
        "created": minutes, "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["sh"], "Labels": { "salt": salt } },
        "rootfs": { "type": "layers", "diff_ids": [layers[0]["digest"], layers[1]["digest"]] },
        "history": [
            { "created": minutes, "created_by": "ADD shared" },
            { "created": minutes, "created_by": "ENV a=b", "empty_layer": true },
            { "created": minutes, "created_by": format!("COPY {salt}"), "comment": "told" },
        ],
    });
    let config = put(layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let id = config["digest"].as_str().unwrap().to_owned();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    (put(layout, media_type, manifest.to_string().as_bytes()), id)
}

fn write_index(layout: &Path, entries: &[(String, Value)]) {
    let named = |(name, descriptor): &(String, Value)| {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        descriptor
    };
    let entries: Vec<Value> = entries.iter().map(named).collect();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": entries }).to_string())
        .unwrap();
}

impl Images {
    fn new() -> Self {
        let images = Self { place: Place::new() };
        images.run(&["images"]).ok();
        images
    }

    fn run(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    fn layout(&self) -> PathBuf {
        self.place.store().join("oci")
    }

    fn skopeo(&self, words: &[&str]) -> Done {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "--tmpdir"]).arg(self.place.path("")).args(words);
        // It wants a home, and finds none that it may use as some users.
        finish(skopeo.env("HOME", self.place.path("")).env("XDG_RUNTIME_DIR", self.place.path("")))
    }

    /// Has skopeo bring an image; gives its id.
    #[track_caller]
    fn bring(&self, salt: &str, created: u64, name: &str) -> String {
        let source = self.place.path(&format!("source-{salt}"));
        let (manifest, id) = write_image(&source, salt, created);
        write_index(&source, &[("it".to_owned(), manifest)]);
        let (from, to) =
            (format!("oci:{}:it", source.display()), format!("oci:{}:{name}", self.layout().display()));
        self.skopeo(&["copy", "-q", &from, &to]).ok();
        id
    }

    /// What skopeo reads under a name: the config's digest.
    fn id_by_skopeo(&self, name: &str) -> Option<String> {
        let done = self.skopeo(&["inspect", "--raw", &format!("oci:{}:{name}", self.layout().display())]);
        let manifest: Option<Value> = serde_json::from_str(&done.out).ok();
        (done.code == 0).then(|| manifest.unwrap()["config"]["digest"].as_str().unwrap().to_owned())
    }

    /// The whole image as skopeo copies it, with every digest checked.
    #[track_caller]
    fn is_whole(&self, name: &str) {
        let to = self.place.path("copied");
        fs::remove_dir_all(&to).ok();
        let from = format!("oci:{}:{name}", self.layout().display());
        self.skopeo(&["copy", "-q", &from, &format!("dir:{}", to.display())]).ok();
    }

    fn names_by_umoci(&self) -> BTreeSet<String> {
        let mut umoci = Command::new("umoci");
        let done = finish(umoci.arg("ls").arg("--layout").arg(self.layout()));
        done.ok().lines().map(str::to_owned).collect()
    }

    fn blobs(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.layout().join("blobs/sha256")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[track_caller]
    fn list(&self, form: &str, options: &[&str]) -> String {
        let done = self.run(&[&["images", "--format", form], options].concat());
        done.ok().replace('\n', " ")
    }

    #[track_caller]
    fn is_clean(&self) {
        let done = self.run(&["store", "check"]);
        assert!(done.code == 0 && done.out.starts_with("good: "), "{done:#?}");
    }
}

fn has_judges() -> bool {
    ["skopeo", "umoci"].iter().all(|name| Path::new("/usr/bin").join(name).exists())
}

#[test]
fn what_skopeo_brings_is_listed_named_and_removed() {
    needs_judges!();
    let images = Images::new();
    let old = images.bring("old", 60, "app:1");
    let young = images.bring("young", 120, "localhost/tool:2");
    images.bring("young", 120, "docker.io/library/other:latest");
    let rows = "{{.Repository}}:{{.Tag}}";
    assert_eq!(images.list(rows, &[]), "localhost/tool:2 other:latest app:1");
    assert_eq!(images.id_by_skopeo("app:1"), Some(old.clone()));
    let ids = images.run(&["images", "-q", "--no-trunc"]);
    assert_eq!(ids.ok(), format!("{young}\n{old}"));
    let table = images.run(&["images"]);
    let lines: Vec<Vec<&str>> = table.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(lines[3][..3], ["app", "1", &old["sha256:".len()..][..12]]);
    assert_eq!(images.run(&["image", "list", "-n"]).ok().lines().count(), 3);
    assert_eq!(images.run(&["images", "app"]).ok().lines().count(), 2);
    // The sizes are those of the blobs.
    let size =
        |digest: &str| fs::metadata(images.layout().join("blobs/sha256").join(&digest[7..])).unwrap().len();
    let list: Value = serde_json::from_str(images.run(&["images", "--format", "json", "app"]).ok()).unwrap();
    let manifest = images.skopeo(&["inspect", "--raw", &format!("oci:{}:app:1", images.layout().display())]);
    let parts: Value = serde_json::from_str(manifest.ok()).unwrap();
    let layers: Vec<u64> =
        parts["layers"].as_array().unwrap().iter().map(|one| one["size"].as_u64().unwrap()).collect();
    let whole = layers.iter().sum::<u64>() + size(&old) + manifest.out.len() as u64;
    assert_eq!((list[0]["Size"].as_u64(), list[0]["Labels"]["salt"].as_str()), (Some(whole), Some("old")));
    // And those of the history.
    let history: Value =
        serde_json::from_str(images.run(&["history", "--format", "json", "app:1"]).ok()).unwrap();
    let steps: Vec<(u64, &str)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["size"].as_u64().unwrap(), step["CreatedBy"].as_str().unwrap()))
        .collect();
    assert_eq!(steps, [(layers[1], "COPY old"), (0, "ENV a=b"), (layers[0], "ADD shared")]);
    let ids = images.run(&["image", "history", "-q", "app:1"]);
    assert_eq!(ids.ok(), format!("{}\n<missing>\n<missing>", &old[7..19]));

    images.run(&["tag", "app:1", "app:2", "quay.io/me/app"]).ok();
    assert_eq!(images.id_by_skopeo("app:2"), Some(old.clone()));
    assert!(images.names_by_umoci().contains("quay.io/me/app:latest"));
    assert_eq!(images.run(&["rmi", "app:1"]).ok(), "Untagged: app:1");
    assert_eq!(images.id_by_skopeo("app:1"), None);
    let by_id = images.run(&["rmi", &old[7..17]]);
    assert!(by_id.code == 125 && by_id.err.contains("please force removal"), "{by_id:#?}");
    images.run(&["untag", "app:2", "quay.io/me/app"]).ok();
    // skopeo has left nothing else in the layout that is young and led to by nothing.
    let removed = images.run(&["rmi", "app:2"]);
    assert_eq!(
        (removed.ok(), removed.err.as_str()),
        (format!("Untagged: app:2\nDeleted: {old}").as_str(), "")
    );
    assert!(!images.blobs().contains(&old[7..]));
    images.is_whole("localhost/tool:2");
    images.is_clean();
    assert_eq!(
        images.names_by_umoci(),
        BTreeSet::from(["docker.io/library/other:latest".into(), "localhost/tool:2".into()])
    );
    images.run(&["rmi", "-f", &young]).ok();
    assert_eq!(images.blobs(), BTreeSet::new());
}

#[test]
fn exit_codes_and_several_at_once() {
    needs_judges!();
    let images = Images::new();
    images.bring("one", 1, "one:1");
    images.bring("two", 2, "two:1");
    assert_eq!(images.run(&["image", "exists", "one:1"]).code, 0);
    assert_eq!(images.run(&["image", "exists", "none"]).code, 1);
    let done = images.run(&["rmi", "none", "one:1"]);
    assert!(
        done.code == 1 && done.err.contains("none: image not known") && done.out.contains("Untagged: one:1"),
        "{done:#?}"
    );
    images.run(&["rmi", "-i", "none"]).ok();
    images.run(&["create", "--name", "user", "two:1", "sh"]).ok();
    let done = images.run(&["rmi", "two:1"]);
    assert!(done.code == 2 && done.err.contains("in use by container"), "{done:#?}");
    assert_eq!(images.run(&["rmi", "two:1", "none"]).code, 125);
    assert_eq!(images.run(&["rmi", "-a"]).code, 2);
    assert_eq!(images.run(&["rmi", "-f", "two:1"]).ok(), "Untagged: two:1");
    let before = images.blobs();
    assert_eq!(images.list("{{.Repository}}", &[]), "<none>");
    assert_eq!(images.run(&["image", "prune", "-a", "-f"]).ok(), "Total reclaimed space: 0B");
    assert_eq!(images.blobs(), before);
    images.run(&["rm", "user"]).ok();
    let done = images.run(&["image", "prune", "-f"]);
    assert!(done.ok().starts_with("Deleted Images:\ndeleted: sha256:"), "{done:#?}");
    assert_eq!(images.blobs(), BTreeSet::new());
    assert_eq!(images.run(&["image", "prune"]).code, 125, "nobody is there to ask");
}

#[test]
fn images_are_found_by_their_ids() {
    needs_judges!();
    let images = Images::new();
    let id = images.bring("one", 1, "one:1");
    for text in [&id, &id[7..], &id[7..15], "one:1"] {
        let done = images.run(&["image", "inspect", "--format", "{{.Id}} {{.Name}}", text]);
        assert_eq!(done.ok(), format!("{id} one:1"), "{text}");
    }
    images.run(&["create", "--name", "by-id", &id[7..19], "sh"]).ok();
    assert_eq!(images.run(&["rmi", "one:1"]).code, 2);
}

#[test]
fn a_name_that_moves_leaves_an_image_without_one() {
    needs_judges!();
    let images = Images::new();
    let old = images.bring("old", 1, "app:1");
    let new = images.bring("new", 2, "app:1");
    let dangling = ["--filter", "dangling=true"];
    assert_eq!(images.list("{{.Repository}} {{.ID}}", &dangling), format!("<none> {}", &old[7..19]));
    let done = images.run(&["image", "prune", "-f"]);
    assert!(done.ok().contains(&format!("deleted: {old}")), "{done:#?}");
    assert_eq!(images.list("{{.ID}}", &[]), &new[7..19]);
    images.is_whole("app:1");
    images.is_clean();
}

#[test]
fn nothing_goes_while_somebody_writes() {
    needs_judges!();
    let images = Images::new();
    images.bring("one", 1, "one:1");
    let received = images.layout().join("oci-put-blob123456");
    fs::write(&received, "half a layer").unwrap();
    let done = images.run(&["rmi", "one:1"]);
    assert!(done.code == 0 && done.err.contains("another program seems to be writing"), "{done:#?}");
    assert_eq!(images.blobs().len(), 4);
    // What it used again is there when it has written the name.
    images.bring("one", 1, "again:1");
    fs::remove_file(&received).unwrap();
    images.is_whole("again:1");
    images.run(&["rmi", "again:1"]).ok();
    assert_eq!(images.blobs(), BTreeSet::new());
}

#[test]
fn podman_reads_what_was_named_here() {
    needs_judges!();
    if !is_root() || !Path::new("/usr/bin/podman").exists() {
        skip!("podman as an ordinary user needs a session of its own");
    }
    let images = Images::new();
    let id = images.bring("one", 1, "one:1");
    images.run(&["tag", "one:1", "two:1"]).ok();
    let (root, run) = (images.place.path("podman"), images.place.path("podman-run"));
    let podman = |words: &[&str]| {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(&root).arg("--runroot").arg(&run);
        finish(podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(words))
    };
    let from = format!("oci:{}:two:1", images.layout().display());
    let to = format!("containers-storage:[vfs@{}+{}]localhost/two:1", root.display(), run.display());
    images.skopeo(&["copy", "-q", &from, &to]).ok();
    let pulled = podman(&["images", "-q", "--no-trunc"]);
    assert_eq!(pulled.ok(), id);
    let steps = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    let form = ["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}"];
    let theirs = podman(&[&form[..], &["localhost/two:1"]].concat());
    let ours = images.run(&[&form[..], &["two:1"]].concat());
    assert_eq!(steps(ours.ok()), steps(theirs.ok()));
    // Its lists have the same columns.
    let headings =
        |done: &Done| done.ok().lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(headings(&images.run(&["images"])), headings(&podman(&["images"])));
    assert_eq!(
        headings(&images.run(&["history", "two:1"])),
        headings(&podman(&["history", "localhost/two:1"])).replace("ID", "IMAGE")
    );
}

#[test]
fn damage_is_found_and_put_aside() {
    needs_judges!();
    let images = Images::new();
    let id = images.bring("one", 1, "one:1");
    images.bring("two", 2, "two:1");
    images.is_clean();
    let manifest = images.skopeo(&["inspect", "--raw", &format!("oci:{}:one:1", images.layout().display())]);
    let parts: Value = serde_json::from_str(manifest.ok()).unwrap();
    let layer = parts["layers"][1]["digest"].as_str().unwrap()[7..].to_owned();
    let blob = images.layout().join("blobs/sha256").join(&layer);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    fs::write(images.place.store().join("images.json"), "nonsense").unwrap();
    let done = images.run(&["store", "check"]);
    assert_eq!(done.code, 1, "{done:#?}");
    for told in
        [format!("blob sha256:{layer} is damaged"), "image \"one:1\": its layer".into(), "images.json".into()]
    {
        assert!(done.out.contains(&told), "{told}: {done:#?}");
    }
    assert!(!done.out.contains("two:1") && blob.exists(), "{done:#?}");
    let done = images.run(&["store", "check", "--repair"]);
    assert!(done.code == 1 && done.out.contains("not repaired: bring the image again"), "{done:#?}");
    assert!(!blob.exists() && images.place.store().join("damaged").join(&layer).exists());
    // Whoever brings it again writes what is missing.
    assert_eq!(images.bring("one", 1, "one:1"), id);
    images.is_whole("one:1");
    images.is_clean();
    // A name that leads nowhere is dropped and told.
    let digest = images.run(&["images", "--format", "{{.Digest}}", "two"]);
    fs::remove_file(images.layout().join("blobs/sha256").join(&digest.ok()[7..])).unwrap();
    let done = images.run(&["store", "check", "--repair"]);
    assert!(
        done.code == 0 && done.out.contains("image \"two:1\"") && done.out.contains("dropped"),
        "{done:#?}"
    );
    assert_eq!(images.names_by_umoci(), BTreeSet::from(["one:1".to_owned()]));
    images.is_clean();
}
