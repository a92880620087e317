//! Bytes of a file that come when they are asked for.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::Range;

/// Brings parts of a file that has holes. Nobody has compared them with anything: who reads them does.
pub trait Arrival: Debug + Send + Sync {
    /// The file.
    fn file(&self) -> &File;

    /// Returns when these bytes are in the file.
    ///
    /// # Errors
    /// They cannot be had, or not in time.
    fn wait(&self, range: Range<u64>) -> io::Result<()>;

    /// These bytes may be asked for soon.
    fn announce(&self, range: Range<u64>);

    /// These bytes are wrong: returns when they have been brought once more.
    ///
    /// # Errors
    /// They cannot be had again.
    fn doubt(&self, range: Range<u64>) -> io::Result<()>;

    /// Nobody needs any more of it: whoever waits hears that nothing will come.
    fn give_up(&self);
}
