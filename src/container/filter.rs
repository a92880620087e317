//! `--filter KEY=VALUE`: which containers are meant. Of one key any value will do, of different keys each must; of labels
//! each as well, as docker has it.

mod pattern;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pattern::Pattern;

use super::{ContainerError, ContainerId, Containers, Listed, Moment, State, Status, Summary, spoken_time};

const KNOWN: &str =
    "id, name, label, label!, status, exited, ancestor, before, since, until, volume and network are known";
/// What a container can be; those that it never is here are known to docker and podman.
const STATES: [&str; 9] =
    ["created", "running", "mounted", "paused", "exited", "stopped", "restarting", "removing", "dead"];
/// Digits of an image's id that are not taken for a name.
const ID_DIGITS_MIN: usize = 6;

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
    /// The container that it names.
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// What is asked of containers.
#[derive(Debug, Default)]
pub struct Filters {
    any_of: BTreeMap<&'static str, Vec<Condition>>,
    all_of: Vec<Condition>,
}

#[derive(Debug)]
enum Condition {
    IdPrefix(String),
    Id(Pattern),
    Name(Pattern),
    Label { key: String, value: Option<String> },
    NoLabel { key: String, value: Option<String> },
    Status(String),
    Exited(u8),
    Ancestor(String),
    Before(Moment, ContainerId),
    Since(Moment, ContainerId),
    Until(Moment),
    Volume(PathBuf),
    Network(String),
}

impl Filters {
    /// Understands what was typed; `before` and `since` name containers.
    ///
    /// # Errors
    /// [`FilterError`]
    pub fn parse(texts: &[String], containers: &Containers, now: Moment) -> Result<Self, FilterError> {
        let mut filters = Self::default();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                let reason = "expected KEY=VALUE".to_owned();
                return Err(FilterError::Value { text: text.clone(), reason });
            };
            let refused = |reason: String| FilterError::Value { text: text.clone(), reason };
            let (group, condition) = match key {
                "id" if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    ("id", Condition::IdPrefix(value.to_ascii_lowercase()))
                }
                "id" => ("id", Condition::Id(Pattern::parse(value).map_err(refused)?)),
                "name" => ("name", Condition::Name(Pattern::parse(value).map_err(refused)?)),
                "label" | "label!" => {
                    let (label, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v)));
                    let (label, value) = (label.to_owned(), wanted.map(str::to_owned));
                    filters.all_of.push(match key {
                        "label" => Condition::Label { key: label, value },
                        _ => Condition::NoLabel { key: label, value },
                    });
                    continue;
                }
                "status" if STATES.contains(&value) => ("status", Condition::Status(value.to_owned())),
                "status" => return Err(refused(format!("no such state: {} are known", STATES.join(", ")))),
                "exited" => {
                    let code = value.parse().map_err(|_| refused("an exit code from 0 to 255".to_owned()))?;
                    ("exited", Condition::Exited(code))
                }
                "ancestor" => ("ancestor", Condition::Ancestor(value.to_owned())),
                "before" => ("before", of_container(containers, value, Condition::Before)?),
                "since" => ("since", of_container(containers, value, Condition::Since)?),
                "until" => {
                    let moment = spoken_time::parse(value, now);
                    let moment = moment.ok_or_else(|| refused("no time: see layerfs logs --help".to_owned()));
                    ("until", Condition::Until(moment?))
                }
                "volume" => ("volume", Condition::Volume(PathBuf::from(value))),
                "network" => ("network", Condition::Network(value.to_owned())),
                _ => return Err(FilterError::Unknown(text.clone())),
            };
            filters.any_of.entry(group).or_default().push(condition);
        }
        Ok(filters)
    }

    /// Whether a state is asked for: then those that do not run are meant as well.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.any_of.contains_key("status")
    }

    /// Whether a container is meant.
    #[must_use]
    pub fn admit(&self, one: &Listed) -> bool {
        let holds = |condition: &Condition| condition.holds(&one.about, &one.status);
        self.all_of.iter().all(holds) && self.any_of.values().all(|group| group.iter().any(holds))
    }
}

fn of_container(
    containers: &Containers,
    text: &str,
    condition: impl Fn(Moment, ContainerId) -> Condition,
) -> Result<Condition, ContainerError> {
    let found = containers.find(text)?;
    Ok(condition(found.config().created, found.id()))
}

impl Condition {
    fn holds(&self, config: &Summary, status: &Status) -> bool {
        let age = (config.created, config.id);
        match self {
            Self::IdPrefix(prefix) => config.id.to_string().starts_with(prefix),
            Self::Id(pattern) => pattern.is_in(&config.id.to_string()),
            // Docker's names begin with a slash, and scripts know that.
            Self::Name(pattern) => pattern.is_in(&config.name) || pattern.is_in(&format!("/{}", config.name)),
            Self::Label { key, value } => has_label(config, key, value.as_deref()),
            Self::NoLabel { key, value } => !has_label(config, key, value.as_deref()),
            Self::Status(word) if word == "stopped" => status.word() == "exited",
            Self::Status(word) => status.word() == word,
            Self::Exited(code) => {
                matches!(status.state, State::Exited { exit_code, .. } if exit_code == *code)
            }
            Self::Ancestor(image) => is_of_image(config, image),
            Self::Before(moment, id) => age < (*moment, *id),
            Self::Since(moment, id) => age > (*moment, *id),
            Self::Until(moment) => config.created < *moment,
            Self::Volume(path) => config.volumes().any(|used| {
                let is_name = used.name().is_some_and(|name| path == Path::new(name));
                is_name || used.mount.source == *path || used.mount.destination == *path
            }),
            Self::Network(name) => super::view::network_mode(config.network()).as_deref() == Some(name),
        }
    }
}

fn has_label(config: &Summary, key: &str, value: Option<&str>) -> bool {
    config.labels().get(key).is_some_and(|found| value.is_none_or(|value| value == *found))
}

/// By the name that it was opened by, that without what everybody leaves out, or the digest of its config.
fn is_of_image(config: &Summary, wanted: &str) -> bool {
    let name = config.image.name.as_str();
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let names = [name, short].into_iter().flat_map(|name| [Some(name), name.strip_suffix(":latest")]);
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_id = digits.len() >= ID_DIGITS_MIN && config.image.config_digest.hex().starts_with(digits);
    is_id || names.flatten().any(|name| name == wanted)
}

#[cfg(test)]
mod tests;
