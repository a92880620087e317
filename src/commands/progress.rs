//! Progress of indexing: a line that is rewritten on a terminal, nothing otherwise unless it takes long.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::mount::Progress;

/// Shows how far indexing is.
#[derive(Debug)]
pub(super) struct Indexing {
    shown: Mutex<Shown>,
    terminal: bool,
}

#[derive(Debug)]
struct Shown {
    last: Instant,
    anything: bool,
}

impl Indexing {
    pub(super) fn new() -> Self {
        let shown = Shown { last: Instant::now(), anything: false };
        Self { shown: Mutex::new(shown), terminal: std::io::stderr().is_terminal() }
    }

    /// How often a line is written.
    fn interval(&self) -> Duration {
        if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) }
    }
}

impl Progress for Indexing {
    fn indexed(&self, layer: usize, layers: usize, done: u64, total: u64) {
        let Ok(mut shown) = self.shown.lock() else { return };
        if shown.last.elapsed() < self.interval() {
            return;
        }
        shown.last = Instant::now();
        shown.anything = true;
        let mega = |bytes: u64| bytes / 1_000_000;
        let (start, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let line =
            format!("{start}indexing layer {layer} of {layers}: {} of {} MB{end}", mega(done), mega(total));
        // Nobody is hurt by a lost progress line.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
}

impl Drop for Indexing {
    fn drop(&mut self) {
        if self.terminal && self.shown.lock().is_ok_and(|shown| shown.anything) {
            std::io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }
}
