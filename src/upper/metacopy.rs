//! Files of which kernel overlayfs has copied attributes alone (`metacopy=on`): the content is still that of the layers'
//! file of the same name, or of the one that `overlay.redirect` names.

use rustix::fs::OFlags;

use super::copy_up::{copy_content, set_times};
use super::error::At as _;
use super::handle::{magic_link, path_of, reopen};
use super::{Content, Object, Upper, UpperError, marks};
use crate::sys::files;

const METACOPY: &str = "metacopy";
/// File capabilities (capabilities(7)), which a write takes away.
const CAPABILITY: &[u8] = b"security.capability";

impl Upper {
    /// Whether the content of a regular file was not copied.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn lacks_content(&self, file: &Object) -> Result<bool, UpperError> {
        Ok(marks::get(&file.pinned, self.namespace.name(METACOPY))?.is_some())
    }

    /// Copies the content of a file that lacks it. Nothing else of it changes.
    ///
    /// # Errors
    /// [`UpperError`]; then it still lacks it.
    pub fn bring_content(&self, lacking: &Object, content: Content<'_>) -> Result<(), UpperError> {
        let pinned = &lacking.pinned;
        let capability = self.xattr(pinned, CAPABILITY)?;
        let file = reopen(pinned, OFlags::RDWR).at("open")?;
        copy_content(&file, content, lacking.attr.metadata.size)?;
        if let Some(capability) = capability {
            self.copy_xattr(pinned, CAPABILITY, &capability)?;
        }
        set_times(pinned, lacking.attr.atime, lacking.attr.metadata.mtime)?;
        self.flush(&file)?;
        files::removexattr(magic_link(pinned), self.namespace.name(METACOPY))
            .at("remove overlay.metacopy")?;
        self.namespace.forget_redirect(pinned)
    }

    /// What a file is refused with whose content these layers do not have.
    #[must_use]
    pub fn lost_content(&self, file: &Object, name: &[u8]) -> UpperError {
        UpperError::Form {
            path: path_of(&file.pinned, name),
            problem: "its content was not copied (overlay.metacopy), and these layers do not have it"
                .to_owned(),
            remedy: "mount the upper over the layers that it was made with",
        }
    }
}
