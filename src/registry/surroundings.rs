//! All that a host says about registries, put together: from the name of an image, or of a registry, to [`Endpoint`]s.

use std::sync::Arc;

use super::configuration::{ConfigurationError, Named, Registries, Source, certificates};
use super::credentials::{CredentialsError, Keychain, RegistryKey};
use super::proxies::{Proxies, Scheme};
use super::{Access, ClientCertificate, Endpoint, Kept, Places};

/// docker.io, and who answers for it.
const DOCKER_IO: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// What is known before anything is asked.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where files are.
    pub places: Places,
    /// registries.conf.
    pub registries: Registries,
    /// Credentials.
    pub keychain: Keychain,
    /// Proxies.
    pub proxies: Proxies,
    /// A PEM file of authorities instead of the system's.
    pub roots: Option<Arc<Vec<u8>>>,
}

/// What the user says for one command, against all files.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Whether certificates need not be valid.
    pub insecure: Option<bool>,
    /// Who one is to the registry itself; mirrors are not told.
    pub access: Option<Access>,
}

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum SurroundingsError {
    /// registries.conf, or certificates.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// Credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A rule that leads from one tag to another.
    #[error(
        "registries.conf leads from {from} to the tag {to:?}: a rule may change where an image is, not which"
    )]
    Tag {
        /// What was wanted.
        from: String,
        /// The other tag.
        to: String,
    },
}

impl Surroundings {
    /// Where an image is had, in the order in which it is to be tried: mirrors, then the registry itself.
    ///
    /// # Errors
    /// [`SurroundingsError`].
    pub fn endpoints(&self, named: &Named<'_>, wishes: &Wishes) -> Result<Vec<Endpoint>, SurroundingsError> {
        let sources = self.registries.sources(named)?;
        let last = sources.len().saturating_sub(1);
        let mut endpoints = Vec::new();
        for (number, source) in sources.into_iter().enumerate() {
            if source.tag.as_deref() != named.tag {
                return Err(SurroundingsError::Tag {
                    from: named.to_string(),
                    to: source.tag.unwrap_or_default(),
                });
            }
            let (access, kept) = match &wishes.access {
                Some(access) if number == last => (access.clone(), None),
                _ => {
                    let access = self.keychain.access(&source.host, &source.path)?;
                    let (host, repository) = (source.host.clone(), source.path.clone());
                    (access, Some(Kept { keychain: self.keychain.clone(), host, repository }))
                }
            };
            endpoints.push(Endpoint { kept, ..self.endpoint(source, access, wishes.insecure)? });
        }
        Ok(endpoints)
    }

    /// The registry that a login is for, to be asked with `access`.
    ///
    /// # Errors
    /// [`SurroundingsError::Configuration`].
    pub fn for_login(
        &self,
        key: &RegistryKey,
        insecure: Option<bool>,
        access: Access,
    ) -> Result<Endpoint, SurroundingsError> {
        let (host, path) = (key.host().to_owned(), key.path().to_owned());
        let source =
            Source { host, path, tag: None, digest: None, insecure: self.registries.is_insecure(key) };
        self.endpoint(source, access, insecure)
    }

    fn endpoint(
        &self,
        source: Source,
        access: Access,
        insecure: Option<bool>,
    ) -> Result<Endpoint, SurroundingsError> {
        let certificates = certificates(&self.places, &source.host)?;
        let host = if source.host == DOCKER_IO.0 { DOCKER_IO.1 } else { &source.host };
        let mut endpoint = Endpoint::new(host, &source.path);
        endpoint.insecure = insecure.unwrap_or(endpoint.insecure || source.insecure);
        endpoint.insecure_elsewhere = insecure.unwrap_or(source.insecure);
        endpoint.access = access;
        endpoint.roots.clone_from(&self.roots);
        endpoint.ca_certificates = certificates.authorities;
        let mut clients = certificates.clients.into_iter();
        endpoint.client_certificate = clients.next().map(|(chain, key)| ClientCertificate { chain, key });
        endpoint.proxy = self.proxies.for_host(Scheme::Https, host).map(str::to_owned);
        Ok(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn password(username: &str) -> Access {
        Access::Password { username: username.to_owned(), password: "p".to_owned() }
    }

    /// What a home directory of its own says.
    fn surroundings(home: &Path, conf: &str) -> Surroundings {
        let containers = home.join(".config/containers");
        fs::create_dir_all(containers.join("certs.d/mirror.io:5000")).unwrap();
        fs::write(containers.join("certs.d/mirror.io:5000/ca.crt"), "ca").unwrap();
        fs::write(containers.join("registries.conf"), conf).unwrap();
        let runtime = home.join("run").into_os_string();
        let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
        let places = Places::new(variable, Some(home), 1).with_etc(&home.join("etc"));
        let registries = Registries::load(&places).unwrap();
        let keychain = Keychain::new(&places, None, registries.credential_helpers());
        for host in ["mirror.io:5000", "docker.io"] {
            keychain.store(&host.parse().unwrap(), host.split('.').next().unwrap(), "p").unwrap();
        }
        let proxies = |name: &str| match name {
            "https_proxy" => Some("http://proxy:1".into()),
            "no_proxy" => Some("mirror.io".into()),
            _ => None,
        };
        Surroundings { places, registries, keychain, proxies: Proxies::new(proxies).unwrap(), roots: None }
    }

    const CONF: &str = "[[registry]]\nprefix = 'docker.io/library'\nlocation = 'docker.io/library'\n\
                        [[registry.mirror]]\nlocation = 'mirror.io:5000/hub'\ninsecure = true\n\
                        [[registry]]\nprefix = 'r.io/a:1'\nlocation = 'r.io/a:2'\n";

    #[test]
    fn each_endpoint_has_its_own() {
        let home = tempfile::tempdir().unwrap();
        let host = surroundings(home.path(), CONF);
        let named = Named { host: "docker.io", path: "library/debian", tag: Some("12"), digest: None };
        let found = host.endpoints(&named, &Wishes::default()).unwrap();
        // By the names that the user has for them.
        let kept = |host: &str, repository: &str| {
            let (host, repository) = (host.to_owned(), repository.to_owned());
            Some(Kept { keychain: surroundings(home.path(), CONF).keychain, host, repository })
        };
        let mirror = Endpoint {
            kept: kept("mirror.io:5000", "hub/debian"),
            insecure: true,
            insecure_elsewhere: true,
            access: password("mirror"),
            ca_certificates: vec![b"ca".to_vec()],
            ..Endpoint::new("mirror.io:5000", "hub/debian")
        };
        let hub = Endpoint {
            kept: kept("docker.io", "library/debian"),
            access: password("docker"),
            proxy: Some("http://proxy:1".to_owned()),
            ..Endpoint::new("registry-1.docker.io", "library/debian")
        };
        assert_eq!(found, [mirror.clone(), hub.clone()]);
        // What is given for the registry is not for its mirrors.
        let wishes = Wishes { insecure: Some(false), access: Some(password("me")) };
        let found = host.endpoints(&named, &wishes).unwrap();
        assert_eq!(
            found,
            [
                Endpoint { insecure: false, insecure_elsewhere: false, ..mirror },
                Endpoint { access: password("me"), kept: None, ..hub }
            ]
        );
    }

    #[test]
    fn logins_ask_the_registry_itself() {
        let home = tempfile::tempdir().unwrap();
        let host = surroundings(home.path(), CONF);
        let asked =
            |key: &str, insecure| host.for_login(&key.parse().unwrap(), insecure, password("me")).unwrap();
        assert_eq!(asked("docker.io", None).host, "registry-1.docker.io");
        assert_eq!(asked("mirror.io:5000", None).ca_certificates, [b"ca"]);
        assert!(asked("localhost:1", None).insecure && !asked("localhost:1", Some(false)).insecure);
        let named = Named { host: "r.io", path: "a", tag: Some("1"), digest: None };
        let error = host.endpoints(&named, &Wishes::default()).unwrap_err().to_string();
        assert!(error.contains("r.io/a:1") && error.contains("\"2\""), "{error}");
    }
}
