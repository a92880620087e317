//! The JSON of a TOC, read entry by entry: both formats have the fields of CRFS, and some of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One entry, or another chunk of the one before. What a writer leaves out is `None`; owner and mode then are 0.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) link_name: Option<String>,
    pub(super) mode: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) size: Option<u64>,
    #[serde(rename = "modtime")]
    pub(super) mod_time: Option<String>,
    pub(super) dev_major: Option<i64>,
    pub(super) dev_minor: Option<i64>,
    /// Values in base64.
    pub(super) xattrs: Option<BTreeMap<String, Option<String>>>,
    pub(super) digest: Option<String>,
    pub(super) offset: Option<u64>,
    /// Of zstd:chunked.
    pub(super) end_offset: Option<u64>,
    pub(super) chunk_size: Option<u64>,
    pub(super) chunk_offset: Option<u64>,
    pub(super) chunk_digest: Option<String>,
    /// Of zstd:chunked.
    pub(super) chunk_type: Option<String>,
    /// Of eStargz.
    pub(super) inner_offset: Option<u64>,
}

/// Takes an entry; the error is for people.
type Take<'a> = dyn FnMut(Entry<'_>) -> Result<(), String> + 'a;

/// Hands every entry to `take`, in order. The error is for people.
pub(super) fn read(json: &[u8], take: &mut Take<'_>) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let version = Document(take).deserialize(&mut deserializer);
    let version = version.and_then(|version| deserializer.end().map(|()| version));
    match version.map_err(|error| error.to_string())? {
        1 => Ok(()),
        other => Err(format!("it is of version {other}, and only version 1 is known")),
    }
}

/// The whole; its version is what comes of it.
struct Document<'t, 'a>(&'t mut Take<'a>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let (mut version, mut has_entries) = (None, false);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "version" if version.is_none() => version = Some(map.next_value()?),
                "entries" if !has_entries => {
                    has_entries = true;
                    map.next_value_seed(Entries(&mut *self.0))?;
                }
                "version" | "entries" => return Err(A::Error::custom(format!("there are two of {key}"))),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if !has_entries {
            return Err(A::Error::missing_field("entries"));
        }
        version.ok_or_else(|| A::Error::missing_field("version"))
    }
}

/// Its entries; `null` is how Go writes none.
struct Entries<'t, 'a>(&'t mut Take<'a>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Entry<'de>>()? {
            (self.0)(entry).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
