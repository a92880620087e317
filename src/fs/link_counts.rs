//! How many names an object of the layers still has.

use super::{Fs, FsError};
use crate::model::Ino;
use crate::union::LowerRef;

impl Fs {
    /// How many of the layers' names of an object still lead to it, wherever their directories are now.
    pub(super) fn visible_names(&self, lower: LowerRef, ino: Ino) -> Result<u32, FsError> {
        if !self.is_linked(lower, ino)? {
            return Ok(1);
        }
        let visible = self.names_in_layers(lower)?;
        let gone = match &self.upper {
            Some(upper) => upper.names_gone(ino)?,
            None => 0,
        };
        Ok(visible.saturating_sub(gone))
    }

    /// How many names of a layer's object the layers together show.
    pub(super) fn names_in_layers(&self, lower: LowerRef) -> Result<u32, FsError> {
        let _using = self.using_layers();
        Ok(self.link_counts.visible(&self.union, lower)?)
    }
}
