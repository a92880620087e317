//! What this host says about registries: mirrors, other locations, blocked and insecure ones, short names
//! (containers-registries.conf(5), version 2), and certificates (containers-certs.d(5)).
//!
//! The first of these that is there is read: `layerfs/registries.conf` in the user's configuration, and then nothing else;
//! `$CONTAINERS_REGISTRIES_CONF`; `containers/registries.conf` there, with its `registries.conf.d` alone;
//! `/etc/containers/registries.conf`. Drop-in files, the system's before the user's, add to it in alphabetical order and win.

mod certificates;
mod document;
mod rewriting;
mod short_names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use certificates::{Certificates, certificates};
pub use rewriting::{Named, Source};

use super::{Places, places};
use document::Document;
use rewriting::Rule;
use short_names::ShortNameMode;

/// Drop-in files that are read from one directory: nobody has more by intention.
const DROP_INS_MAX: usize = 1000;

/// All files as one.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// By prefix.
    rules: BTreeMap<String, Rule>,
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    mode: ShortNameMode,
    credential_helpers: Vec<String>,
}

/// Why it is not known what the host says.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that does not say what it should.
    #[error("{}: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry, or a part of it, that nothing is to be pulled from.
    #[error("{name} is blocked: [[registry]] {prefix:?} in {} says so", path.display())]
    Blocked {
        /// What was wanted.
        name: String,
        /// The prefix of the table.
        prefix: String,
        /// The file.
        path: PathBuf,
    },
    /// A location that does not name a repository with what is left of the name.
    #[error("[[registry]] {prefix:?} in {} makes {name} to {made:?}, which is no repository", path.display())]
    Rewritten {
        /// What was wanted.
        name: String,
        /// The prefix of the table.
        prefix: String,
        /// What it became.
        made: String,
        /// The file.
        path: PathBuf,
    },
    /// A short name that means several images.
    #[error(
        "{name:?} is a short name and may be in any of {}: write the registry in front of it, or define an alias for it \
         (short-name-mode is \"enforcing\")",
        search.join(", ")
    )]
    Ambiguous {
        /// What was typed.
        name: String,
        /// `unqualified-search-registries`.
        search: Vec<String>,
    },
}

impl Registries {
    /// Reads what the user and the system say. Nothing at all is fine.
    ///
    /// # Errors
    /// [`ConfigurationError::Io`] and [`ConfigurationError::Document`], with the file.
    pub fn load(places: &Places) -> Result<Self, ConfigurationError> {
        let mut all = Self::default();
        let user = places.config_home.as_ref().map(|dir| dir.join("containers"));
        let system = places.etc.join("containers");
        let in_dir = |dir: &Path| (dir.join("registries.conf"), dir.join("registries.conf.d"));
        if let Some(dir) = &places.config_home
            && all.add(&dir.join("layerfs/registries.conf"))?
        {
            return Ok(all);
        }
        let mut drop_ins = Vec::new();
        if let Some(path) = &places.registries_conf {
            if !all.add(path)? {
                let source = io::Error::from(io::ErrorKind::NotFound);
                return Err(ConfigurationError::Io { path: path.clone(), source });
            }
            drop_ins.push(in_dir(&system).1);
        } else {
            let (main, _) = user.as_deref().map(in_dir).unzip();
            let has_own = main.map(|main| all.add(&main)).transpose()?.unwrap_or(false);
            if !has_own {
                all.add(&in_dir(&system).0)?;
                drop_ins.push(in_dir(&system).1);
            }
        }
        drop_ins.extend(user.as_deref().map(|dir| in_dir(dir).1));
        for dir in drop_ins {
            for path in names_in(&dir)?.into_iter().filter(|path| has_ending(path, "conf")) {
                all.add(&path)?;
            }
        }
        Ok(all)
    }

    /// Puts one file over what is known; whether there is such a file.
    fn add(&mut self, path: &Path) -> Result<bool, ConfigurationError> {
        let bytes =
            places::read(path).map_err(|source| ConfigurationError::Io { path: path.to_owned(), source })?;
        let Some(bytes) = bytes else { return Ok(false) };
        let wrong = |reason| ConfigurationError::Document { path: path.to_owned(), reason };
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
        let (document, unknown) = Document::parse(&text, path).map_err(wrong)?;
        for key in unknown {
            tracing::warn!(path = %path.display(), key, "nothing is known of this key: it is ignored");
        }
        self.put(document);
        Ok(true)
    }

    fn put(&mut self, document: Document) {
        // Of several with one prefix in one file the first counts, and of several files the last.
        for rule in document.rules.into_iter().rev() {
            self.rules.insert(rule.prefix().to_owned(), rule);
        }
        for (name, target) in document.aliases {
            if target.is_empty() {
                self.aliases.remove(&name)
            } else {
                self.aliases.insert(name, target)
            };
        }
        self.search = document.search.unwrap_or_else(|| std::mem::take(&mut self.search));
        self.mode = document.mode.unwrap_or(self.mode);
        if let Some(helpers) = document.credential_helpers.filter(|helpers| !helpers.is_empty()) {
            self.credential_helpers = helpers;
        }
    }

    /// `credential-helpers`: where credentials are looked for; empty where nothing is said of it.
    #[must_use]
    pub fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }
}

#[cfg(test)]
impl Registries {
    /// What a single file says.
    fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let path = PathBuf::from("registries.conf");
        let parsed = Document::parse(text, &path);
        let (document, _) = parsed.map_err(|reason| ConfigurationError::Document { path, reason })?;
        let mut all = Self::default();
        all.put(document);
        Ok(all)
    }
}

/// What is in a directory, sorted; nothing when there is none.
fn names_in(dir: &Path) -> Result<Vec<PathBuf>, ConfigurationError> {
    let wrong = |source| ConfigurationError::Io { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(wrong(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(wrong)?.path());
        if paths.len() > DROP_INS_MAX {
            return Err(wrong(io::Error::other(format!("more than {DROP_INS_MAX} files"))));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether it is a file, or a link to one, with this ending.
fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending) && path.is_file()
}
