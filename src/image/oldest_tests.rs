//! Archives of `docker save` before Docker 1.10.

use std::fs;

use sha2::{Digest as _, Sha256};

use super::oldest_archive::Hashed;
use super::{Image, ImageError, created_by, open};
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::store::Store;
use crate::sys::file_range::FileRange;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

/// Ids of layers: base, middle, top.
const IDS: [&str; 3] = ["aaaa", "bbbb", "cccc"];

impl Bench {
    fn new() -> Self {
        let (dir, store) = super::tests::new_store();
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
            let made = format!(r#""container_config":{{"Cmd":["/bin/sh","-c","step {number}"]}}"#);
            let rest = format!(
                r#""os":"linux","architecture":"amd64","Size":5,"docker_version":"1.6.2","author":"",{made}"#
            );
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
fn what_made_the_layers() {
    let bench = Bench::new();
    let image = bench.open(&bench.archive(r#"{"x":{"1":"cccc"}}"#, &whole)).unwrap();
    let step = |number| Some(format!("/bin/sh -c step {number}"));
    assert_eq!(created_by(&image.config, 3), [step(0), step(1), step(2)]);
    let history = &image.config.other["history"][1];
    assert_eq!(history, &serde_json::json!({"created_by": "/bin/sh -c step 1"}));
    let bare = |name: &str, text: String| {
        Some(if name.ends_with("/json") { text.replace("container_config", "other") } else { text })
    };
    let image = bench.open(&bench.archive(r#"{"x":{"1":"cccc"}}"#, &bare)).unwrap();
    assert_eq!(created_by(&image.config, 3), [None, None, None]);
}

#[test]
fn another_image_may_be_broken() {
    let bench = Bench::new();
    let one_broken = |name: &str, text: String| {
        let alone = text.replace(r#""parent":"aaaa""#, r#""parent":"""#);
        Some(if name == "aaaa/json" { "[".to_owned() } else { alone })
    };
    let path = bench.archive(r#"{"a":{"1":"aaaa"},"b":{"1":"bbbb"}}"#, &one_broken);
    let image = bench.open(&format!("{path}:b:1")).unwrap();
    // The broken one is looked at first.
    assert_eq!(bench.open(&image.source).unwrap().config_digest, image.config_digest);
    // The one that is looked for may be the broken one.
    let error = bench.open(&format!("docker-archive:{path}:@sha256:{}", "0".repeat(64))).unwrap_err();
    assert!(error.to_string().contains("aaaa/json: not a layer"), "{error}");
}

#[test]
fn ids_that_were_saved_without_a_name() {
    let bench = Bench::new();
    let nameless = |name: &str, text: String| (name != "repositories").then_some(text);
    let path = bench.archive("", &nameless);
    let image = bench.open(&path).unwrap();
    assert_eq!((layers(&image).len(), image.name.as_str()), (3, path.as_str()));
    for spec in [image.source.clone(), format!("{path}:cccc"), format!("docker-archive:{path}")] {
        assert_eq!(bench.open(&spec).unwrap().config_digest, image.config_digest, "{spec}");
    }
    // Two of them, and one with a name beside one without.
    let apart = |name: &str, text: String| {
        Some(if name == "cccc/json" {
            text.replace("\"parent\":\"bbbb\"", "\"parent\":\"aaaa\"")
        } else {
            text
        })
    };
    let path = bench.archive("", &|name, text| nameless(name, text).and_then(|text| apart(name, text)));
    assert!(bench.open(&path).unwrap_err().to_string().contains("bbbb, cccc"));
    assert!(bench.open(&format!("{path}:dddd")).unwrap_err().to_string().contains("bbbb, cccc"));
    assert_eq!(layers(&bench.open(&format!("{path}:bbbb")).unwrap()), ["layer 0", "layer 1"]);
    let path = bench.archive(r#"{"x":{"1":"bbbb"}}"#, &apart);
    assert_eq!(layers(&bench.open(&format!("{path}:cccc")).unwrap()), ["layer 0", "layer 0"]);
    assert_eq!(bench.open(&path).unwrap().config.config.env, ["LAYER=1"]);
}

#[test]
fn damaged_ones() {
    let bench = Bench::new();
    let one = r#"{"x":{"1":"cccc"}}"#;
    let error = |repositories: &str, change: &dyn Fn(&str, String) -> Option<String>| {
        bench.open(&bench.archive(repositories, change)).unwrap_err().to_string()
    };
    assert!(error("[]", &whole).contains("not a list of names"));
    assert!(error(r#"{"x":{"1":"dddd"}}"#, &whole).contains("dddd/json"));
    let without = |gone: &'static str| move |name: &str, text: String| (name != gone).then_some(text);
    assert!(error(one, &without("bbbb/json")).contains("no bbbb/json"));
    assert!(error(one, &without("aaaa/layer.tar")).contains("layer.tar"));
    let instead = |victim: &'static str, by: &'static str| {
        move |name: &str, text: String| Some(if name == victim { by.to_owned() } else { text })
    };
    assert!(error(one, &instead("bbbb/json", "[")).contains("not a layer"));
    assert!(error(one, &instead("cccc/json", "[]")).contains("not a layer"));
    let upon_itself = instead("aaaa/json", r#"{"parent":"cccc"}"#);
    assert!(error(one, &upon_itself).contains("cccc/json: the layer stands upon itself"));
    let without_names = error("", &|name, text| upon_itself(name, text).filter(|_| name != "repositories"));
    assert!(without_names.contains("no image in it: every layer stands"), "{without_names}");
    // Each document is small enough, all of them together are not.
    let long = format!(r#","comment":"{}","os""#, "x".repeat(3 << 20));
    let history = error(one, &|_, text| Some(text.replace(r#","os""#, &long)));
    assert!(history.contains("bytes of history"), "{history:.300}");
}

#[test]
fn a_range_is_hashed_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    fs::write(&path, "bytes").unwrap();
    let range = FileRange::open(&path).unwrap();
    let part = range.slice(1, 4).unwrap();
    let mut hashed = Hashed::default();
    let [whole, other] = [&range, &part].map(|range| hashed.digest(range).unwrap());
    assert_eq!(
        [whole, other],
        [&b"bytes"[..], b"ytes"].map(|text| Digest::from_bytes(Sha256::digest(text).into()))
    );
    fs::write(&path, "ABCDE").unwrap();
    assert_eq!([&range, &part].map(|range| hashed.digest(range).unwrap()), [whole, other]);
}
