//! What lists say of an image in the store: read from its manifest and its config, and kept, as both are named by their
//! digests and so never change (`images.json`, see [`super::facts_kept`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::{Directory, Files as _};
use super::manifest::{self, Document};
use super::oci_layout::{ATTESTATION, INDEX_DEPTH_MAX, document, for_platform, wrong};
use super::{ImageError, TargetPlatform};
use crate::model::image_config::null_as_default;
use crate::model::rfc3339;
use crate::model::{Digest, Timestamp};
use crate::store::{Descriptor, Store};

/// What is known of an image without its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The digest of its config: the image's id, as docker has it.
    pub id: Digest,
    /// Its manifest; of an image for several platforms that for this machine.
    pub manifest: Digest,
    /// When it was made, in seconds since 1970. `None` when it does not say, or when that was before: builders that are to
    /// give the same image each time write the year 1.
    pub created: Option<u64>,
    /// Bytes that it takes in the store: its layers as they lie there, its config and its manifest.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// CPU architecture, in Go's words.
    pub architecture: String,
    /// Operating system, in Go's words.
    pub os: String,
    /// Whether the store has the image for another platform alone; that for this machine may come.
    #[serde(skip)]
    pub is_stand_in: bool,
}

/// What is read of a config.
#[derive(Deserialize)]
struct ConfigHead {
    #[serde(default, deserialize_with = "null_as_default")]
    created: String,
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    config: ProcessHead,
}

#[derive(Default, Deserialize)]
struct ProcessHead {
    #[serde(default, rename = "Labels", deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
}

/// Reads what lists say of an image. Its layers are not looked at.
///
/// # Errors
/// [`ImageError`] when one of its documents is missing or damaged, or none is for this machine.
pub(super) fn read(store: &Store, entry: &Descriptor) -> Result<Facts, ImageError> {
    let layout = Directory(store.oci_dir());
    let mut descriptor = entry.clone();
    let mut is_stand_in = false;
    for _ in 0..INDEX_DEPTH_MAX {
        let (bytes, manifest_digest) = document(&layout, &descriptor, "manifest")?;
        match manifest::parse(&bytes, &descriptor.media_type) {
            Err(reason) => return Err(wrong(&layout, format!("manifest {}", descriptor.digest), reason)),
            Ok(Document::Index(index)) => {
                let is_here = |one: &&Descriptor| store.blobs().has(one.digest).unwrap_or(false);
                let own = for_platform(&layout, &index.manifests, &TargetPlatform::host());
                let is_image = |one: &&Descriptor| one.annotation(ATTESTATION).is_none();
                let other = || index.manifests.iter().filter(is_image).find(is_here);
                descriptor = match (own, other) {
                    (Ok(own), _) if is_here(&own) => own.clone(),
                    (own, other) => match other() {
                        Some(other) => {
                            is_stand_in = true;
                            other.clone()
                        }
                        None => own?.clone(),
                    },
                };
            }
            Ok(Document::Manifest(manifest)) => {
                let (text, id) = document(&layout, &manifest.config, "config")?;
                let head: ConfigHead = serde_json::from_slice(&text).map_err(|error| {
                    wrong(&layout, format!("config {id}"), format!("not an image config: {error}"))
                })?;
                let layers = manifest.layers.iter().map(|layer| layer.size);
                let documents = [bytes.len() as u64, text.len() as u64];
                return Ok(Facts {
                    id,
                    manifest: manifest_digest,
                    created: moment(&head.created),
                    size: layers.chain(documents).fold(0, u64::saturating_add),
                    labels: head.config.labels,
                    architecture: head.architecture,
                    os: head.os,
                    is_stand_in,
                });
            }
        }
    }
    let reason =
        format!("more than {INDEX_DEPTH_MAX} indexes in each other, in {}", layout.place().display());
    Err(wrong(&layout, format!("index {}", entry.digest), reason))
}

/// Seconds since 1970 of a time in a document (RFC 3339), also one with an offset.
#[must_use]
pub fn moment(text: &str) -> Option<u64> {
    let seconds = match rfc3339::parse(text) {
        Some(Timestamp { secs, .. }) => secs,
        None => {
            // Builders write UTC; people who edit configs do not always.
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (sign, clock) = offset.split_at_checked(1)?;
            let sign = match sign {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = clock.split_once(':')?;
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < 60).map(i64::from);
            let local = rfc3339::parse(&format!("{local}Z"))?;
            local.secs - sign * (number(hours)? * 3600 + number(minutes)? * 60)
        }
    };
    u64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_offset() {
        for (text, seconds) in [
            ("1970-01-01T00:16:40Z", Some(1000)),
            ("1970-01-01T00:16:40.123456789Z", Some(1000)),
            ("1970-01-01T02:16:40+02:00", Some(1000)),
            ("1969-12-31T22:46:40.5-01:30", Some(1000)),
            ("0001-01-01T00:00:00Z", None),
            ("1970-01-01T00:16:40", None),
            ("", None),
            ("+00:00", None),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", None),
        ] {
            // The parser has no years before 1970, whatever the offset makes of them.
            let expected = if text.starts_with("1969") { None } else { seconds };
            assert_eq!(moment(text), expected, "{text}");
        }
    }
}
