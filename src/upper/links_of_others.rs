//! Hard links in kernel overlayfs's form: `work/index/<file handle>` holds the copy of a layer's object with several
//! names, and `overlay.nlink` on it says how many of those still lead to it only through that index.
//!
//! The file handle is what name_to_handle_at(2) says of the object of the layer, after a header and the filesystem's id.

use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, path_of, pin, pin_dir};
use super::{Upper, UpperError, marks};
use crate::model::{FileKind, Ino};
use crate::sys::files;

/// The kernel's directory in `work`.
const INDEX: &str = "index";
/// Version, magic, length, flags, type, and the filesystem's id, 16 bytes.
const HEADER_BYTES: usize = 21;
const MAGIC: u8 = 0xfb;

/// A copy with names that only the kernel's index leads to.
#[derive(Debug)]
pub struct LinkOfOthers {
    name: Vec<u8>,
    pinned: OwnedFd,
    /// Its type.
    pub kind: FileKind,
    /// The file handle of the layer's object, as its filesystem has it.
    pub handle: Vec<u8>,
}

impl Upper {
    /// Whether somebody else's changes are still to be taken over, see [`Self::taken_over`].
    #[must_use]
    pub fn is_taking_over(&self) -> bool {
        self.taking_over.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Says that nothing of somebody else's is left to be taken over.
    ///
    /// # Errors
    /// [`UpperError`]; then the next mount does it again.
    pub fn taken_over(&self) -> Result<(), UpperError> {
        self.write_format()?;
        self.forget_others()?;
        self.taking_over.store(false, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// The links that [`Self::take_link`] should be called for. Those that say that they have no such names are dropped.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn links_of_others(&self) -> Result<Vec<LinkOfOthers>, UpperError> {
        let index = match pin_dir(&self.work, INDEX.as_bytes()) {
            Ok(index) => index,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error).at("open work/index"),
        };
        let mut links = Vec::new();
        for name in super::scratch::names(&index)? {
            let pinned = pin(&index, &name).at("open in work/index")?;
            let attr = handle::stat(&pinned)?;
            // The kernel keeps a whiteout there to link from; directories are those of NFS.
            if attr.metadata.kind == FileKind::Directory || super::look::is_whiteout(&attr) {
                continue;
            }
            let Some(handle) = file_handle(&name) else { continue };
            let nlink = marks::get(&pinned, self.namespace.name("nlink"))?;
            let link = LinkOfOthers { name, pinned, kind: attr.metadata.kind, handle };
            if nlink.as_deref() == Some(b"U-1") {
                self.drop_link(&link)?;
            } else {
                links.push(link);
            }
        }
        Ok(links)
    }

    /// Takes a link into this upper's own index.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn take_link(&self, link: &LinkOfOthers, ino: Ino) -> Result<(), UpperError> {
        let index = pin_dir(&self.work, INDEX.as_bytes()).at("open work/index")?;
        self.keep_number(&link.pinned, ino)?;
        let number = super::hard_links::number(ino);
        match files::linkat(&index, &link.name[..], &self.links, number, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => self.drop_link(link),
            Err(error) => Err(error).at("link into the index"),
        }
    }

    /// Why a link cannot be taken.
    #[must_use]
    pub fn lost_link(&self, link: &LinkOfOthers) -> UpperError {
        UpperError::Form {
            path: path_of(&link.pinned, &link.name),
            problem: "kernel overlayfs knows here which names of the layers are links to a file; these layers cannot tell"
                .to_owned(),
            remedy: "mount the upper with kernel overlayfs, chown -h every name of the file to its owner, then unmount",
        }
    }

    /// Takes a link out of the kernel's index: all its names are in the upper, and it would count as one more.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn drop_link(&self, link: &LinkOfOthers) -> Result<(), UpperError> {
        let index = pin_dir(&self.work, INDEX.as_bytes()).at("open work/index")?;
        marks::remove(&link.pinned, &self.namespace.name("nlink")).at("removexattr")?;
        files::unlinkat(&index, &link.name[..], AtFlags::empty()).at("unlink from work/index")
    }
}

/// The handle in the name of an index entry; `None` for other names.
fn file_handle(name: &[u8]) -> Option<Vec<u8>> {
    let digits = std::str::from_utf8(name).ok().filter(|text| text.is_ascii())?;
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
    let bytes = bytes?;
    let is_whole =
        bytes.get(1) == Some(&MAGIC) && bytes.get(2).map(|length| usize::from(*length)) == Some(bytes.len());
    is_whole.then(|| bytes.get(HEADER_BYTES..).map(<[u8]>::to_vec)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_index() {
        let name = b"00fb1d00010000000000000000000000000000000012a021008e9a734d";
        assert_eq!(file_handle(name), Some(vec![0x12, 0xa0, 0x21, 0, 0x8e, 0x9a, 0x73, 0x4d]));
        assert_eq!(file_handle(&name[..name.len() - 2]), None, "shorter than it says");
        assert_eq!(file_handle(b"#1c205"), None);
        assert_eq!(file_handle(b"10000000001"), None);
    }
}
