//! What can go wrong with a registry.

use std::io;

use crate::model::Digest;

/// Why a registry did not do it. `registry` is `HOST[:PORT]`; what servers say of themselves is escaped.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody answers, or not for long enough.
    #[error("registry {registry}: {reason}")]
    Unreachable {
        /// Which one.
        registry: String,
        /// What the network said.
        reason: String,
    },
    /// No secure connection.
    #[error(
        "registry {registry}: {reason}; give the certificate of its authority (certs.d/{registry}/ca.crt), or \
         --tls-verify=false if the network is to be trusted"
    )]
    Insecure {
        /// Which one.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// It lets nobody in without a certificate that it knows.
    #[error(
        "registry {registry}: {reason}: it wants another certificate of the client, or one at all; put it into \
         certs.d/{registry}/client.cert and its key into client.key there"
    )]
    ClientCertificate {
        /// Which one.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// Settings that cannot be used.
    #[error("registry {registry}: {reason}")]
    Settings {
        /// Which one.
        registry: String,
        /// What is wrong with which.
        reason: String,
    },
    /// It wants somebody else, or somebody.
    #[error(
        "registry {registry}: {what}: access denied{message}; log in with `layerfs login {registry}`, or give --creds"
    )]
    Denied {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said.
        message: String,
    },
    /// There is no such thing.
    #[error("registry {registry}: {what}: not found{message}")]
    NotFound {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said.
        message: String,
    },
    /// Any other status.
    #[error("registry {registry}: {what}: it answers {status}{message}")]
    Status {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("registry {registry}: {what}: {reason}")]
    Answer {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Too much of something.
    #[error("registry {registry}: {what}: more than {limit} bytes")]
    Limit {
        /// Which one.
        registry: String,
        /// Of what.
        what: String,
        /// How many are read.
        limit: u64,
    },
    /// Other bytes than those that were promised.
    #[error("registry {registry}: {what} {expected} has the digest {actual}: nothing of it is kept")]
    WrongDigest {
        /// Which one.
        registry: String,
        /// Manifest, config or layer.
        what: &'static str,
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Fewer or more bytes than were promised.
    #[error(
        "registry {registry}: {what} {digest} has {actual} bytes, its descriptor says {expected}: nothing of it is kept"
    )]
    WrongLength {
        /// Which one.
        registry: String,
        /// Config or layer.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What the server has, as far as it was read.
        actual: u64,
    },
    /// A transfer that ended too early, again and again.
    #[error(
        "registry {registry}: blob {digest}: cut off at {position} of {size} bytes, {attempts} times without progress: \
         {reason}; what is there is kept for the next time"
    )]
    Cut {
        /// Which one.
        registry: String,
        /// Of which blob.
        digest: Digest,
        /// Where.
        position: u64,
        /// What it has.
        size: u64,
        /// How often it was tried.
        attempts: u32,
        /// What was said last.
        reason: String,
    },
    /// It gives a blob as a whole only (distribution-spec: "SHOULD support the Range request header").
    #[error("registry {registry}: it does not give parts of a blob")]
    NoRanges {
        /// Which one.
        registry: String,
    },
    /// What is to be sent is not what it is called.
    #[error(
        "{place}{what} {expected} is damaged: its bytes hash to {actual}; pull or build the image again before it is pushed"
    )]
    Damaged {
        /// Where it lies, and a colon; empty when it was made.
        place: String,
        /// Config or layer.
        what: &'static str,
        /// What it is called.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// What is to be sent cannot be read, or is not to be sent any more.
    #[error("cannot read {what} {digest}: {source}")]
    Unread {
        /// Config or layer.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What the system said.
        source: io::Error,
    },
    /// An upload that broke off again and again.
    #[error(
        "registry {registry}: {what}: the upload broke off at {position} of {size} bytes, {attempts} times without progress: \
         {reason}"
    )]
    Broken {
        /// Which one.
        registry: String,
        /// Of what.
        what: String,
        /// What the registry has of it.
        position: u64,
        /// What it has.
        size: u64,
        /// How often it was tried.
        attempts: u32,
        /// What was said last.
        reason: String,
    },
    /// The registry has something else than it was given.
    #[error(
        "registry {registry}: {what} was pushed as {expected}, and it says that it has {actual} now: do not use what is there"
    )]
    OtherDigest {
        /// Which one.
        registry: String,
        /// What was pushed.
        what: String,
        /// Its digest.
        expected: Digest,
        /// What it says.
        actual: Digest,
    },
    /// Who wanted the bytes did not take them.
    #[error("{0}")]
    NotTaken(io::Error),
}

impl RegistryError {
    /// Whether the registry does not have it, or says so to those it does not know.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Denied { .. })
    }

    /// Whether the registry wants other credentials.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}
