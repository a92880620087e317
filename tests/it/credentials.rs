//! Logging in and out, and what the host says about registries: skopeo and podman read what we write, and the other way
//! round; the registry is a few lines that know one user.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use layerfs::registry::Places;
use layerfs::registry::configuration::{Named, Registries};

use crate::support::*;

/// `me:s3cret`, as HTTP has it.
const AUTHORIZATION: &str = "Basic bWU6czNjcmV0";

/// Speaks HTTP, lets `me` in with the password `s3cret`, and nobody else; ends with the tests.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    });
    host
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    loop {
        let mut allowed = false;
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line == "\r\n" {
                    break;
                }
                // Whoever begins with TLS is told that this is none.
                if !line.starts_with("GET /v2/ ") {
                    return;
                }
                continue;
            };
            allowed |= name.eq_ignore_ascii_case("authorization") && value == AUTHORIZATION;
        }
        let status =
            if allowed { "200 OK" } else { "401 Unauthorized\r\nWww-Authenticate: Basic realm=\"test\"" };
        let version = "Docker-Distribution-Api-Version: registry/2.0";
        let text = format!("HTTP/1.1 {status}\r\n{version}\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// A user with a home directory of his own, in which nothing is said.
struct User {
    place: Place,
}

impl User {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir(place.path("run")).unwrap();
        std::fs::create_dir(place.path("home")).unwrap();
        std::fs::create_dir(place.path("bin")).unwrap();
        Self { place }
    }

    /// A script in which `layerfs` is what is tested; `$H` is the registry.
    fn does(&self, host: &str, script: &str) -> Done {
        let path = format!("{}:{}", self.place.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("layerfs() {{ \"$LAYERFS\" \"$@\"; }}; {script}")]);
        command.env("LAYERFS", layerfs_path()).env("LAYERFS_ROOT", self.place.store()).env("PATH", path);
        command.env("HOME", self.place.path("home")).env("XDG_RUNTIME_DIR", self.place.path("run"));
        command.env("H", host).current_dir(self.place.path(""));
        for other in ["REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF"]
        {
            command.env_remove(other);
        }
        finish(&mut command)
    }

    fn auth_file(&self) -> PathBuf {
        self.place.path("run/containers/auth.json")
    }
}

fn has_skopeo() -> bool {
    shell("command -v skopeo", &[]).code == 0
}

#[test]
fn skopeo_reads_what_we_write() {
    if !has_skopeo() {
        skip!("no skopeo here");
    }
    let (user, host) = (User::new(), registry());
    let done = user.does(&host, "printf 's3cret\\n' | layerfs login -u me --password-stdin -v $H");
    assert_eq!(done.ok(), format!("Used: {}\nLogin Succeeded!", user.auth_file().display()));
    let mode = std::fs::metadata(user.auth_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(user.does(&host, "skopeo login --get-login $H").ok(), "me");
    let done = user.does(&host, "skopeo login --tls-verify=false $H");
    assert!(done.ok().contains("Existing credentials are valid"), "{done:#?}");
    // Of a part of the registry, beside those of the whole.
    user.does(&host, "layerfs login -u me -p s3cret $H/ns").ok();
    assert_eq!(user.does(&host, "skopeo login --get-login $H/ns").ok(), "me");
    user.does(&host, "skopeo logout $H").ok();
    let done = user.does(&host, "layerfs login --get-login $H");
    assert!(done.code == 125 && done.err.contains("not logged into"), "{done:#?}");
    assert_eq!(user.does(&host, "layerfs login --get-login $H/ns").ok(), "me");
    if is_root() && shell("command -v podman", &[]).code == 0 {
        assert_eq!(user.does(&host, "podman login --get-login $H/ns").ok(), "me");
    }
}

#[test]
fn we_read_what_skopeo_writes() {
    if !has_skopeo() {
        skip!("no skopeo here");
    }
    let (user, host) = (User::new(), registry());
    user.does(&host, "skopeo login --tls-verify=false --authfile a.json -u me -p s3cret $H").ok();
    assert_eq!(user.does(&host, "layerfs login --get-login --authfile a.json $H").ok(), "me");
    let done = user.does(&host, "REGISTRY_AUTH_FILE=a.json layerfs login $H");
    assert!(done.ok().contains(&format!("Already logged in to {host}")), "{done:#?}");
    let before = std::fs::read(user.place.path("a.json")).unwrap();
    let done = user.does(&host, "layerfs login --authfile a.json -u me -p wrong $H");
    assert!(done.code == 125 && done.err.contains("invalid username/password"), "{done:#?}");
    assert_eq!(std::fs::read(user.place.path("a.json")).unwrap(), before, "a refused password is not kept");
    let done = user.does(&host, "layerfs logout --authfile a.json $H");
    assert_eq!(done.ok(), format!("Removed login credentials for {host}"));
    let done = user.does(&host, "skopeo login --get-login --authfile a.json $H");
    assert!(done.code != 0 && done.err.contains("not logged into"), "{done:#?}");
    assert_eq!(
        user.does(&host, "layerfs logout --authfile a.json $H").ok(),
        format!("Not logged into {host}")
    );
}

#[test]
fn helpers_keep_the_secret() {
    let (user, host) = (User::new(), registry());
    let script = "#!/bin/sh\n\
        case $1 in\n\
        store) cat >kept ;;\n\
        get) cat >asked; if [ -e kept ]; then cat kept; else echo credentials not found in native keychain; exit 1; fi ;;\n\
        erase) rm kept ;;\n\
        esac\n";
    let helper = user.place.path("bin/docker-credential-fake");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(user.place.path("run/containers")).unwrap();
    let file = format!("{{\"credHelpers\": {{\"{host}\": \"fake\"}}}}");
    std::fs::write(user.auth_file(), &file).unwrap();
    let done = user.does(&host, "printf s3cret | layerfs login -v -u me --password-stdin $H");
    assert_eq!(done.ok(), "Used: docker-credential-fake\nLogin Succeeded!");
    assert_eq!(std::fs::read_to_string(user.auth_file()).unwrap(), file);
    let kept = std::fs::read_to_string(user.place.path("kept")).unwrap();
    assert_eq!(kept, format!("{{\"ServerURL\":\"{host}\",\"Username\":\"me\",\"Secret\":\"s3cret\"}}"));
    assert_eq!(user.does(&host, "layerfs login --get-login $H/any/thing").ok(), "me");
    assert_eq!(std::fs::read_to_string(user.place.path("asked")).unwrap(), host);
    if has_skopeo() {
        assert_eq!(user.does(&host, "skopeo login --get-login $H").ok(), "me");
    }
    assert_eq!(user.does(&host, "layerfs logout $H").ok(), format!("Removed login credentials for {host}"));
    assert!(!user.place.path("kept").exists());
    let done = user.does(&host, "layerfs login --get-login $H");
    assert!(done.code == 125 && done.err.contains("not logged into"), "{done:#?}");
}

#[test]
fn what_login_refuses_and_warns_of() {
    let (user, host) = (User::new(), registry());
    let done = user.does(&host, "layerfs login $H </dev/null");
    assert!(done.code == 125 && done.err.contains("--password-stdin"), "{done:#?}");
    // As an ordinary user, where /run/containers is root's.
    let done = user.does(&host, "XDG_RUNTIME_DIR= layerfs login --get-login $H");
    assert!(done.code == 125 && done.err.contains("not logged into"), "{done:#?}");
    let done = user.does(&host, "layerfs login http://$H/x:y extra");
    assert_eq!(done.code, 125, "{done:#?}");
    let done = user.does(&host, "layerfs login -u me -p s3cret r.io/a:tag");
    assert!(done.code == 125 && done.err.contains("without a tag"), "{done:#?}");
    let done = user.does(&host, "layerfs login -u me -p s3cret --tls-verify $H");
    assert_eq!(done.code, 125, "a registry without TLS was accepted: {done:#?}");
    let done = user.does(&host, "layerfs login -u me -p s3cret $H");
    assert!(done.err.contains("--password-stdin") && !done.err.contains("s3cret"), "{done:#?}");
    done.ok();
    std::fs::set_permissions(user.auth_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = user.does(&host, "layerfs login --get-login $H");
    assert!(done.err.contains("chmod 600"), "{done:#?}");
    assert_eq!(done.ok(), "me");
    assert_eq!(user.does(&host, "layerfs logout -a").ok(), "Removed login credentials for all registries");
    std::fs::write(user.auth_file(), "{\"auths\": \"s3cret\"}").unwrap();
    let done = user.does(&host, "layerfs login --get-login $H");
    assert!(done.code == 125 && done.err.contains("auth.json: auths: "), "{done:#?}");
    assert!(!done.err.contains("s3cret"), "{done:#?}");
}

/// The places that skopeo tries, in its order, and whether it would do without TLS there: nobody listens at any.
fn tried_by_skopeo(user: &User, name: &str) -> Vec<(String, bool)> {
    let script = r#"skopeo --debug --registries-conf registries.conf inspect "docker://$H" 2>&1 || true"#;
    let done = user.does(name, script);
    let mut tried: Vec<(String, bool)> = Vec::new();
    for line in done.out.lines() {
        if let Some((_, rest)) = line.split_once("Trying to access \\\"") {
            tried.push((rest.split('\\').next().unwrap().to_owned(), false));
        } else if line.contains("Ping http://")
            && let Some(last) = tried.last_mut()
        {
            last.1 = true;
        }
    }
    tried
}

#[test]
fn skopeo_goes_where_we_go() {
    if !has_skopeo() {
        skip!("no skopeo here");
    }
    let user = User::new();
    let conf = user.place.path("registries.conf");
    let text = r#"
        [[registry]]
        location = "127.0.0.1:7"
        [[registry]]
        prefix = "127.0.0.1:7/foo"
        location = "127.0.0.1:9/bar"
        [[registry.mirror]]
        location = "127.0.0.1:2/m"
        insecure = true
        [[registry.mirror]]
        location = "127.0.0.1:3/digests"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "127.0.0.1:4/tags"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "127.0.0.1:7/foo/bar"
        location = "127.0.0.1:5/deep/er"
        insecure = true
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "127.0.0.1:6/x"
        [[registry]]
        prefix = "*.localhost"
        location = "127.0.0.1:8/wild"
    "#;
    std::fs::write(&conf, text).unwrap();
    let variable = |name: &str| (name == "CONTAINERS_REGISTRIES_CONF").then(|| conf.clone().into());
    let places = Places::new(variable, None, 1).with_etc(&user.place.path("etc"));
    let registries = Registries::load(&places).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    for host in ["127.0.0.1:7", "a.b.localhost"] {
        for path in ["foo/image", "foo/bar", "foo/bar/image", "foo/barn", "food", "x/foo"] {
            for by_digest in [false, true] {
                let tag = (!by_digest).then_some("1");
                let named = Named { host, path, tag, digest: by_digest.then_some(digest.as_str()) };
                let ours: Vec<_> = registries.sources(&named).unwrap().into_iter().map(told).collect();
                assert_eq!(ours, tried_by_skopeo(&user, &named.to_string()), "{named}");
            }
        }
    }
}

fn told(source: layerfs::registry::configuration::Source) -> (String, bool) {
    let (tag, digest) = (source.tag.as_deref(), source.digest.as_deref());
    let named = Named { host: &source.host, path: &source.path, tag, digest };
    (named.to_string(), source.insecure)
}
