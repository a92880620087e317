use super::*;
use crate::container::{Changes, ContainerId, ImageRecord, NewContainer, Owners, Purpose};
use crate::images::filter::Filters;
use crate::images::naming;
use crate::images::pruning::{self, Which};
use crate::model::image_config::ProcessConfig;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    containers: Containers,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let containers = Containers::open(store.root()).unwrap();
        Self { _dir: dir, store, containers }
    }

    fn put(&self, media_type: &str, text: &str) -> Descriptor {
        let (digest, size) = self.store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
        Descriptor::new(media_type, digest, size)
    }

    /// An image with a layer of its own and one that all share: manifest, config, own layer, shared layer.
    fn image(&self, salt: &str, names: &[&str]) -> [Digest; 4] {
        let config =
            format!(r#"{{"os":"linux","author":"{salt}","config":{{"Labels":{{"salt":"{salt}"}}}}}}"#);
        let config = self.put(CONFIG, &config);
        let layers = [self.put(LAYER, &format!("layer {salt}")), self.put(LAYER, "shared")];
        let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = self.put(MEDIA_TYPE_MANIFEST, &manifest.to_string());
        for name in names {
            self.store.refs().set(name, &manifest).unwrap();
        }
        [manifest.digest, config.digest, layers[0].digest, layers[1].digest]
    }

    fn container(&self, [manifest, config, ..]: [Digest; 4]) -> ContainerId {
        let image = ImageRecord {
            name: "x".to_owned(),
            source: format!("oci:{}:@{manifest}", self.store.oci_dir().display()),
            config_digest: config,
            layers: Vec::new(),
            process: ProcessConfig::default(),
        };
        let new = NewContainer {
            name: None,
            image,
            purpose: Purpose::Run,
            command: Vec::new(),
            owners: Owners::Image,
            changes: Changes::Own,
            remove_at_end: false,
            run: None,
        };
        self.containers.create(new).unwrap().id()
    }

    fn remove(&self, text: &str, force: Force) -> Result<Removed, ImagesError> {
        remove(&self.store, &self.containers, text, force)
    }

    fn has(&self, blobs: &[Digest]) -> Vec<bool> {
        blobs.iter().map(|digest| self.store.blobs().has(*digest).unwrap()).collect()
    }

    fn names(&self) -> Vec<String> {
        self.store.refs().list().unwrap().into_iter().map(|(name, _)| name).collect()
    }

    fn entries(&self) -> usize {
        self.store.refs().read().unwrap().manifests.len()
    }
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let world = World::new();
    let one = world.image("one", &["a:1", "b:1"]);
    let two = world.image("two", &["c:1"]);
    let removed = world.remove("a:1", Force::No).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["a:1".to_owned()], None));
    assert_eq!(world.has(&one), [true; 4]);
    let removed = world.remove("b:1", Force::No).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["b:1".to_owned()], Some(one[1])));
    assert_eq!((removed.freed.blobs, removed.left), (3, None));
    assert_eq!(world.has(&one), [false, false, false, true], "what both share stays");
    assert_eq!((world.has(&two), world.names()), (vec![true; 4], vec!["c:1".to_owned()]));
    assert!(world.remove("b:1", Force::No).unwrap_err().is_unknown());
}

#[test]
fn an_id_means_all_names() {
    let world = World::new();
    let one = world.image("one", &["a:1", "localhost/b:1"]);
    let error = world.remove(&one[1].hex()[..12], Force::No).unwrap_err().to_string();
    assert!(error.contains("a:1, localhost/b:1") && error.contains("please force removal"), "{error}");
    let removed = world.remove(&one[1].hex()[..12], Force::Yes).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (2, Some(one[1])));
    assert_eq!((world.entries(), world.has(&one)), (0, vec![false; 4]));
}

#[test]
fn what_a_container_uses_stays() {
    let world = World::new();
    let one = world.image("one", &["a:1"]);
    let id = world.container(one);
    let error = world.remove("a:1", Force::No).unwrap_err();
    assert!(error.is_in_use() && error.to_string().contains(&id.short()), "{error}");
    assert_eq!(world.names(), ["a:1"]);
    let removed = world.remove("a:1", Force::Yes).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["a:1".to_owned()], None));
    assert_eq!((world.names(), world.entries(), world.has(&one)), (Vec::new(), 1, vec![true; 4]));
    let all = Filters::default();
    let pruned = pruning::prune(&world.store, &world.containers, Which::Unused, &all).unwrap();
    assert!(pruned.images.is_empty() && world.has(&one) == [true; 4]);
    // Also when the index has forgotten the image.
    world.store.refs().edit(|index| index.manifests.clear()).unwrap();
    let two = world.image("two", &["b:1"]);
    world.remove("b:1", Force::No).unwrap();
    assert_eq!((world.has(&one), world.has(&two)), (vec![true; 4], vec![false, false, false, true]));
}

#[test]
fn a_damaged_container_may_need_anything() {
    let world = World::new();
    let one = world.image("one", &["a:1"]);
    let id = world.container(one);
    let config = world.store.containers_dir().join(id.to_string()).join("config.json");
    std::fs::write(config, "damaged").unwrap();
    assert!(matches!(world.remove("a:1", Force::Yes), Err(ImagesError::Container(_))));
    assert_eq!((world.names(), world.has(&one)), (vec!["a:1".to_owned()], vec![true; 4]));
}

#[test]
fn another_damaged_image_keeps_blobs_and_says_so() {
    let world = World::new();
    let one = world.image("one", &["a:1"]);
    let two = world.image("two", &["b:1"]);
    std::fs::write(world.store.blobs().path(two[0]), "{").unwrap();
    let removed = world.remove("a:1", Force::No).unwrap();
    assert!(removed.left.unwrap().contains("store check"));
    assert_eq!((world.names(), world.has(&one)), (vec!["b:1".to_owned()], vec![true; 4]));
    // One that is damaged itself can be removed, and then nothing is in the way.
    let removed = world.remove("b:1", Force::No).unwrap();
    assert_eq!((removed.deleted, world.entries()), (Some(two[0]), 0));
}

#[test]
fn pruning_takes_what_has_no_name() {
    let world = World::new();
    let one = world.image("one", &["a:1"]);
    let two = world.image("two", &["a:1"]);
    assert_eq!(world.entries(), 2);
    let all = Filters::default();
    let look = |which, filters: &Filters| {
        let found = pruning::look(&world.store, &world.containers, which, filters).unwrap();
        (found.images.len(), found.freed.bytes)
    };
    let labelled =
        Filters::parse(&["label=salt=two".to_owned()], &Catalog::default(), crate::container::Moment::now())
            .unwrap();
    let (count, bytes) = look(Which::Dangling, &all);
    assert_eq!((count, look(Which::Unused, &all).0, look(Which::Dangling, &labelled)), (1, 2, (0, 0)));
    let pruned = pruning::prune(&world.store, &world.containers, Which::Dangling, &all).unwrap();
    assert_eq!((pruned.images[0].id, pruned.freed.bytes), (one[1], bytes));
    assert_eq!((world.has(&one)[..3].to_vec(), world.has(&two)), (vec![false; 3], vec![true; 4]));
    let pruned = pruning::prune(&world.store, &world.containers, Which::Unused, &labelled).unwrap();
    assert_eq!((pruned.images.len(), world.entries(), world.has(&two)), (1, 0, vec![false; 4]));
}

#[test]
fn names_come_and_go() {
    let world = World::new();
    world.image("one", &["a:1"]);
    let two = world.image("two", &["docker.io/library/b:latest"]);
    assert_eq!(naming::tag(&world.store, "a:1", "b").unwrap(), "b:latest");
    assert_eq!(world.names(), ["a:1", "b:latest"], "the same name in other words was taken");
    assert_eq!(world.entries(), 3);
    naming::tag(&world.store, &two[1].hex(), "ghcr.io/o/two:2").unwrap();
    assert_eq!(world.entries(), 3, "its entry without a name has one again");
    for wrong in ["UPPER", "x@sha256:0", ""] {
        assert!(naming::tag(&world.store, "a:1", wrong).is_err(), "{wrong}");
    }
    assert!(matches!(
        naming::tag(&world.store, "a:1", &format!("x@{}", two[0])),
        Err(ImagesError::Digest(_))
    ));
    let error = naming::untag(&world.store, "a:1", &["ghcr.io/o/two:2".to_owned()]).unwrap_err();
    assert!(matches!(error, ImagesError::OtherName { .. }), "{error}");
    assert_eq!(naming::untag(&world.store, "a:1", &["b".to_owned()]).unwrap(), ["b:latest"]);
    assert_eq!(naming::untag(&world.store, "a:1", &[]).unwrap(), ["a:1"]);
    assert_eq!((world.names(), world.entries()), (vec!["ghcr.io/o/two:2".to_owned()], 2));
}

#[test]
fn an_image_is_claimed_until_it_is_used() {
    let world = World::new();
    let one = world.image("one", &["a:1"]);
    let image = |source: String| crate::image::Image {
        name: "x".to_owned(),
        source,
        config: crate::model::ImageConfig::default(),
        config_digest: one[1],
        layers: Vec::new(),
        documents: crate::image::Documents::default(),
    };
    let own = image(format!("oci:{}:@{}", world.store.oci_dir().display(), one[0]));
    let claimed = crate::images::claim(&world.store, &own).unwrap();
    assert!(claimed.is_some() && world.store.lock_exclusive().is_err());
    drop(claimed);
    for elsewhere in ["/a/directory".to_owned(), format!("oci:/elsewhere:@{}", one[0])] {
        assert!(crate::images::claim(&world.store, &image(elsewhere)).unwrap().is_none());
    }
    world.remove("a:1", Force::No).unwrap();
    assert!(matches!(crate::images::claim(&world.store, &own), Err(StoreError::Missing { .. })));
}
