//! Renaming within the upper, one step for everyone who looks.

use std::os::fd::BorrowedFd;

use rustix::fs::RenameFlags;

use super::error::At as _;
use super::handle::pin;
use super::{Fresh, Upper, UpperError, Whiteouts};
use crate::model::{FileKind, Name};
use crate::sys::files;

/// One end of a rename.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// The directory.
    pub dir: BorrowedFd<'a>,
    /// The name in it.
    pub name: Name<'a>,
    /// What the upper has there: `None` for nothing or a whiteout.
    pub kind: Option<FileKind>,
    /// A whiteout is there.
    pub whiteout: bool,
    /// The layers have something under the name.
    pub lower: bool,
}

/// A rename. Whatever moves has been copied up.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// From here.
    pub from: Moved<'a>,
    /// To here; what is there, if it is a directory, shows as empty and hides what the layers have ([`Upper::hide_all`]).
    pub to: Moved<'a>,
    /// Where the layers' part of the moved directory is; `None` when it has none.
    pub redirect: Option<&'a [u8]>,
    /// Where the layers' part of the directory at `to` is, for an exchange.
    pub redirect_back: Option<&'a [u8]>,
}

impl Upper {
    /// Moves `from` to `to`, replacing what is there.
    ///
    /// # Errors
    /// [`UpperError`]; then every name leads where it led.
    pub fn rename(&self, rename: &Rename<'_>) -> Result<(), UpperError> {
        let Rename { from, to, .. } = rename;
        let is_dir = from.kind == Some(FileKind::Directory);
        if is_dir {
            self.mark_moved(from, rename.redirect)?;
            if to.kind == Some(FileKind::Directory) {
                self.clear_whiteouts(&to.dir, to.name)?;
            }
        }
        match self.whiteouts {
            Whiteouts::Device => self.rename_with_devices(from, to, is_dir),
            Whiteouts::Named => self.rename_with_names(from, to),
        }
    }

    /// Moves `from` to `to`, and puts a device where `from` was: one of a program's own, not a whiteout of this upper. A
    /// crash between the two steps leaves the move without the device.
    ///
    /// # Errors
    /// [`UpperError`]; then every name leads where it led.
    pub fn rename_leaving_device(&self, rename: &Rename<'_>, fresh: &Fresh<'_>) -> Result<(), UpperError> {
        // Complete before anything moves, so that a full filesystem is met in time.
        let device = self.scratch();
        let made = self.create_nameless(&device, fresh)?;
        self.rename(rename)?;
        let from = &rename.from;
        if let Err(error) = self.publish(device, from.dir, from.name, made.real.metadata.kind, from.lower) {
            // It has moved: an error would claim that it has not.
            tracing::warn!("{error}: no device is left at {:?}", from.name);
        }
        Ok(())
    }

    /// Swaps the two.
    ///
    /// # Errors
    /// [`UpperError`]; then every name leads where it led.
    pub fn exchange(&self, rename: &Rename<'_>) -> Result<(), UpperError> {
        let Rename { from, to, .. } = rename;
        for (end, redirect) in [(from, rename.redirect), (to, rename.redirect_back)] {
            if end.kind == Some(FileKind::Directory) {
                self.mark_moved(end, redirect)?;
            }
        }
        let flags = RenameFlags::EXCHANGE;
        files::renameat_with(from.dir, from.name.as_bytes(), to.dir, to.name.as_bytes(), flags).at("exchange")
    }

    /// Says where a directory's part in the layers is (which is where it is now), or that it has none. True before the
    /// rename too.
    fn mark_moved(&self, end: &Moved<'_>, redirect: Option<&[u8]>) -> Result<(), UpperError> {
        let pinned = pin(end.dir, end.name.as_bytes()).at("open")?;
        match redirect {
            Some(path) => self.namespace.set_redirect(&pinned, path),
            None => self.namespace.set_opaque(&pinned),
        }
    }

    fn rename_with_devices(&self, from: &Moved<'_>, to: &Moved<'_>, is_dir: bool) -> Result<(), UpperError> {
        if to.whiteout {
            self.turn_marker_into_device(to.dir, to.name)?;
        }
        let flags = match (is_dir && to.whiteout, from.lower) {
            // The whiteout that gives way to a directory hides what the directory leaves behind.
            (true, _) => RenameFlags::EXCHANGE,
            (false, true) => RenameFlags::WHITEOUT,
            (false, false) => RenameFlags::empty(),
        };
        files::renameat_with(from.dir, from.name.as_bytes(), to.dir, to.name.as_bytes(), flags)
            .at("rename")?;
        if flags == RenameFlags::EXCHANGE && !from.lower {
            // Nothing is hidden by it; should this fail, the next listing takes it away.
            if let Err(error) = files::unlinkat(from.dir, from.name.as_bytes(), rustix::fs::AtFlags::empty())
            {
                tracing::warn!("upper: a whiteout of nothing stays at {:?}: {error}", from.name);
            }
        }
        Ok(())
    }

    fn rename_with_names(&self, from: &Moved<'_>, to: &Moved<'_>) -> Result<(), UpperError> {
        if from.lower {
            self.make_named_whiteout(&from.dir, from.name)?;
        }
        if let Err(error) = files::renameat(from.dir, from.name.as_bytes(), to.dir, to.name.as_bytes()) {
            self.drop_named_whiteout(from.dir, from.name);
            return Err(error).at("rename");
        }
        if to.whiteout {
            self.drop_named_whiteout(to.dir, to.name);
        }
        Ok(())
    }

    /// Gives an object one more name.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn link(&self, pinned: BorrowedFd<'_>, to: &Moved<'_>) -> Result<(), UpperError> {
        let scratch = self.scratch();
        let link = super::handle::magic_link(pinned);
        let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
        files::linkat(rustix::fs::CWD, link, &self.scratch, &scratch.name, follow).at("link")?;
        self.publish(scratch, to.dir, to.name, FileKind::Regular, to.whiteout)
    }
}
