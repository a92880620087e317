//! The process that fetches: it lives outside of all namespaces, where the registry can be reached, and no longer than those who
//! have the other end of its socket.
//!
//! One thread listens, one looks after those who have waited too long, the others fetch what [`Queue`] says.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::finish::Finishing;
use super::link::{ANSWER_HERE, Asker, Kind, Request};
use super::queue::{Next, Queue, Run};
use super::{Background, Layer};
use crate::registry::{Endpoint, Patience, Registry, RegistryError, Wanted};
use crate::store::{Arriving, PIECE_BYTES, StoreLock};
use crate::sys::daemon;
use crate::sys::message_socket::MessageSocket;
use crate::sys::process::{self, Fork};

/// Questions at the same time.
const WORKERS: usize = 4;
/// How often is looked who has waited too long.
const TICK: Duration = Duration::from_millis(100);

/// What is fetched, and from where.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) endpoint: Endpoint,
    pub(super) blobs: Vec<(Arriving, Layer)>,
    pub(super) background: Background,
    /// How long somebody waits before it is an error.
    pub(super) wait: Duration,
    /// What is done when all is there.
    pub(super) finishing: Finishing,
    /// Where it says what goes wrong.
    pub(super) log: PathBuf,
}

/// The same at work.
struct Work {
    fetcher: Fetcher,
    queue: Mutex<Queue<Asker>>,
    changed: Condvar,
    registry: Mutex<Option<Arc<Registry>>>,
    /// What went wrong last, for those who have waited in vain.
    failure: Mutex<String>,
}

impl Fetcher {
    /// Starts the process, which does not keep the store's lock. This one must have a single thread.
    pub(super) fn start(self, lock: StoreLock) -> io::Result<(MessageSocket, StoreLock)> {
        let (here, there) = MessageSocket::pair()?;
        match process::fork()? {
            Fork::Parent(_) => Ok((here, lock)),
            Fork::Child => {
                drop((here, lock));
                // Whatever happens, it does not go on as the caller.
                let ran = panic::catch_unwind(AssertUnwindSafe(|| self.run(&there)));
                process::exit_now(u8::from(!ran.is_ok_and(|ran| ran.is_ok())))
            }
        }
    }

    fn run(self, link: &MessageSocket) -> io::Result<()> {
        process::set_name(c"layerfs-fetch")?;
        daemon::detach(&self.log)?;
        daemon::prepare()?;
        let there = self.blobs.iter().map(|(arriving, _)| arriving.there()).collect::<io::Result<_>>()?;
        let queue = Queue::new(there, self.background, Instant::now());
        let work = Arc::new(Work {
            fetcher: self,
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            registry: Mutex::default(),
            failure: Mutex::default(),
        });
        for _ in 0..WORKERS {
            let work = Arc::clone(&work);
            thread::Builder::new().name("fetch".to_owned()).spawn(move || work.go_on())?;
        }
        let watching = Arc::clone(&work);
        thread::Builder::new().name("clock".to_owned()).spawn(move || watching.watch())?;
        while let Some(message) = link.receive()? {
            if let Some((request, asker)) = Asker::of(message) {
                work.hear(request, asker);
            }
        }
        Ok(())
    }
}

impl Work {
    fn queue(&self) -> MutexGuard<'_, Queue<Asker>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, request: Request, asker: Option<Asker>) {
        let Request { kind, blob, pieces } = request;
        let number = usize::try_from(blob).unwrap_or(usize::MAX);
        let Some((arriving, _)) = self.fetcher.blobs.get(number) else { return };
        let pieces = pieces.start..pieces.end.min(arriving.pieces());
        let mut queue = self.queue();
        if kind == Kind::Doubt {
            let again =
                queue.doubt(number, &pieces).ok_or("all of it was compared with its digest, and is right");
            let marked = again
                .map_err(io::Error::other)
                .and_then(|again| again.into_iter().try_for_each(|piece| arriving.mark(piece, false)));
            if let Err(error) = marked {
                drop(queue);
                asker.into_iter().for_each(|asker| asker.tell(error.to_string().as_bytes()));
                return;
            }
        }
        let Some(asker) = asker else {
            queue.announce(number, pieces);
            drop(queue);
            self.changed.notify_all();
            return;
        };
        let there = queue.want(number, pieces, asker, Instant::now());
        drop(queue);
        self.changed.notify_all();
        there.into_iter().for_each(|asker| asker.tell(ANSWER_HERE));
    }

    /// Those who have waited too long hear why.
    fn watch(&self) {
        loop {
            thread::sleep(TICK);
            let overdue = self.queue().overdue(self.fetcher.wait, Instant::now());
            for asker in overdue {
                let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let seconds = self.fetcher.wait.as_secs();
                asker.tell(format!("not fetched within {seconds} s: {failure}").as_bytes());
            }
        }
    }

    fn go_on(&self) {
        loop {
            let mut queue = self.queue();
            let next = queue.next(Instant::now());
            match next {
                Next::Wait(time) => {
                    let wait = time.unwrap_or(Duration::from_secs(3600));
                    drop(self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner));
                }
                Next::Fetch(run) => {
                    drop(queue);
                    self.fetch(&run);
                    self.changed.notify_all();
                }
                Next::Finish(blob) => {
                    drop(queue);
                    self.finish(blob);
                    self.changed.notify_all();
                }
            }
        }
    }

    fn fetch(&self, run: &Run) {
        let mut piece = run.pieces.start;
        let fetched = self.fetch_run(run, &mut piece);
        if let Err(error) = &fetched {
            tracing::debug!("{error}");
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            // The next one greets it anew: addresses, tokens and certificates may be others by then.
            *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let mut queue = self.queue();
        queue.ended(run, piece, fetched.is_err(), Instant::now());
        // Where nothing can be written, nobody need wait.
        let in_vain = match &fetched {
            Err(RegistryError::NotTaken(_)) => queue.waiting(run.blob),
            _ => Vec::new(),
        };
        drop(queue);
        for asker in in_vain {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            asker.tell(failure.as_bytes());
        }
    }

    /// `piece` is the first one that has not come.
    fn fetch_run(&self, run: &Run, piece: &mut u64) -> Result<(), RegistryError> {
        let registry = self.registry()?;
        let Some((arriving, _)) = self.fetcher.blobs.get(run.blob) else { return Ok(()) };
        let (start, end) = (run.pieces.start * PIECE_BYTES, run.pieces.end * PIECE_BYTES);
        let end = end.min(arriving.size());
        let wanted = Wanted { what: "layer", digest: arriving.digest(), size: arriving.size(), start };
        let mut position = start;
        registry.blob_part(wanted, end, &mut |bytes| {
            arriving.write(position, bytes)?;
            position += bytes.len() as u64;
            while *piece < run.pieces.end && position >= arriving.size().min((*piece + 1) * PIECE_BYTES) {
                let mut queue = self.queue();
                // Together, so that nobody who sees the mark and doubts it is told that it is on its way.
                arriving.mark(*piece, true)?;
                let done = queue.arrived(run.blob, *piece, Instant::now());
                drop(queue);
                done.into_iter().for_each(|asker| asker.tell(ANSWER_HERE));
                *piece += 1;
            }
            Ok(())
        })
    }

    /// The registry, greeted. Only one greets; the others wait for that.
    fn registry(&self) -> Result<Arc<Registry>, RegistryError> {
        let mut known = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = &*known {
            return Ok(Arc::clone(registry));
        }
        let opened = Arc::new(Registry::open(&self.fetcher.endpoint, patience())?);
        *known = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn finish(&self, blob: usize) {
        let Some((arriving, layer)) = self.fetcher.blobs.get(blob) else { return };
        match self.fetcher.finishing.layer(arriving, *layer) {
            Ok(true) => {}
            Ok(false) => self.queue().lost(blob),
            Err(error) => {
                tracing::error!("{error}");
                // What is there can be read for as long as it is mounted.
                let waiting = self.queue().give_up(blob);
                waiting.into_iter().for_each(|asker| asker.tell(error.to_string().as_bytes()));
            }
        }
    }
}

/// Short: the queue asks again for as long as somebody waits.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(10),
        idle: Duration::from_secs(20),
        slow: Duration::from_secs(20),
        attempts: 2,
        pause: Duration::from_millis(100),
        pause_max: Duration::from_secs(2),
        ..Patience::default()
    }
}
