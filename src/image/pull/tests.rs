//! Images from servers that lie and stop: what is in the store afterwards is right, or not there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flate2::{Compression, write::GzEncoder};

use super::super::open;
use super::*;
use crate::registry::scripted_server::{Asked, Manner, Reply, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a registry has: by tag or digest, with a media type.
#[derive(Clone, Debug, Default)]
struct Shelf {
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    fn blob(&mut self, bytes: Vec<u8>) -> (Digest, usize) {
        let (digest, size) = (digest_of(&bytes), bytes.len());
        self.blobs.insert(digest.to_string(), bytes);
        (digest, size)
    }

    fn manifest(&mut self, tag: &str, media_type: &str, text: &str) -> Digest {
        let digest = digest_of(text.as_bytes());
        for name in [tag.to_owned(), digest.to_string()] {
            self.manifests.insert(name, (media_type.to_owned(), text.into()));
        }
        digest
    }

    /// An image whose layers have a file each, with this content.
    fn image(&mut self, tag: &str, architecture: &str, contents: &[&[u8]]) -> (Digest, usize) {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (place, content) in contents.iter().enumerate() {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("file{place}"), *content).unwrap();
            let tar = tar.into_inner().unwrap();
            diff_ids.push(format!("{:?}", digest_of(&tar).to_string()));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&tar).unwrap();
            let (digest, size) = self.blob(gzip.finish().unwrap());
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            layers.push(format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#));
        }
        let config = format!(
            r#"{{"os":"linux","architecture":"{architecture}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let (digest, size) = self.blob(config.into_bytes());
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}},"layers":[{}]}}"#,
            layers.join(",")
        );
        (self.manifest(tag, MANIFEST, &text), text.len())
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        if asked.path == "/v2/" {
            return Reply::of(200, "{}");
        }
        if let Some((media_type, text)) = self.manifests.get(last) {
            let reply = Reply::of(200, text.clone()).with("content-type", media_type);
            return reply.with("docker-content-digest", digest_of(text));
        }
        let Some(bytes) = self.blobs.get(last) else { return Reply::of(404, "") };
        match asked.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>() {
            Ok(start) => Reply::of(206, &bytes[start..])
                .with("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
            Err(_) => Reply::of(200, bytes.clone()),
        }
    }
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<LayerState>>);

impl Pulling for Seen {
    fn layers(&self, _: &[Descriptor]) {}

    fn layer(&self, _: Digest, state: LayerState) {
        self.0.lock().unwrap().push(state);
    }
}

fn spec(server: &Server, name: &str) -> PullSpec {
    PullSpec {
        reference: format!("{}/{name}", server.host).parse().unwrap(),
        platform: None,
        endpoints: vec![Endpoint::new(&server.host, "a")],
        patience: Patience::short(),
    }
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("s")).unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    // Knuth's MMIX: nothing that could be compressed.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[2]
    };
    (0..len).map(|_| next()).collect()
}

/// What is in the store besides complete blobs.
fn unfinished(store: &Store) -> usize {
    let names = std::fs::read_dir(store.blobs().dir()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with('.')).count()
}

#[test]
fn what_is_missing_comes_and_nothing_else() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[b"base", &noise(900_000)]);
    shelf.image("2", "amd64", &[b"base", b"other"]);
    let server = Server::start(move |asked| shelf.answer(asked));
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let seen = Seen::default();
    let pulled = pull(&store, &spec(&server, "a:1"), &seen).unwrap();
    assert!(pulled.is_new);
    assert_eq!(server.count("/blobs/"), 3);
    let image = open(&pulled.name, &store).unwrap();
    assert_eq!((image.layers.len(), image.config_digest), (2, pulled.config_digest));
    let indexes = || std::fs::read_dir(store.index_dir()).unwrap().count();
    assert_eq!((indexes(), unfinished(&store)), (2, 0), "they were built on the way");
    let last = *seen.0.lock().unwrap().last().unwrap();
    assert_eq!(last, LayerState::Complete);

    let again = pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap();
    assert_eq!(again, Pulled { is_new: false, ..pulled });
    assert_eq!(server.count("/blobs/"), 3);
    assert!(!is_newer(&store, &spec(&server, "a:1")).unwrap());
    assert!(is_newer(&store, &spec(&server, "a:2")).unwrap());
    let manifests = server
        .asked()
        .iter()
        .filter(|asked| asked.method == "GET" && asked.path.contains("/manifests/"))
        .count();
    assert_eq!(manifests, 1, "what is known is not fetched");
    // The base is there, whatever image it came with.
    pull(&store, &spec(&server, "a:2"), &Seen::default()).unwrap();
    assert_eq!(server.count("/blobs/"), 5);
    assert_eq!(store.refs().list().unwrap().len(), 2);
}

#[test]
fn one_platform_of_several() {
    let mut shelf = Shelf::default();
    let entries: Vec<String> = ["amd64", "arm64", "s390x"]
        .iter()
        .map(|name| {
            let (digest, size) = shelf.image(name, name, &[name.as_bytes()]);
            format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{name}"}}}}"#)
        })
        .collect();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let digest = shelf.manifest("all", INDEX, &index);
    let server = Server::start(move |asked| shelf.answer(asked));
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    for platform in ["linux/arm64", "linux/amd64"] {
        let spec = PullSpec { platform: Some(platform.parse().unwrap()), ..spec(&server, "a:all") };
        let pulled = pull(&store, &spec, &Seen::default()).unwrap();
        assert_eq!(pulled.digest, digest);
        let sought = super::super::Sought { platform: spec.platform.clone(), ..Default::default() };
        let image = super::super::open_sought(&pulled.name, &store, &sought).unwrap();
        assert_eq!(image.config_digest, pulled.config_digest);
    }
    let mips = PullSpec { platform: Some("linux/mips".parse().unwrap()), ..spec(&server, "a:all") };
    let error = pull(&store, &mips, &Seen::default()).unwrap_err().to_string();
    assert!(error.contains("docker://") && error.contains("linux/s390x"), "{error}");
    let pinned = pull(&store, &spec(&server, &format!("a@{digest}")), &Seen::default());
    assert!(pinned.unwrap().name.ends_with(&digest.to_string()));
}

#[test]
fn wrong_bytes_leave_nothing() {
    let mut shelf = Shelf::default();
    let content = noise(300_000);
    shelf.image("1", "amd64", &[&content]);
    let largest =
        shelf.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(name, _)| name.clone()).unwrap();
    for change in [
        |bytes: &mut Vec<u8>| bytes[200_000] ^= 1,
        |bytes: &mut Vec<u8>| bytes.push(0),
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1),
    ] {
        let mut bad = shelf.clone();
        change(bad.blobs.get_mut(&largest).unwrap());
        let server = Server::start(move |asked| bad.answer(asked));
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let error = pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&server.host) && text.contains(&largest), "{text}");
        assert!(!store.blobs().has(largest.parse().unwrap()).unwrap());
        assert_eq!((unfinished(&store), store.refs().list().unwrap().len()), (0, 0), "{text}");
        assert_eq!(std::fs::read_dir(store.index_dir()).unwrap().count(), 0, "{text}");
    }
}

#[test]
fn what_was_begun_is_gone_on_with() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[&noise(400_000)]);
    let (name, bytes) =
        shelf.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(n, b)| (n.clone(), b.clone())).unwrap();
    let partial = format!(".tmp-{}", name.trim_start_matches("sha256:"));
    // As far as it goes it is right; it is damaged.
    for (begun, ranges) in
        [(bytes[..123_456].to_vec(), vec!["bytes=123456-"]), (vec![0; 1000], vec!["bytes=1000-", ""])]
    {
        let shelf = shelf.clone();
        let server = Server::start(move |asked| shelf.answer(asked));
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        std::fs::write(store.blobs().dir().join(&partial), begun).unwrap();
        pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap();
        let asked: Vec<String> = server
            .asked()
            .iter()
            .filter(|asked| asked.path.ends_with(&name))
            .map(|asked| asked.header("range").to_owned())
            .collect();
        assert_eq!(asked, ranges);
        assert_eq!((unfinished(&store), std::fs::read_dir(store.index_dir()).unwrap().count()), (0, 1));
    }
}

#[test]
fn what_is_cut_off_stays_for_the_next_time() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[&noise(400_000)]);
    let is_cut = Arc::new(AtomicUsize::new(1));
    let shared = Arc::clone(&is_cut);
    let server = Server::start(move |asked| {
        let reply = shelf.answer(asked);
        match shared.load(Ordering::SeqCst) == 1 && reply.body.len() > 50_000 {
            true if asked.header("range").is_empty() => reply.sent(Manner::Cut(50_000)),
            true => reply.sent(Manner::Cut(0)),
            false => reply,
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let error = pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap_err().to_string();
    assert!(error.contains("cut off at 50000 of"), "{error}");
    assert_eq!((unfinished(&store), store.refs().list().unwrap().len()), (1, 0));
    is_cut.store(0, Ordering::SeqCst);
    pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap();
    assert_eq!(server.asked().last().unwrap().header("range"), "bytes=50000-");
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn two_at_once_download_once() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[&noise(2_000_000), b"small"]);
    let server = Server::start(move |asked| shelf.answer(asked));
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let spec = spec(&server, "a:1");
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..3).map(|_| scope.spawn(|| pull(&store, &spec, &Seen::default()).unwrap())).collect();
        let ids: Vec<Digest> = pulls.into_iter().map(|pull| pull.join().unwrap().config_digest).collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    });
    let layers = server
        .asked()
        .iter()
        .filter(|asked| asked.path.contains("/blobs/"))
        .map(|asked| asked.path.clone())
        .collect::<Vec<_>>();
    // The config is small enough to be fetched by each.
    for layer in &layers {
        let count = layers.iter().filter(|other| *other == layer).count();
        assert!(count == 1 || count <= 3 && layers.len() <= 5, "{layers:?}");
    }
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn documents_that_can_be_read_in_two_ways() {
    let zero = format!("sha256:{}", "00".repeat(32));
    let both = format!(
        r#"{{"schemaVersion":2,"layers":[],"config":{{"digest":"{zero}","size":1}},"manifests":[]}}"#
    );
    for (media_type, text, says) in [
        (MANIFEST, both.as_str(), "both"),
        (MANIFEST, r#"{"schemaVersion":2,"manifests":[]}"#, "does not fit"),
        (
            INDEX,
            r#"{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
            "does not fit",
        ),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#, "schema 1"),
        (MANIFEST, "[]", "not a manifest"),
    ] {
        let mut shelf = Shelf::default();
        shelf.manifest("1", media_type, text);
        let server = Server::start(move |asked| shelf.answer(asked));
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let error = pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
        assert_eq!(store.refs().list().unwrap().len(), 0);
    }
}

#[test]
fn a_layer_that_is_not_what_the_config_says() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[b"one"]);
    let (name, config) = shelf
        .blobs
        .iter()
        .find(|(_, bytes)| bytes.starts_with(b"{"))
        .map(|(n, b)| (n.clone(), b.clone()))
        .unwrap();
    let text = String::from_utf8(config).unwrap();
    let at = text.find("sha256:").unwrap() + 7;
    let lie = format!("{}{}{}", &text[..at], "11".repeat(32), &text[at + 64..]);
    let (lie_digest, _) = shelf.blob(lie.into_bytes());
    let (_, manifest) = shelf.manifests["1"].clone();
    let manifest = String::from_utf8(manifest).unwrap().replace(&name, &lie_digest.to_string());
    shelf.manifest("1", MANIFEST, &manifest);
    let server = Server::start(move |asked| shelf.answer(asked));
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let error = pull(&store, &spec(&server, "a:1"), &Seen::default()).unwrap_err().to_string();
    assert!(error.contains("diffID") && error.contains("docker://"), "{error}");
    assert_eq!(store.refs().list().unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(store.index_dir()).unwrap().count(), 0);
}

#[test]
fn mirrors_come_first_and_need_not_be_there() {
    let mut shelf = Shelf::default();
    shelf.image("1", "amd64", &[b"one"]);
    let server = Server::start(move |asked| shelf.answer(asked));
    let empty =
        Server::start(|asked| if asked.path == "/v2/" { Reply::of(200, "{}") } else { Reply::of(404, "") });
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let mirrors = ["127.0.0.1:1", &empty.host, &server.host].map(|host| Endpoint::new(host, "a"));
    let with_mirrors = PullSpec { endpoints: mirrors.to_vec(), ..spec(&server, "a:1") };
    pull(&store, &with_mirrors, &Seen::default()).unwrap();
    assert_eq!(empty.count("/manifests/"), 1);
    let nowhere = PullSpec { endpoints: Vec::new(), ..spec(&server, "a:1") };
    assert!(pull(&store, &nowhere, &Seen::default()).is_err());
}
