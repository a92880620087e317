//! Where images are asked for, and as whom.

use std::sync::Arc;

use anyhow::Context as _;

use super::options::registry::RegistryArgs;
use crate::image::Reference;
use crate::image::TargetPlatform;
use crate::image::pull::PullSpec;
use crate::registry::{Access, Endpoint, Patience};

/// The host that answers for docker.io.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What is to be pulled.
pub(super) fn pull_spec(
    reference: &Reference,
    platform: Option<TargetPlatform>,
    args: &RegistryArgs,
) -> anyhow::Result<PullSpec> {
    Ok(PullSpec {
        reference: reference.clone(),
        platform,
        endpoints: endpoints(reference, args)?,
        patience: Patience::default(),
    })
}

/// The places where an image may be had, in order.
pub(super) fn endpoints(reference: &Reference, args: &RegistryArgs) -> anyhow::Result<Vec<Endpoint>> {
    let host = if reference.host() == "docker.io" { DOCKER_HUB } else { reference.host() };
    let mut endpoint = Endpoint::new(host, reference.path());
    if let Some(verify) = args.tls_verify {
        endpoint.insecure = !verify;
    }
    if let Some(creds) = &args.creds {
        endpoint.access = Access::of_pair(creds);
    }
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        let pem = std::fs::read(&path).with_context(|| format!("SSL_CERT_FILE {}", path.display()))?;
        endpoint.roots = Some(Arc::new(pem));
    }
    Ok(vec![endpoint])
}
