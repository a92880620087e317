//! eStargz, of which no writer is packaged, and cases that no writer makes.

use serde_json::{Value, json};

use super::writer::{Form, chunked, digest, estargz, seal};
use super::{Blob, TocAnnotation, assert_same, content, everything};
use crate::layer::tar_tests::{self, Maker, gzip, noise};
use crate::layer::{Found, Layer, LayerError, TocCache};
use crate::model::Name;

const PLAIN: Form = Form { chunk_bytes: 4 << 20, member_bytes_min: 0, is_legacy: false };

fn unchanged(_: &mut Value) {}

#[test]
fn estargz_is_the_tar() {
    let tar = everything(false);
    for (chunk_bytes, member_bytes_min, is_legacy) in [
        (4 << 20, 0, false),
        (4 << 20, 0, true),
        (1000, 0, false),
        (50_000, 60_000, false),
        (100, 4 << 20, false),
    ] {
        let form = Form { chunk_bytes, member_bytes_min, is_legacy };
        let blob = estargz(&tar, form, &unchanged);
        let expected = tar_tests::layer(&blob.bytes).unwrap();
        assert_same(&format!("{form:?}"), &expected, &blob.layer().unwrap());
    }
}

#[test]
fn the_files_of_the_format_are_shown() {
    let tar = Maker::default().file(".no.prefetch.landmark", "\u{f}").end();
    let blob = estargz(&tar, PLAIN, &unchanged);
    let layer = blob.layer().unwrap();
    assert_eq!(content(&layer, ".no.prefetch.landmark"), [15]);
    let TocAnnotation::EStargz { toc_digest } = blob.annotation else { panic!("an eStargz") };
    assert_eq!(digest(&content(&layer, "stargz.index.json")), toc_digest);
    assert_same("landmark", &tar_tests::layer(&blob.bytes).unwrap(), &layer);
}

/// The blob with every byte wrong but those in the stretches.
fn only(blob: &Blob, stretches: &[std::ops::Range<usize>]) -> Blob {
    let spoil = |(at, byte): (usize, &u8)| match stretches.iter().any(|stretch| stretch.contains(&at)) {
        true => *byte,
        false => !*byte,
    };
    Blob { bytes: blob.bytes.iter().enumerate().map(spoil).collect(), annotation: blob.annotation.clone() }
}

#[test]
fn nothing_is_needed_but_what_is_asked_for() {
    let form = Form { chunk_bytes: 10_000, ..PLAIN };
    let whole = estargz(&twenty_files(), form, &unchanged);
    let toc = {
        let at = whole.bytes.len() - 51 + 16;
        usize::from_str_radix(std::str::from_utf8(&whole.bytes[at..at + 16]).unwrap(), 16).unwrap()
    };
    let expected = tar_tests::layer(&whole.bytes).unwrap();
    let id = |layer: &dyn Layer, name: &str| match layer
        .lookup(layer.root(), Name::new(name.as_bytes()).unwrap())
        .unwrap()
    {
        Found::Entry(id) => id,
        other => panic!("{other:?}"),
    };
    // All that is known without content, from the last part alone.
    let table = toc..whole.bytes.len();
    let layer = only(&whole, std::slice::from_ref(&table)).layer().unwrap();
    assert_eq!(layer.read_dir(layer.root()).unwrap(), expected.read_dir(expected.root()).unwrap());
    let file = id(&layer, "f7");
    assert_eq!(layer.entry(file).unwrap(), expected.entry(file).unwrap());
    let error = layer.read_at(file, 25_000, &mut [0; 9]).unwrap_err();
    assert!(matches!(error, LayerError::Corrupt { .. }), "{error}");
    // And one chunk of one file, from its gzip member.
    let mut stretch = 0..0;
    let json: Value = serde_json::from_slice(&content(&layer, "stargz.index.json")).unwrap();
    let entries = json["entries"].as_array().unwrap();
    for pair in entries.windows(2) {
        let offset = |entry: &Value| usize::try_from(entry["offset"].as_u64().unwrap()).unwrap();
        if pair[0]["name"] == "f7" && pair[0]["chunkOffset"] == 20_000 {
            stretch = offset(&pair[0])..offset(&pair[1]);
        }
    }
    assert!(!stretch.is_empty());
    let layer = only(&whole, &[stretch, table]).layer().unwrap();
    let (mut found, mut right) = ([0; 9], [1; 9]);
    layer.read_at(file, 25_000, &mut found).unwrap();
    expected.read_at(file, 25_000, &mut right).unwrap();
    assert_eq!(found, right);
    assert!(layer.read_at(file, 15_000, &mut found).is_err());
    assert!(layer.read_at(file, 29_999, &mut found).is_err(), "its second byte is in the next chunk");
}

fn twenty_files() -> Vec<u8> {
    let mut tar = Maker::default().file("a", "aaa");
    for number in 0..20 {
        tar = tar.add(b'0', &format!("f{number}"), "", &noise(50_000, number));
    }
    tar.end()
}

#[test]
fn holes_cost_nothing() {
    let gib = 1_u64 << 30;
    let data = noise(1000, 1);
    let blob = chunked(&[&data], |places| {
        json!([
            {"type": "reg", "name": "f", "size": 3 * gib + 1000, "offset": 1, "endOffset": places[1],
             "chunkSize": gib, "chunkType": "zeros"},
            {"type": "chunk", "name": "f", "offset": places[0], "chunkOffset": gib, "chunkSize": 1000,
             "chunkDigest": digest(&data).to_string()},
            {"type": "chunk", "name": "f", "chunkOffset": gib + 1000, "chunkSize": 2 * gib, "chunkType": "zeros"},
        ])
    });
    let layer = blob.layer().unwrap();
    let Found::Entry(id) = layer.lookup(layer.root(), Name::new(b"f").unwrap()).unwrap() else { panic!("f") };
    let mut bytes = vec![1; 3000];
    assert_eq!(layer.read_at(id, gib - 1000, &mut bytes).unwrap(), 3000);
    assert!(bytes == [vec![0; 1000], data, vec![0; 1000]].concat());
    assert_eq!(layer.read_at(id, 3 * gib + 990, &mut bytes).unwrap(), 10);
    assert_eq!(&bytes[..11], [&[0; 10][..], &[0; 1]].concat());
    assert_eq!(layer.read_at(id, 3 * gib + 1000, &mut bytes).unwrap(), 0);
    assert_eq!(layer.read_at(id, u64::MAX, &mut bytes).unwrap(), 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let data = noise(1000, 1);
    let sha = digest(&data).to_string();
    let one = |entry: Value| chunked(&[&data], |_| json!([entry])).refused();
    let file = |change: &[(&str, Value)]| {
        let mut entry = json!({"type": "reg", "name": "f", "size": 1000, "offset": 20, "digest": sha});
        change.iter().for_each(|(key, value)| entry[*key] = value.clone());
        one(entry)
    };
    assert_eq!(file(&[]), "");
    for (key, value, word) in [
        ("digest", json!(null), "without a digest"),
        ("digest", json!(""), "without a digest"),
        ("digest", json!("sha512:00"), "sha512"),
        ("offset", json!(0), "content at 0"),
        ("offset", json!(1_u64 << 40), "where there is none"),
        ("offset", json!(-1), "integer"),
        ("endOffset", json!(1_u64 << 40), "no content"),
        ("size", json!(65_u64 << 20), "64 MiB"),
        ("size", json!(2_u64 << 40), "more than"),
        ("innerOffset", json!(65_u64 << 20), "64 MiB"),
        ("chunkSize", json!(500), "without a digest"),
        ("chunkSize", json!(1001), "1000 are left"),
        ("chunkOffset", json!(1), "is not at 0"),
        ("chunkType", json!("other"), "other"),
        ("type", json!("sock"), "sock"),
        ("type", json!("chunk"), "chunk of no file"),
        ("name", json!("a\u{fffd}"), "which bytes"),
        ("name", json!("a\u{0}"), "which bytes"),
        ("name", json!("x".repeat(256)), "255"),
        ("uid", json!(-1), "owner"),
        ("gid", json!(u32::MAX), "owner"),
        ("modtime", json!("yesterday"), "time"),
        ("xattrs", json!({"user.a": "?"}), "user.a"),
        ("xattrs", json!({"": "YQ=="}), "attribute"),
    ] {
        let error = file(&[(key, value.clone())]);
        assert!(error.contains(word) && error.contains("blob"), "{key} {value}: {error}");
    }
    let cut = file(&[("chunkSize", json!(500)), ("chunkDigest", json!(sha))]);
    assert!(cut.contains("500 bytes, and it has 1000"), "{cut}");
    assert!(one(json!({"type": "char", "name": "c", "devMajor": -1})).contains("device"));
    assert!(one(json!({"type": "symlink", "name": "l"})).contains("symlink"));
    assert!(one(json!({"type": "reg", "name": "."})).contains("root"));
    let twice = |second: Value| {
        let first = json!({"type": "reg", "name": "f", "size": 1000, "offset": 20, "digest": sha});
        chunked(&[&data], |_| json!([first, second])).refused()
    };
    assert!(
        twice(json!({"type": "reg", "name": "g", "size": 1, "offset": 20, "digest": sha}))
            .contains("overlap")
    );
    assert!(twice(json!({"type": "chunk", "name": "f", "chunkOffset": 1000})).contains("behind its end"));
    let holey = json!({"type": "reg", "name": "f", "size": 9, "chunkSize": 4, "chunkType": "zeros"});
    let other = json!({"type": "chunk", "name": "g", "chunkOffset": 4, "chunkType": "zeros"});
    assert!(chunked(&[], |_| json!([holey, other])).refused().contains("of no file"));
}

#[test]
fn documents_and_their_places() {
    let refused = |json: &[u8]| seal(gzip(b"x", 1), json, false).refused();
    for (json, word) in [
        (&b"{\"version\":1,\"entries\":null}"[..], ""),
        (b"{\"entries\":[],\"more\":{\"a\":[1]},\"version\":1}", ""),
        (b"{\"version\":2,\"entries\":[]}", "version 2"),
        (b"{\"version\":1}", "entries"),
        (b"{\"entries\":[]}", "version"),
        (b"{\"version\":1,\"entries\":[],\"entries\":[]}", "two of entries"),
        (b"{\"version\":1,\"entries\":{}}", "list"),
        (b"{\"version\":1,\"entries\":[]}{}", "trailing"),
        (b"[]", "table of contents"),
        (b"", "EOF"),
    ] {
        let error = refused(json);
        assert!(
            error.contains(word) && error.is_empty() == word.is_empty(),
            "{}: {error}",
            json.escape_ascii()
        );
    }
    // An eStargz has no chunks of zeros: what its format does not know says nothing.
    let zeros =
        br#"{"version":1,"entries":[{"type":"reg","name":"f","size":9,"offset":1,"chunkType":"zeros"}]}"#;
    assert!(refused(zeros).contains("without a digest"));
    let right = chunked(&[], |_| json!([{"type": "dir", "name": "d"}]));
    let TocAnnotation::ZstdChunked { checksum, position } = &right.annotation else { panic!("zstd:chunked") };
    assert_eq!(right.refused(), "");
    let (bytes, checksum) = (&right.bytes, *checksum);
    let with = |position: &str, checksum| {
        let annotation = TocAnnotation::ZstdChunked { checksum, position: position.to_owned() };
        Blob { bytes: bytes.clone(), annotation }.refused()
    };
    for (place, word) in [
        ("", "manifest-position"),
        ("1:2:3", "manifest-position"),
        ("1:2:3:1:1", "manifest-position"),
        ("+1:2:3:1", "manifest-position"),
        ("1:2:3:2", "unknown type"),
        ("1:2:400000000:1", "256 MiB"),
        ("1:400000000:3:1", "256 MiB"),
        ("18446744073709551615:2:3:1", "not inside"),
        ("1:2:3:1", "but the image says"),
    ] {
        assert!(with(place, checksum).contains(word), "{place}: {}", with(place, checksum));
    }
    let parts: Vec<u64> = position.split(':').map(|part| part.parse().unwrap()).collect();
    for json_bytes in [parts[2] - 1, parts[2] + 1] {
        assert_ne!(with(&format!("{}:{}:{json_bytes}:1", parts[0], parts[1]), checksum), "");
    }
    assert!(with(position, digest(b"other")).contains("but the image says"));
}

#[test]
fn a_shared_cache_stays_within_its_bytes() {
    let cache = std::sync::Arc::new(TocCache::new(100_000));
    let blob = estargz(&twenty_files(), Form { chunk_bytes: 10_000, ..PLAIN }, &unchanged);
    let (one, other) = (blob.layer().unwrap().with_cache(&cache), blob.layer().unwrap().with_cache(&cache));
    for number in 0..20 {
        let name = format!("f{number}");
        assert!(content(&one, &name) == content(&other, &name));
        assert!(cache.bytes() <= 100_000);
    }
    assert!(cache.bytes() > 80_000, "{}", cache.bytes());
    one.release_memory(&Vec::new);
    drop(other);
    assert_eq!(cache.bytes(), 0);
    // One chunk that is larger than all of it stays until there is another.
    let large = estargz(&Maker::default().add(b'0', "big", "", &noise(200_000, 1)).end(), PLAIN, &unchanged);
    let large = large.layer().unwrap().with_cache(&cache);
    content(&large, "big");
    assert_eq!(cache.bytes(), 200_000);
    content(&one, "a");
    assert_eq!(cache.bytes(), 3);
}

#[test]
fn readers_of_one_member_wait_for_each_other() {
    let blob = estargz(&twenty_files(), Form { member_bytes_min: 400_000, ..PLAIN }, &unchanged);
    let layer = blob.layer().unwrap();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let layer = &layer;
            scope.spawn(move || assert!(content(layer, &format!("f{number}")) == noise(50_000, number)));
        }
    });
}
