use super::*;
use crate::image::Facts;
use crate::image::catalog::Entry;
use crate::model::Digest;

fn image(number: u8, names: &[&str], labels: &[(&str, &str)]) -> StoredImage {
    let id = Digest::from_bytes([number; 32]);
    let name = |written: &str| {
        let reference: Reference = written.parse().unwrap();
        Name {
            written: written.to_owned(),
            shown: reference.familiar(),
            repository: reference.familiar_repository(),
            tag: reference.tag().map(str::to_owned),
            reference: Some(reference),
        }
    };
    let entry = |written: Option<&str>| Entry {
        digest: Digest::from_bytes([number + 100; 32]),
        name: written.map(name),
    };
    let mut entries: Vec<Entry> = names.iter().map(|written| entry(Some(written))).collect();
    if entries.is_empty() {
        entries.push(entry(None));
    }
    let facts = Facts {
        id,
        manifest: Digest::from_bytes([number + 100; 32]),
        created: Some(u64::from(number) * 100),
        size: 1,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        architecture: String::new(),
        is_stand_in: false,
        os: String::new(),
    };
    StoredImage { id, entries, facts: Some(facts), broken: None }
}

#[test]
fn which_images_are_meant() {
    let catalog = Catalog {
        images: vec![
            image(3, &["debian:12", "localhost/mine:1"], &[("a", "1"), ("b", "")]),
            image(2, &["ghcr.io/o/app:2"], &[("a", "2")]),
            image(1, &[], &[]),
        ],
    };
    let now = Moment::from_seconds(1000);
    let found = |texts: &[&str]| -> Vec<u8> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let filters = Filters::parse(&texts, &catalog, now).unwrap();
        let all = catalog.images.iter().filter(|image| filters.admit(image));
        all.map(|image| image.id.as_bytes()[0]).collect()
    };
    for (texts, expected) in [
        (&[][..], &[3, 2, 1][..]),
        (&["dangling=true"], &[1]),
        (&["dangling=false"], &[3, 2]),
        (&["intermediate=true"], &[]),
        (&["readonly=false"], &[3, 2, 1]),
        (&["label=a"], &[3, 2]),
        (&["label=a=2"], &[2]),
        (&["label=a", "label=b"], &[3]),
        (&["label!=a"], &[1]),
        (&["before=debian:12"], &[2, 1]),
        (&["since=ghcr.io/o/app:2"], &[3]),
        (&["after=010101"], &[3, 2]),
        (&["until=250"], &[2, 1]),
        (&["reference=debian"], &[3]),
        (&["reference=deb*"], &[3]),
        (&["reference=mine"], &[3]),
        (&["reference=mine:2"], &[]),
        (&["reference=ghcr.io/*/app"], &[2]),
        (&["reference=docker.io/library/debian:12", "reference=*/*/app:*"], &[3, 2]),
        (&["reference=deb*", "label=a=2"], &[]),
        (&["id=0303"], &[3]),
        (&["id=sha256:02"], &[2]),
        (&["digest=sha256:65"], &[1]),
    ] {
        assert_eq!(found(texts), expected, "{texts:?}");
    }
    let named = Filters::default().named("debian").unwrap();
    let names: Vec<bool> = catalog.images[0].names().map(|name| named.admit_name(name)).collect();
    assert_eq!(names, [true, false]);
    assert!(Filters::default().admit_name(catalog.images[0].names().next().unwrap()));
}

#[test]
fn others_are_refused_by_name() {
    let catalog = Catalog::default();
    for wrong in
        ["x", "x=1", "containers=true", "dangling=maybe", "until=x", "before=none", "reference=[", "label"]
    {
        let error = Filters::parse(&[wrong.to_owned()], &catalog, Moment::from_seconds(0)).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}
