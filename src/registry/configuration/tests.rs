use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::registry::credentials::RegistryKey;

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// `HOST/PATH[:TAG][@DIGEST]` as it would have been parsed.
fn wanted(name: &str) -> Named<'_> {
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let (host, rest) = name.split_once('/').unwrap();
    let (path, tag) = rest.rsplit_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    Named { host, path, tag, digest }
}

/// What is tried, as text; `!` behind what is insecure.
fn tried(text: &str, name: &str) -> Result<Vec<String>, String> {
    let sources =
        Registries::parse(text).unwrap().sources(&wanted(name)).map_err(|error| error.to_string())?;
    let told = |source: Source| {
        let Source { host, path, tag, digest, insecure } = source;
        let wanted = Named { host: &host, path: &path, tag: tag.as_deref(), digest: digest.as_deref() };
        format!("{wanted}{}", if insecure { "!" } else { "" })
    };
    Ok(sources.into_iter().map(told).collect())
}

fn refused(text: &str) -> String {
    Registries::parse(text).unwrap_err().to_string()
}

const EXAMPLE: &str = r#"
unqualified-search-registries = ["example.com"]
[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true
[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"
"#;

#[test]
fn the_example_of_the_manual() {
    assert_eq!(
        tried(EXAMPLE, "example.com/foo/image:latest").unwrap(),
        [
            "mirror-0.local/mirror-for-foo/image:latest",
            "mirror-1.local/mirrors/foo/image:latest!",
            "internal.example.net/bar/image:latest"
        ]
    );
    assert_eq!(
        tried(EXAMPLE, "registry.com/image:1").unwrap(),
        ["mirror.registry.com/image:1", "registry.com/image:1"]
    );
    assert_eq!(tried(EXAMPLE, "example.com/food:1").unwrap(), ["example.com/food:1"]);
}

#[test]
fn which_prefix_counts() {
    let text = r#"
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "*.b.example.com"
        location = "wild.net/w"
        [[registry]]
        prefix = "a.example.com"
        location = "host.net"
        [[registry]]
        prefix = "a.example.com/x"
        location = "path.net/y"
        [[registry]]
        prefix = "a.example.com/x/app:1"
        location = "tag.net/app:2"
        [[registry]]
        prefix = "port.net:5000"
        location = "other.net"
    "#;
    for (name, expected) in [
        ("a.example.com/x/app:1", "tag.net/app:2"),
        ("a.example.com/x/app:12", "path.net/y/app:12"),
        ("a.example.com/x:1", "path.net/y:1"),
        ("a.example.com/xx:1", "host.net/xx:1"),
        ("a.example.com:5000/xx:1", "a.example.com:5000/xx:1!"),
        ("c.example.com/q:1", "c.example.com/q:1!"),
        ("c.b.example.com:80/q", "wild.net/w/q"),
        ("example.com/q", "example.com/q"),
        ("notexample.com/q", "notexample.com/q"),
        ("port.net/q", "port.net/q"),
        ("port.net:5000/q", "other.net/q"),
        ("port.net:50000/q", "port.net:50000/q"),
    ] {
        assert_eq!(tried(text, name).unwrap(), [expected], "{name}");
    }
}

#[test]
fn tags_digests_and_mirrors() {
    let text = r#"
        [[registry]]
        prefix = "r.io"
        [[registry.mirror]]
        location = "all.io"
        [[registry.mirror]]
        location = "digests.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.io"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "only.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "digests.io/only"
    "#;
    let hosts = |name: &str| {
        let found = Registries::parse(text).unwrap().sources(&wanted(name)).unwrap();
        found.into_iter().map(|source| source.host).collect::<Vec<_>>()
    };
    let digested = format!("r.io/a@{DIGEST}");
    assert_eq!(hosts("r.io/a:1"), ["all.io", "tags.io", "r.io"]);
    assert_eq!(hosts(&digested), ["all.io", "digests.io", "r.io"]);
    assert_eq!(hosts("only.io/a:1"), ["only.io"]);
    let digested = format!("only.io/a@{DIGEST}");
    assert_eq!(tried(text, &digested).unwrap(), [format!("digests.io/only/a@{DIGEST}"), digested]);
}

#[test]
fn blocked_insecure_and_docker_io() {
    let text = r#"
        [[registry]]
        prefix = "evil.io"
        blocked = true
        [[registry]]
        prefix = "evil.io/good"
        [[registry]]
        location = "plain.io:5000"
        insecure = true
        [[registry]]
        prefix = "cache.io"
        location = "docker.io"
        [[registry]]
        prefix = "r.io/a"
        location = "nowhere"
    "#;
    let error = tried(text, "evil.io/x:1").unwrap_err();
    assert!(error.contains("evil.io/x:1") && error.contains("registries.conf"), "{error}");
    assert_eq!(tried(text, "evil.io/good/x:1").unwrap(), ["evil.io/good/x:1"]);
    assert_eq!(tried(text, "cache.io/alpine:3").unwrap(), ["docker.io/library/alpine:3"]);
    let error = tried(text, "r.io/a:1").unwrap_err();
    assert!(error.contains("\"nowhere:1\""), "{error}");
    let all = Registries::parse(text).unwrap();
    let insecure = |key: &str| all.is_insecure(&key.parse::<RegistryKey>().unwrap());
    assert!(insecure("plain.io:5000") && insecure("plain.io:5000/ns") && !insecure("plain.io"));
}

#[test]
fn short_names() {
    let names = |text: &str, typed: &str| {
        Registries::parse(text).unwrap().names(typed).map_err(|error| error.to_string())
    };
    let one = "unqualified-search-registries = ['a.io']\n[aliases]\ndebian = 'd.io/x/debian'\n'me/app' = 'q.io/app'";
    for (typed, expected) in [
        ("debian:12", "d.io/x/debian:12"),
        ("me/app", "q.io/app"),
        ("busybox:1", "a.io/busybox:1"),
        ("library/debian", "a.io/library/debian"),
        ("localhost/debian", "localhost/debian"),
        ("r.io/debian", "r.io/debian"),
    ] {
        assert_eq!(names(one, typed).unwrap(), [expected]);
    }
    let digested = format!("debian@{DIGEST}");
    assert_eq!(names(one, &digested).unwrap(), [format!("d.io/x/{digested}")]);
    assert_eq!(names("", "debian").unwrap(), ["debian"]);
    let several = "unqualified-search-registries = ['a.io/', 'b.io:5000/ns']\n";
    assert_eq!(names(several, "x:1").unwrap(), ["a.io/x:1", "b.io:5000/ns/x:1"]);
    let enforcing = format!("{several}short-name-mode = 'enforcing'");
    let error = names(&enforcing, "x").unwrap_err();
    assert!(error.contains("a.io/, b.io:5000/ns") && error.contains("\"x\""), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    for (text, parts) in [
        ("a = [", &["not TOML", "line 1"][..]),
        ("[registries.search]\nregistries = ['a']", &["version 1"]),
        ("registry = 1", &["registry: expected tables [[registry]], found integer"]),
        (
            "[[registry]]\nlocation = 'a'\n[[registry]]\nblocked = true",
            &["registry 2: neither prefix nor location"],
        ),
        (
            "[[registry]]\nlocation = 'a'\ninsecure = 'yes'",
            &["registry 1: insecure: expected true or false, found string"],
        ),
        ("[[registry]]\nlocation = 'http://a'", &["registry 1: ", "without http://"]),
        ("[[registry]]\nprefix = '*.a/b'", &["registry 1: prefix", "*."]),
        ("[[registry]]\nprefix = 'a.*.b'", &["registry 1: prefix"]),
        (
            "[[registry]]\nlocation = 'a'\n[[registry.mirror]]\ninsecure = true",
            &["registry 1: mirror 1: ", "missing"],
        ),
        (
            "[[registry]]\nlocation='a'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='x'",
            &["mirror 1: pull-from-mirror", "\"x\""],
        ),
        (
            "[[registry]]\nlocation='a'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='all'",
            &["mirror 1: pull-from-mirror contradicts"],
        ),
        ("unqualified-search-registries = 'a'", &["unqualified-search-registries: expected a list of texts"]),
        ("unqualified-search-registries = ['a', 1]", &["unqualified-search-registries", "integer"]),
        ("unqualified-search-registries = ['']", &["unqualified-search-registries", "missing"]),
        ("short-name-mode = 'strict'", &["short-name-mode", "strict"]),
        ("[aliases]\n'a:1' = 'r.io/a'", &["aliases", "a:1"]),
        ("[aliases]\n'r.io/a' = 'r.io/a'", &["aliases", "r.io/a"]),
        ("[aliases]\na = 'b'", &["aliases", "must have a registry"]),
        ("[aliases]\na = 'r.io/b:1'", &["aliases", "r.io/b:1"]),
        ("[aliases]\na = 1", &["aliases", "integer"]),
    ] {
        let error = refused(text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        assert!(error.starts_with("registries.conf: "), "{error}");
    }
}

/// Directories as a user has them, with an `/etc` of their own.
struct Host {
    dir: tempfile::TempDir,
    variables: Vec<(&'static str, std::path::PathBuf)>,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn put(&self, path: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn places(&self) -> Places {
        let value = |name: &str| {
            self.variables.iter().find(|(known, _)| *known == name).map(|(_, path)| path.clone().into())
        };
        Places::new(value, Some(&self.dir.path().join("home")), 1).with_etc(&self.dir.path().join("etc"))
    }

    fn load(&self) -> Registries {
        Registries::load(&self.places()).unwrap()
    }
}

fn search(registries: &[&str]) -> String {
    format!("unqualified-search-registries = {registries:?}\n")
}

#[test]
fn files_in_their_order() {
    let mut host = Host::new();
    assert_eq!(host.load().names("x").unwrap(), ["x"]);
    host.put("etc/containers/registries.conf", &search(&["etc"]));
    assert_eq!(host.load().search, ["etc"]);
    host.put("etc/containers/registries.conf.d/1.conf", "[aliases]\nx = 'one.io/x'\ny = 'one.io/y'");
    host.put("etc/containers/registries.conf.d/2.conf", "[aliases]\nx = ''\ny = 'two.io/y'");
    host.put("etc/containers/registries.conf.d/2.conf.bak", "not read");
    host.put("home/.config/containers/registries.conf.d/0.conf", "credential-helpers = ['h']");
    let all = host.load();
    assert_eq!(
        (all.search.as_slice(), all.names("y").unwrap()),
        (&["etc".to_owned()][..], vec!["two.io/y".to_owned()])
    );
    assert_eq!(all.names("x").unwrap(), ["etc/x"]);
    assert_eq!(all.credential_helpers(), ["h"]);
    // With a file of one's own the system's drop-ins do not count either.
    host.put("home/.config/containers/registries.conf", &search(&["home"]));
    let all = host.load();
    assert_eq!(
        (all.search, all.aliases.len(), all.credential_helpers.len()),
        (vec!["home".to_owned()], 0, 1)
    );
    let named = host.put("named.conf", &search(&["named"]));
    host.variables.push(("CONTAINERS_REGISTRIES_CONF", named.clone()));
    let all = host.load();
    assert_eq!((all.search, all.aliases.len()), (vec!["named".to_owned()], 1));
    host.put("home/.config/layerfs/registries.conf", &search(&["own"]));
    let all = host.load();
    assert_eq!((all.search, all.credential_helpers.len()), (vec!["own".to_owned()], 0));
    fs::remove_dir_all(host.dir.path().join("home/.config/layerfs")).unwrap();
    fs::remove_file(&named).unwrap();
    let error = Registries::load(&host.places()).unwrap_err().to_string();
    assert!(error.contains("named.conf"), "{error}");
}

#[test]
fn a_later_table_replaces_an_earlier_one() {
    let host = Host::new();
    let table = |location: &str, more: &str| {
        format!("[[registry]]\nprefix = 'r.io'\nlocation = '{location}'\n{more}\n")
    };
    host.put("etc/containers/registries.conf", &(table("a.io", "blocked = true") + &table("late.io", "")));
    let sources = |all: &Registries| all.sources(&wanted("r.io/x:1"));
    assert!(matches!(sources(&host.load()), Err(ConfigurationError::Blocked { .. })));
    host.put("etc/containers/registries.conf.d/9.conf", &table("b.io", ""));
    assert_eq!(sources(&host.load()).unwrap()[0].host, "b.io");
    host.put("etc/containers/registries.conf.d/9.conf", "registry = 1");
    let error = Registries::load(&host.places()).unwrap_err().to_string();
    assert!(error.contains("registries.conf.d/9.conf: registry: "), "{error}");
}

#[test]
fn certificates_of_the_first_directory() {
    let host = Host::new();
    let found = |name: &str| certificates(&host.places(), name);
    assert_eq!(found("r.io:5000").unwrap(), Certificates::default());
    host.put("etc/docker/certs.d/r.io:5000/ca.crt", "docker");
    assert_eq!(found("r.io:5000").unwrap().authorities, [b"docker"]);
    host.put("etc/containers/certs.d/r.io:5000/a.crt", "a");
    host.put("etc/containers/certs.d/r.io:5000/b.crt", "b");
    host.put("etc/containers/certs.d/r.io:5000/me.cert", "cert");
    let error = found("r.io:5000").unwrap_err().to_string();
    assert!(error.contains("me.cert: ") && error.contains("me.key is missing"), "{error}");
    let key = host.put("etc/containers/certs.d/r.io:5000/me.key", "key");
    let all = found("r.io:5000").unwrap();
    assert_eq!(all.authorities, [b"a", b"b"]);
    assert_eq!(all.clients, [(b"cert".to_vec(), b"key".to_vec())]);
    assert_eq!(format!("{all:?}"), "Certificates { authorities: 2, clients: 1 }");
    fs::remove_file(key.with_extension("cert")).unwrap();
    assert!(found("r.io:5000").unwrap_err().to_string().contains("me.cert is missing"));
    host.put("home/.config/containers/certs.d/r.io:5000/c.crt", "c");
    assert_eq!(found("r.io:5000").unwrap().authorities, [b"c"]);
    for odd in ["", "..", "../certs.d/r.io:5000", "/etc"] {
        assert_eq!(found(odd).unwrap(), Certificates::default(), "{odd}");
    }
}

#[test]
fn unknown_keys_are_told() {
    let text =
        "new = 1\n[[registry]]\nlocation = 'a'\nodd = 1\n[[registry.mirror]]\nlocation = 'b'\nweird = true";
    let (document, unknown) = Document::parse(text, Path::new("f")).unwrap();
    assert_eq!(document.rules.len(), 1);
    assert_eq!(unknown, ["registry 1: mirror 1: weird", "registry 1: odd", "new"]);
}

proptest! {
    /// Whatever tables there are: the longest prefix that ends where a part of the name does is the one that is replaced.
    #[test]
    fn the_longest_prefix_wins(
        prefixes in prop::collection::btree_set("[ab]\\.io(/[ab]{1,2}){0,3}", 1..6),
        name in "[ab]\\.io(/[ab]{1,2}){1,4}",
    ) {
        let tables = prefixes.iter().enumerate().map(|(number, prefix)| {
            format!("[[registry]]\nprefix = '{prefix}'\nlocation = 'to-{number}.io/ns'\n")
        });
        let text: String = tables.collect();
        let parts: Vec<&str> = name.split('/').collect();
        let longest = (1..=parts.len()).rev().find_map(|count| {
            let front = parts[..count].join("/");
            let number = prefixes.iter().position(|prefix| *prefix == front)?;
            Some(std::iter::once(format!("to-{number}.io/ns")).chain(parts[count..].iter().map(|part| (*part).to_owned())).collect::<Vec<_>>().join("/"))
        });
        let expected = longest.unwrap_or_else(|| name.clone());
        prop_assert_eq!(tried(&text, &format!("{name}:t")).unwrap(), [format!("{expected}:t")]);
    }

    /// No text makes it panic, and what it takes leads somewhere or says why not.
    #[test]
    fn any_text(text in "(\\[\\[registry\\]\\]\n|prefix = '[a*./:@]{0,6}'\n|location = '[a./:@]{0,6}'\n|\\PC{0,9}\n){0,6}",
                name in "[a./:@]{1,8}") {
        if let Ok(all) = Registries::parse(&text) {
            drop(all.names(&name));
            drop(all.sources(&Named { host: "a", path: &name, tag: Some("t"), digest: None }));
        }
    }
}
