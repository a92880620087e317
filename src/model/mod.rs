//! Row 0: the vocabulary. Types that say what things are; nothing here does I/O.
//!
//! Untrusted bytes become one of these types at the edge and are not checked again further in.

pub mod counter;
pub mod digest;
pub mod healthcheck;
pub mod histogram;
pub mod ids;
pub mod image_config;
pub mod limits;
pub mod meta;
pub mod name;
pub mod pax;
pub mod port;
pub mod posix_acl;
pub mod recorded_owner;
pub mod rfc3339;
pub mod stats;
pub mod whiteout;

pub use counter::Counter;
pub use digest::Digest;
pub use histogram::{Distribution, Histogram};
pub use ids::{BlobOffset, EntryId, Ino, LayerOrdinal, TarOffset};
pub use image_config::ImageConfig;
pub use meta::{DeviceId, FileKind, Metadata, Timestamp};
pub use name::{FileName, Name};
