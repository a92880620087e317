//! Lists of images: the table of `images`, podman's JSON, and what a `--format` can name.

use serde_json::{Value, json};

use super::filter::Filters;
use crate::container::view::Width;
use crate::container::{Moment, moment, size};
use crate::image::catalog::Name;
use crate::image::{Catalog, StoredImage};
use crate::model::Digest;

const NONE: &str = "<none>";
const UNKNOWN: &str = "N/A";
/// Digits of a short id.
const SHORT_DIGITS: usize = 12;

/// One line: an image by one of its names.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The image.
    pub image: &'a StoredImage,
    /// By which name.
    pub name: Option<&'a Name>,
    /// What that leads to.
    pub digest: Digest,
}

/// `--sort`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The youngest first.
    Created,
    /// By the id.
    Id,
    /// By the name without its tag.
    Repository,
    /// The smallest first.
    Size,
    /// By the tag.
    Tag,
}

/// What a table has besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// How much of ids is shown.
    pub width: Width,
    /// Whether there is a column DIGEST.
    pub digests: bool,
}

/// The lines that are meant, in order: an image has one for each of its names.
#[must_use]
pub fn rows<'a>(catalog: &'a Catalog, filters: &Filters, sort: Sort) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for image in catalog.images.iter().filter(|image| filters.admit(image)) {
        let named = image.entries.iter().filter_map(|entry| Some((entry.name.as_ref()?, entry.digest)));
        let meant = named.filter(|(name, _)| filters.admit_name(name));
        rows.extend(meant.map(|(name, digest)| Row { image, name: Some(name), digest }));
        if image.is_dangling()
            && let Some(entry) = image.entries.first()
        {
            rows.push(Row { image, name: None, digest: entry.digest });
        }
    }
    match sort {
        Sort::Created => {}
        Sort::Id => rows.sort_by_key(|row| row.image.id),
        Sort::Repository => rows.sort_by_key(|row| (row.repository(), row.tag())),
        Sort::Size => rows.sort_by_key(|row| row.image.facts.as_ref().map(|facts| facts.size)),
        Sort::Tag => rows.sort_by_key(|row| (row.tag(), row.repository())),
    }
    rows
}

impl<'a> Row<'a> {
    fn repository(&self) -> &'a str {
        self.name.map_or(NONE, |name| &name.repository)
    }

    fn tag(&self) -> &'a str {
        self.name.and_then(|name| name.tag.as_deref()).unwrap_or(NONE)
    }

    fn created(&self) -> Option<Moment> {
        self.image.facts.as_ref()?.created.map(Moment::from_seconds)
    }

    fn size(&self) -> Option<u64> {
        self.image.facts.as_ref().map(|facts| facts.size)
    }
}

/// An id as lists show it.
#[must_use]
pub fn id(image: &StoredImage, width: Width) -> String {
    match width {
        Width::Short => image.id.hex().chars().take(SHORT_DIGITS).collect(),
        Width::Full => image.id.to_string(),
    }
}

/// How long ago that was.
#[must_use]
pub fn ago(created: Option<Moment>, now: Moment) -> String {
    created
        .map_or_else(|| UNKNOWN.to_owned(), |created| format!("{} ago", moment::in_words(created.age(now))))
}

/// The lines of the table, headings first.
#[must_use]
pub fn table(rows: &[Row<'_>], now: Moment, columns: Columns) -> Vec<Vec<String>> {
    let digest_heading = columns.digests.then_some("DIGEST");
    let headings =
        ["REPOSITORY", "TAG"].into_iter().chain(digest_heading).chain(["IMAGE ID", "CREATED", "SIZE"]);
    let line = |row: &Row<'_>| {
        let mut cells = vec![row.repository().to_owned(), row.tag().to_owned()];
        cells.extend(columns.digests.then(|| row.digest.to_string()));
        cells.push(id(row.image, columns.width));
        cells.push(ago(row.created(), now));
        cells.push(row.size().map_or_else(|| UNKNOWN.to_owned(), size::in_words));
        cells
    };
    std::iter::once(headings.map(str::to_owned).collect()).chain(rows.iter().map(line)).collect()
}

/// What a template is filled in with for one line: docker's words, and podman's.
#[must_use]
pub fn words(row: &Row<'_>, now: Moment, width: Width) -> Value {
    let harmless = |text: &str| text.chars().flat_map(escaped).collect::<String>();
    let created_at = row.created().map_or_else(|| UNKNOWN.to_owned(), time);
    let shown_size = row.size().map_or_else(|| UNKNOWN.to_owned(), size::in_words);
    let facts = row.image.facts.as_ref();
    let labels: serde_json::Map<String, Value> = facts
        .iter()
        .flat_map(|facts| &facts.labels)
        .map(|(key, value)| (harmless(key), Value::from(harmless(value))))
        .collect();
    let names: Vec<&str> = row.image.names().map(|name| name.shown.as_str()).collect();
    json!({
        "Architecture": facts.map(|facts| harmless(&facts.architecture)),
        "Containers": UNKNOWN,
        "Created": ago(row.created(), now),
        "CreatedAt": created_at,
        "CreatedSince": ago(row.created(), now),
        "CreatedTime": created_at,
        "Dangling": row.image.is_dangling(),
        "Digest": row.digest.to_string(),
        "ID": id(row.image, width),
        "Id": id(row.image, width),
        "ImageID": id(row.image, width),
        "Labels": labels,
        "Names": names,
        "Os": facts.map(|facts| harmless(&facts.os)),
        "ReadOnly": false,
        "RepoTags": names,
        "Repository": row.repository(),
        "SharedSize": UNKNOWN,
        "Size": shown_size,
        "Tag": row.tag(),
        "UniqueSize": UNKNOWN,
        "VirtualSize": shown_size,
    })
}

/// The headings of columns, by what fills them.
#[must_use]
pub fn headings() -> Value {
    json!({
        "Architecture": "ARCHITECTURE",
        "Containers": "CONTAINERS",
        "Created": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedSince": "CREATED",
        "CreatedTime": "CREATED TIME",
        "Dangling": "DANGLING",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "Id": "IMAGE ID",
        "ImageID": "IMAGE ID",
        "Labels": "LABELS",
        "Names": "NAMES",
        "Os": "OS",
        "ReadOnly": "READ ONLY",
        "RepoTags": "REPO TAGS",
        "Repository": "REPOSITORY",
        "SharedSize": "SHARED SIZE",
        "Size": "SIZE",
        "Tag": "TAG",
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "SIZE",
    })
}

/// podman's array: an object for each image, with all its names.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn json_list(rows: &[Row<'_>]) -> serde_json::Result<String> {
    let mut objects: Vec<Value> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for image in rows.iter().map(|row| row.image).filter(|image| seen.insert(image.id)) {
        let facts = image.facts.as_ref();
        let digest = image.entries.first().map(|entry| entry.digest.to_string()).unwrap_or_default();
        let names: Vec<&str> = image.names().map(|name| name.written.as_str()).collect();
        let pinned = |entry: &crate::image::catalog::Entry| {
            Some(format!("{}@{}", entry.name.as_ref()?.repository, entry.digest))
        };
        let mut digests: Vec<String> = image.entries.iter().filter_map(pinned).collect();
        digests.dedup();
        let created = facts.and_then(|facts| facts.created);
        objects.push(json!({
            "Id": image.id.hex(),
            "Names": names,
            "RepoTags": image.names().map(|name| name.shown.as_str()).collect::<Vec<_>>(),
            "RepoDigests": digests,
            "Digest": digest,
            "Created": created,
            "CreatedAt": created.map(|created| Moment::from_seconds(created).to_string()),
            "Size": facts.map(|facts| facts.size),
            "VirtualSize": facts.map(|facts| facts.size),
            "Labels": facts.map(|facts| &facts.labels),
            "Architecture": facts.map(|facts| &facts.architecture),
            "Os": facts.map(|facts| &facts.os),
            "Dangling": image.is_dangling(),
            "Damaged": image.broken,
        }));
    }
    serde_json::to_string_pretty(&objects)
}

/// As docker writes times in lists: `2001-02-03 04:05:06 +0000 UTC`.
#[must_use]
pub fn time(moment: Moment) -> String {
    let text = moment.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{} +0000 UTC", seconds.replace('T', " "))
}

/// What comes from images is shown, and moves no cursor.
fn escaped(char: char) -> Vec<char> {
    if char.is_control() { char.escape_default().collect() } else { vec![char] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::catalog::Entry;

    fn broken() -> StoredImage {
        let digest = Digest::from_bytes([0xab; 32]);
        let entries = vec![Entry { digest, name: None }];
        StoredImage { id: digest, entries, facts: None, broken: Some("why".to_owned()) }
    }

    #[test]
    fn an_image_of_which_nothing_is_known_is_shown() {
        let catalog = Catalog { images: vec![broken()] };
        let rows = rows(&catalog, &Filters::default(), Sort::Size);
        let columns = Columns { width: Width::Short, digests: true };
        let lines = table(&rows, Moment::from_seconds(0), columns);
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(lines[0], ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]);
        assert_eq!(lines[1], ["<none>", "<none>", &digest, "abababababab", "N/A", "N/A"]);
        let list: Value = serde_json::from_str(&json_list(&rows).unwrap()).unwrap();
        assert_eq!((&list[0]["Damaged"], &list[0]["Dangling"]), (&json!("why"), &json!(true)));
    }

    #[test]
    fn every_word_has_a_heading() {
        let image = broken();
        let row = Row { image: &image, name: None, digest: image.id };
        let (words, headings) = (words(&row, Moment::from_seconds(0), Width::Full), headings());
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&words), keys(&headings));
    }
}
