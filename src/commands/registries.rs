//! Where images are asked for, and as whom.

use anyhow::Context as _;

use super::environment;
use super::options::registry::RegistryArgs;
use crate::image::pull::PullSpec;
use crate::image::{Reference, TargetPlatform};
use crate::registry::configuration::Named;
use crate::registry::surroundings::{Surroundings, Wishes};
use crate::registry::{Access, Endpoint, Patience};

/// What user and host say about registries, read once for a command.
#[derive(Debug)]
pub(super) struct Asking {
    host: Surroundings,
    wishes: Wishes,
}

impl Asking {
    pub(super) fn new(args: &RegistryArgs) -> anyhow::Result<Self> {
        let access = args.creds.as_deref().map(Access::of_pair);
        let wishes = Wishes { insecure: args.tls_verify.map(|verify| !verify), access };
        Ok(Self { host: environment::surroundings(args.authfile.as_deref())?, wishes })
    }

    /// What a name that was typed may mean, the first choice first: short names are the host's affair.
    pub(super) fn references(&self, typed: &str) -> anyhow::Result<Vec<Reference>> {
        let names = self.host.registries.names(typed)?;
        names.into_iter().map(|name| name.parse().with_context(|| name.clone())).collect()
    }

    /// What is to be pulled.
    pub(super) fn pull_spec(
        &self,
        reference: &Reference,
        platform: Option<TargetPlatform>,
    ) -> anyhow::Result<PullSpec> {
        let (endpoints, patience) = (self.endpoints(reference)?, Patience::default());
        Ok(PullSpec { reference: reference.clone(), platform, endpoints, patience })
    }

    /// The places where an image may be had, in the order in which they are asked.
    pub(super) fn endpoints(&self, reference: &Reference) -> anyhow::Result<Vec<Endpoint>> {
        let digest = reference.digest().map(|digest| digest.to_string());
        let (host, path) = (reference.host(), reference.path());
        let named = Named { host, path, tag: reference.tag(), digest: digest.as_deref() };
        Ok(self.host.endpoints(&named, &self.wishes)?)
    }
}

/// What was typed without `docker://` in front.
pub(super) fn plain(name: &str) -> &str {
    name.strip_prefix("docker://").unwrap_or(name)
}
