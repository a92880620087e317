//! Row 6: the FUSE adapter. It decodes, calls [`crate::fs`], replies; it decides nothing but what the kernel may keep.
//!
//! The only module that knows `fuser`, so that another transport can stand beside it.

mod adapter;
mod convert;
mod mounted;
mod opened;
mod policy;
mod requests;
mod session;

pub use policy::{Readers, Writes};
pub use session::{Flag, Server};
