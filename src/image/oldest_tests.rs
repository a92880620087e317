//! Archives of `docker save` before Docker 1.10.

use std::fs;

use sha2::{Digest as _, Sha256};

use super::{Image, ImageError, open};
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::store::Store;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

/// Ids of layers: base, middle, top.
const IDS: [&str; 3] = ["aaaa", "bbbb", "cccc"];

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// Three layers upon each other, of which the topmost is a link to the first. `change` changes a document.
    fn archive(&self, repositories: &str, change: &dyn Fn(&str, String) -> Option<String>) -> String {
        let path = self.dir.path().join("old.tar");
        let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
        let mut add = |name: &str, text: String| {
            let Some(text) = change(name, text) else { return };
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(text.len()).unwrap());
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        };
        for (number, id) in IDS.iter().enumerate() {
            let parent = number.checked_sub(1).map_or("", |below| IDS[below]);
            add(&format!("{id}/VERSION"), "1.0".to_owned());
            let config = format!(r#""config":{{"Env":["LAYER={number}"],"Cmd":["sh"]}}"#);
            let rest = r#""os":"linux","architecture":"amd64","Size":5,"docker_version":"1.6.2""#;
            add(&format!("{id}/json"), format!(r#"{{"id":"{id}","parent":"{parent}",{config},{rest}}}"#));
            if number < 2 {
                add(&format!("{id}/layer.tar"), format!("layer {number}"));
            }
        }
        add("repositories", repositories.to_owned());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder.append_link(&mut header, "cccc/layer.tar", "../aaaa/layer.tar").unwrap();
        builder.finish().unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn open(&self, spec: &str) -> Result<Image, ImageError> {
        open(spec, &self.store)
    }
}

fn whole(_: &str, text: String) -> Option<String> {
    Some(text)
}

/// The layers' bytes, base first.
fn layers(image: &Image) -> Vec<String> {
    let text = |layer: &LayerSource| {
        let LayerSource::Tar(tar) = layer else { panic!("a directory") };
        let mut bytes = vec![0; 100];
        let count = tar.blob.read_at(0, &mut bytes).unwrap();
        assert_eq!(tar.diff_id, Digest::from_bytes(Sha256::digest(&bytes[..count]).into()));
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    image.layers.iter().map(text).collect()
}

#[test]
fn images_without_a_manifest() {
    let bench = Bench::new();
    let path = bench.archive(r#"{"x/y":{"1":"cccc","latest":"cccc"}}"#, &whole);
    let image = bench.open(&path).unwrap();
    assert_eq!(layers(&image), ["layer 0", "layer 1", "layer 0"]);
    assert_eq!(image.config.config.env, ["LAYER=2"]);
    assert_eq!(image.config.rootfs.diff_ids.len(), 3);
    assert!(image.config.other.contains_key("docker_version") && !image.config.other.contains_key("parent"));
    for spec in [image.source.clone(), format!("{path}:x/y:1"), format!("docker-archive:{path}:x/y")] {
        let again = bench.open(&spec).unwrap();
        assert_eq!((again.config_digest, layers(&again).len()), (image.config_digest, 3), "{spec}");
    }
    let path = bench.archive(r#"{"a":{"1":"cccc"},"b":{"1":"bbbb"}}"#, &whole);
    let other = bench.open(&format!("{path}:b:1")).unwrap();
    assert_eq!((layers(&other).len(), other.config.config.env[0].as_str()), (2, "LAYER=1"));
    assert_eq!(bench.open(&other.source).unwrap().config_digest, other.config_digest);
    assert!(matches!(bench.open(&path), Err(ImageError::Ambiguous { .. })));
    assert!(matches!(bench.open(&format!("{path}:c:1")), Err(ImageError::NoSuchTag { .. })));
    let gone = format!("docker-archive:{path}:@sha256:{}", "0".repeat(64));
    assert!(matches!(bench.open(&gone), Err(ImageError::NoSuchTag { .. })));
}

#[test]
fn damaged_ones() {
    let bench = Bench::new();
    let one = r#"{"x":{"1":"cccc"}}"#;
    let error = |repositories: &str, change: &dyn Fn(&str, String) -> Option<String>| {
        bench.open(&bench.archive(repositories, change)).unwrap_err().to_string()
    };
    assert!(error("[]", &whole).contains("not a list of names"));
    assert!(error("{}", &whole).contains("lists no image"));
    assert!(error(r#"{"x":{"1":"dddd"}}"#, &whole).contains("dddd/json"));
    let without = |gone: &'static str| move |name: &str, text: String| (name != gone).then_some(text);
    assert!(error(one, &without("bbbb/json")).contains("no bbbb/json"));
    assert!(error(one, &without("aaaa/layer.tar")).contains("layer.tar"));
    let instead = |victim: &'static str, by: &'static str| {
        move |name: &str, text: String| Some(if name == victim { by.to_owned() } else { text })
    };
    assert!(error(one, &instead("bbbb/json", "[")).contains("not a layer"));
    assert!(error(one, &instead("cccc/json", "[]")).contains("not a layer"));
    // A layer upon itself has no end.
    assert!(error(one, &instead("aaaa/json", r#"{"parent":"cccc"}"#)).contains("layers in one image"));
}
