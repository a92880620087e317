//! Modes that the server changes by itself, because of what somebody writes: whoever remembers them has to be told.

use std::fmt;
use std::sync::OnceLock;

use super::Fs;
use crate::model::Ino;

/// Hears of each object that lost setuid or setgid by a write, before the write is answered.
pub type Hearer = Box<dyn Fn(Ino) + Send + Sync>;

/// Who hears, once there is somebody.
#[derive(Default)]
pub(super) struct Shed(OnceLock<Hearer>);

impl fmt::Debug for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shed")
    }
}

impl Fs {
    /// Has `hearer` told of modes that change by a write: the kernel goes on to execute with the one that it knows. Only
    /// the first one is.
    pub fn tell_of_modes(&self, hearer: Hearer) {
        self.shed.0.get_or_init(|| hearer);
    }

    pub(super) fn mode_changed(&self, ino: Ino) {
        if let Some(hearer) = self.shed.0.get() {
            hearer(ino);
        }
    }
}
