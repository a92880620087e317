//! Images pushed to Debian's docker-registry are there what they were here, and nothing is sent twice.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::*;

/// A registry on the loopback, which ends with its test.
pub(crate) struct Registry {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    log: PathBuf,
}

impl Registry {
    pub(crate) fn program() -> Option<PathBuf> {
        let tools =
            std::env::var_os("LAYERFS_TEST_TOOLS").unwrap_or_else(|| "/var/cache/layerfs-test-tools".into());
        let places =
            [Path::new(&tools).join("bin/docker-registry"), PathBuf::from("/usr/bin/docker-registry")];
        places.into_iter().find(|path| path.exists())
    }

    pub(crate) fn start(program: &Path, place: &Place) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let (config, log) = (place.path("registry.yml"), place.path("registry.log"));
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{host}'}}\n",
            place.path("registry").display()
        );
        fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .env("OTEL_TRACES_EXPORTER", "none")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, host, log };
        assert!(eventually(|| registry.get("/v2/").starts_with("HTTP/1.0 200")), "no registry");
        registry
    }

    /// What it answers.
    fn get(&self, path: &str) -> String {
        let mut text = String::new();
        let Ok(mut stream) = TcpStream::connect(&self.host) else { return text };
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        stream.read_to_string(&mut text).unwrap_or_default();
        text
    }

    /// The requests of clients that change something, since the last time.
    fn changes(&self, seen: &mut usize) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        let all: Vec<&str> = log.lines().filter_map(|line| line.split('"').nth(1)).collect();
        let new = all[*seen..].iter().filter(|line| !line.starts_with("GET") && !line.starts_with("HEAD"));
        let new = new.map(|line| (*line).to_owned()).collect();
        *seen = all.len();
        new
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
    }
}

macro_rules! needs_registry {
    () => {{
        if !image("tiny").join("stamp").exists() {
            skip!("must run: no test image: run scripts/images");
        }
        let Some(program) = Registry::program() else {
            skip!("must run: no docker-registry: run scripts/install")
        };
        program
    }};
}

mod attached;

/// The layout that the test image lies in.
fn layout() -> PathBuf {
    image("tiny").join("oci")
}

/// The digest of its manifest.
fn manifest_digest(layout: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// The blobs that a manifest refers to.
fn parts(layout: &Path, digest: &str) -> Vec<String> {
    let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.chain([&manifest["config"]]).map(|part| part["digest"].as_str().unwrap().to_owned()).collect()
}

/// Puts the test image under these names into the store.
fn fill(place: &Place, names: &[&str]) {
    place.layerfs(&["ps"]).ok();
    for name in names {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "-q", "--insecure-policy"]).arg(format!("oci:{}:latest", layout().display()));
        skopeo.arg(format!("oci:{}:{name}", place.store().join("oci").display()));
        finish(&mut skopeo).ok();
    }
}

fn skopeo(arguments: &[&str]) -> Done {
    let mut skopeo = Command::new("skopeo");
    finish(skopeo.args(arguments))
}

/// What skopeo finds under a name: the digest of its bytes.
fn found(place: &Place, name: &str) -> String {
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let path = place.path("raw");
    raw.ok();
    fs::write(&path, &raw.out).unwrap();
    format!("sha256:{}", sha256(&path))
}

#[test]
fn what_is_pushed_is_what_was_there() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let mut seen = 0;
    let digest = manifest_digest(&layout());
    let parts = parts(&layout(), &digest);
    let name = format!("{}/some/where:1", registry.host);
    let digestfile = place.path("digest");
    let push = |options: &[&str]| {
        let mut command = place.command();
        command
            .arg("push")
            .args(options)
            .arg("--digestfile")
            .arg(&digestfile)
            .arg(layout())
            .arg(format!("docker://{name}"));
        finish(&mut command)
    };
    registry.changes(&mut seen);
    let done = push(&[]);
    assert!(done.ok().starts_with(&format!("1: digest: {digest} size: ")), "{done:#?}");
    assert_eq!(
        done.err.lines().filter(|line| line.ends_with(": Pushed")).count(),
        parts.len() - 1,
        "{done:#?}"
    );
    assert_eq!(fs::read_to_string(&digestfile).unwrap(), digest);
    assert_eq!(found(&place, &name), digest);
    let sent = registry.changes(&mut seen);
    assert_eq!(sent.iter().filter(|line| line.starts_with("POST")).count(), parts.len(), "{sent:#?}");
    // Others get the same bytes.
    let back = place.path("back");
    let to = format!("oci:{}:latest", back.display());
    skopeo(&["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &format!("docker://{name}"), &to])
        .ok();
    assert_eq!(manifest_digest(&back), digest);
    for part in &parts {
        assert_eq!(format!("sha256:{}", sha256(&back.join("blobs/sha256").join(&part[7..]))), *part);
    }
    // The second time only the manifest goes.
    registry.changes(&mut seen);
    let done = push(&["-q"]);
    assert_eq!((done.ok(), done.err.as_str()), ("", ""));
    let sent = registry.changes(&mut seen);
    assert!(matches!(&sent[..], [one] if one.starts_with("PUT /v2/some/where/manifests/1")), "{sent:#?}");
    let done = push(&[]);
    assert_eq!(
        done.err.lines().filter(|line| line.ends_with(": Layer already exists")).count(),
        parts.len() - 1
    );
}

#[test]
fn archives_of_docker_save_get_a_manifest() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let name = format!("{}/from/archive", registry.host);
    let archive = image("tiny").join("docker.tar");
    let push =
        || place.layerfs(&[OsStr::new("push"), archive.as_os_str(), OsStr::new(&name)]).ok().to_owned();
    let first = push();
    assert!(first.starts_with(&format!("latest: digest: {} ", found(&place, &name))), "{first}");
    assert_eq!(push(), first);
    // skopeo checks every digest on the way, and podman's idea of the image is the archive's.
    let (back, again) = (place.path("back"), format!("docker-archive:{}", archive.display()));
    let to = format!("oci:{}:latest", back.display());
    skopeo(&["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &format!("docker://{name}"), &to])
        .ok();
    let config = |spec: &str| {
        let text = skopeo(&["inspect", "--config", spec]).ok().to_owned();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        (config["rootfs"].clone(), config["config"].clone())
    };
    assert_eq!(config(&to), config(&again));
}

#[test]
fn tags_and_repositories_share_what_is_there() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let host = &registry.host;
    let mut seen = 0;
    let digest = manifest_digest(&layout());
    fill(&place, &[&format!("{host}/one/app:1"), &format!("{host}/one/app:2"), &format!("{host}/two/app:1")]);
    let done = place.layerfs(&["push", &format!("{host}/one/app:1")]);
    assert!(done.ok().starts_with(&format!("1: digest: {digest}")), "{done:#?}");
    registry.changes(&mut seen);
    // Another tag: one document.
    place.layerfs(&["push", &format!("{host}/one/app:2")]).ok();
    let sent = registry.changes(&mut seen);
    assert!(matches!(&sent[..], [one] if one.starts_with("PUT /v2/one/app/manifests/2")), "{sent:#?}");
    // Another repository: the registry takes over what it has.
    let done = place.layerfs(&["push", &format!("{host}/two/app:1")]);
    assert!(done.err.contains(": Mounted from one/app"), "{done:#?}");
    assert_eq!(found(&place, &format!("{host}/two/app:1")), digest);
    let sent = registry.changes(&mut seen);
    let (mounts, rest): (Vec<_>, Vec<_>) = sent
        .iter()
        .partition(|line| line.starts_with("POST") && line.contains("from=one") && line.contains("mount="));
    assert_eq!(mounts.len(), parts(&layout(), &digest).len(), "{sent:#?}");
    assert!(matches!(&rest[..], [one] if one.starts_with("PUT /v2/two/app/manifests/1")), "{sent:#?}");
    // What is remembered may be wrong, or gone.
    fs::write(place.store().join("pushed.json"), "{").unwrap();
    place.layerfs(&["push", &format!("{host}/one/app:1"), &format!("{host}/three/app:1")]).ok();
    assert_eq!(found(&place, &format!("{host}/three/app:1")), digest);
    // All tags of a name, each by its own.
    let done = place.layerfs(&["push", "--all-tags", &format!("{host}/one/app")]);
    let tags: Vec<&str> = done.ok().lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(tags, ["1", "2"]);
    let none = place.layerfs(&["push", "-a", &format!("{host}/none")]);
    assert!(none.code == 125 && none.err.contains("no image of that name"), "{none:#?}");
}

#[test]
fn tags_are_listed() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let name = format!("{}/some/app", registry.host);
    for tag in ["1", "2", "3"] {
        let to = format!("{name}:{tag}");
        place.layerfs(&[OsStr::new("push"), OsStr::new("-q"), layout().as_os_str(), OsStr::new(&to)]).ok();
    }
    let table = place.layerfs(&["search-tags", &name]);
    // In whatever order the registry has them.
    let mut rows: Vec<Vec<&str>> = table.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.remove(0), ["NAME", "TAG"]);
    rows.sort_unstable();
    assert_eq!(rows, [[&name, "1"], [&name, "2"], [&name, "3"]]);
    let json = place.layerfs(&["search", "--list-tags", "--format", "json", "--limit", "2", &name]);
    let listed: serde_json::Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!((&listed[0]["Name"], listed[0]["Tags"].as_array().unwrap().len()), (&name.clone().into(), 2));
    assert!(json.err.contains("more tags"), "{json:#?}");
    let tags = place.layerfs(&["search-tags", "--format", "{{.Tag}}", &name]);
    let mut tags: Vec<&str> = tags.ok().lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2", "3"]);
    let none = place.layerfs(&["search-tags", &format!("{}/none", registry.host)]);
    assert!(none.code == 125 && none.err.contains("not found"), "{none:#?}");
    let search = place.layerfs(&["search", "something"]);
    assert!(search.code == 125 && search.err.contains("layerfs search-tags something"), "{search:#?}");
}

#[test]
fn podman_runs_what_was_pushed() {
    let program = needs_registry!();
    let place = Place::new();
    let registry = Registry::start(&program, &place);
    let name = format!("{}/some/app:1", registry.host);
    let podman = |arguments: &[&str]| {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(place.path("podman")).arg("--runroot").arg(place.path("podman-run"));
        finish(podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(arguments))
    };
    if podman(&["info"]).code != 0 {
        skip!("podman does not work for this user");
    }
    // One whose files belong to nobody that a user has no id for.
    let tar = place.path("root.tar");
    shell(
        r#"mkdir "$1" && echo hello >"$1/file" && tar -C "$1" --owner 0 --group 0 -cf "$2" ."#,
        &[&place.path("root"), &tar],
    )
    .ok();
    place.layerfs(&["import", tar.to_str().unwrap(), &name]).ok();
    place.layerfs(&["push", "-q", "--with-index", &name]).ok();
    let pushed = place.layerfs(&["image", "inspect", "--format", "{{.Digest}}", &name]).ok().to_owned();
    let pulled = podman(&["pull", "-q", "--tls-verify=false", &name]);
    let digest = podman(&["image", "inspect", "--format", "{{.Digest}}", &name]);
    // Removed by itself: files of other ids are in it.
    let removed = podman(&["rmi", "-f", &name]);
    pulled.ok();
    assert_eq!(digest.ok(), pushed);
    removed.ok();
}

#[test]
fn damage_is_not_pushed() {
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
    let done = place.layerfs(&["push", &name]);
    assert!(done.code == 125 && done.err.contains(&layer) && done.err.contains("damaged"), "{done:#?}");
    assert!(registry.get("/v2/some/app/manifests/1").starts_with("HTTP/1.0 404"), "nothing has the tag");
    assert!(
        registry.get(&format!("/v2/some/app/blobs/{layer}")).starts_with("HTTP/1.0 404"),
        "it is not there"
    );
}

#[test]
fn what_cannot_be_pushed_is_told() {
    let place = Place::new();
    fs::create_dir(place.path("plain")).unwrap();
    let plain = place.path("plain").display().to_string();
    // Nobody listens on port 1.
    for (arguments, words) in [
        (&["push", &plain, "127.0.0.1:1/x"][..], &["plain directory", "layerfs build"][..]),
        (
            &["push", "--compression-format", "zstd", &plain, "127.0.0.1:1/x"],
            &["--compression-format", "skopeo"],
        ),
        (&["push", "--remove-signatures", "x"], &["--remove-signatures"]),
        (&["push", "nothing/here"], &["nothing/here", "no image"]),
        (&["push", &plain, "oci:/tmp/x"], &["only registries"]),
        (&["push", "-a", "x:1"], &["--all-tags"]),
    ] {
        let done = place.layerfs(arguments);
        assert!(
            done.code == 125 && words.iter().all(|word| done.err.contains(word)),
            "{arguments:?}: {done:#?}"
        );
    }
    if image("tiny").join("stamp").exists() {
        let layout = layout().display().to_string();
        let done = place.layerfs(&["push", &layout]);
        assert!(done.code == 125 && done.err.contains("DESTINATION"), "{done:#?}");
        let done = place.layerfs(&["push", &layout, "127.0.0.1:1/x"]);
        assert!(done.code == 125 && done.err.contains("127.0.0.1:1"), "{done:#?}");
    }
}
