//! Who one is to which registry: read and written where podman, skopeo, buildah and docker do.
//!
//! [`Keychain`] knows the files and helpers, [`login()`] and [`logout()`] what happens when somebody logs in or out. The
//! order of the files is that of containers-auth.json(5).

mod auth_file;
mod helper_program;
mod key;
mod login;
mod on_disk;
mod ordered;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use key::{RegistryKey, RegistryKeyError};
pub use login::{Dialogue, LoginError, Offer, logged_in, login, logout, logout_everywhere};

use super::{Access, Places};
use auth_file::{AuthFile, Form};
use helper_program::Helper;

/// The name by which `credential-helpers` in registries.conf means the files (containers-registries.conf(5)).
const FILES: &str = "containers-auth.json";

/// Where credentials are looked for, and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keychain {
    /// In the order in which they are asked; the first is the one that is written to.
    files: Vec<(PathBuf, FileKind)>,
    /// `credential-helpers`.
    sources: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    /// Named by the user: it must be there to be read.
    Named,
    Usual,
    /// `/run/containers/UID/auth.json`, which may be out of reach.
    Shared,
    Dockercfg,
}

/// Who keeps credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A file.
    File(PathBuf),
    /// A helper, by its name.
    Helper(String),
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Helper(name) => write!(f, "docker-credential-{name}"),
        }
    }
}

/// Why credentials cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The system refused.
    #[error("cannot {action} credentials {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory for it belongs to somebody else.
    #[error("cannot keep credentials in {}: {source}; set XDG_RUNTIME_DIR to a directory of your own, or give --authfile", path.display())]
    NoPlace {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that was named and is not there.
    #[error("there are no credentials {}: log in with it, or leave --authfile and REGISTRY_AUTH_FILE away", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that does not say what it should.
    #[error("credentials {}: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong, without quoting it.
        reason: String,
    },
    /// A helper that is named somewhere and cannot be found.
    #[error(
        "there is no program docker-credential-{name} in PATH: install it, or remove it from credHelpers"
    )]
    NoHelper {
        /// What follows `docker-credential-`.
        name: String,
    },
    /// A helper that failed.
    #[error("docker-credential-{name}: {reason}")]
    Helper {
        /// What follows `docker-credential-`.
        name: String,
        /// What it said, or did.
        reason: String,
    },
}

impl CredentialsError {
    fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl Keychain {
    /// `named` is what the user gave for this one command: it wins over `$REGISTRY_AUTH_FILE`, and either is used alone.
    /// `sources` is what `credential-helpers` says; nothing means the files.
    #[must_use]
    pub fn new(places: &Places, named: Option<&Path>, sources: &[String]) -> Self {
        let sources = if sources.is_empty() { vec![FILES.to_owned()] } else { sources.to_vec() };
        if let Some(path) = named.or(places.auth_file.as_deref()) {
            return Self { files: vec![(path.to_owned(), FileKind::Named)], sources };
        }
        let config = places.config_home.as_ref().map(|dir| dir.join("containers/auth.json"));
        let docker = places.docker_config.as_ref().map(|dir| dir.join("config.json"));
        let runtime = if places.has_runtime_dir { FileKind::Usual } else { FileKind::Shared };
        let first = (places.runtime_auth_file.clone(), runtime);
        let usual = [config, docker].into_iter().flatten().map(|path| (path, FileKind::Usual));
        let oldest = places.dockercfg.iter().cloned().map(|path| (path, FileKind::Dockercfg));
        Self { files: std::iter::once(first).chain(usual).chain(oldest).collect(), sources }
    }

    /// The credentials for a repository, and who had them.
    ///
    /// # Errors
    /// [`CredentialsError`] for the first keeper that fails before one has them.
    pub fn find(&self, key: &RegistryKey) -> Result<Option<(Access, Keeper)>, CredentialsError> {
        for source in &self.sources {
            let found = if source == FILES {
                self.find_in_files(key)?
            } else {
                let access = Helper::new(source)?.get(&key.servers())?;
                access.map(|access| (access, Keeper::Helper(source.clone())))
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Who one is to a repository: what [`Self::find`] found, else nobody.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn access(&self, host: &str, repository: &str) -> Result<Access, CredentialsError> {
        let found = self.find(&RegistryKey::new(host, repository))?;
        Ok(found.map(|(access, _)| access).unwrap_or_default())
    }

    fn find_in_files(&self, key: &RegistryKey) -> Result<Option<(Access, Keeper)>, CredentialsError> {
        for (path, kind) in &self.files {
            let Some(file) = read(path, *kind)? else {
                if *kind == FileKind::Named {
                    return Err(CredentialsError::NoFile { path: path.clone() });
                }
                continue;
            };
            if let Some(found) = find_in(path, &file, key)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a user and a password, in the first file or helper; who has them now.
    ///
    /// # Errors
    /// [`CredentialsError`]; then nothing has changed.
    pub fn store(
        &self,
        key: &RegistryKey,
        username: &str,
        password: &str,
    ) -> Result<Keeper, CredentialsError> {
        let Some((path, kind)) = self.written_file() else {
            let name = self.sources.first().cloned().unwrap_or_default();
            Helper::new(&name)?.store(key.host(), username, password)?;
            return Ok(Keeper::Helper(name));
        };
        if let Some((name, servers)) = read(path, kind)?.and_then(|file| keeper_of(&file, key)) {
            // Of its names the last is the one that those use who configured the helper.
            let server = servers.last().map_or(key.host(), String::as_str);
            Helper::new(&name)?.store(server, username, password)?;
            return Ok(Keeper::Helper(name));
        }
        let changed = on_disk::change(path, |file| file.set(key, username, password).map(|()| true));
        changed.map_err(|error| match error {
            CredentialsError::Io { path, source, .. } if kind == FileKind::Shared => {
                CredentialsError::NoPlace { path, source }
            }
            other => other,
        })?;
        Ok(Keeper::File(path.to_owned()))
    }

    /// Forgets credentials where [`Self::store`] would keep them; who had them.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn erase(&self, key: &RegistryKey) -> Result<Option<Keeper>, CredentialsError> {
        let Some((path, kind)) = self.written_file() else {
            let name = self.sources.first().cloned().unwrap_or_default();
            return Ok(Helper::new(&name)?.erase(&key.servers())?.then_some(Keeper::Helper(name)));
        };
        let Some(file) = read(path, kind)? else { return Ok(None) };
        let mut erased = None;
        if let Some((name, servers)) = keeper_of(&file, key) {
            let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
            if Helper::new(&name)?.erase(&servers)? {
                erased = Some(Keeper::Helper(name));
            }
        }
        if on_disk::change(path, |file| Ok(file.remove(key)))? {
            erased.get_or_insert(Keeper::File(path.to_owned()));
        }
        Ok(erased)
    }

    /// Forgets all credentials of the first file, and those that its helpers have for it.
    ///
    /// # Errors
    /// [`CredentialsError`] for the first helper that fails; the file is changed last.
    pub fn erase_all(&self) -> Result<(), CredentialsError> {
        let Some((path, kind)) = self.written_file() else { return Ok(()) };
        let Some(file) = read(path, kind)? else { return Ok(()) };
        for (host, name) in file.helpers() {
            Helper::new(name)?.erase(&RegistryKey::new(host, "").servers())?;
        }
        if let Some(name) = file.store() {
            for key in file.keys() {
                Helper::new(name)?.erase(&[key])?;
            }
        }
        on_disk::change(path, |file| {
            file.clear();
            Ok(true)
        })?;
        Ok(())
    }

    /// The file that is changed; none when a helper stands before all files.
    fn written_file(&self) -> Option<(&Path, FileKind)> {
        let file = self.files.first().map(|(path, kind)| (path.as_path(), *kind));
        file.filter(|_| self.sources.first().is_some_and(|source| source == FILES))
    }
}

/// One file; none where this user cannot have one.
fn read(path: &Path, kind: FileKind) -> Result<Option<AuthFile>, CredentialsError> {
    let form = if kind == FileKind::Dockercfg { Form::Dockercfg } else { Form::Current };
    match on_disk::read(path, form) {
        Err(error) if kind == FileKind::Shared && error.is_denied() => {
            tracing::debug!(%error, "no credentials of this user");
            Ok(None)
        }
        read => read,
    }
}

/// In one file: its helper for the registry has the last word (containers-auth.json(5)); the one for all others, of which
/// podman does not know, is asked when there is no entry.
fn find_in(
    path: &Path,
    file: &AuthFile,
    key: &RegistryKey,
) -> Result<Option<(Access, Keeper)>, CredentialsError> {
    if let Some(name) = file.helper_for(key.host()) {
        let access = Helper::new(name)?.get(&key.servers())?;
        return Ok(access.map(|access| (access, Keeper::Helper(name.to_owned()))));
    }
    let wrong = |reason| CredentialsError::Document { path: path.to_owned(), reason };
    if let Some(access) = file.find(key).map_err(wrong)? {
        return Ok(Some((access, Keeper::File(path.to_owned()))));
    }
    let Some(name) = file.store() else { return Ok(None) };
    match Helper::new(name)?.get(&key.servers()) {
        // Files go from host to host without docker's helper; podman takes them as they are.
        Err(CredentialsError::NoHelper { name }) => {
            tracing::warn!(path = %path.display(), "credsStore: there is no program docker-credential-{name} in PATH");
            Ok(None)
        }
        access => Ok(access?.map(|access| (access, Keeper::Helper(name.to_owned())))),
    }
}

/// The helper that a file wants a registry's credentials kept by, and the names it knows the registry by there: of
/// `credHelpers` podman's, of `credsStore` docker's.
fn keeper_of(file: &AuthFile, key: &RegistryKey) -> Option<(String, Vec<String>)> {
    let servers = || key.servers().into_iter().map(str::to_owned);
    match (file.helper_for(key.host()), file.store()) {
        (Some(name), _) => Some((name.to_owned(), servers().rev().collect())),
        (None, Some(name)) if key.is_host() => Some((name.to_owned(), servers().collect())),
        _ => None,
    }
}
