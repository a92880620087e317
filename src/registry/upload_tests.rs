//! Uploads to a registry that keeps what it gets, and fails where a test wants it to.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::registry::{Access, Bytes, Endpoint, Patience, Version};

/// What a registry does wrong with the next bytes that it gets.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Keeps so many of them and ends the connection.
    Cut(usize),
    /// Keeps them and does not answer.
    Mute,
    /// Keeps so many of them and says so.
    Less(usize),
    /// Knows the upload no more.
    Forget,
    /// Wants another token.
    Expire,
    /// Answers this, and keeps nothing.
    Status(u16),
    /// The same, before anything of the body is read.
    Early(u16),
    /// Says that it has another digest.
    OtherDigest,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    blobs: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    /// Only who shows this is answered.
    token: Option<u32>,
    /// Blobs of other repositories.
    others: BTreeMap<String, Vec<u8>>,
    elsewhere: String,
    piece_min: u64,
    /// Nothing may come with the request that ends an upload.
    wants_pieces: bool,
    /// Says `0-400` of 400 bytes.
    names_the_next: bool,
    log: Vec<String>,
    /// Bytes of bodies that were kept.
    received: usize,
}

struct Fake {
    host: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl Fake {
    fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(state));
        let (shared, own) = (Arc::clone(&state), host.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, host) = (Arc::clone(&shared), own.clone());
                thread::spawn(move || serve(stream, &state, &host));
            }
        });
        Self { host, state }
    }

    fn with(faults: &[Fault]) -> Self {
        Self::start(State { faults: faults.iter().copied().collect(), ..State::default() })
    }

    fn open(&self) -> Registry {
        let access = Access::Password { username: "me".into(), password: "pw".into() };
        let endpoint = Endpoint { access, ..Endpoint::new(&self.host, "a/b") };
        let mut registry = Registry::open_to_push(&endpoint, Patience::short()).unwrap();
        registry.sizes = Sizes { whole_max: 100, piece: 400 };
        registry
    }

    fn upload(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        send(&self.open(), bytes, digest_of(bytes))
    }

    #[track_caller]
    fn has(&self, bytes: &[u8]) {
        let state = self.state.lock().unwrap();
        assert!(
            state.blobs.get(&digest_of(bytes).to_string()).is_some_and(|kept| kept == bytes),
            "{:#?}",
            state.log
        );
    }

    fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }

    fn received(&self) -> usize {
        self.state.lock().unwrap().received
    }
}

fn send(registry: &Registry, bytes: &[u8], digest: Digest) -> Result<(), RegistryError> {
    let mut told = |_| Ok(());
    registry.upload(&mut Source::new("layer", digest, Bytes::Memory(bytes), &mut told), None)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at.wrapping_mul(2_654_435_761) >> 7) & 0xff).unwrap()).collect()
}

fn read_head(stream: &mut TcpStream) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        // TLS is not spoken here.
        if stream.read(&mut byte).ok()? == 0 || (head.is_empty() && byte[0] == 0x16) {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query =
        pairs.map(|(key, value)| (key.to_owned(), value.replace("%3A", ":").replace("%2F", "/"))).collect();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some(Request {
        method,
        path: path.to_owned(),
        query,
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
    })
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, host: &str) {
    let Some(mut request) = read_head(&mut stream) else { return };
    let length: usize = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let is_upload = request.path.contains("/uploads/") && length > 0;
    let fault = if is_upload || request.path.contains("/manifests/") && request.method == "PUT" {
        state.lock().unwrap().faults.pop_front()
    } else {
        None
    };
    let kept = match fault {
        Some(Fault::Cut(count)) => count.min(length),
        Some(Fault::Early(_)) => 0,
        _ => length,
    };
    request.body = vec![0; kept];
    if stream.read_exact(&mut request.body).is_err() {
        // Who breaks off says no more, and what came counts.
        return;
    }
    let range = request.headers.get("content-range").cloned().unwrap_or_default();
    let answer = {
        let mut state = state.lock().unwrap();
        state.log.push(format!(
            "{} {} {range} {:?} {}",
            request.method,
            request.path,
            request.query.keys().collect::<Vec<_>>(),
            request.headers.get("authorization").map_or("-", String::as_str)
        ));
        state.answer(&request, fault, host)
    };
    if matches!(fault, Some(Fault::Cut(_) | Fault::Mute)) {
        return;
    }
    let (status, headers, body) = answer;
    let mut head =
        format!("HTTP/1.1 {status} Fake\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = if request.method == "HEAD" { Vec::new() } else { body };
    // Who hangs up early is not our concern.
    stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&body)).ok();
}

impl State {
    fn answer(&mut self, request: &Request, fault: Option<Fault>, host: &str) -> Reply {
        let plain = |status| (status, Vec::new(), Vec::new());
        if request.path == "/token" {
            let token = self.token.unwrap_or_default();
            return (200, Vec::new(), format!(r#"{{"token":"t{token}"}}"#).into_bytes());
        }
        if let Some(Fault::Expire) = fault {
            self.token = self.token.map(|token| token + 1);
        }
        let shown = request.headers.get("authorization").map_or("", String::as_str);
        if self.token.is_some_and(|token| shown != format!("Bearer t{token}")) {
            let challenge =
                format!(r#"Bearer realm="http://{host}/token",service="s",scope="repository:a/b:pull,push""#);
            return (401, vec![("www-authenticate", challenge)], Vec::new());
        }
        if let Some(Fault::Status(status) | Fault::Early(status)) = fault {
            let body = br#"{"errors":[{"code":"NO","message":"not today"}]}"#;
            return (status, vec![("retry-after", "0".into())], body.to_vec());
        }
        let rest = request.path.strip_prefix("/v2/a/b/").unwrap_or_default();
        match (request.method.as_str(), rest.split_once('/')) {
            ("GET", None) if request.path == "/v2/" => plain(200),
            ("PUT" | "HEAD", Some(("manifests", name))) => {
                if request.method == "PUT" {
                    self.manifests.insert(name.to_owned(), request.body.clone());
                }
                let digest = match fault {
                    Some(Fault::OtherDigest) => digest_of(b"another"),
                    _ => digest_of(&self.manifests[name]),
                };
                (201, vec![("docker-content-digest", digest.to_string())], Vec::new())
            }
            ("POST", Some(("blobs", "uploads/"))) => self.begin(request),
            (_, Some(("blobs", upload))) if upload.starts_with("uploads/") => self.go_on(request, fault),
            ("HEAD", Some(("blobs", digest))) => {
                plain(if self.blobs.contains_key(digest) { 200 } else { 404 })
            }
            _ => plain(405),
        }
    }

    fn begin(&mut self, request: &Request) -> Reply {
        if let Some(digest) = request.query.get("mount")
            && request.query["from"] == "other/x"
            && let Some(bytes) = self.others.get(digest)
        {
            self.blobs.insert(digest.clone(), bytes.clone());
            return (201, Vec::new(), Vec::new());
        }
        let id = self.uploads.len().to_string();
        self.uploads.insert(id.clone(), Vec::new());
        let mut headers = vec![("location", self.location(&id))];
        if self.piece_min > 0 {
            headers.push(("oci-chunk-min-length", self.piece_min.to_string()));
        }
        (202, headers, Vec::new())
    }

    /// Relative, or on another server, always with something that must come back.
    fn location(&self, id: &str) -> String {
        format!("{}/v2/a/b/blobs/uploads/{id}?_state=x%2Fy", self.elsewhere)
    }

    fn go_on(&mut self, request: &Request, fault: Option<Fault>) -> Reply {
        assert_eq!(request.query["_state"], "x/y", "the query of a location is part of it");
        let id = request.path.rsplit('/').next().unwrap().to_owned();
        if let Some(Fault::Forget) = fault {
            self.uploads.remove(&id);
        }
        let location = self.location(&id);
        let Some(upload) = self.uploads.get_mut(&id) else { return (404, Vec::new(), Vec::new()) };
        if request.method == "GET" {
            let last = upload.len().saturating_sub(1);
            return (204, vec![("location", location), ("range", format!("0-{last}"))], Vec::new());
        }
        if let Some(range) = request.headers.get("content-range") {
            let (first, last) = range.split_once('-').unwrap();
            assert!(
                fault.is_some()
                    || last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1
                        == request.body.len()
            );
            if first.parse::<usize>().unwrap() != upload.len() {
                return (416, vec![("location", location)], Vec::new());
            }
        }
        if self.wants_pieces && request.method == "PUT" && !request.body.is_empty() {
            let headers =
                vec![("content-type", "text/plain; charset=utf-8".into()), ("retry-after", "0".into())];
            return (500, headers, b"in pieces,\tplease".to_vec());
        }
        let kept = match fault {
            Some(Fault::Less(count)) => count,
            _ => request.body.len(),
        };
        upload.extend_from_slice(&request.body[..kept]);
        self.received += kept;
        if request.method == "PATCH" {
            let last = upload.len().saturating_sub(usize::from(!self.names_the_next));
            let range = format!("0-{last}");
            return (202, vec![("location", location), ("range", range)], Vec::new());
        }
        let digest = request.query["digest"].clone();
        if digest_of(upload).to_string() != digest {
            return (400, Vec::new(), br#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#.to_vec());
        }
        let told = match fault {
            Some(Fault::OtherDigest) => digest_of(b"another").to_string(),
            _ => digest.clone(),
        };
        let bytes = self.uploads.remove(&id).unwrap();
        self.blobs.insert(digest, bytes);
        (201, vec![("docker-content-digest", told)], Vec::new())
    }
}

#[test]
fn small_ones_go_at_once_and_large_ones_in_pieces() {
    for (len, requests) in [(0, ["PUT"].as_slice()), (100, &["PUT"]), (101, &["PATCH", "PUT"])] {
        let fake = Fake::with(&[]);
        fake.upload(&noise(len)).unwrap();
        fake.has(&noise(len));
        let log = fake.log();
        let methods: Vec<&str> = log.iter().skip(2).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(methods, requests, "{len}: {log:#?}");
    }
    let fake = Fake::with(&[]);
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
    assert_eq!(fake.received(), 1000);
    let ranges: Vec<String> = fake
        .log()
        .iter()
        .filter(|line| line.starts_with("PATCH"))
        .map(|line| line.split(' ').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(ranges, ["0-399", "400-799", "800-999"]);
}

#[test]
fn pieces_are_as_long_as_the_registry_wants() {
    let fake = Fake::start(State { piece_min: 600, ..State::default() });
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
    assert_eq!((fake.count(" 0-599 "), fake.count(" 600-999 ")), (1, 1), "{:#?}", fake.log());
    let fake = Fake::start(State { piece_min: 1 << 60, ..State::default() });
    let error = fake.upload(&noise(1000)).unwrap_err().to_string();
    assert!(error.contains("pieces"), "{error}");
}

/// What arrived before the connection broke is not sent again.
#[test]
fn broken_connections() {
    let passing = [Fault::Status(503), Fault::Status(429), Fault::Status(416)];
    for fault in [Fault::Cut(150), Fault::Mute, Fault::Less(150)].into_iter().chain(passing) {
        let fake = Fake::start(State { faults: [Fault::Cut(400), fault].into(), ..State::default() });
        fake.upload(&noise(1000)).unwrap();
        fake.has(&noise(1000));
        assert_eq!(fake.received(), 1000, "{fault:?}: {:#?}", fake.log());
        assert!(fake.count("GET /v2/a/b/blobs/uploads/") >= 2, "{:#?}", fake.log());
    }
    // Nothing, or one byte, is known to be there: from the beginning.
    let fake = Fake::with(&[Fault::Cut(0)]);
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
}

#[test]
fn an_upload_that_is_forgotten_begins_again() {
    let fake = Fake::start(State { faults: [Fault::Cut(400), Fault::Forget].into(), ..State::default() });
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
    assert_eq!(fake.count("POST"), 2, "{:#?}", fake.log());
    // The last answer is lost: the blob is there, and nothing is sent again.
    let fake = Fake::with(&[Fault::Mute]);
    fake.upload(&noise(90)).unwrap();
    fake.has(&noise(90));
    assert_eq!((fake.received(), fake.count("POST")), (90, 1), "{:#?}", fake.log());
}

#[test]
fn tokens_that_expire_in_the_middle() {
    let faults = [Fault::Cut(200), Fault::Expire, Fault::Expire].into();
    let fake = Fake::start(State { faults, token: Some(1), ..State::default() });
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
    assert_eq!(fake.received(), 1000);
    assert!(fake.count("Bearer t3") > 0, "{:#?}", fake.log());
}

#[test]
fn who_never_takes_it_is_left() {
    let fake = Fake::with(&[Fault::Cut(0); 40]);
    let error = fake.upload(&noise(1000)).unwrap_err();
    let RegistryError::Broken { position, size, attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((*position, *size, *attempts), (0, 1000, Patience::short().attempts));
    assert!(error.to_string().contains(&digest_of(&noise(1000)).to_string()), "{error}");
    // What a registry says of it is told.
    let fake = Fake::with(&[Fault::Status(403)]);
    let error = fake.upload(&noise(1000)).unwrap_err().to_string();
    assert!(error.contains("access denied") && error.contains("not today"), "{error}");
    let fake = Fake::with(&[Fault::Status(400)]);
    let error = fake.upload(&noise(10)).unwrap_err().to_string();
    assert!(error.contains("400") && error.contains("NO not today"), "{error}");
}

/// There are registries that know one way alone.
#[test]
fn who_does_not_take_it_one_way_gets_it_another() {
    let fake = Fake::start(State { wants_pieces: true, ..State::default() });
    fake.upload(&noise(90)).unwrap();
    fake.has(&noise(90));
    assert_eq!(fake.count("PATCH"), 1, "{:#?}", fake.log());
    // The first piece, twice; then everything in one, and then with the end.
    for (refused, pieces) in [(2, 3), (4, 4)] {
        let fake = Fake::with(&vec![Fault::Status(500); refused]);
        let mut registry = fake.open();
        registry.patience.attempts = 6;
        send(&registry, &noise(1000), digest_of(&noise(1000))).unwrap();
        fake.has(&noise(1000));
        assert_eq!((fake.count("PATCH"), fake.count("PUT")), (pieces, 1), "{:#?}", fake.log());
    }
    // What it says until then is told, whoever says it.
    let fake = Fake::start(State { wants_pieces: true, ..State::default() });
    let mut registry = fake.open();
    registry.patience.attempts = 1;
    let error = send(&registry, &noise(90), digest_of(&noise(90))).unwrap_err().to_string();
    assert!(error.contains(r"it answers 500 (in pieces,\tplease)"), "{error}");
}

#[test]
fn who_names_the_byte_behind_the_last_one_is_understood() {
    let fake = Fake::start(State { names_the_next: true, ..State::default() });
    fake.upload(&noise(1000)).unwrap();
    fake.has(&noise(1000));
    assert_eq!((fake.count("PATCH"), fake.count("POST")), (3, 1), "{:#?}", fake.log());
}

/// More than fits into the buffers of a connection, which the other side ends without reading it.
#[test]
fn an_answer_that_comes_early_is_heard() {
    let bytes = noise(24 << 20);
    for status in [413, 403] {
        let fake = Fake::with(&[Fault::Early(status)]);
        let mut registry = fake.open();
        registry.sizes = Sizes { whole_max: 100, piece: 64 << 20 };
        let error = send(&registry, &bytes, digest_of(&bytes)).unwrap_err().to_string();
        assert!(error.contains("NO not today"), "{error}");
        assert_eq!((fake.received(), fake.count("PATCH")), (0, 1), "{:#?}", fake.log());
    }
}

/// The last byte of a damaged blob is never sent.
#[test]
fn damage_is_noticed_before_it_is_there() {
    for len in [90, 1000] {
        let fake = Fake::with(&[]);
        let error = send(&fake.open(), &noise(len), digest_of(b"another")).unwrap_err();
        let RegistryError::Damaged { expected, actual, .. } = &error else { panic!("{error}") };
        assert_eq!((*expected, *actual), (digest_of(b"another"), digest_of(&noise(len))));
        assert!(fake.state.lock().unwrap().blobs.is_empty());
        assert!(fake.received() < len, "{}", fake.received());
    }
}

#[test]
fn who_gives_the_bytes_can_stop() {
    let fake = Fake::with(&[]);
    let mut told = |done| if done > 500 { Err(io::Error::other("enough")) } else { Ok(()) };
    let bytes = noise(1000);
    let mut source = Source::new("layer", digest_of(&bytes), Bytes::Memory(&bytes), &mut told);
    let error = fake.open().upload(&mut source, None).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Unread { source, .. } if source.to_string() == "enough"),
        "{error}"
    );
    assert!(fake.state.lock().unwrap().blobs.is_empty());
}

#[test]
fn another_server_gets_no_credentials() {
    let storage = Fake::with(&[]);
    storage.state.lock().unwrap().uploads.insert("0".into(), Vec::new());
    let elsewhere = format!("http://{}", storage.host);
    storage.state.lock().unwrap().elsewhere = elsewhere.clone();
    let fake = Fake::start(State { token: Some(1), elsewhere, ..State::default() });
    fake.upload(&noise(1000)).unwrap();
    storage.has(&noise(1000));
    assert_eq!(storage.count(" -"), storage.log().len(), "{:#?}", storage.log());
    assert!(fake.count("Bearer t1") > 0);
}

#[test]
fn from_https_to_http_is_no_way() {
    let fake = Fake::start(State::default());
    let registry = fake.open();
    let answered = |location: &str| {
        let https = Url::parse("https://h.example/v2/a/b/blobs/uploads/").unwrap();
        registry.location(&https, Some(location), "layer")
    };
    assert_eq!(answered("/up?x=1").unwrap().to_string(), "https://h.example/up?x=1");
    for (wrong, word) in [("http://h.example/up", "HTTP"), ("ftp://h/", "http")] {
        assert!(answered(wrong).unwrap_err().to_string().contains(word));
    }
    let https = Url::parse("https://h.example/").unwrap();
    assert!(registry.location(&https, None, "layer").unwrap_err().to_string().contains("where"));
}

#[test]
fn mounts() {
    let bytes = noise(300);
    let fake = Fake::start(State {
        others: [(digest_of(&bytes).to_string(), bytes.clone())].into(),
        ..State::default()
    });
    let registry = fake.open();
    assert!(!registry.has_blob("layer", digest_of(&bytes)).unwrap());
    assert!(matches!(registry.mount("layer", digest_of(&bytes), "other/x").unwrap(), Mounted::Yes));
    assert!(registry.has_blob("layer", digest_of(&bytes)).unwrap());
    fake.has(&bytes);
    assert_eq!(fake.received(), 0);
    // What is not there is uploaded, in the upload that has begun.
    let other = noise(301);
    let Mounted::Upload(session) = registry.mount("layer", digest_of(&other), "other/x").unwrap() else {
        panic!("no upload")
    };
    let mut told = |_| Ok(());
    let mut source = Source::new("layer", digest_of(&other), Bytes::Memory(&other), &mut told);
    registry.upload(&mut source, Some(session)).unwrap();
    fake.has(&other);
    assert_eq!(fake.count("POST"), 2, "{:#?}", fake.log());
}

#[test]
fn digests_that_the_registry_makes_up() {
    let fake = Fake::with(&[Fault::OtherDigest]);
    let error = fake.upload(&noise(90)).unwrap_err();
    assert!(matches!(error, RegistryError::OtherDigest { .. }), "{error}");
    let fake = Fake::with(&[Fault::OtherDigest]);
    let tag = Version::Tag("1".into());
    let error = fake.open().put_manifest(&tag, "application/x", b"{}").unwrap_err();
    let RegistryError::OtherDigest { expected, actual, .. } = &error else { panic!("{error}") };
    assert_eq!((*expected, *actual), (digest_of(b"{}"), digest_of(b"another")));
    let digest = fake.open().put_manifest(&tag, "application/x", b"{}").unwrap();
    assert_eq!(digest, digest_of(b"{}"));
    assert_eq!(fake.state.lock().unwrap().manifests["1"], b"{}");
}

#[test]
fn ranges() {
    for (text, bytes) in [("0-9", Some(10)), ("bytes=0-1", Some(2)), (" 0-5 ", Some(6))] {
        assert_eq!(received_of(text), bytes, "{text}");
    }
    for nothing in ["0-0", "", "0-", "1-5", "0--1", "0-18446744073709551615", "x"] {
        assert_eq!(received_of(nothing), None, "{nothing}");
    }
}
