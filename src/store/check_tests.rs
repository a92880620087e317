use super::*;
use crate::store::{MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Repaired, repair};
use crate::sys::lock::soon;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Quiet;

impl Checking for Quiet {
    fn checked(&self, done: u64, total: u64) {
        assert!(done <= total);
    }
}

fn put(store: &Store, media_type: &str, text: &str) -> Descriptor {
    let (digest, size) = store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
    Descriptor::new(media_type, digest, size)
}

/// Manifest, config, layer.
fn put_image(store: &Store, salt: &str) -> [Descriptor; 3] {
    let config = put(store, CONFIG, &format!(r#"{{"os":"linux","author":"{salt}"}}"#));
    let layer = put(store, LAYER, &format!("layer {salt}"));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": [layer],
    });
    let manifest = put(store, MEDIA_TYPE_MANIFEST, &manifest.to_string());
    store.refs().set(&format!("image:{salt}"), &manifest).unwrap();
    [manifest, config, layer]
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s")).unwrap();
    (dir, store)
}

fn texts(store: &Store) -> Vec<String> {
    check(store, &Quiet).unwrap().findings.into_iter().map(|finding| finding.what).collect()
}

fn repaired(store: &Store) -> Vec<Repaired> {
    let findings = check(store, &Quiet).unwrap().findings;
    let lock = soon(|| store.lock_exclusive().ok());
    repair(store, &lock, &findings).unwrap()
}

fn damage(store: &Store, digest: Digest) {
    let path = store.blobs().path(digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_good_store_is_clean() {
    let (_dir, store) = store();
    put_image(&store, "one");
    put(&store, "", "nobody's");
    std::fs::write(store.blobs().dir().join("README"), "people's").unwrap();
    let checked = check(&store, &Quiet).unwrap();
    assert_eq!((checked.blobs, checked.images, checked.findings), (4, 1, Vec::new()));
    assert!(checked.bytes > 100);
}

#[test]
fn a_damaged_layer_is_put_aside_and_its_image_keeps_its_name() {
    let (_dir, store) = store();
    let [_, _, layer] = put_image(&store, "one");
    damage(&store, layer.digest);
    let found = texts(&store);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains(&layer.digest.to_string()) && found[0].contains("hash to"), "{found:?}");
    assert!(found[1].contains("\"image:one\": its layer"), "{found:?}");
    let done = repaired(&store);
    assert!(done[0].done.as_ref().unwrap().contains("damaged"), "{done:?}");
    assert_eq!(done[1].done, None);
    assert!(store.damaged_dir().join(layer.digest.hex()).exists());
    let found = texts(&store);
    assert!(found.len() == 1 && found[0].contains("is missing"), "{found:?}");
    put(&store, LAYER, "layer one");
    assert!(texts(&store).is_empty());
}

#[test]
fn names_that_lead_nowhere_are_dropped() {
    let (_dir, store) = store();
    let [one, ..] = put_image(&store, "one");
    let [two, ..] = put_image(&store, "two");
    put_image(&store, "three");
    damage(&store, one.digest);
    std::fs::remove_file(store.blobs().path(two.digest)).unwrap();
    let done = repaired(&store);
    assert_eq!(done.iter().filter(|one| one.done.is_some()).count(), 3, "{done:?}");
    let names: Vec<String> = store.refs().list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["image:three"]);
    assert!(texts(&store).is_empty());
}

#[test]
fn what_index_json_says_wrongly_is_put_right() {
    let (_dir, store) = store();
    let [manifest, ..] = put_image(&store, "one");
    let lie = Descriptor { size: 1, media_type: MEDIA_TYPE_INDEX.to_owned(), ..manifest.clone() };
    store.refs().set("lie:1", &lie).unwrap();
    let found = texts(&store);
    assert!(found.len() == 1 && found[0].contains("lie:1"), "{found:?}");
    repaired(&store);
    let described = store.refs().resolve("lie:1").unwrap().unwrap();
    assert_eq!((described.size, described.media_type), (manifest.size, manifest.media_type));
    assert!(texts(&store).is_empty());
}

#[test]
fn sizes_and_types_within_manifests() {
    let (_dir, store) = store();
    let [_, config, layer] = put_image(&store, "one");
    let longer = Descriptor { size: layer.size + 1, ..layer };
    let text =
        serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [longer, {"digest": "x"}] });
    let inner = put(&store, MEDIA_TYPE_MANIFEST, &text.to_string());
    let absent = Descriptor { digest: Digest::from_bytes([9; 32]), ..inner.clone() };
    let text = serde_json::json!({ "schemaVersion": 2, "manifests": [inner, absent] });
    let index = put(&store, MEDIA_TYPE_INDEX, &text.to_string());
    store.refs().set("multi:1", &index).unwrap();
    let found = texts(&store);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("bytes, not") && found[1].contains("a layer is no descriptor"), "{found:?}");
    let text = serde_json::json!({ "schemaVersion": 2, "manifests": [absent] });
    store.refs().set("none:1", &put(&store, MEDIA_TYPE_INDEX, &text.to_string())).unwrap();
    assert!(texts(&store).iter().any(|text| text.contains("none is there")));
}

#[test]
fn layout_index_and_temporary_files() {
    let (_dir, store) = store();
    put_image(&store, "one");
    let layout = store.oci_dir().join("oci-layout");
    std::fs::write(&layout, "{}").unwrap();
    let old = store.blobs().dir().join(format!("{TEMP_PREFIX}1-1"));
    let young = store.oci_dir().join("oci-put-blob1");
    std::fs::write(&old, "x").unwrap();
    std::fs::write(&young, "x").unwrap();
    let yesterday = std::time::SystemTime::now() - TEMPORARY_AGE_MIN;
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(yesterday).unwrap();
    let done = repaired(&store);
    assert!(done.len() == 2 && done.iter().all(|one| one.done.is_some()), "{done:?}");
    assert!(!old.exists() && young.exists() && texts(&store).is_empty());
    std::fs::write(store.oci_dir().join("index.json"), "[").unwrap();
    let found = texts(&store);
    assert!(found.len() == 1 && found[0].contains("index.json"), "{found:?}");
}

#[test]
fn what_was_written_again_meanwhile_stays() {
    let (_dir, store) = store();
    let [manifest, _, layer] = put_image(&store, "one");
    damage(&store, layer.digest);
    damage(&store, manifest.digest);
    let findings = check(&store, &Quiet).unwrap().findings;
    put_image(&store, "one");
    let lock = soon(|| store.lock_exclusive().ok());
    let done = repair(&store, &lock, &findings).unwrap();
    drop(lock);
    assert!(
        done.iter().all(|one| one.done.as_ref().is_none_or(|done| done.contains("meanwhile"))),
        "{done:?}"
    );
    assert!(store.refs().resolve("image:one").unwrap().is_some() && texts(&store).is_empty());
}
