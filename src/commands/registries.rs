//! Where images are asked for, and as whom.

use super::environment;
use super::options::registry::RegistryArgs;
use crate::image::Reference;
use crate::image::TargetPlatform;
use crate::image::pull::PullSpec;
use crate::registry::configuration::Named;
use crate::registry::surroundings::Wishes;
use crate::registry::{Access, Endpoint, Patience};

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
fn endpoints(reference: &Reference, args: &RegistryArgs) -> anyhow::Result<Vec<Endpoint>> {
    let host = environment::surroundings(args.authfile.as_deref())?;
    let digest = reference.digest().map(|digest| digest.to_string());
    let named = Named {
        host: reference.host(),
        path: reference.path(),
        tag: reference.tag(),
        digest: digest.as_deref(),
    };
    let wishes = Wishes {
        insecure: args.tls_verify.map(|verify| !verify),
        access: args.creds.as_deref().map(Access::of_pair),
    };
    Ok(host.endpoints(&named, &wishes)?)
}
