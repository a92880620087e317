//! Certificates for single registries: `certs.d/HOST:PORT/` with `*.crt` of authorities, and `*.cert` with `*.key` of the
//! client (containers-certs.d(5)).

use std::fmt;
use std::io;
use std::path::Path;

use super::{ConfigurationError, has_ending, names_in};
use crate::registry::{Places, places};

/// What there is for one registry, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities, beside the system's.
    pub authorities: Vec<Vec<u8>>,
    /// The client's certificates and their keys.
    pub clients: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Without the keys.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authorities", &self.authorities.len())
            .field("clients", &self.clients.len())
            .finish()
    }
}

/// The certificates for `HOST[:PORT]`: of the first directory that is there for it, the user's before the system's.
///
/// # Errors
/// [`ConfigurationError`] for files that cannot be read, and for a certificate without its key or the other way round.
pub fn certificates(places: &Places, host: &str) -> Result<Certificates, ConfigurationError> {
    // It becomes the name of a directory.
    if host.is_empty() || host.contains('/') || host.starts_with('.') {
        return Ok(Certificates::default());
    }
    let user = [&places.config_home, &places.dot_config].into_iter().flatten();
    let user = user.map(|dir| dir.join("containers"));
    let system = ["containers", "docker"].map(|name| places.etc.join(name));
    for dir in user.chain(system).map(|dir| dir.join("certs.d").join(host)) {
        match std::fs::metadata(&dir) {
            Ok(metadata) if metadata.is_dir() => return read(&dir),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // Another's; podman goes on too.
            Err(error) => tracing::warn!(path = %dir.display(), %error, "cannot look for certificates"),
        }
    }
    Ok(Certificates::default())
}

fn read(dir: &Path) -> Result<Certificates, ConfigurationError> {
    let mut found = Certificates::default();
    for path in names_in(dir)? {
        let pair = |other: &str, what: &str| {
            let other = path.with_extension(other);
            let reason = format!("{} is missing: {what}", other.display());
            let wrong = ConfigurationError::Document { path: path.clone(), reason };
            other.is_file().then_some(other).ok_or(wrong)
        };
        if has_ending(&path, "crt") {
            found.authorities.push(contents(&path)?);
        } else if has_ending(&path, "cert") {
            let key = pair("key", "a client's certificate needs its key; those of authorities end in .crt")?;
            found.clients.push((contents(&path)?, contents(&key)?));
        } else if has_ending(&path, "key") {
            pair("cert", "a client's key needs its certificate")?;
        }
    }
    Ok(found)
}

fn contents(path: &Path) -> Result<Vec<u8>, ConfigurationError> {
    let wrong = |source| ConfigurationError::Io { path: path.to_owned(), source };
    let bytes = places::read(path).map_err(wrong)?;
    bytes.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))
}
