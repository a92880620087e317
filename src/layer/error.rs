//! What can go wrong in a layer.

use std::io;

use crate::model::{Digest, EntryId, TarOffset};

/// Why a layer could not answer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Bytes that are not what the image promised.
    #[error("layer {diff_id}: corrupt data at offset {} of the uncompressed layer: {reason}", offset.0)]
    Corrupt {
        /// The layer.
        diff_id: Digest,
        /// Where, in its uncompressed bytes.
        offset: TarOffset,
        /// What was wrong with them.
        reason: String,
    },
    /// The index contradicts itself or names an entry that is not there.
    #[error("layer {layer}: bad entry {}: {reason}", entry.0)]
    BadEntry {
        /// The layer, for people.
        layer: String,
        /// The entry.
        entry: EntryId,
        /// What was wrong.
        reason: &'static str,
    },
    /// The file below could not be read.
    #[error("layer {layer}: {source}")]
    Io {
        /// The layer, for people.
        layer: String,
        /// What the system said.
        source: io::Error,
    },
}
