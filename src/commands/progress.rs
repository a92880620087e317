//! Progress of indexing, checking and decompressing: a line that is rewritten on a terminal, plain lines otherwise if it takes long.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::image::Decompressing;
use crate::layer::LayerSource;
use crate::mount::{MountSpec, Progress};

/// Columns of the bar between its brackets.
const BAR_COLUMNS: u64 = 30;
/// Nothing is said of what takes less.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Progress,
    Nothing,
}

impl Told {
    pub(super) fn unless(quiet: bool) -> Self {
        if quiet { Self::Nothing } else { Self::Progress }
    }
}

/// Shows how far indexing, or checking, is.
#[derive(Debug)]
pub(super) struct Indexing {
    shown: Mutex<Shown>,
    terminal: bool,
    told: Told,
    verb: &'static str,
    total: Total,
}

/// How much there is to do.
#[derive(Debug)]
enum Total {
    /// The layers without index, asked for when the first of them is built.
    Unknown(MountSpec),
    Bytes(u64),
    /// Those of the layers that were begun.
    AsTold,
}

#[derive(Debug)]
struct Shown {
    start: Instant,
    last: Instant,
    anything: bool,
    /// Bytes that were read of each layer, and that it has.
    done: BTreeMap<usize, (u64, u64)>,
    total: Option<u64>,
}

impl Indexing {
    /// Of the layers of a mount that have no index.
    pub(super) fn of(spec: &MountSpec, told: Told) -> Self {
        Self::new("indexing", Total::Unknown(spec.clone()), told)
    }

    /// Of layers that nobody knows before.
    pub(super) fn of_any() -> Self {
        Self::new("indexing", Total::AsTold, Told::Progress)
    }

    /// Of all bytes of these layers.
    pub(super) fn checking(layers: &[LayerSource], told: Told) -> Self {
        let bytes = |source: &LayerSource| match source {
            LayerSource::Tar(tar) => tar.blob.len(),
            LayerSource::Directory(_) => 0,
        };
        Self::new("checking", Total::Bytes(layers.iter().map(bytes).sum()), told)
    }

    /// Of an archive that is compressed as a whole.
    pub(super) fn decompressing(told: Told) -> Self {
        Self::new("decompressing", Total::AsTold, told)
    }

    fn new(verb: &'static str, total: Total, told: Told) -> Self {
        let now = Instant::now();
        let shown = Shown { start: now, last: now, anything: false, done: BTreeMap::new(), total: None };
        Self { shown: Mutex::new(shown), terminal: std::io::stderr().is_terminal(), told, verb, total }
    }

    /// How often a line is written.
    fn interval(&self) -> Duration {
        if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) }
    }
}

impl Progress for Indexing {
    fn indexed(&self, layer: usize, layers: usize, done: u64, of_layer: u64) {
        self.show(Some((layer, layers)), done, of_layer);
    }
}

impl Decompressing for Indexing {
    fn decompressed(&self, done: u64, total: u64) {
        self.show(None, done, total);
    }
}

impl Indexing {
    /// `done` of `of_layer` bytes of a layer, or of what has none.
    fn show(&self, layer: Option<(usize, usize)>, done: u64, of_layer: u64) {
        if self.told == Told::Nothing {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let total = *shown.total.get_or_insert_with(|| match &self.total {
            Total::Unknown(spec) => spec.bytes_to_index(),
            Total::Bytes(bytes) => *bytes,
            Total::AsTold => 0,
        });
        shown.done.insert(layer.map_or(0, |(layer, _)| layer), (done, of_layer));
        let elapsed = shown.start.elapsed();
        if shown.last.elapsed() < self.interval() || elapsed < PATIENCE {
            return;
        }
        shown.last = Instant::now();
        shown.anything = true;
        let done: u64 = shown.done.values().map(|(done, _)| done).sum();
        let begun: u64 = shown.done.values().map(|(_, of_layer)| of_layer).sum();
        let line = line(self.verb, layer, (done, total.max(begun)), elapsed, self.terminal);
        let (start, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        // Nobody is hurt by a lost progress line.
        std::io::stderr().write_all(format!("{start}{line}{end}").as_bytes()).ok();
    }
}

/// What there is to say, 79 columns at most.
pub(super) fn line(
    verb: &str,
    layer: Option<(usize, usize)>,
    bytes: (u64, u64),
    elapsed: Duration,
    with_bar: bool,
) -> String {
    let (done, total) = bytes;
    let mega = |bytes: u64| bytes / 1_000_000;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done / millis;
    let left = total.saturating_sub(done).checked_div(rate * 1000).map_or_else(|| "?".to_owned(), duration);
    let bar = match (with_bar, layer) {
        (true, _) => {
            let filled = u128::from(done) * u128::from(BAR_COLUMNS) / u128::from(total.max(1));
            let filled = usize::try_from(filled).unwrap_or_default();
            let columns = usize::try_from(BAR_COLUMNS).unwrap_or_default();
            format!(" [{}{}]", "#".repeat(filled), " ".repeat(columns.saturating_sub(filled)))
        }
        (false, Some((layer, layers))) => format!(" layer {layer} of {layers}:"),
        (false, None) => ":".to_owned(),
    };
    format!("{verb}{bar} {} of {} MB, {} MB/s, {left} left", mega(done), mega(total), rate / 1000)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}

impl Drop for Indexing {
    fn drop(&mut self) {
        if self.terminal && self.shown.lock().is_ok_and(|shown| shown.anything) {
            std::io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left() {
        let second = Duration::from_secs(1);
        let bar = line("indexing", Some((1, 5)), (100_000_000, 400_000_000), second, true);
        assert_eq!(
            bar,
            format!("indexing [{}{}] 100 of 400 MB, 100 MB/s, 3 s left", "#".repeat(7), " ".repeat(23))
        );
        let plain = line("checking", Some((2, 5)), (0, 10_000_000_000), second, false);
        assert_eq!(plain, "checking layer 2 of 5: 0 of 10000 MB, 0 MB/s, ? left");
        let long = line("indexing", Some((1, 1)), (50_000_000, 10_000_000_000), second, false);
        assert!(long.ends_with("50 MB/s, 3:19 min left"), "{long}");
        let whole = line("decompressing", None, (50_000_000, 100_000_000), second, false);
        assert_eq!(whole, "decompressing: 50 of 100 MB, 50 MB/s, 1 s left");
        assert!(line("indexing", Some((1, 1)), (0, 0), Duration::ZERO, true).contains("0 of 0 MB"));
    }
}
