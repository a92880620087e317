//! Images from a registry that others wrote (docker's own), filled by skopeo, which also says what has to come out of it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Done, Place, eventually, finish, image, shell};

mod judges;
mod tokens;

/// What a registry is like besides plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarded {
    No,
    /// By a certificate of an authority of our own, and a name and password (me, pw).
    Yes,
    /// By such a certificate, and it lets in who shows another one of that authority.
    ByCertificates,
    /// By tokens, which somebody else gives to me with the password pw.
    ByTokens,
}

/// docker-registry on this machine; ends with the test.
struct Hub {
    child: Child,
    host: String,
    dir: PathBuf,
    guarded: Guarded,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn program() -> PathBuf {
    let tools = std::env::var_os("LAYERFS_TEST_TOOLS");
    Path::new(&tools.unwrap_or_else(|| "/var/cache/layerfs-test-tools".into())).join("bin/docker-registry")
}

/// Why there is nothing to pull from, if so.
fn why_not() -> Option<String> {
    if !program().exists() {
        return Some(format!("must run: no {}: run scripts/install", program().display()));
    }
    let stamp = image("tiny").join("stamp");
    (!stamp.exists()).then(|| format!("must run: no {}: run scripts/images", stamp.display()))
}

const CERTIFICATES: &str = r#"
    cd "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem 2>err
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=hub -keyout hub.key -out hub.csr 2>>err
    printf 'subjectAltName=IP:127.0.0.1' >names
    openssl x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out hub.pem 2>>err
    mkdir certs
    cp ca.pem certs/ca.crt
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -keyout certs/client.key -out me.csr 2>>err
    printf 'extendedKeyUsage=clientAuth' >usage
    openssl x509 -req -in me.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile usage -out certs/client.cert 2>>err
    perl -e 'print "me:", crypt("pw", "\$2y\$05\$abcdefghijklmnopqrstuu"), "\n"' >passwords
"#;

impl Hub {
    /// With an image `tiny:1`.
    fn start(place: &Place, guarded: Guarded) -> Self {
        let hub = Self::serve(place, "hub", guarded, "");
        hub.push("tiny", "tiny:1");
        hub
    }

    /// With nothing in it. `more` is the end of its configuration.
    fn serve(place: &Place, name: &str, guarded: Guarded, more: &str) -> Self {
        let dir = place.path(name);
        fs::create_dir(&dir).unwrap();
        // Somebody else may take it before the registry does; then the test fails, and says so.
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {host}\n",
            dir.join("files").display()
        );
        let at = dir.display();
        if matches!(guarded, Guarded::Yes | Guarded::ByCertificates) {
            shell(CERTIFICATES, &[&dir]).ok();
            let clients = if guarded == Guarded::Yes { "" } else { &format!(", clientcas: [{at}/ca.pem]") };
            config += &format!("  tls: {{certificate: {at}/hub.pem, key: {at}/hub.key{clients}}}\n");
        }
        if guarded == Guarded::Yes {
            config += &format!("auth: {{htpasswd: {{realm: test, path: {at}/passwords}}}}\n");
        }
        fs::write(dir.join("config.yml"), config + more).unwrap();
        let log = || fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new(program());
        command.arg("serve").arg(dir.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap();
        let hub = Self { child, host, dir, guarded };
        assert!(eventually(|| TcpStream::connect(&hub.host).is_ok()), "{}", hub.log());
        hub
    }

    /// Puts a test image there.
    fn push(&self, name: &str, to: &str) {
        let mut command = self.skopeo("copy", "dest-");
        command.arg("-q").arg(format!("oci:{}:latest", image(name).join("oci").display()));
        finish(command.arg(format!("docker://{}/{to}", self.host))).ok();
    }

    /// What it has said, a line for each request among it.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn skopeo(&self, verb: &str, prefix: &str) -> Command {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", verb]).arg(format!("--{prefix}tls-verify=false"));
        match self.guarded {
            Guarded::No => {}
            Guarded::Yes | Guarded::ByTokens => {
                command.arg(format!("--{prefix}creds=me:pw"));
            }
            Guarded::ByCertificates => {
                command.arg(format!("--{prefix}cert-dir={}", self.dir.join("certs").display()));
            }
        }
        command
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/{tag}", self.host)
    }

    /// What skopeo says of an image: the digests of manifest and config.
    fn digests(&self, tag: &str) -> (String, String) {
        let raw = |what: &[&str]| {
            let mut command = self.skopeo("inspect", "");
            finish(command.args(what).arg(format!("docker://{}", self.name(tag)))).ok().to_owned()
        };
        let manifest = raw(&["--format", "{{.Digest}}"]);
        let config = raw(&["--raw"]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        (manifest, config["config"]["digest"].as_str().unwrap().to_owned())
    }
}

fn pull(place: &Place, options: &[&str], name: &str) -> Done {
    finish(place.command().arg("pull").args(options).arg(name))
}

/// The store's blobs, which must all be what they are called.
fn blobs(place: &Place) -> Vec<String> {
    let dir = place.store().join("oci/blobs/sha256");
    let checked =
        "cd \"$1\"; for blob in *; do echo \"$blob  $blob\"; done | sha256sum -c --quiet >&2; ls -A";
    shell(checked, &[&dir]).ok().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_pulled_is_what_skopeo_copies() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::No);
    let done = pull(&place, &[], &hub.name("tiny:1"));
    let (manifest, config) = hub.digests("tiny:1");
    assert_eq!(format!("sha256:{}", done.ok()), config);
    assert!(
        done.err.contains(&format!("Digest: {manifest}")) && done.err.contains("Downloaded newer image"),
        "{}",
        done.err
    );

    let mut copy = hub.skopeo("copy", "src-");
    let layout = place.path("copy");
    copy.arg("-q").arg(format!("docker://{}", hub.name("tiny:1"))).arg(format!("oci:{}:x", layout.display()));
    finish(&mut copy).ok();
    let theirs = shell("cd \"$1\"; ls", &[&layout.join("blobs/sha256")]);
    assert_eq!(blobs(&place), theirs.ok().lines().collect::<Vec<_>>());
    place.layerfs(&["verify", &hub.name("tiny:1")]).ok();
    // It is an image of the store as any other, for skopeo, too.
    let ours = format!("oci:{}:{}", place.store().join("oci").display(), hub.name("tiny:1"));
    let raw = finish(Command::new("skopeo").args(["inspect", "--raw"]).arg(&ours));
    assert!(raw.ok().contains(&config), "{raw:?}");

    let again = pull(&place, &["-q"], &hub.name("tiny:1"));
    assert_eq!((again.ok(), again.err.as_str()), (done.ok(), ""));
    assert!(pull(&place, &[], &hub.name("tiny:1")).err.contains("up to date"));
}

#[test]
fn several_tags_and_what_is_not_there() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::No);
    hub.push("tiny", "tiny:2");
    assert_eq!(pull(&place, &["-a", "-q"], &hub.name("tiny")).ok().lines().count(), 2);
    for (name, says) in [("tiny:3", "not found"), ("nothing", "not found")] {
        let done = pull(&place, &[], &hub.name(name));
        assert!(done.code == 125 && done.err.contains(says) && done.err.contains(&hub.host), "{done:?}");
    }
    let other = pull(&place, &["--platform", "linux/s390x"], &hub.name("tiny:1"));
    assert_eq!(other.code, 0, "one image alone is pulled for any platform, as podman does: {other:?}");
}

#[test]
fn certificates_and_passwords() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::Yes);
    let name = hub.name("tiny:1");
    let trusting = |options: &[&str]| {
        let mut command = place.command();
        finish(command.env("SSL_CERT_FILE", hub.dir.join("ca.pem")).arg("pull").args(options).arg(&name))
    };
    let stranger = pull(&place, &["--tls-verify=true", "--creds", "me:pw"], &name);
    assert!(
        stranger.code == 125 && stranger.err.contains("certificate") && stranger.err.contains("certs.d"),
        "{stranger:?}"
    );
    for creds in [&[][..], &["--creds", "me:wrong"]] {
        let done = trusting(&[&["--tls-verify"], creds].concat());
        assert!(
            done.code == 125 && done.err.contains("access denied") && !done.err.contains("wrong"),
            "{done:?}"
        );
    }
    let (_, config) = hub.digests("tiny:1");
    let done = trusting(&["--tls-verify", "--creds", "me:pw"]);
    assert_eq!(format!("sha256:{}", done.ok()), config);
    // docker takes any certificate of this machine.
    pull(&place, &["--creds", "me:pw"], &name).ok();
    blobs(&place);
}

#[test]
fn many_at_once_and_some_are_killed() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::No);
    let big = if image("debian").join("stamp").exists() { "debian" } else { "tiny" };
    hub.push(big, "big:1");
    let name = hub.name("big:1");
    for pause in [30, 60, 120, 250] {
        let mut command = place.command();
        let mut child =
            command.args(["pull", "-q", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let pulls: Vec<Child> = (0..3)
        .map(|_| {
            let mut command = place.command();
            command.args(["pull", "-q", &name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let (_, config) = hub.digests("big:1");
    for child in pulls {
        let done = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(format!("sha256:{}", String::from_utf8_lossy(&done.stdout).trim()), config, "{err}");
    }
    // A document that was being written when its process was killed is a temporary file for a day.
    let is_partial = |name: &String| name.starts_with(".tmp-") && name.len() == 5 + 64;
    let left = blobs(&place).into_iter().filter(is_partial).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
    place.layerfs(&["verify", &name]).ok();
}

#[test]
fn when_registries_are_asked() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let place = Place::new();
    let hub = Hub::start(&place, Guarded::No);
    let name = hub.name("tiny:1");
    let create = |policy: &str| place.layerfs(&["create", "-q", &format!("--pull={policy}"), &name, "true"]);
    let known = || {
        let index = fs::read_to_string(place.store().join("oci/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let all = index["manifests"].as_array().unwrap().iter();
        let mut named = all.filter(|one| one["annotations"]["org.opencontainers.image.ref.name"] == *name);
        named.next()?["digest"].as_str().map(str::to_owned)
    };
    let never = create("never");
    assert!(never.code == 125 && never.err.contains(&format!("layerfs pull {name}")), "{never:?}");
    create("missing").ok();
    let first = known();
    assert_eq!(first, Some(hub.digests("tiny:1").0));

    // Another image takes the name.
    let config = "FROM scratch\nLABEL other=yes\n";
    fs::create_dir(place.path("context")).unwrap();
    fs::write(place.path("context/Dockerfile"), config).unwrap();
    place.layerfs(&["build", "-t", "other:1", place.path("context").to_str().unwrap()]).ok();
    let mut copy = hub.skopeo("copy", "dest-");
    copy.arg("-q")
        .arg(format!("oci:{}:other:1", place.store().join("oci").display()))
        .arg(format!("docker://{name}"));
    finish(&mut copy).ok();
    place.layerfs(&["build", "-t", "unrelated:1", place.path("context").to_str().unwrap()]).ok();
    create("missing").ok();
    assert_eq!(known(), first);
    create("newer").ok();
    assert_eq!(known(), Some(hub.digests("tiny:1").0));
    assert_ne!(known(), first);

    drop(hub);
    create("newer").ok();
    create("missing").ok();
    let always = create("always");
    assert!(always.code == 125 && always.err.contains("registry 127.0.0.1"), "{always:?}");
}
