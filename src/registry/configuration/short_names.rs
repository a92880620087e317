//! Short names, such as `debian:12`: what they stand for.

use super::{ConfigurationError, Registries};

/// `short-name-mode`. Nobody is asked here in any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ShortNameMode {
    /// More than one registry to search is an error.
    Enforcing,
    /// All of them are tried.
    #[default]
    Permissive,
    /// All of them are tried.
    Disabled,
}

impl Registries {
    /// The names to try for what was typed. A name with a registry is itself. A short one is its alias, if it has one;
    /// else it is in one of the `unqualified-search-registries`, in their order; where none are listed, it is docker.io's,
    /// as docker has it.
    ///
    /// # Errors
    /// [`ConfigurationError::Ambiguous`] in the mode "enforcing", when there are several registries to search.
    pub fn names(&self, typed: &str) -> Result<Vec<String>, ConfigurationError> {
        if !is_short(typed) {
            return Ok(vec![typed.to_owned()]);
        }
        let (name, rest) = split_name(typed);
        if let Some(target) = self.aliases.get(name) {
            return Ok(vec![format!("{target}{rest}")]);
        }
        match self.search.as_slice() {
            [] => Ok(vec![typed.to_owned()]),
            [_, _, ..] if self.mode == ShortNameMode::Enforcing => {
                Err(ConfigurationError::Ambiguous { name: typed.to_owned(), search: self.search.clone() })
            }
            search => Ok(search
                .iter()
                .map(|registry| format!("{}/{typed}", registry.trim_end_matches('/')))
                .collect()),
        }
    }
}

/// Whether there is no registry in front, by the rule of distribution/reference.
pub(super) fn is_short(name: &str) -> bool {
    let Some((first, _)) = name.split_once('/') else { return true };
    let is_host = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    !is_host
}

/// A name and what follows it: tag and digest.
pub(super) fn split_name(text: &str) -> (&str, &str) {
    let name = text.split('@').next().unwrap_or_default();
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[last..].find(':').map_or(name.len(), |colon| last + colon);
    text.split_at(end)
}
