use super::*;
use crate::store::{MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn put(store: &Store, media_type: &str, text: &str) -> Descriptor {
    let (digest, size) = store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
    Descriptor::new(media_type, digest, size)
}

/// A manifest of an image that was made then; its id is that of its config.
fn image(store: &Store, created: u64) -> (Descriptor, Digest) {
    let text = serde_json::json!({
        "created": format!("1970-01-01T00:00:{created:02}Z"), "architecture": "amd64", "os": "linux",
        "config": { "Labels": { "made": created.to_string() } }, "rootfs": { "diff_ids": null },
    });
    let config = put(store, CONFIG, &text.to_string());
    let layer = put(store, LAYER, &format!("layer {created}"));
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer, layer] });
    (put(store, MEDIA_TYPE_MANIFEST, &manifest.to_string()), config.digest)
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s")).unwrap();
    (dir, store)
}

#[test]
fn images_have_all_their_names_and_the_youngest_comes_first() {
    let (_dir, store) = store();
    let ((old, old_id), (young, young_id)) = (image(&store, 1), image(&store, 2));
    for (name, what) in [("a:1", &old), ("localhost/b:2", &young), ("docker.io/library/a:2", &old)] {
        store.refs().set(name, what).unwrap();
    }
    for round in 0..2 {
        let catalog = Catalog::read(&store).unwrap();
        let ids: Vec<Digest> = catalog.images.iter().map(|image| image.id).collect();
        assert_eq!(ids, [young_id, old_id], "{round}");
        let names: Vec<(&str, Option<&str>)> =
            catalog.images[1].names().map(|name| (name.repository.as_str(), name.tag.as_deref())).collect();
        assert_eq!(names, [("a", Some("1")), ("a", Some("2"))]);
        let facts = catalog.images[0].facts.as_ref().unwrap();
        assert_eq!((facts.created, facts.labels["made"].as_str()), (Some(2), "2"));
        let config = store.blobs().get(young_id).unwrap().len();
        assert_eq!(facts.size, young.size + config + 2 * 7);
        assert!(store.image_facts().exists());
    }
}

#[test]
fn what_was_kept_is_taken_unless_the_manifest_is_gone() {
    let (_dir, store) = store();
    let (one, id) = image(&store, 1);
    store.refs().set("a:1", &one).unwrap();
    Catalog::read(&store).unwrap();
    // The config is not read again.
    std::fs::remove_file(store.blobs().path(id)).unwrap();
    assert_eq!(Catalog::read(&store).unwrap().images[0].id, id);
    std::fs::write(store.image_facts(), "damaged").unwrap();
    let broken = &Catalog::read(&store).unwrap().images[0];
    assert!(broken.id == one.digest && broken.broken.as_ref().unwrap().contains("config"), "{broken:?}");
    image(&store, 1);
    assert_eq!(Catalog::read(&store).unwrap().images[0].id, id);
    std::fs::remove_file(store.blobs().path(one.digest)).unwrap();
    assert!(Catalog::read(&store).unwrap().images[0].broken.is_some());
    // What is not in the index any more is not kept.
    let (two, _) = image(&store, 2);
    store.refs().remove("a:1").unwrap();
    store.refs().set("b:1", &two).unwrap();
    Catalog::read(&store).unwrap();
    let kept = facts_kept::read(&store.image_facts(), &TargetPlatform::host_in_full());
    assert_eq!(kept.into_keys().collect::<Vec<_>>(), [two.digest]);
}

#[test]
fn names_ids_and_digests() {
    let (_dir, store) = store();
    let ((one, one_id), (two, two_id)) = (image(&store, 1), image(&store, 2));
    store.refs().set("docker.io/library/a:latest", &one).unwrap();
    store.refs().set("localhost/b:latest", &two).unwrap();
    store.refs().set(&two_id.to_string(), &two).unwrap();
    let catalog = Catalog::read(&store).unwrap();
    let found = |text: &str| catalog.find(text).map(|found| (found.image.id, found.name.is_some()));
    for (text, expected) in [
        ("a".to_owned(), (one_id, true)),
        ("a:latest".to_owned(), (one_id, true)),
        ("b".to_owned(), (two_id, true)),
        (format!("a@{}", one.digest), (one_id, false)),
        (one_id.to_string(), (one_id, false)),
        (one_id.hex()[..12].to_owned(), (one_id, false)),
        (format!("sha256:{}", &two_id.hex()[..7]), (two_id, false)),
        (two.digest.to_string(), (two_id, false)),
    ] {
        assert_eq!(found(&text).unwrap(), expected, "{text}");
    }
    let wrong =
        [format!("b@{}", one.digest), format!("a@{}", two.digest), "a:2".to_owned(), "x/a".to_owned()];
    for text in wrong.iter().map(String::as_str).chain(["", "sha256:", "A", "\u{1b}"]) {
        assert!(matches!(found(text), Err(CatalogError::Unknown(_))), "{text:?}");
    }
    let both = StoredImage { id: one_id, entries: Vec::new(), facts: None, broken: None };
    let twice = Catalog { images: vec![both.clone(), both] };
    assert!(matches!(twice.find(&one_id.hex()[..5]), Err(CatalogError::Ambiguous { .. })));
    let opened = crate::image::open(&two_id.hex()[..12], &store).unwrap_err().to_string();
    assert!(
        opened.contains("2 layers"),
        "it was found, and has a manifest that contradicts its config: {opened}"
    );
}

#[test]
fn an_index_means_the_image_for_this_machine() {
    let (_dir, store) = store();
    let (own, id) = image(&store, 1);
    let (other, _) = image(&store, 2);
    let entry = |descriptor: &Descriptor, architecture: &str| {
        let mut value = serde_json::to_value(descriptor).unwrap();
        value["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        value
    };
    let text = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [entry(&other, "s390x"), entry(&own, crate::image::host_architecture())],
    });
    let index = put(&store, MEDIA_TYPE_INDEX, &text.to_string());
    store.refs().set("multi:1", &index).unwrap();
    let catalog = Catalog::read(&store).unwrap();
    let image = &catalog.images[0];
    assert_eq!((image.id, image.facts.as_ref().unwrap().manifest), (id, own.digest));
    assert_eq!(catalog.find(&own.digest.to_string()).unwrap().image.id, id);
    assert_eq!(catalog.find(&index.digest.to_string()).unwrap().image.id, id);
}

#[test]
fn nameless_entries_and_those_that_are_the_same() {
    let (_dir, store) = store();
    let (one, id) = image(&store, 1);
    store.refs().set(&id.to_string(), &one).unwrap();
    let catalog = Catalog::read(&store).unwrap();
    assert!(catalog.images[0].is_dangling() && catalog.find(&id.to_string()).unwrap().name.is_none());
    store.refs().set("a:1", &one).unwrap();
    let catalog = Catalog::read(&store).unwrap();
    assert_eq!((catalog.images.len(), catalog.images[0].is_dangling()), (1, false));
    store.refs().edit(|index| index.take_name("a:1")).unwrap();
    assert!(Catalog::read(&store).unwrap().images[0].is_dangling());
}
