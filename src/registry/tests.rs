//! The client against servers that lie, stop, crawl and send it around.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::credentials::Keychain;
use super::token::basic;
use super::*;
use crate::model::Digest;
use crate::registry::scripted_server::{Asked, Manner, Reply, Server};

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn open(server: &Server, access: Access) -> Result<Registry, RegistryError> {
    let endpoint = Endpoint { access, ..Endpoint::new(&server.host, "a/b") };
    Registry::open(&endpoint, Patience::short())
}

/// A registry that asks for nothing.
pub(super) fn plain(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Server, Registry) {
    let server =
        Server::start(move |asked| if asked.path == "/v2/" { Reply::of(200, "{}") } else { script(asked) });
    let registry = open(&server, Access::Anonymous).unwrap();
    (server, registry)
}

fn fetch(registry: &Registry, bytes: &[u8], start: u64) -> Result<Vec<u8>, RegistryError> {
    let mut got = Vec::new();
    let wanted = Wanted { what: "layer", digest: digest_of(bytes), size: bytes.len() as u64, start };
    registry.blob(wanted, &mut |chunk| {
        got.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(got)
}

/// Where a request wants to begin.
fn start_of(asked: &Asked) -> usize {
    asked.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0)
}

fn part(bytes: &[u8], start: usize) -> Reply {
    let reply = Reply::of(if start == 0 { 200 } else { 206 }, &bytes[start..]);
    match start {
        0 => reply,
        _ => reply.with("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 7 & 0xff).unwrap()).collect()
}

fn tag(name: &str) -> Version {
    Version::Tag(name.to_owned())
}

/// Asks for a token at `/token`; the current one is `t<generation>`.
fn with_tokens(
    generation: &'static AtomicUsize,
    script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked| {
        let current = format!("t{}", generation.load(Ordering::SeqCst));
        if asked.path.starts_with("/token") {
            return Reply::of(200, format!(r#"{{"token":"{current}","expires_in":60}}"#));
        }
        if asked.header("authorization") == format!("Bearer {current}") {
            return script(asked);
        }
        let realm = format!(r#"Bearer realm="http://{}/token",service="test""#, asked.header("host"));
        Reply::of(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#)
            .with("www-authenticate", realm)
    })
}

#[test]
fn tokens_are_asked_for_with_scope_and_name() {
    static GENERATION: AtomicUsize = AtomicUsize::new(1);
    let server = with_tokens(&GENERATION, |_| Reply::of(200, "{}"));
    let registry = open(&server, Access::of_pair("me:secret")).unwrap();
    registry.manifest(&tag("1")).unwrap();
    let token = server.asked().into_iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(token.path, "/token?service=test&scope=repository%3Aa%2Fb%3Apull&account=me");
    assert_eq!(token.header("authorization"), "Basic bWU6c2VjcmV0");
    assert_eq!(server.count("/token"), 1, "one token is enough");
    let other = open(&server, Access::IdentityToken("r&t".into())).unwrap();
    other.manifest(&tag("1")).unwrap();
    let token = server.asked().into_iter().find(|asked| asked.method == "POST").unwrap();
    assert!(token.body.contains("grant_type=refresh_token&refresh_token=r%26t"), "{}", token.body);
    assert_eq!(token.header("authorization"), "");
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_blob() {
    static GENERATION: AtomicUsize = AtomicUsize::new(1);
    let bytes = noise(400_000);
    let sent = bytes.clone();
    let server = with_tokens(&GENERATION, move |asked| match start_of(asked) {
        0 => {
            GENERATION.store(2, Ordering::SeqCst);
            part(&sent, 0).sent(Manner::Cut(150_000))
        }
        start => part(&sent, start),
    });
    let registry = open(&server, Access::Anonymous).unwrap();
    assert!(fetch(&registry, &bytes, 0).unwrap() == bytes);
    let blobs: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.path.contains("/blobs/"))
        .map(|asked| asked.header("range").to_owned())
        .collect();
    assert_eq!(blobs, ["", "bytes=150000-", "bytes=150000-"], "it goes on where it was");
    assert_eq!(server.count("/token"), 2);
}

#[test]
fn who_is_not_let_in() {
    let server = Server::start(|_| Reply::of(401, "").with("www-authenticate", r#"Basic realm="x""#));
    let registry = open(&server, Access::of_pair("me:wrong")).unwrap();
    let error = registry.manifest(&tag("1")).unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("layerfs login"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let endpoint = Endpoint { access: Access::of_pair("me:wrong"), ..Endpoint::new(&server.host, "") };
    assert!(check_access(&endpoint, Patience::short()).unwrap_err().is_unauthorized());
    let right = Server::start(|asked| match asked.header("authorization") {
        "Basic bWU6cmlnaHQ=" => Reply::of(200, "{}"),
        _ => Reply::of(401, "").with("www-authenticate", r#"Basic realm="x""#),
    });
    let endpoint = Endpoint { access: Access::of_pair("me:right"), ..Endpoint::new(&right.host, "") };
    check_access(&endpoint, Patience::short()).unwrap();
}

/// A mount that is open for weeks outlives passwords.
#[test]
fn who_logs_in_again_is_let_in_again() {
    static PASSWORD: AtomicUsize = AtomicUsize::new(1);
    let home = tempfile::tempdir().unwrap();
    let auth_file = home.path().join("auth.json");
    for has_tokens in [false, true] {
        PASSWORD.store(1, Ordering::SeqCst);
        let current = || basic("me", &PASSWORD.load(Ordering::SeqCst).to_string());
        let server = Server::start(move |asked| {
            let host = asked.header("host");
            let (challenge, token) = match has_tokens {
                false => (r#"Basic realm="x""#.to_owned(), current()),
                true => {
                    (format!(r#"Bearer realm="http://{host}/token""#), format!("Bearer {}", &current()[6..]))
                }
            };
            if asked.path.starts_with("/token") && asked.header("authorization") == current() {
                return Reply::of(200, format!(r#"{{"token":"{}"}}"#, &token[7..]));
            }
            match asked.header("authorization") == token {
                true => Reply::of(200, "{}"),
                false => Reply::of(401, "").with("www-authenticate", challenge),
            }
        });
        let log_in = |password: &str| {
            let auth = basic("me", password).replace("Basic ", "");
            std::fs::write(&auth_file, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host))
                .unwrap();
        };
        log_in("1");
        let keychain = Keychain::new(&Places::new(|_| None, None, 0), Some(&auth_file), &[]);
        let (host, repository) = (server.host.clone(), "a/b".to_owned());
        let kept = Some(Kept { keychain, host, repository });
        let endpoint =
            Endpoint { access: Access::of_pair("me:1"), kept, ..Endpoint::new(&server.host, "a/b") };
        let registry = Registry::open(&endpoint, Patience::short()).unwrap();
        registry.manifest(&tag("1")).unwrap();
        PASSWORD.store(2, Ordering::SeqCst);
        assert!(registry.manifest(&tag("1")).unwrap_err().is_unauthorized(), "nobody has logged in");
        log_in("2");
        registry.manifest(&tag("1")).unwrap();
        PASSWORD.store(3, Ordering::SeqCst);
        log_in("3");
        registry.manifest(&tag("1")).unwrap();
    }
}

#[test]
fn token_servers_that_talk_nonsense() {
    for (body, manner, says) in [
        ("no json", Manner::Whole, "not JSON"),
        ("{}", Manner::Whole, "no token"),
        (r#"{"token":"a\r\nEvil: 1"}"#, Manner::Whole, "can be sent"),
        ("xxxxxxxxxxxxxxxx", Manner::Endless, "more than 1048576 bytes"),
    ] {
        let server = Server::start(move |asked| {
            let realm = format!(r#"Bearer realm="http://{}/token""#, asked.header("host"));
            match asked.path.starts_with("/token") {
                true => Reply::of(200, body).sent(manner),
                false => Reply::of(401, "").with("www-authenticate", realm),
            }
        });
        let error = open(&server, Access::Anonymous).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// That this machine need not speak HTTPS says nothing of others.
#[test]
fn others_than_this_machine_are_asked_by_https_alone() {
    let server = Server::start(|_| {
        Reply::of(401, "").with("www-authenticate", r#"Bearer realm="http://auth.invalid/token""#)
    });
    let error = open(&server, Access::of_pair("me:secret")).unwrap_err().to_string();
    assert!(error.contains("not asked by HTTPS"), "{error}");
    let (_server, registry) = plain(|asked| match asked.path.contains("/blobs/") {
        true => Reply::of(307, "").with("location", "http://elsewhere.invalid/blob"),
        false => Reply::of(200, "{}"),
    });
    let error = fetch(&registry, b"x", 0).unwrap_err().to_string();
    assert!(error.contains("without HTTPS"), "{error}");
}

#[test]
fn who_is_told_to_wait_waits() {
    let count = AtomicUsize::new(0);
    let (server, registry) = plain(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::of(429, "").with("retry-after", 1_000_000),
        1 => Reply::of(503, ""),
        _ => Reply::of(200, "{}"),
    });
    registry.manifest(&tag("1")).unwrap();
    assert_eq!(server.count("/manifests/"), 3);
    let (server, registry) = plain(|_| Reply::of(429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#));
    let error = registry.manifest(&tag("1")).unwrap_err().to_string();
    assert!(error.contains("429") && error.contains("TOOMANYREQUESTS"), "{error}");
    assert_eq!(server.count("/manifests/"), 3, "no more often than that");
}

#[test]
fn elsewhere_nobody_learns_who_one_is() {
    let bytes = noise(1000);
    let sent = bytes.clone();
    let elsewhere = Server::start(move |_| Reply::of(200, sent.clone()));
    let to = format!("http://{}/x?sig=1", elsewhere.host);
    let server = Server::start(move |asked| match asked.header("authorization") {
        "" => Reply::of(401, "").with("www-authenticate", r#"Basic realm="x""#),
        _ if asked.path == "/v2/" => Reply::of(200, "{}"),
        _ => Reply::of(307, "").with("location", &to),
    });
    let registry = open(&server, Access::of_pair("me:secret")).unwrap();
    assert!(fetch(&registry, &bytes, 0).unwrap() == bytes);
    let asked = elsewhere.asked();
    assert!(asked.iter().all(|asked| asked.header("authorization").is_empty()) && !asked.is_empty());
    assert!(
        server
            .asked()
            .iter()
            .any(|asked| asked.path.contains("/blobs/") && !asked.header("authorization").is_empty())
    );
}

#[test]
fn elsewhere_nobody_asks_who_one_is() {
    let thief = Server::start(|asked| match asked.path.starts_with("/token") {
        true => Reply::of(200, r#"{"token":"x"}"#),
        false => {
            let realm = format!(r#"Bearer realm="http://{}/token""#, asked.header("host"));
            Reply::of(401, "").with("www-authenticate", realm)
        }
    });
    let to = format!("http://{}/x", thief.host);
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/v2/" => Reply::of(200, "{}"),
        _ => Reply::of(307, "").with("location", &to),
    });
    let registry = open(&server, Access::of_pair("me:secret")).unwrap();
    assert!(fetch(&registry, b"x", 0).unwrap_err().is_unauthorized());
    assert_eq!(thief.count("/token"), 0);
    assert!(thief.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[test]
fn redirects_end() {
    let (server, registry) = plain(|asked| Reply::of(302, "").with("location", format!("{}x", asked.path)));
    let error = registry.manifest(&tag("1")).unwrap_err().to_string();
    assert!(error.contains("more than 10"), "{error}");
    assert_eq!(server.count("/manifests/"), 11);
    for to in ["ftp://x/", "http://user@x/", ""] {
        let (_server, registry) = plain(move |_| match to {
            "" => Reply::of(302, ""),
            to => Reply::of(302, "").with("location", to),
        });
        let error = registry.manifest(&tag("1")).unwrap_err().to_string();
        assert!(error.contains("a redirect"), "{error}");
    }
}

#[test]
fn cut_connections() {
    let bytes = noise(500_000);
    for has_ranges in [true, false] {
        let (sent, count) = (bytes.clone(), AtomicUsize::new(0));
        let (server, registry) = plain(move |asked| {
            let start = if has_ranges { start_of(asked) } else { 0 };
            let cut = (count.fetch_add(1, Ordering::SeqCst) + 1) * 120_000;
            let rest = sent.len() - start;
            part(&sent, start).sent(Manner::Cut(cut.min(rest)))
        });
        assert!(fetch(&registry, &bytes, 0).unwrap() == bytes, "ranges: {has_ranges}");
        assert!(server.count("/blobs/") >= 3);
        assert!(fetch(&registry, &bytes, 499_999).unwrap() == bytes[499_999..]);
    }
    let (server, registry) = plain(|_| Reply::of(200, vec![0; 1000]).sent(Manner::Cut(0)));
    let error = fetch(&registry, &vec![0; 1000], 0).unwrap_err();
    assert!(matches!(error, RegistryError::Cut { position: 0, attempts: 3, .. }), "{error}");
    assert_eq!(server.count("/blobs/"), 3);
}

#[test]
fn lengths_that_are_wrong() {
    let bytes = noise(1000);
    for (reply, actual) in [
        (Reply::of(200, vec![0; 999]), 999),
        (Reply::of(200, vec![0; 1001]), 1001),
        (part(&[0; 1001], 10), 1001),
    ] {
        let start = if reply.status == 206 { 10 } else { 0 };
        let (_server, registry) = plain(move |_| reply.clone());
        match fetch(&registry, &bytes, start).unwrap_err() {
            RegistryError::WrongLength { expected: 1000, actual: found, .. } => assert_eq!(found, actual),
            other => panic!("{other}"),
        }
    }
    let (_server, registry) = plain(|_| Reply::of(200, vec![0; 4096]).sent(Manner::Endless));
    let mut taken = 0;
    let wanted = Wanted { what: "layer", digest: digest_of(b""), size: 100_000, start: 0 };
    let error = registry.blob(wanted, &mut |chunk| {
        taken += chunk.len();
        Ok(())
    });
    assert!(matches!(error, Err(RegistryError::WrongLength { .. })) && taken <= 100_000, "{error:?} {taken}");
    let (_server, registry) =
        plain(|_| Reply::of(206, vec![0; 500]).with("content-range", "bytes 0-499/1000"));
    let error = fetch(&registry, &bytes, 500).unwrap_err().to_string();
    assert!(error.contains("from 500 on, it sends those from 0 on"), "{error}");
}

#[test]
fn who_takes_the_bytes_may_refuse() {
    let bytes = noise(1000);
    let sent = bytes.clone();
    let (_server, registry) = plain(move |_| Reply::of(200, sent.clone()));
    let wanted = Wanted { what: "layer", digest: digest_of(&bytes), size: 1000, start: 0 };
    let error = registry.blob(wanted, &mut |_| Err(std::io::Error::other("full")));
    assert!(matches!(error, Err(RegistryError::NotTaken(_))), "{error:?}");
}

#[test]
fn nobody_is_waited_for_for_ever() {
    for manner in [Manner::Drip(30), Manner::Silent(3000)] {
        let (_server, registry) = plain(move |_| Reply::of(200, vec![0; 1000]).sent(manner));
        let start = Instant::now();
        let error = fetch(&registry, &vec![0; 1000], 0).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(10), "{manner:?} took {:?}: {error}", start.elapsed());
        let says = if matches!(manner, Manner::Drip(_)) { "too slow" } else { "in time" };
        assert!(error.contains(says), "{manner:?}: {error}");
    }
}

#[test]
fn manifests_that_lie() {
    let (_server, registry) = plain(|_| Reply::of(200, vec![b' '; 1 << 20]).sent(Manner::Endless));
    let error = registry.manifest(&tag("1")).unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    let (_server, registry) =
        plain(|_| Reply::of(200, "{}").with("docker-content-digest", digest_of(b"other")));
    let (wanted, actual) = (digest_of(b"other"), digest_of(b"{}"));
    for version in [tag("1"), Version::Digest(wanted)] {
        let error = registry.manifest(&version).unwrap_err().to_string();
        let says = [registry.name(), wanted.to_string(), actual.to_string()];
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
    }
    let (_server, registry) = plain(|_| Reply::of(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    let error = registry.manifest(&tag("1")).unwrap_err();
    assert!(
        error.is_absent() && error.to_string().contains("a/b:1: not found (MANIFEST_UNKNOWN)"),
        "{error}"
    );
}

#[test]
fn media_types_without_their_parameters() {
    let (_server, registry) = plain(|asked| {
        let media_type =
            if asked.path.ends_with("/1") { "Application/vnd.x+json; charset=utf-8" } else { "text/plain" };
        Reply::of(200, "{}").with("content-type", media_type).with("docker-content-digest", digest_of(b"{}"))
    });
    assert_eq!(registry.manifest(&tag("1")).unwrap().media_type, "application/vnd.x+json");
    assert_eq!(registry.manifest(&tag("2")).unwrap().media_type, "");
    assert_eq!(registry.manifest_digest(&tag("1")).unwrap(), Some(digest_of(b"{}")));
}

#[test]
fn tags_come_in_pages() {
    let (server, registry) = plain(|asked| match asked.path.contains("last=b") {
        false => Reply::of(200, r#"{"name":"a/b","tags":["a","b"]}"#)
            .with("link", r#"</v2/a/b/tags/list?n=2&last=b>; rel="next""#),
        true => Reply::of(200, r#"{"name":"a/b","tags":["c"]}"#),
    });
    assert_eq!(registry.tags(100).unwrap(), ["a", "b", "c"]);
    assert_eq!(registry.tags(1).unwrap(), ["a"]);
    assert_eq!(server.count("/tags/"), 3);
    let (_server, registry) = plain(|_| {
        Reply::of(200, r#"{"tags":["a"]}"#).with("link", r#"<http://elsewhere.invalid/>; rel="next""#)
    });
    let error = registry.tags(9).unwrap_err().to_string();
    assert!(error.contains("another server"), "{error}");
    let (_server, registry) = plain(|_| Reply::of(200, r#"{"tags":null}"#));
    assert!(registry.tags(9).unwrap().is_empty());
}

#[test]
fn what_is_no_registry() {
    let server = Server::start(|_| Reply::of(404, "nothing here"));
    let error = open(&server, Access::Anonymous).unwrap_err().to_string();
    assert!(error.contains("no registry at /v2/"), "{error}");
    let server = Server::start(|_| Reply::of(200, "{}"));
    let strict = Endpoint { insecure: false, ..Endpoint::new(&server.host, "a/b") };
    let error = Registry::open(&strict, Patience::short()).unwrap_err();
    assert!(!error.is_absent(), "{error}");
    assert!(server.asked().is_empty(), "nothing is said without TLS");
    let nobody = Endpoint::new("127.0.0.1:1", "a/b");
    let error = Registry::open(&nobody, Patience::short()).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("refused"), "{error}");
}
