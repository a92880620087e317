//! What a start touches first, learnt once and decoded ahead the next time.
//!
//! While a mount is young ([`RECORD`]), the granules that are asked for are noted in their order. What was noted goes into
//! a small file, at the end of that time or of the mount, and the next mount begins with decoding what the file says: in a
//! thread that stands back, span by span in the order in which they were touched, until it has filled its part of the
//! cache. Nobody waits for it, and it never decodes what a reader is decoding.
//!
//! The file is text: the line [`FIRST_LINE`], then for each granule a line with the number of the layer in the image and
//! that of the granule in the layer. It appears by a rename and is not flushed: nobody who unmounts should wait for that,
//! and what a power cut leaves of it is only made again. It is made by us, and believed in nothing: what cannot be read, is too long or names
//! what does not exist is skipped, and the worst that it can bring about is work for nothing.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::TarLayer;
use super::bring::Brought;
use crate::index::GRANULE_BYTES;
use crate::model::limits::LAYER_BYTES_MAX;
use crate::sys::atomic::TEMP_PREFIX;
use crate::sys::{files, process};

mod bounds;
#[cfg(test)]
mod tests;

/// How long a start lasts: a large program is up by then, and what it does later differs from run to run.
const RECORD: Duration = Duration::from_secs(30);
/// Granules that are noted: 2 GiB, more than any cache holds.
const TOUCHES_MAX: usize = 16 << 10;
/// A line has two numbers of at most 20 digits.
const FILE_BYTES_MAX: u64 = 42 * TOUCHES_MAX as u64;
/// The part of the cache that may be filled ahead. The rest is for what the program really does.
const CACHE_PARTS: u64 = 2;
/// What the file begins with.
const FIRST_LINE: &str = "layerfs start trace 1";

/// A granule of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Touch {
    layer: u32,
    granule: u64,
}

/// What is known, and what is noted, of one image and command.
#[derive(Debug)]
pub struct StartTrace {
    file: Option<Place>,
    before: Vec<Touch>,
    opened: Instant,
    /// Nothing is noted any more.
    is_closed: AtomicBool,
    /// Held for moments, never across I/O.
    noted: Mutex<Noted>,
    layers: Mutex<HashMap<u32, Weak<TarLayer>>>,
}

/// Where a trace is kept.
#[derive(Debug)]
struct Place {
    /// Opened once: a process that has gone into namespaces does not find it by its path.
    dir: OwnedFd,
    name: OsString,
}

#[derive(Debug, Default)]
struct Noted {
    order: Vec<Touch>,
    known: HashSet<Touch>,
}

/// One layer's way to tell what is asked of it.
#[derive(Debug)]
pub(super) struct Touches {
    trace: Arc<StartTrace>,
    layer: u32,
}

impl Touches {
    pub(super) fn add(&self, granule: u64) {
        self.trace.note(Touch { layer: self.layer, granule });
    }
}

impl StartTrace {
    /// The trace that is kept at `path`, or will be.
    #[must_use]
    pub fn open(path: &Path) -> Arc<Self> {
        let report = |error: io::Error| tracing::debug!("{}: {error}", path.display());
        let file = Place::of(path).map_err(report).ok();
        let before = file.as_ref().and_then(|file| file.read().map_err(report).ok());
        Arc::new(Self {
            file,
            before: before.unwrap_or_default(),
            opened: Instant::now(),
            is_closed: AtomicBool::new(false),
            noted: Mutex::default(),
            layers: Mutex::default(),
        })
    }

    /// Reads ahead what is known, and writes down in time what was noted: to be called when this process will not fork any
    /// more.
    pub fn start(self: &Arc<Self>) {
        let (trace, rest) = (Arc::downgrade(self), RECORD.saturating_sub(self.opened.elapsed()));
        let thread = std::thread::Builder::new().name("ahead".to_owned());
        let started = thread.spawn(move || {
            let since = Instant::now();
            process::stand_back();
            read_ahead(&trace, since + rest);
            std::thread::sleep(rest.saturating_sub(since.elapsed()));
            if let Some(trace) = trace.upgrade() {
                trace.close();
            }
        });
        if let Err(error) = started {
            tracing::debug!("start a thread: {error}");
        }
    }

    pub(super) fn touches(self: &Arc<Self>, layer: u32) -> Touches {
        Touches { trace: Arc::clone(self), layer }
    }

    pub(super) fn add(&self, number: u32, layer: &Arc<TarLayer>) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::downgrade(layer));
    }

    fn note(&self, touch: Touch) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.order.len() < TOUCHES_MAX && noted.known.insert(touch) {
            noted.order.push(touch);
        }
    }

    fn layer(&self, number: u32) -> Option<Arc<TarLayer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(&number)?.upgrade()
    }

    /// What is known by span, in the order of their first touch; within a span as it is decoded.
    fn spans(&self) -> Vec<(u32, Vec<u64>)> {
        let mut numbers = HashMap::new();
        let mut spans: Vec<(u32, Vec<u64>)> = Vec::new();
        for Touch { layer, granule } in &self.before {
            let Some(span) = self.layer(*layer).and_then(|layer| layer.chunks.span(*granule)) else {
                continue;
            };
            let number = *numbers.entry((*layer, span)).or_insert_with(|| {
                spans.push((*layer, Vec::new()));
                spans.len() - 1
            });
            spans[number].1.push(*granule);
        }
        for (_, granules) in &mut spans {
            granules.sort_unstable();
        }
        spans
    }

    /// Writes down what was noted, if that is news. Nothing is noted afterwards.
    pub fn close(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(merged) = merged(&self.before, noted.order, &noted.known) else { return };
        if let Some(file) = &self.file
            && let Err(error) = file.replace(&text(&merged))
        {
            tracing::debug!("{}: {error}", file.name.display());
        }
    }
}

impl Drop for StartTrace {
    fn drop(&mut self) {
        self.close();
    }
}

/// Decodes what is known to be wanted, for as long as anybody has the layers, until `end`.
fn read_ahead(trace: &Weak<StartTrace>, end: Instant) {
    let Some(spans) = trace.upgrade().map(|trace| trace.spans()) else { return };
    // What has to come from far away first is on its way together.
    for (number, granules) in &spans {
        let Some(layer) = trace.upgrade().and_then(|trace| trace.layer(*number)) else { return };
        granules.last().into_iter().for_each(|granule| layer.chunks.announce(*granule));
    }
    let mut brought = 0;
    for (number, granules) in spans {
        let Some(layer) = trace.upgrade().and_then(|trace| trace.layer(number)) else { return };
        // Further ones would push out those that came first; decoding brings all that lies before the last of a span.
        let room = (layer.chunks.cache_bytes_max() / CACHE_PARTS).saturating_sub(brought);
        let decoding_bytes = granules.last().map_or(0, |last| layer.chunks.decoding_bytes(*last));
        let may_decode = decoding_bytes <= room;
        let mut bytes = 0;
        for granule in granules {
            if Instant::now() >= end || bytes >= room {
                return;
            }
            match layer.chunks.bring(granule, may_decode) {
                Brought::Now => bytes += GRANULE_BYTES,
                Brought::Not => {}
                // What is damaged is told to who asks for it; each try would cost as much again.
                Brought::Failed => break,
            }
        }
        brought += if may_decode && bytes > 0 { decoding_bytes } else { bytes };
    }
}

/// What the next start should read ahead. A start is at least half as long as what is known: what it touched comes first,
/// then what others touched besides, as much again at most. A shorter glance takes nothing away, and what is new in it comes
/// last. `None` when what is known is as good.
fn merged(before: &[Touch], noted: Vec<Touch>, known: &HashSet<Touch>) -> Option<Vec<Touch>> {
    if noted.is_empty() {
        return None;
    }
    let others: Vec<Touch> = before.iter().filter(|touch| !known.contains(touch)).copied().collect();
    let is_covered = before.len() - others.len() == noted.len();
    let is_glance = 2 * noted.len() < before.len();
    if is_covered && (is_glance || others.len() <= noted.len()) {
        return None;
    }
    let mut merged;
    if is_glance {
        let learnt: HashSet<&Touch> = before.iter().collect();
        merged = before.to_vec();
        merged.extend(noted.into_iter().filter(|touch| !learnt.contains(touch)));
    } else {
        let room = noted.len();
        merged = noted;
        merged.extend(others.into_iter().take(room));
    }
    merged.truncate(TOUCHES_MAX);
    Some(merged)
}

fn text(touches: &[Touch]) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for Touch { layer, granule } in touches {
        // Writing into a String cannot fail.
        writeln!(text, "{layer} {granule}").ok();
    }
    text
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = files::openat(rustix::fs::CWD, dir, flags, Mode::empty())?;
        Ok(Self { dir, name: name.to_owned() })
    }

    fn read(&self) -> io::Result<Vec<Touch>> {
        // NONBLOCK: whatever was put there, opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(files::openat(&self.dir, &*self.name, flags, Mode::empty())?);
        // What is used is not what goes first.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!("{}: {error}", self.name.display());
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        Ok(parse(&text))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let mut temp = OsString::from(format!("{TEMP_PREFIX}{}-", std::process::id()));
        temp.push(&self.name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(files::openat(&self.dir, &*temp, flags, Mode::RUSR | Mode::WUSR)?);
        let written = files::write_all_at(&file, text.as_bytes(), 0);
        if let Err(error) = written.and_then(|()| self.rename(&temp)) {
            files::unlinkat(&self.dir, &*temp, AtFlags::empty())?;
            return Err(error.into());
        }
        Ok(bounds::keep(self.dir.as_fd(), &self.name)?)
    }

    fn rename(&self, temp: &OsStr) -> rustix::io::Result<()> {
        files::renameat(self.dir.as_fd(), temp, self.dir.as_fd(), &*self.name)
    }
}

/// Every line that can be understood, once; nothing of a file that begins otherwise.
fn parse(text: &[u8]) -> Vec<Touch> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Vec::new();
    }
    let mut known = HashSet::new();
    let touch = |line: &str| {
        let (layer, granule) = line.split_once(' ')?;
        let granule = granule.parse().ok().filter(|granule| *granule <= LAYER_BYTES_MAX / GRANULE_BYTES)?;
        Some(Touch { layer: layer.parse().ok()?, granule })
    };
    lines.filter_map(touch).filter(|touch| known.insert(*touch)).take(TOUCHES_MAX).collect()
}
