//! The two documents of a container: `config.json`, in which only the name changes and what `update` changes, and
//! `state.json`, which does.
//!
//! Each is replaced as a whole. What a power cut must not undo is flushed first; flushing costs a start as much as all the
//! rest of it, so what nobody needs after one is not.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Config, ContainerError, State, attaching};
use crate::sys::atomic;

pub(super) const CONFIG: &str = "config.json";
pub(super) const STATE: &str = "state.json";
/// An empty file beside a config that was not flushed: only there may a power cut have left an empty one. Any other empty
/// config is damage, under which there may be somebody's only copy of something.
const UNFLUSHED: &str = "unflushed";
const MODE: u32 = 0o600;
/// No record of an end is longer: as much is kept free for it behind the record of what lives.
const END_BYTES_MAX: usize = 512;
/// The mode of a state of which nothing is to be taken up by others, whatever becomes of those who hold the container now: so
/// one look at it suffices.
const MODE_AT_REST: u32 = 0o400;

/// The config of the container in `dir`; `None` when it has not come so far, or has lost what no flush protected.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(super) fn config(dir: &Path) -> Result<Option<Config>, ContainerError> {
    let path = dir.join(CONFIG);
    match read(&path)? {
        Some(text) if !text.is_empty() || !is_unflushed(dir)? => parse(&path, &text).map(Some),
        _ => Ok(None),
    }
}

/// Whether there is a config, damaged or not.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn has_config(dir: &Path) -> Result<bool, ContainerError> {
    let path = dir.join(CONFIG);
    match std::fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.len() > 0 || !is_unflushed(dir)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ContainerError::io("read", &path)(error)),
    }
}

/// Writes the config. Of a container that goes away by itself nothing has to be found after a power cut. One that was at rest is
/// not any more ([`wake`]).
///
/// # Errors
/// What the system says.
pub(super) fn write_config(dir: &Path, config: &Config) -> Result<(), ContainerError> {
    wake(dir)?;
    if config.remove_at_end {
        let mark = dir.join(UNFLUSHED);
        std::fs::write(&mark, "").map_err(ContainerError::io("write", &mark))?;
    }
    write(&dir.join(CONFIG), config, !config.remove_at_end, MODE)
}

/// Whether it was written down how far the container has come.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn has_state(dir: &Path) -> Result<bool, ContainerError> {
    dir.join(STATE).try_exists().map_err(ContainerError::io("read", dir))
}

/// How far the container in `dir` has come, as it was written down; [`State::Created`] before anything was.
///
/// # Errors
/// When it cannot be read, or is damaged; [`ContainerError::NotFound`] when the container is gone.
pub(super) fn state(dir: &Path) -> Result<State, ContainerError> {
    let path = dir.join(STATE);
    match read(&path)? {
        Some(text) if !text.is_empty() => parse(&path, &text),
        // Before anything was written, or not flushed before a power cut.
        _ if has_config(dir)? => Ok(State::Created),
        _ => Err(ContainerError::NotFound(dir.file_name().unwrap_or_default().display().to_string())),
    }
}

/// Writes down how far the container of this config has come. That a process runs is true only for as long as the system does.
///
/// # Errors
/// What the system says; then the old state stands.
pub(super) fn write_state(dir: &Path, config: &Config, state: &State) -> Result<(), ContainerError> {
    let path = dir.join(STATE);
    let is_end = matches!(state, State::Exited { .. });
    let mode = if state.is_live() || config.remove_at_end { MODE } else { MODE_AT_REST };
    let mut text = serde_json::to_vec(state).map_err(ContainerError::document(&path))?;
    if state.is_live() {
        text.resize(text.len().max(END_BYTES_MAX), b' ');
    }
    match write_text(&path, &text, is_end, mode) {
        // There is room for how it ended where it stands that it runs.
        Err(ContainerError::Io { source, .. }) if is_end && is_full(&source) => {
            atomic::overwrite(&path, &text).map_err(|_| ContainerError::io("write", &path)(source))
        }
        written => written,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// To be called by whoever is about to make files in the directory of a container that may be at rest: if that one is killed, a
/// sweep looks what is left.
///
/// # Errors
/// What the system says.
pub(super) fn wake(dir: &Path) -> Result<(), ContainerError> {
    set_mode(dir, MODE)
}

/// To be called by who holds the container alone and has seen that nothing is left in it.
///
/// # Errors
/// What the system says.
pub(super) fn lay_to_rest(dir: &Path) -> Result<(), ContainerError> {
    set_mode(dir, MODE_AT_REST)
}

/// That of the state, if there is one.
fn set_mode(dir: &Path, mode: u32) -> Result<(), ContainerError> {
    let path = dir.join(STATE);
    match std::fs::set_permissions(&path, Permissions::from_mode(mode)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ContainerError::io("chmod", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether nothing can be left of the container `id` in `dir` that somebody has to take up: it is complete, stays when it
/// ends, and has ended or never began; and nobody was killed who had begun to change it or to start it again. Says no when that is
/// not certain.
///
/// # Errors
/// What the system says.
pub(super) fn is_at_rest(dir: impl AsFd, id: &str) -> io::Result<bool> {
    let look = |name: &str| match rustix::fs::statat(&dir, format!("{id}/{name}"), AtFlags::SYMLINK_NOFOLLOW)
    {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    };
    let is_resting = |found: Stat| is_mode_at_rest(found.st_mode) && found.st_size > 0;
    Ok(look(STATE)?.is_some_and(is_resting) && look(attaching::SOCKET)?.is_none())
}

/// Whether a state of this mode says that its container is at rest.
pub(super) fn is_mode_at_rest(mode: u32) -> bool {
    mode & 0o7777 == MODE_AT_REST
}

fn is_unflushed(dir: &Path) -> Result<bool, ContainerError> {
    dir.join(UNFLUSHED).try_exists().map_err(ContainerError::io("read", dir))
}

/// The text of a document, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, ContainerError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ContainerError::io("read", path)(error)),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ContainerError> {
    serde_json::from_slice(text).map_err(ContainerError::document(path))
}

fn write<T: Serialize>(path: &Path, value: &T, durable: bool, mode: u32) -> Result<(), ContainerError> {
    let text = serde_json::to_vec(value).map_err(ContainerError::document(path))?;
    write_text(path, &text, durable, mode)
}

fn write_text(path: &Path, text: &[u8], durable: bool, mode: u32) -> Result<(), ContainerError> {
    let write = if durable { atomic::write } else { atomic::write_volatile };
    write(path, text, mode).map_err(ContainerError::io("write", path))
}
