//! `--filter KEY=VALUE` of images. Of one key any value will do, of different keys each must; of labels each as well.

use std::collections::BTreeMap;

use super::glob::Glob;
use crate::container::{Moment, spoken_time};
use crate::image::catalog::Name;
use crate::image::{Catalog, CatalogError, Reference, StoredImage};

const KNOWN: &str = "dangling, label, label!, before, since, after, until, reference, id, digest, intermediate and readonly are known";

/// Why it is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nobody knows it.
    #[error("--filter {0}: invalid filter: {KNOWN}")]
    Unknown(String),
    /// It is known, but not with this value.
    #[error("--filter {text}: {reason}")]
    Value {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image that it names.
    #[error("--filter {text}: {source}")]
    Image {
        /// What was typed.
        text: String,
        /// Why there is none.
        source: CatalogError,
    },
}

/// What is asked of images.
#[derive(Debug, Default)]
pub struct Filters {
    any_of: BTreeMap<&'static str, Vec<Condition>>,
    all_of: Vec<Condition>,
}

#[derive(Debug)]
enum Condition {
    Dangling(bool),
    /// Nothing is ever both made on the way to an image and kept without a name; nothing is read-only.
    Never(bool),
    Label {
        wanted: bool,
        key: String,
        value: Option<String>,
    },
    Before(Option<u64>),
    Since(Option<u64>),
    Until(Moment),
    Reference(Wanted),
    Id(String),
    Digest(String),
}

/// A pattern, or a name.
#[derive(Debug)]
struct Wanted {
    glob: Glob,
    reference: Option<Reference>,
    has_tag: bool,
}

impl Filters {
    /// Understands what was typed; `before` and `since` name images of the catalog.
    ///
    /// # Errors
    /// [`FilterError`]
    pub fn parse(texts: &[String], catalog: &Catalog, now: Moment) -> Result<Self, FilterError> {
        let mut filters = Self::default();
        for text in texts {
            let refused = |reason: String| FilterError::Value { text: text.clone(), reason };
            let Some((key, value)) = text.split_once('=') else {
                return Err(refused("expected KEY=VALUE".to_owned()));
            };
            let (key, value) = match key.strip_suffix('!') {
                Some("label") => ("label!", value),
                _ => (key, value),
            };
            let is = || parse_bool(value).ok_or_else(|| refused("expected true or false".to_owned()));
            let made = || match catalog.find(value) {
                Ok(found) => Ok(found.image.facts.as_ref().and_then(|facts| facts.created)),
                Err(source) => Err(FilterError::Image { text: text.clone(), source }),
            };
            let (group, condition) = match key {
                "dangling" => ("dangling", Condition::Dangling(is()?)),
                "intermediate" => ("intermediate", Condition::Never(is()?)),
                "readonly" => ("readonly", Condition::Never(is()?)),
                "label" | "label!" => {
                    let (name, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v)));
                    let (name, value) = (name.to_owned(), wanted.map(str::to_owned));
                    filters.all_of.push(Condition::Label { wanted: key == "label", key: name, value });
                    continue;
                }
                "before" => ("before", Condition::Before(made()?)),
                "since" | "after" => ("since", Condition::Since(made()?)),
                "until" => {
                    let moment = spoken_time::parse(value, now);
                    let moment = moment.ok_or_else(|| refused("no time: see layerfs logs --help".to_owned()));
                    ("until", Condition::Until(moment?))
                }
                "reference" => ("reference", Condition::Reference(Wanted::parse(value).map_err(refused)?)),
                "id" => ("id", Condition::Id(value.strip_prefix("sha256:").unwrap_or(value).to_owned())),
                "digest" => ("digest", Condition::Digest(value.to_owned())),
                _ => return Err(FilterError::Unknown(text.clone())),
            };
            filters.any_of.entry(group).or_default().push(condition);
        }
        Ok(filters)
    }

    /// The same, and what is called so: a name with or without its tag, or a pattern.
    ///
    /// # Errors
    /// When it is neither.
    pub fn named(mut self, name: &str) -> Result<Self, FilterError> {
        let refused = |reason| FilterError::Value { text: name.to_owned(), reason };
        let condition = Condition::Reference(Wanted::parse(name).map_err(refused)?);
        self.any_of.entry("name").or_default().push(condition);
        Ok(self)
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.all_of.is_empty()
    }

    /// Whether an image is meant.
    #[must_use]
    pub fn admit(&self, image: &StoredImage) -> bool {
        let holds = |condition: &Condition| condition.holds(image);
        self.all_of.iter().all(holds) && self.any_of.values().all(|group| group.iter().any(holds))
    }

    /// Whether one of the names of an image that is meant is meant itself: where names are asked for, others are not shown.
    #[must_use]
    pub fn admit_name(&self, name: &Name) -> bool {
        let asks = |group: &Vec<Condition>| {
            let mut wanted = group.iter().filter_map(|condition| match condition {
                Condition::Reference(wanted) => Some(wanted),
                _ => None,
            });
            let first = wanted.next();
            first.is_none_or(|first| first.is(name) || wanted.any(|one| one.is(name)))
        };
        self.any_of.values().all(asks)
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "1" | "t" | "T" => Some(true),
        "false" | "False" | "FALSE" | "0" | "f" | "F" => Some(false),
        _ => None,
    }
}

impl Condition {
    fn holds(&self, image: &StoredImage) -> bool {
        let facts = image.facts.as_ref();
        let created = facts.and_then(|facts| facts.created);
        match self {
            Self::Dangling(wanted) => image.is_dangling() == *wanted,
            Self::Never(wanted) => !wanted,
            Self::Label { wanted, key, value } => {
                let found = facts.and_then(|facts| facts.labels.get(key));
                let has = found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found));
                has == *wanted
            }
            Self::Before(other) => created < *other,
            Self::Since(other) => created > *other,
            Self::Until(moment) => created.is_some_and(|created| Moment::from_seconds(created) < *moment),
            Self::Reference(wanted) => image.names().any(|name| wanted.is(name)),
            Self::Id(prefix) => image.id.hex().starts_with(prefix),
            Self::Digest(wanted) => image.digests().any(|digest| digest.to_string().starts_with(wanted)),
        }
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        let reference: Option<Reference> = text.parse().ok();
        let last = text.rsplit('/').next().unwrap_or_default();
        Ok(Self { glob: Glob::parse(text)?, reference, has_tag: last.contains([':', '@']) })
    }

    /// As docker has it, the pattern may be the name with its tag or without; as podman has it, also the whole of it.
    fn is(&self, name: &Name) -> bool {
        let Some(own) = &name.reference else { return self.glob.is(&name.shown) };
        let whole = own.to_string();
        let tag = own.tag().map_or(0, |tag| tag.len() + 1);
        let place = whole.get(..whole.len().saturating_sub(tag)).unwrap_or_default();
        if [&name.shown, &name.repository, whole.as_str(), place].into_iter().any(|text| self.glob.is(text)) {
            return true;
        }
        let same = |wanted: Reference| {
            let same_place = own.host() == wanted.host() && own.path() == wanted.path();
            same_place && (!self.has_tag || own.tag() == wanted.tag())
        };
        self.reference.as_ref().is_some_and(|wanted| wanted.candidates().any(same))
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
