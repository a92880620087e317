//! layerfs: container images mounted lazily from their compressed layers, and run, without root.
//!
//! The modules stand in row order: each imports only from rows above it in this file. Three walks through them:
//!
//! **A lookup.** [`fuse`] decodes the request and calls [`fs::Fs::lookup`]. That asks [`upper::Upper::look`] first: an
//! object there wins, a whiteout ends the search. Otherwise [`union::Union::lookup`] asks the layers from the top,
//! each through [`layer::Layer::lookup`], which for a tar is a binary search in its mapped [`index::LayerIndex`]. What
//! was found becomes a node (a file of a layer when an operation needs one), and the kernel keeps the answer for as long as
//! the mount lives.
//!
//! **A read** that the kernel's page cache cannot answer. [`fs::Fs::read`] reads the upper's file if there is one;
//! else [`union::Union::read_at`] goes to the one layer that has the file. [`layer::TarLayer`] turns the file's offset
//! into a place in the uncompressed tar; its chunk reader takes the granule around it from memory, or decodes the blob
//! from the checkpoint before it. No byte leaves that has not been hashed and compared with the index, which was
//! published only after blob and tar hashed to what the image promises. Of an image that is mounted before it is here
//! ([`image::lazy`]) the blob is a file with holes; a process of its own fills them by HTTP range while the reader waits, and
//! the digests are those of an index that the user trusts, or of a table of contents that the manifest vouches for.
//!
//! **A first write** to a file of a layer. No open was ever sent, so it begins with the write: [`fs::Fs::write`] copies
//! the file up, its parent directories before it. [`upper::Upper::copy_up`] builds the copy in `work/tmp` with owner,
//! mode, times, attributes and the old inode number, and [`upper::Upper::place`] renames it into place; its content stays
//! in the layer, and an [`upper::ExtentMap`] says so. Only what lies around the written bytes is copied, then they are
//! written, then the map says that this part is the file's own. The node stays the same, so whoever had the file open
//! sees the change.
//!
//! [`mount`] wires all this. The control plane below it decides what to mount ([`image`]), where changes go
//! ([`container`]), and which process runs on it ([`launcher`]); [`look`] shows an image without
//! mounting it; [`images`] lists, names and removes those of the store; [`builder`] makes images of what processes changed;
//! [`commands`] parses and prints.

pub mod model;
pub mod template;

pub mod sys;

pub mod index;
pub mod store;

pub mod layer;

pub mod union;
pub mod upper;

pub mod fs;

pub mod fuse;

pub mod mount;

pub mod registry;

pub mod image;
pub mod launcher;

pub mod container;
pub mod look;

pub mod builder;
pub mod doctor;
pub mod images;

pub mod commands;
