//! What makes reading layers faster without being needed: it works beside the server, in threads of its own.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::layer::{ChunkCache, Layer, ReadMeter, ReadOn, Spill, SpillDir, StartTrace, TarLayer, TocCache};
use crate::sys::file_range::FileRange;
use crate::sys::fuse_mount;

/// How often is looked whether a mount is gone.
const WATCH_PAUSE: Duration = Duration::from_millis(200);

/// What else may be kept of layers, besides their indexes; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Where decoded content is kept.
    pub spill: Option<SpillDir>,
    /// The file that says what a start of this image and command reads first.
    pub trace: Option<PathBuf>,
}

/// What works beside the server of some layers.
#[derive(Clone, Debug, Default)]
pub struct OpenCaches {
    /// In memory.
    pub(super) chunks: Arc<ChunkCache>,
    /// In memory, of layers that are known by a table of contents.
    pub(super) tocs: Arc<TocCache>,
    /// Reads of these wait for a network.
    arriving: Arc<Mutex<Vec<FileRange>>>,
    read_on: Arc<ReadOn>,
    spill: Option<Arc<Spill>>,
    trace: Option<Arc<StartTrace>>,
}

impl Caches {
    /// Nothing of it is needed: what cannot be opened is left out.
    pub(super) fn open(&self) -> OpenCaches {
        let spill = self.spill.as_ref().and_then(|dir| match Spill::open(dir) {
            Ok(spill) => Some(spill),
            Err(error) => {
                tracing::warn!("{}: {error}: decoded data is not kept", dir.path.display());
                None
            }
        });
        let trace = self.trace.as_deref().map(StartTrace::open);
        let chunks = Arc::new(ChunkCache::with_default_size());
        OpenCaches {
            chunks,
            tocs: Arc::default(),
            arriving: Arc::default(),
            read_on: Arc::default(),
            spill,
            trace,
        }
    }
}

impl OpenCaches {
    /// The layer with all the help that there is; `place` is its place in the image, counted from 0 at the base.
    pub(super) fn help(&self, place: usize, mut layer: TarLayer) -> Arc<dyn Layer> {
        if let Some(spill) = &self.spill {
            layer = layer.with_spill(spill);
        }
        let layer = match (&self.trace, u32::try_from(place)) {
            (Some(trace), Ok(number)) => layer.with_trace(trace, number),
            _ => Arc::new(layer),
        };
        layer.read_on_by(&self.read_on);
        layer
    }

    /// A layer's bytes come over a network.
    pub(super) fn expect_waits(&self, blob: &FileRange) {
        self.arriving().push(blob.clone());
    }

    pub(super) fn are_waits_expected(&self) -> bool {
        !self.arriving().is_empty()
    }

    /// Waits until the mount is gone. A thread that still waits for a network then is all that keeps the server, and nobody will
    /// read what it waits for.
    fn end_waits_with(&self, device: &OwnedFd) {
        // Not with poll(2) alone: that would be woken by each request.
        while fuse_mount::is_connected(device) {
            thread::sleep(WATCH_PAUSE);
        }
        self.arriving().iter().for_each(FileRange::give_up);
    }

    fn arriving(&self) -> MutexGuard<'_, Vec<FileRange>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what is read of the layers.
    pub(super) fn meter(&self) -> ReadMeter {
        ReadMeter::new(Arc::clone(&self.chunks), self.spill.clone())
    }

    /// To be called when nobody reads any more: what was noted is written down, whoever still reads ahead.
    pub(super) fn close(&self) {
        if let Some(trace) = &self.trace {
            trace.close();
        }
    }

    /// To be called before anybody reads.
    pub(super) fn open_queues(&self) {
        if let Some(spill) = &self.spill {
            spill.open_queue();
        }
    }

    /// To be called when this process will not fork any more. `device` is what the mount answers to, if reads may wait.
    pub(super) fn start(&self, device: Option<OwnedFd>) {
        if let Some(device) = device {
            let caches = self.clone();
            let watching = thread::Builder::new().name("waits".to_owned());
            if let Err(error) = watching.spawn(move || caches.end_waits_with(&device)) {
                tracing::warn!("reads may wait after the mount is gone: {error}");
            }
        }
        self.read_on.start();
        if let Some(spill) = &self.spill {
            spill.start();
        }
        if let Some(trace) = &self.trace {
            trace.start();
        }
    }
}
