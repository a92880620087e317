//! Where a repository can be had.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Access;
use super::credentials::Keychain;

/// One place where a repository can be had: its registry, or a mirror of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST[:PORT]` as it stands in an URL; an IPv6 address in brackets.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// Whether certificates need not be valid, and plain HTTP will do where HTTPS is not spoken.
    pub insecure: bool,
    /// Whether the same goes for whoever it sends us to.
    pub insecure_elsewhere: bool,
    /// PEM files of authorities that are trusted besides those of the system.
    pub ca_certificates: Vec<Vec<u8>>,
    /// What the server is shown who asks for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// A PEM file of authorities instead of those of the system.
    pub roots: Option<Arc<Vec<u8>>>,
    /// Who one is there.
    pub access: Access,
    /// Where that was found, to look again when it counts no more. `None` of what the user said for this command.
    pub kept: Option<Kept>,
    /// The URL of a proxy, perhaps with `USER:PASSWORD@`.
    pub proxy: Option<String>,
}

/// Where the credentials for a repository are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Files and helpers.
    pub keychain: Keychain,
    /// As [`Keychain::access`] has it: as the user calls the registry, not as it is reached.
    pub host: String,
    /// The repository.
    pub repository: String,
}

impl Kept {
    /// Who one is now, unless that is `refused`, or cannot be found out.
    pub(super) fn other_than(&self, refused: &Access) -> Option<Access> {
        match self.keychain.access(&self.host, &self.repository) {
            Ok(access) => Some(access).filter(|access| access != refused),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }
}

/// A certificate of the user's own, and its key. Printing it for debugging shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM: the certificate first, then those that lead to its authority.
    pub chain: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// The URL of a proxy may have a password.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Endpoint");
        shown.field("host", &self.host).field("repository", &self.repository);
        shown.field("insecure", &self.insecure).field("access", &self.access).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Asked without a name, by HTTPS; a host that is this machine also by HTTP, as docker does it.
    #[must_use]
    pub fn new(host: &str, repository: &str) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            insecure: is_loopback(host),
            ..Self::default()
        }
    }
}

/// Whether a `HOST[:PORT]` is this machine whatever the resolver says: what goes there passes no network.
pub(super) fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().and_then(|address| address.parse::<Ipv6Addr>().ok());
        return address.is_some_and(|address| address.is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:5000"] {
            assert!(Endpoint::new(host, "x").insecure, "{host}");
        }
        for host in ["localhost.example.org", "127.0.0.1.example.org", "[::2]:1", "10.0.0.1", "docker.io", ""]
        {
            assert!(!Endpoint::new(host, "x").insecure, "{host}");
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let certificate = ClientCertificate { chain: b"c".to_vec(), key: b"secret".to_vec() };
        assert_eq!(format!("{certificate:?}"), "ClientCertificate");
    }
}
