//! Hard links whose target is in a layer below: tars of image builders have them, unpacking makes them real.

use super::{Lower, LowerDir, LowerRef, Union};
use crate::layer::LayerError;
use crate::model::{FileKind, LayerOrdinal};

impl Union {
    /// The non-directory at `path` as the layers below `above` show it; `None`, with a warning, when there is none.
    pub(super) fn link_below(
        &self,
        above: LayerOrdinal,
        path: &[u8],
    ) -> Result<Option<(LowerRef, FileKind)>, LayerError> {
        let below = Self::new(self.layers.iter().take(usize::from(above.0)).cloned().collect());
        // Every step goes down at least one layer, so chains of such links end.
        match below.resolve(path)? {
            Some(Lower::Leaf(lower, kind) | Lower::Link(lower, kind)) => Ok(Some((lower, kind))),
            Some(Lower::Dir(LowerDir { .. })) | None => {
                let layer = above.0;
                tracing::warn!(
                    "layer {layer}: hard link to {:?}, which no layer below has",
                    path.escape_ascii()
                );
                Ok(None)
            }
        }
    }
}
