//! Lists of referrers, kept by a registry or by its clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::registry::scripted_server::{Asked, Manner, Reply, Server};
use crate::registry::tests::{digest_of, plain};

const OURS: &str = "application/vnd.example.ours";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn subject() -> Digest {
    digest_of(b"image")
}

fn entry(name: &str, artifact_type: &str) -> String {
    let digest = digest_of(name.as_bytes());
    format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":7,"artifactType":"{artifact_type}"}}"#)
}

fn index(entries: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE_INDEX}","manifests":[{}],"annotations":{{"kept":"yes"}}}}"#,
        entries.join(",")
    )
}

fn list(text: impl Into<String>) -> Reply {
    Reply::of(200, text.into()).with("content-type", MEDIA_TYPE_INDEX)
}

fn digests(registry: &Registry) -> Result<Vec<Digest>, RegistryError> {
    Ok(registry.referrers(subject(), OURS)?.into_iter().map(|one| one.digest).collect())
}

fn is_referrers(asked: &Asked) -> bool {
    asked.path.contains("/referrers/")
}

/// A registry that keeps manifests by tag and digest, with lists of its own or not.
#[derive(Clone, Default)]
struct Shelf {
    manifests: Arc<Mutex<BTreeMap<String, String>>>,
    has_lists: bool,
    /// What somebody else puts under each tag right after us.
    intruder: Option<String>,
}

impl Shelf {
    fn start(self) -> (Server, Registry) {
        plain(move |asked| self.answer(asked))
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let mut manifests = self.manifests.lock().unwrap();
        let last = asked.path.rsplit('/').next().unwrap();
        if is_referrers(asked) {
            let Some(subject) = last.split('?').next().filter(|_| self.has_lists) else {
                return Reply::of(404, "404 page not found");
            };
            let refers = |text: &&String| text.contains(subject);
            let entries: Vec<String> =
                manifests.values().filter(refers).map(|text| entry(text, OURS)).collect();
            return list(index(&entries));
        }
        if asked.method == "PUT" {
            let is_tag = !last.contains(':');
            let digest = digest_of(asked.body.as_bytes());
            let kept = self.intruder.clone().filter(|_| is_tag).unwrap_or_else(|| asked.body.clone());
            manifests.insert(last.to_owned(), kept);
            let reply = Reply::of(201, "").with("docker-content-digest", digest);
            return if self.has_lists { reply.with("oci-subject", subject()) } else { reply };
        }
        match manifests.get(last) {
            Some(text) => Reply::of(200, text.clone()).with("content-type", MEDIA_TYPE_INDEX),
            None => Reply::of(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    }

    fn tagged(&self) -> Option<String> {
        self.manifests.lock().unwrap().get(&tag()).cloned()
    }
}

fn tag() -> String {
    format!("sha256-{}", subject().hex())
}

fn attach(registry: &Registry, text: &str) -> Result<Digest, RegistryError> {
    let attachment =
        Attachment { subject: subject(), artifact_type: OURS, media_type: MANIFEST, bytes: text.as_bytes() };
    registry.attach(&attachment)
}

fn puts(server: &Server) -> usize {
    server.asked().iter().filter(|asked| asked.method == "PUT").count()
}

#[test]
fn lists_of_the_registry_come_in_pages() {
    let (server, registry) = plain(|asked| match asked.path.contains("last=1") {
        // It has not filtered, and says one of them twice.
        false => list(index(&[entry("a", OURS), entry("x", "other"), entry("b", OURS), entry("a", OURS)]))
            .with("link", format!(r#"</v2/a/b/referrers/{}?last=1>; rel="next""#, subject())),
        true => list(index(&[entry("c", OURS)])).with("oci-filters-applied", "artifactType"),
    });
    let expected = ["a", "b", "c"].map(|name| digest_of(name.as_bytes()));
    assert_eq!(digests(&registry).unwrap(), expected);
    let asked = server.asked();
    let first = asked.iter().find(|asked| is_referrers(asked)).unwrap();
    let path = format!("/v2/a/b/referrers/{}?artifactType=application%2Fvnd.example.ours", subject());
    assert_eq!((first.path.as_str(), first.header("accept")), (path.as_str(), MEDIA_TYPE_INDEX));
    assert_eq!(server.count("/manifests/"), 0);
    assert_eq!(registry.referrers(subject(), OURS).unwrap()[0].size, 7);
}

#[test]
fn lists_end() {
    let (server, registry) = plain(|asked| {
        let number = asked.path.rsplit("last=").next().and_then(|last| last.parse().ok()).unwrap_or(0);
        list(index(&[entry(&number.to_string(), OURS)]))
            .with("link", format!(r#"<?last={}>; rel="next""#, number + 1))
    });
    assert_eq!(digests(&registry).unwrap().len(), 100);
    assert_eq!(server.count("/referrers/"), 100);
    let many: Vec<String> = (0..1500).map(|number| entry(&number.to_string(), OURS)).collect();
    let (server, registry) = plain(move |_| list(index(&many)).with("link", r#"<?last=1>; rel="next""#));
    assert_eq!(digests(&registry).unwrap().len(), REFERRERS_MAX);
    assert_eq!(server.count("/referrers/"), 1);
    let (_server, registry) =
        plain(|_| list(index(&[])).with("link", r#"<http://elsewhere.invalid/>; rel="next""#));
    let error = digests(&registry).unwrap_err().to_string();
    assert!(error.contains("another server"), "{error}");
}

#[test]
fn without_a_list_the_tag_counts() {
    for absent in [
        Reply::of(404, "404 page not found"),
        Reply::of(405, ""),
        Reply::of(200, "<html>").with("content-type", "text/html"),
    ] {
        let reply = absent.clone();
        let (server, registry) = plain(move |asked| match is_referrers(asked) {
            true => reply.clone(),
            false => list(index(&[entry("x", "other"), entry("a", OURS)])),
        });
        assert_eq!(digests(&registry).unwrap(), [digest_of(b"a")]);
        assert_eq!(server.count(&format!("/v2/a/b/manifests/{}", tag())), 1);
        let (_server, registry) = plain(move |asked| match is_referrers(asked) {
            true => absent.clone(),
            false => Reply::of(404, ""),
        });
        assert!(digests(&registry).unwrap().is_empty());
    }
}

#[test]
fn lists_that_are_none() {
    let sha512 = format!(
        r#"{{"mediaType":"","digest":"sha512:{}","size":1,"artifactType":"{OURS}"}}"#,
        "0".repeat(128)
    );
    let odd = [
        "7".to_owned(),
        "null".to_owned(),
        r#"{"digest":7}"#.to_owned(),
        format!(r#"{{"digest":"{}","size":-1,"artifactType":"{OURS}"}}"#, subject()),
        sha512,
        entry("a", OURS),
    ];
    // By the registry, and by a tag.
    for is_own in [true, false] {
        let answers = |reply: Reply| {
            let (server, registry) = plain(move |asked| match is_referrers(asked) == is_own {
                true => reply.clone(),
                false => Reply::of(404, ""),
            });
            let answer = digests(&registry);
            drop(server);
            answer
        };
        assert_eq!(answers(list(index(&odd))).unwrap(), [digest_of(b"a")]);
        assert!(answers(list(r#"{"manifests":null}"#)).unwrap().is_empty());
        for wrong in ["", "{}", "[]", "7", "{", r#"{"manifests":7}"#, r#"{"layers":[]}"#] {
            let error = answers(list(wrong)).unwrap_err().to_string();
            assert!(error.contains("not an index of referrers"), "{wrong}: {error}");
        }
        let error = answers(list(" ".repeat(4096)).sent(Manner::Endless)).unwrap_err().to_string();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
        assert!(answers(Reply::of(403, "")).unwrap_err().is_unauthorized());
    }
}

#[test]
fn who_keeps_lists_is_given_the_manifest_alone() {
    let shelf = Shelf { has_lists: true, ..Shelf::default() };
    let (server, registry) = shelf.clone().start();
    let text = format!(r#"{{"subject":"{}"}}"#, subject());
    assert_eq!(attach(&registry, &text).unwrap(), digest_of(text.as_bytes()));
    assert_eq!((puts(&server), shelf.tagged()), (1, None));
    // The second time nothing.
    attach(&registry, &text).unwrap();
    assert_eq!(puts(&server), 1);
}

#[test]
fn a_list_that_others_keep_is_kept() {
    let shelf = Shelf::default();
    let (server, registry) = shelf.clone().start();
    let first = attach(&registry, "first").unwrap();
    assert_eq!(puts(&server), 2);
    attach(&registry, "first").unwrap();
    assert_eq!(puts(&server), 2, "what is there is not sent");
    assert_eq!(digests(&registry).unwrap(), [first]);
    // Somebody else attaches something else, in words of his own.
    let theirs =
        entry("theirs", "application/vnd.example.theirs").replace("\"size\":7", "\"size\":7,\"odd\":[1]");
    let ours = entry("first", OURS);
    shelf.manifests.lock().unwrap().insert(tag(), index(&[theirs.clone(), "7".into(), ours]));
    let second = attach(&registry, "second").unwrap();
    assert_eq!(digests(&registry).unwrap(), [second], "one of ours in place of the other");
    let kept: Value = serde_json::from_str(&shelf.tagged().unwrap()).unwrap();
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    assert_eq!((&kept["manifests"][0], &kept["manifests"][1]), (&theirs, &json!(7)));
    assert_eq!((&kept["annotations"]["kept"], &kept["schemaVersion"]), (&json!("yes"), &json!(2)));
    let entry = json!({ "mediaType": MANIFEST, "digest": second, "size": 6, "artifactType": OURS });
    assert_eq!(kept["manifests"][2], entry);
}

#[test]
fn a_tag_that_is_no_list_is_left_alone() {
    let shelf = Shelf::default();
    let (server, registry) = shelf.clone().start();
    shelf.manifests.lock().unwrap().insert(tag(), r#"{"layers":[]}"#.into());
    let error = attach(&registry, "first").unwrap_err().to_string();
    assert!(error.contains(&tag()) && error.contains("not an index of referrers"), "{error}");
    assert_eq!(puts(&server), 0);
}

#[test]
fn who_is_overwritten_again_and_again_gives_up() {
    let intruder = index(&[entry("theirs", "other")]);
    let (server, registry) = Shelf { intruder: Some(intruder), ..Shelf::default() }.start();
    let error = attach(&registry, "first").unwrap_err().to_string();
    assert!(error.contains("push again"), "{error}");
    assert_eq!(puts(&server), 5);
}
