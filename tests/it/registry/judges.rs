//! docker-registry as a mirror, behind TLS with passwords, and behind certificates of its clients; and logging in to it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Guarded, Hub, blobs, why_not};
use crate::support::{Done, Place, eventually, finish, image, layerfs_path, sha256, shell, support_file};

/// The same command for somebody with a home directory in the place, and nothing said anywhere else.
pub(super) fn at_home<'a>(place: &Place, command: &'a mut Command) -> &'a mut Command {
    for (variable, dir) in [("HOME", "home"), ("XDG_RUNTIME_DIR", "run")] {
        fs::create_dir_all(place.path(dir)).unwrap();
        command.env(variable, place.path(dir));
    }
    let others = ["REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF"];
    for other in others.into_iter().chain(["SSL_CERT_FILE", "SSL_CERT_DIR"]) {
        command.env_remove(other);
    }
    command
}

/// `layerfs WORDS` of that one.
pub(super) fn layerfs(place: &Place, words: &[&str]) -> Done {
    finish(at_home(place, place.command().args(words)))
}

/// Where that one's configuration of containers is.
fn configuration(place: &Place) -> std::path::PathBuf {
    let dir = place.path("home/.config/containers");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// As if nothing had ever been pulled.
pub(super) fn forget(place: &Place) {
    fs::remove_dir_all(place.store()).unwrap();
}

/// Makes a layout of an image of plain tars, each with a file of so many zeros. Gives the digest of its manifest.
pub(super) fn image_of(dir: &Path, sizes_mib: &[u64]) -> String {
    let all = dir.join("blobs/sha256");
    fs::create_dir_all(&all).unwrap();
    let (part, file) = (dir.join("part"), dir.join("zeros"));
    let put = |kind: &str| {
        let (digest, size) = (sha256(&part), fs::metadata(&part).unwrap().len());
        fs::rename(&part, all.join(&digest)).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size})
    };
    let mut layers = Vec::new();
    for mib in sizes_mib {
        File::create(&file).unwrap().set_len(mib << 20).unwrap();
        shell(r#"tar -C "$1" --mtime @0 --owner 0 --group 0 -cf "$1/part" zeros"#, &[dir]).ok();
        layers.push(put("layer.v1.tar"));
    }
    fs::remove_file(&file).unwrap();
    let save = |document: &Value| fs::write(&part, document.to_string()).unwrap();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    save(
        &json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}),
    );
    let config = put("config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    save(&json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}));
    let manifest = put("manifest.v1+json");
    let digest = manifest["digest"].as_str().unwrap().to_owned();
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    digest
}

#[test]
fn a_pull_through_mirror() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::No);
    let proxy = format!("proxy: {{remoteurl: 'http://{}'}}\n", hub.host);
    let mirror = Hub::serve(&place, "mirror", Guarded::No, &proxy);
    let rule = format!(
        "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
        hub.host, mirror.host
    );
    fs::write(configuration(&place).join("registries.conf"), rule).unwrap();
    let name = hub.name("tiny:1");
    let (manifest, config) = hub.digests("tiny:1");
    let done = layerfs(&place, &["pull", &name]);
    assert_eq!(format!("sha256:{}", done.ok()), config);
    assert!(done.err.contains(&format!("Digest: {manifest}")), "{done:?}");
    let is_ours = |log: &str| log.lines().any(|line| line.contains("\"layerfs/"));
    assert!(is_ours(&mirror.log()) && !is_ours(&hub.log()), "{}", hub.log());
    // It is under the name that was asked for.
    layerfs(&place, &["verify", &name]).ok();
    let pulled = blobs(&place);

    // What is pushed goes to the registry itself, and is there for the mirror.
    let other = hub.name("other/app:2");
    layerfs(&place, &["push", &name, &other]).ok();
    assert_eq!(hub.digests("other/app:2"), (manifest.clone(), config.clone()));
    let log = mirror.log();
    assert!(!["\"POST ", "\"PUT ", "\"PATCH "].iter().any(|verb| log.contains(verb)), "{log}");
    assert_eq!(mirror.digests("other/app:2"), (manifest, config.clone()));

    // It keeps what it has passed on, a little later.
    let kept = r#"find "$1" -path '*/repositories/tiny/_layers/*' -name link | wc -l"#;
    let files = mirror.dir.join("files");
    let parts = (pulled.len() - 1).to_string();
    assert!(eventually(|| shell(kept, &[&files]).ok() == parts), "{}", mirror.log());
    drop(hub);
    forget(&place);
    let done = layerfs(&place, &["pull", "-q", &name]);
    assert_eq!(format!("sha256:{}", done.ok()), config);
    assert_eq!(blobs(&place), pulled);
    let done = layerfs(&place, &["push", &name]);
    assert_eq!(done.code, 125, "the mirror is not pushed to: {done:?}");
}

#[test]
fn pushed_with_tls_and_a_password() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::serve(&place, "hub", Guarded::Yes, "");
    let from = place.path("layout");
    // One that goes at once, and one that needs more than one piece.
    let digest = image_of(&from, &[1, 70]);
    let name = hub.name("some/app:1");
    let ask = |verb: &str, creds: &str, names: &[&str]| {
        let mut command = place.command();
        at_home(&place, command.args([verb, "-q", "--tls-verify", "--creds", creds]).args(names));
        finish(command.env("SSL_CERT_FILE", hub.dir.join("ca.pem")))
    };
    let names = [from.to_str().unwrap(), &name];
    let wrong = ask("push", "me:guessed", &names);
    assert!(
        wrong.code == 125 && wrong.err.contains("access denied") && !wrong.err.contains("guessed"),
        "{wrong:?}"
    );
    let repositories = hub.dir.join("files/docker/registry/v2/repositories");
    assert!(!repositories.exists(), "{}", hub.log());
    let stranger = layerfs(&place, &["push", "-q", "--tls-verify", "--creds", "me:pw", names[0], names[1]]);
    assert!(stranger.code == 125 && stranger.err.contains("certs.d"), "{stranger:?}");

    ask("push", "me:pw", &names).ok();
    assert_eq!(hub.digests("some/app:1").0, digest);
    let log = hub.log();
    let count =
        |verb: &str| log.lines().filter(|line| line.contains(verb) && line.contains("\"layerfs/")).count();
    assert_eq!(count("\"PATCH /v2/some/app/blobs/uploads/"), 2, "70 MiB are two pieces: {log}");
    assert_eq!(count("\"PUT /v2/some/app/blobs/uploads/"), 3, "each of layers and config has an end: {log}");

    let wrong = ask("pull", "me:guessed", &[&name]);
    assert!(wrong.code == 125 && wrong.err.contains("access denied"), "{wrong:?}");
    assert_eq!(layerfs(&place, &["images", "-q"]).ok(), "");
    let pulled = ask("pull", "me:pw", &[&name]);
    assert_eq!(format!("sha256:{}", pulled.ok()), hub.digests("some/app:1").1);
    let inspected = layerfs(&place, &["image", "inspect", "--format", "{{.Digest}}", &name]);
    assert_eq!(inspected.ok(), digest);
    assert_eq!(blobs(&place).len(), 4);
}

#[test]
fn client_certificates() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    // skopeo has a certificate.
    let hub = Hub::start(&place, Guarded::ByCertificates);
    let (_, config) = hub.digests("tiny:1");
    let name = hub.name("tiny:1");
    let certificates = configuration(&place).join("certs.d").join(&hub.host);
    fs::create_dir_all(&certificates).unwrap();
    let own = hub.dir.join("certs");
    symlink(own.join("ca.crt"), certificates.join("ca.crt")).unwrap();
    let layout = image("tiny").join("oci");
    let push = ["push", "-q", "--tls-verify", layout.to_str().unwrap(), &hub.name("pushed:1")];
    for words in [&["pull", "--tls-verify", &name][..], &["pull", &name], &push] {
        let done = layerfs(&place, words);
        assert!(done.code == 125 && done.err.contains("client.cert"), "{done:?}");
    }
    assert_eq!(layerfs(&place, &["images", "-q"]).ok(), "");
    // Half of it is none.
    symlink(own.join("client.cert"), certificates.join("client.cert")).unwrap();
    let done = layerfs(&place, &["pull", &name]);
    assert!(done.code == 125 && done.err.contains("client.key"), "{done:?}");
    symlink(own.join("client.key"), certificates.join("client.key")).unwrap();
    let done = layerfs(&place, &["pull", "--tls-verify", &name]);
    assert_eq!(format!("sha256:{}", done.ok()), config);
    blobs(&place);
    layerfs(&place, &push).ok();
    assert_eq!(hub.digests("pushed:1"), hub.digests("tiny:1"));
}

/// `layerfs WORDS` at a terminal; the steps are those of `dialog.py`. Gives what was shown last.
#[track_caller]
fn dialog(place: &Place, steps: &[(&str, &str)], words: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.arg(support_file("dialog.py")).args(steps.iter().flat_map(|(step, text)| [step, text]));
    command.arg("--").arg(layerfs_path()).args(words).env("LAYERFS_ROOT", place.store());
    let done = finish(at_home(place, &mut command));
    assert_eq!(done.code, 0, "{steps:?} {done:#?}");
    done.out
}

#[test]
fn login_at_a_terminal() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::Yes);
    let name = hub.name("tiny:1");
    let kept = place.path("run/containers/auth.json");
    let words = ["login", hub.host.as_str()];
    // All that is shown: nothing of the password, typed as soon as it is asked for.
    let asked = |password, code| {
        let steps = [
            ("want", "^Username: "),
            ("send", "me\\n"),
            ("want", "^me\r\nPassword: "),
            ("send", password),
            ("code", code),
        ];
        dialog(&place, &steps, &words)
    };
    let shown = asked("guessed\\n", "125");
    assert!(shown.contains("invalid username/password") && !shown.contains("guessed"), "{shown:?}");
    assert!(!kept.exists());
    let denied = layerfs(&place, &["pull", "-q", &name]);
    assert!(denied.code == 125 && denied.err.contains("layerfs login"), "{denied:?}");
    assert_eq!(asked("pq\\x7fw\\r", "0"), "\r\nLogin Succeeded!\r\n");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o600);
    let done = layerfs(&place, &["pull", "-q", &name]);
    assert_eq!(format!("sha256:{}", done.ok()), hub.digests("tiny:1").1);
    // Whoever is logged in is not asked again; skopeo says the same of it.
    let shown = dialog(&place, &[("code", "0")], &words);
    assert!(shown.contains("Already logged in") && !shown.contains("Username"), "{shown:?}");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["login", "--get-login", "--authfile"]).arg(&kept).arg(&hub.host);
    assert_eq!(finish(&mut skopeo).ok(), "me");
    let done = layerfs(&place, &["logout", &hub.host]);
    assert_eq!(done.ok(), format!("Removed login credentials for {}", hub.host));
    let denied = layerfs(&place, &["pull", "-q", &name]);
    assert!(denied.code == 125 && denied.err.contains("access denied"), "{denied:?}");
    // Who goes away at the question leaves nothing, and the terminal as it was.
    let shown = asked("p\\x03", "125");
    assert!(shown.contains("interrupted"), "{shown:?}");
    let nobody = finish(&mut skopeo);
    assert!(nobody.code != 0 && nobody.err.contains("not logged into"), "{nobody:?}");
}
