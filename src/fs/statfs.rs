//! How much room there is: what the upper's filesystem says, because that is where writes go.

use super::{Fs, FsError};
use crate::model::limits::NAME_BYTES_MAX;

/// What statvfs(3) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for the unprivileged.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Bytes in a block.
    pub block_bytes: u32,
    /// Longest name.
    pub name_bytes_max: u32,
}

impl Fs {
    /// The space of the filesystem that takes the changes; none at all for a read-only mount.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn statfs(&self) -> Result<Space, FsError> {
        let name_bytes_max = u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX);
        let Some(upper) = &self.upper else {
            let empty = Space {
                blocks: 0,
                blocks_free: 0,
                blocks_available: 0,
                files: 0,
                files_free: 0,
                block_bytes: 4096,
                name_bytes_max,
            };
            return Ok(empty);
        };
        let stat = upper.space()?;
        Ok(Space {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_bytes: u32::try_from(stat.f_frsize).unwrap_or(4096),
            name_bytes_max,
        })
    }
}
