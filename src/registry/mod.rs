//! Row 7: registries. Who one is to them (`credentials`), what the host says about them (`configuration`, `proxies`), and
//! where all that is written down (`places`).
//!
//! Nothing here reads the environment or prints: [`Places`] and [`Proxies`] are made of what `commands` has read.

mod access;
pub mod configuration;
pub mod credentials;
mod places;
pub mod proxies;

pub use access::Access;
pub use configuration::Registries;
pub use credentials::Keychain;
pub use places::Places;
pub use proxies::Proxies;
