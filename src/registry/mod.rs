//! Row 7: registries, as the OCI distribution specification has them: what they are asked, and what is believed of it.
//!
//! Knows no store and no images: documents come as bytes with the digest that they have, blobs as a stream of exactly the
//! bytes that were asked for, whatever happened to the connection meanwhile. Who takes a blob checks its digest.
//!
//! Everything that comes from a server is bounded: time ([`Patience`]), bytes, redirects, repetitions. Credentials go to the
//! registry and to the token server it names, never to where it redirects.
//!
//! Where and as whom a registry is asked, people and systems say in files and variables that podman, skopeo and docker know:
//! [`configuration`], [`credentials`] and [`proxies`]; [`surroundings`] puts it together. The environment itself is read by
//! `commands`: [`Places`].

mod access;
mod answers;
mod blob;
mod challenge;
mod client;
pub mod configuration;
pub mod credentials;
mod endpoint;
mod error;
mod http;
mod manifest;
mod paging;
mod patience;
mod places;
pub mod proxies;
mod referrers;
mod source;
pub mod surroundings;
mod tags;
mod token;
mod upload;
mod url;

pub use access::Access;
pub use blob::Wanted;
pub use client::{Registry, check_access};
pub use endpoint::{ClientCertificate, Endpoint, Kept};
pub use error::RegistryError;
pub use manifest::{Document, Version};
pub use patience::Patience;
pub use places::Places;
pub use referrers::{Attachment, Referrer};
pub use source::{Bytes, Source};
pub use upload::{Mounted, Session};

#[cfg(test)]
#[path = "../../tests/support/scripted_server.rs"]
pub(crate) mod scripted_server;
#[cfg(test)]
mod tests;
