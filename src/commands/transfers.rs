//! Progress of what comes from registries and goes there: a bar for each part on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::progress::{self, Told};
use crate::model::Digest;

/// Hex digits that tell one part of an image from another.
const SHORT: usize = 12;
/// How often a line is written where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(5);
/// Of each part: its name, how far it is, and how fast.
const BAR: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";

/// The parts of an image on their way.
#[derive(Debug)]
pub(super) struct Transfers {
    verb: &'static str,
    told: Told,
    bars: Option<MultiProgress>,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    start: Instant,
    last: Instant,
    all: BTreeMap<Digest, Part>,
}

#[derive(Debug, Default)]
struct Part {
    done: u64,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Transfers {
    pub(super) fn new(verb: &'static str, told: Told) -> Self {
        let now = Instant::now();
        let bars = (told == Told::Progress && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { verb, told, bars, parts: Mutex::new(Parts { start: now, last: now, all: BTreeMap::new() }) }
    }

    /// These are the parts, with their lengths in bytes.
    pub(super) fn expect(&self, parts: impl IntoIterator<Item = (Digest, u64)>) {
        let mut known = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |(digest, bytes)| (digest, Part { bytes, ..Part::default() });
        known.all.extend(parts.into_iter().map(new));
    }

    /// So many bytes of a part are where they should be.
    pub(super) fn moved(&self, digest: Digest, done: u64) {
        if self.told == Told::Nothing {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (elapsed, since) = (parts.start.elapsed(), parts.last.elapsed());
        let Some(part) = parts.all.get_mut(&digest) else { return };
        part.done = done;
        match &self.bars {
            _ if elapsed < progress::PATIENCE => {}
            Some(bars) => {
                part.bar.get_or_insert_with(|| bars.add(bar(digest, part.bytes))).set_position(done);
            }
            None if since >= INTERVAL => {
                parts.last = Instant::now();
                let done = parts.all.values().map(|part| part.done).sum();
                let bytes = parts.all.values().map(|part| part.bytes).sum();
                write(&(progress::line(self.verb, None, (done, bytes), elapsed, false) + "\n"));
            }
            None => {}
        }
    }

    /// A part is done with; `what` tells how, if that is worth a line.
    pub(super) fn settled(&self, digest: Digest, what: Option<&str>) {
        if self.told == Told::Nothing {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.all.get_mut(&digest) {
            part.done = part.bytes;
            if let Some(bar) = part.bar.take() {
                bar.finish_and_clear();
            }
        }
        let Some(what) = what else { return };
        let line = format!("{}: {what}\n", &digest.hex()[..SHORT]);
        match &self.bars {
            // The bars would be in its way.
            Some(bars) => bars.suspend(|| write(&line)),
            None => write(&line),
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        if let Some(bars) = &self.bars {
            // A terminal that is gone needs no clearing.
            bars.clear().ok();
        }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(digest: Digest, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = digest.hex()[..SHORT].to_owned();
    ProgressBar::new(bytes).with_style(style.progress_chars("#  ")).with_prefix(name)
}

fn write(text: &str) {
    // Nobody is hurt by a lost line of progress.
    std::io::stderr().write_all(text.as_bytes()).ok();
}
