//! How registries are asked.

use std::path::PathBuf;

use clap::Args;

/// The options that all have who ask a registry.
#[derive(Args, Clone, Debug, Default)]
pub struct RegistryArgs {
    /// Whether registries need HTTPS and a valid certificate (default: true, but for this machine's own)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Credentials for the registry; others see them in the list of processes
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// The file of credentials (default: $REGISTRY_AUTH_FILE, else those of podman and docker)
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}
