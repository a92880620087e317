//! Containers as people and scripts see them: the lists of `ps`, the documents of `inspect`. Nothing is printed here.

mod host_config;
mod inspect;
mod json_list;
mod limits;
mod table;
mod words;

pub use inspect::{Inspected, Inspecting, inspect};
pub use json_list::json_list;
pub use table::{Width, aligned, id, table};
pub use words::{headings, words};

use super::{Config, Listed, Moment, UsedVolume, health};
use crate::launcher::Network;

/// One container of a list.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub listed: Listed,
    /// How much it has changed in bytes, where that was asked for and could be found out.
    pub written: Option<u64>,
}

/// Its network, as it was asked for; a mount has none.
pub(super) fn network_mode(network: Option<&Network>) -> Option<String> {
    match serde_json::to_value(network).ok()? {
        serde_json::Value::String(word) => Some(word),
        serde_json::Value::Object(fields) => fields.keys().next().cloned(),
        _ => None,
    }
}

fn volumes(config: &Config) -> impl Iterator<Item = &UsedVolume> {
    config.run.iter().flat_map(|wishes| &wishes.volumes)
}

/// The column STATUS, with the health of one that is checked. What cannot be read is not shown.
fn status_text(one: &Listed, now: Moment) -> String {
    let text = one.status.text(now);
    if !one.about.has_health() || !one.status.is_running() {
        return text;
    }
    match health::read(&one.dir) {
        Ok(Some(health)) => format!("{text} ({})", health.text()),
        _ => text,
    }
}

/// Commands and names come from images: what would move the cursor is shown instead.
pub(super) fn harmless(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let show = |character: char| -> String {
        if character.is_control() { character.escape_default().collect() } else { character.to_string() }
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests;
