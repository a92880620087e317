//! How registries are asked.

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
}
