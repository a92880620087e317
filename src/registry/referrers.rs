//! What refers to a manifest (distribution-spec, "Listing Referrers", "Pushing Manifests with Subject").
//!
//! A registry of version 1.1 keeps the list. For any other one clients keep it (distribution-spec, "Referrers Tag Schema"): an
//! index under a tag that is made of the digest, to which who attaches something adds it.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Content, Method};
use super::manifest::MANIFEST_BYTES_MAX;
use super::{Registry, RegistryError, Version};
use crate::model::Digest;

const MEDIA_TYPE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Referrers of one type: whoever may push may attach thousands, and nobody looks at more.
const REFERRERS_MAX: usize = 1000;
/// Pages that are asked for: a server that always says there is another one is not followed for ever.
const PAGES_MAX: u32 = 100;
/// How often the index under the tag is written when others replace it at the same time. There is no way to do it in one step.
const TAGGINGS_MAX: u32 = 4;

/// A manifest that refers to another one, as a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes, as the list says.
    pub size: u64,
}

/// A manifest with a `subject`.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// What it refers to.
    pub subject: Digest,
    /// What it is.
    pub artifact_type: &'a str,
    /// What its document is.
    pub media_type: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// An entry of a list, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: String,
}

impl Registry {
    /// What refers to a manifest and is of that type, at most 1,000 of them, in the order that the registry has them.
    ///
    /// # Errors
    /// [`RegistryError`], also when what has the tag that stands for the list is none.
    pub fn referrers(&self, subject: Digest, artifact_type: &str) -> Result<Vec<Referrer>, RegistryError> {
        let what = format!("referrers of {}@{subject}", self.repository());
        let path = format!("/v2/{}/referrers/{subject}", self.repository());
        let mut url = self.base.at(&path).with_query(&[("artifactType", artifact_type)]);
        let headers = [("accept", MEDIA_TYPE_INDEX.to_owned())];
        let mut found = Found::default();
        for number in 0..PAGES_MAX {
            let answer = self.ask_url(Method::Get, &url, &what, &headers, || Content::None)?;
            // Who answers everything, with a page for browsers, has no list either.
            let is_list = answer.header("content-type").is_some_and(is_index);
            match answer.status {
                200 if is_list => {}
                200 | 404 | 405 | 501 if number == 0 => {
                    let (_, index) = self.tagged(subject)?;
                    found.add(index.as_ref(), artifact_type);
                    return Ok(found.all);
                }
                200 => return Err(self.wrong(&what, "a page of it is no index")),
                _ => return Err(self.refused(&what, answer)),
            }
            let page = self.page(&url, answer, &what)?;
            let index = parse(&page.bytes).map_err(|reason| self.wrong(&what, &reason))?;
            // Not everybody filters.
            found.add(Some(&index), artifact_type);
            match page.next {
                Some(next) if found.all.len() < REFERRERS_MAX => url = next,
                _ => break,
            }
        }
        Ok(found.all)
    }

    /// Gives the repository a manifest that refers to another one, all parts of which it has, unless it has it; and has it listed:
    /// in place of those of its type, if the list is one that clients keep. Returns its digest.
    ///
    /// # Errors
    /// As [`Self::put_manifest`] and [`Self::referrers`].
    pub fn attach(&self, attachment: &Attachment<'_>) -> Result<Digest, RegistryError> {
        let Attachment { subject, artifact_type, media_type, bytes } = *attachment;
        let digest = super::manifest::digest_of(bytes);
        if self.referrers(subject, artifact_type)?.iter().any(|known| known.digest == digest) {
            return Ok(digest);
        }
        let put = self.put(&Version::Digest(digest), media_type, bytes)?;
        if put.subject != Some(subject) {
            self.list(attachment, digest)?;
        }
        Ok(digest)
    }

    /// Adds it to the index under the tag.
    fn list(&self, attachment: &Attachment<'_>, digest: Digest) -> Result<(), RegistryError> {
        let Attachment { subject, artifact_type, media_type, bytes } = *attachment;
        let entry = json!({
            "mediaType": media_type,
            "digest": digest,
            "size": bytes.len(),
            "artifactType": artifact_type,
        });
        let mut written = 0;
        loop {
            let (tag, index) = self.tagged(subject)?;
            let mut known = entries(index.as_ref()).iter().filter_map(entry_of);
            if known.any(|known| known.digest == digest) {
                return Ok(());
            }
            let what = format!("{}:{tag}", self.repository());
            if written == TAGGINGS_MAX {
                let reason = "others replace it, or it keeps showing what was there before: push again";
                return Err(self.wrong(&what, reason));
            }
            let text = with_entry(index, &entry, artifact_type).to_string().into_bytes();
            if text.len() as u64 > MANIFEST_BYTES_MAX {
                return Err(RegistryError::Limit { registry: self.name(), what, limit: MANIFEST_BYTES_MAX });
            }
            self.put_manifest(&tag, MEDIA_TYPE_INDEX, &text)?;
            written += 1;
        }
    }

    /// The tag that stands for the list of a manifest's referrers, and the index that has it.
    fn tagged(&self, subject: Digest) -> Result<(Version, Option<Value>), RegistryError> {
        let tag = Version::Tag(format!("sha256-{}", subject.hex()));
        let document = match self.manifest(&tag) {
            Ok(document) => document,
            Err(RegistryError::NotFound { .. }) => return Ok((tag, None)),
            Err(error) => return Err(error),
        };
        let what = || format!("{}:{tag}", self.repository());
        let index = parse(&document.bytes).map_err(|reason| self.wrong(&what(), &reason))?;
        Ok((tag, Some(index)))
    }
}

/// Referrers, each once.
#[derive(Default)]
struct Found {
    all: Vec<Referrer>,
    known: HashSet<Digest>,
}

impl Found {
    fn add(&mut self, index: Option<&Value>, artifact_type: &str) {
        for Entry { digest, size, .. } in
            entries(index).iter().filter_map(entry_of).filter(|entry| entry.artifact_type == artifact_type)
        {
            if self.all.len() < REFERRERS_MAX && self.known.insert(digest) {
                self.all.push(Referrer { digest, size });
            }
        }
    }
}

fn is_index(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(MEDIA_TYPE_INDEX)
}

/// An index, with all that is in it.
fn parse(bytes: &[u8]) -> Result<Value, String> {
    let index: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("not an index of referrers: {error}"))?;
    // Some say null where there are none.
    match index.get("manifests") {
        Some(Value::Array(_) | Value::Null) => Ok(index),
        _ => Err("not an index of referrers: it has no \"manifests\"".to_owned()),
    }
}

fn entries(index: Option<&Value>) -> &[Value] {
    let list = index.and_then(|index| index.get("manifests")).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// An entry, unless it is none, or has a digest of another kind, which nothing here refers to.
fn entry_of(entry: &Value) -> Option<Entry> {
    Entry::deserialize(entry).ok()
}

/// The index with this entry instead of those of its type; what else is in it stays as it is.
fn with_entry(index: Option<Value>, entry: &Value, artifact_type: &str) -> Value {
    let mut list = entries(index.as_ref()).to_vec();
    list.retain(|known| known.get("artifactType").and_then(Value::as_str) != Some(artifact_type));
    list.push(entry.clone());
    let mut index = index.unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX }));
    if let Value::Object(fields) = &mut index {
        fields.insert("manifests".to_owned(), Value::Array(list));
    }
    index
}

#[cfg(test)]
#[path = "referrers_tests.rs"]
mod tests;
