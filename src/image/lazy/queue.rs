//! What is to be fetched next. It reads no clock and does no I/O: who waits comes first, then what was announced, then the rest.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Background;

/// Pieces that are fetched by one question: 4 MiB.
const RUN_MAX: u64 = 64;
/// The same of what is only announced, so that the line is free soon: 1 MiB.
const ANNOUNCED_RUN_MAX: u64 = 16;
/// The same in the background where somebody may want something at any moment: 1 MiB.
const IDLE_RUN_MAX: u64 = 16;
/// How long nobody has wanted anything before the background goes on.
const IDLE: Duration = Duration::from_millis(300);
/// Pieces that are fetched behind what somebody wants: while that is on its way the line has room, and what lies side by side in a
/// layer is often wanted together. 256 KiB at first, up to 2 MiB for who reads front to back.
const AHEAD: (u64, u64) = (4, 32);
/// Places at which somebody may read on.
const READERS_MAX: usize = 16;
/// Ranges that were announced and not fetched yet.
const ANNOUNCED_MAX: usize = 32 << 10;
/// Questions at the same time that nobody waits for: one worker is always left for who does.
const SPARE_RUNS_MAX: usize = 3;
/// Of these in the background.
const BACKGROUND_RUNS_MAX: usize = 2;
/// How long everybody waits at least, also where others have waited in vain.
const GRACE: Duration = Duration::from_secs(5);
/// How often a blob that turned out to be another one is fetched anew without being asked for.
const LOSSES_MAX: u32 = 2;
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Pieces of one blob, to be fetched by one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) blob: usize,
    pub(super) pieces: Range<u64>,
    wish: Wish,
}

/// Why pieces are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Waiting,
    Announced,
    Background,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Fetch(Run),
    /// All of a blob is there.
    Finish(usize),
    /// Nothing, for so long, or until something happens.
    Wait(Option<Duration>),
}

/// Somebody who waits for pieces; `T` is how that one is told.
#[derive(Debug)]
struct Waiter<T> {
    blob: usize,
    pieces: Range<u64>,
    /// So many behind them come with them, in the same answer.
    ahead: u64,
    since: Instant,
    answer: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Absent,
    OnItsWay,
    There,
}

#[derive(Debug)]
struct Blob {
    pieces: Vec<Piece>,
    absent: u64,
    losses: u32,
    /// That have not ended.
    runs: u32,
    /// Nothing is fetched of it any more.
    is_done: bool,
    /// Where the background is.
    background_at: u64,
}

/// The pieces of all blobs, and who wants which.
#[derive(Debug)]
pub(super) struct Queue<T> {
    blobs: Vec<Blob>,
    waiters: Vec<Waiter<T>>,
    announced: VecDeque<(usize, Range<u64>)>,
    /// Where somebody may read on, and how much was fetched ahead of that: the last one is the newest.
    readers: VecDeque<(usize, u64, u64)>,
    background: Background,
    announced_runs: usize,
    background_runs: usize,
    last_wanted: Instant,
    /// Since when somebody has been waiting, and nothing has come for anybody.
    silent_since: Option<Instant>,
    /// Until then nothing is asked for: the last questions failed.
    paused_until: Option<Instant>,
    failures: u32,
}

impl<T> Queue<T> {
    /// `there` says of each blob which pieces are there.
    pub(super) fn new(there: Vec<Vec<bool>>, background: Background, now: Instant) -> Self {
        let blob = |there: Vec<bool>| Blob {
            absent: there.iter().filter(|there| !**there).count() as u64,
            losses: 0,
            runs: 0,
            pieces: there.into_iter().map(|there| if there { Piece::There } else { Piece::Absent }).collect(),
            is_done: false,
            background_at: 0,
        };
        Self {
            blobs: there.into_iter().map(blob).collect(),
            waiters: Vec::new(),
            announced: VecDeque::new(),
            readers: VecDeque::new(),
            background,
            announced_runs: 0,
            background_runs: 0,
            last_wanted: now,
            silent_since: None,
            paused_until: None,
            failures: 0,
        }
    }

    /// Somebody waits for pieces. Gives the answer back when they are there.
    pub(super) fn want(&mut self, blob: usize, pieces: Range<u64>, answer: T, now: Instant) -> Option<T> {
        self.last_wanted = now;
        let ahead = self.read_on(blob, &pieces);
        if self.has(blob, &pieces) {
            let next = pieces.end..pieces.end + ahead;
            if ahead > AHEAD.0 && !self.has(blob, &next) {
                self.announced.push_front((blob, next));
            }
            return Some(answer);
        }
        // Who asks is not kept waiting by those who asked in vain.
        if self.waiters.is_empty() {
            self.paused_until = None;
        }
        self.silent_since.get_or_insert(now);
        self.waiters.push(Waiter { blob, pieces, ahead, since: now, answer });
        None
    }

    /// Somebody may want pieces soon.
    pub(super) fn announce(&mut self, blob: usize, pieces: Range<u64>) {
        if self.announced.len() < ANNOUNCED_MAX && !self.has(blob, &pieces) {
            self.announced.push_back((blob, pieces));
        }
    }

    /// Pieces are wrong: which of them are not there any more. `None` of a blob that is known to be right.
    pub(super) fn doubt(&mut self, blob: usize, pieces: &Range<u64>) -> Option<Vec<u64>> {
        let blob = self.blobs.get_mut(blob).filter(|blob| !blob.is_done)?;
        let mut again = Vec::new();
        for piece in pieces.clone() {
            let state = blob.pieces.get_mut(usize::try_from(piece).ok()?)?;
            if *state == Piece::There {
                *state = Piece::Absent;
                blob.absent += 1;
                again.push(piece);
            }
        }
        Some(again)
    }

    /// What to do now. Pieces of a run are on their way until [`Self::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Next {
        // What is still open could write to it.
        let is_whole = |blob: &Blob| blob.absent == 0 && blob.runs == 0 && !blob.is_done;
        if let Some(blob) = self.blobs.iter().position(is_whole) {
            self.blobs[blob].is_done = true;
            return Next::Finish(blob);
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Next::Wait(Some(until - now));
        }
        let wanted = self.waiters.iter().map(|waiter| (waiter.blob, waiter.pieces.clone(), waiter.ahead));
        for (blob, pieces, ahead) in wanted.collect::<Vec<_>>() {
            if let Some(mut run) = self.take(blob, &pieces, RUN_MAX, Wish::Waiting) {
                let behind = run.pieces.end..run.pieces.end + ahead;
                let follows = |more: &Run| more.pieces.start == behind.start;
                if run.pieces.end == pieces.end
                    && let Some(more) = self.take_if(blob, &behind, ahead, &follows)
                {
                    run.pieces.end = more.pieces.end;
                    self.blobs[blob].runs -= 1;
                }
                return Next::Fetch(run);
            }
        }
        let is_room = self.announced_runs + self.background_runs < SPARE_RUNS_MAX;
        while let Some((blob, pieces)) = self.announced.front().filter(|_| is_room).cloned() {
            if let Some(run) = self.take(blob, &pieces, ANNOUNCED_RUN_MAX, Wish::Announced) {
                self.announced_runs += 1;
                return Next::Fetch(run);
            }
            self.announced.pop_front();
        }
        self.in_background(now)
    }

    fn in_background(&mut self, now: Instant) -> Next {
        let (runs_max, run_max) = match self.background {
            Background::Off => return Next::Wait(None),
            Background::Now => (BACKGROUND_RUNS_MAX, RUN_MAX),
            Background::Idle => {
                let quiet_from = self.last_wanted + IDLE;
                if !self.waiters.is_empty() || quiet_from > now {
                    return Next::Wait(Some(quiet_from.saturating_duration_since(now).max(IDLE / 10)));
                }
                (1, IDLE_RUN_MAX)
            }
        };
        if self.background_runs >= runs_max || self.announced_runs + self.background_runs >= SPARE_RUNS_MAX {
            return Next::Wait(None);
        }
        for blob in 0..self.blobs.len() {
            if self.blobs[blob].losses > LOSSES_MAX {
                continue;
            }
            let (from, end) = (self.blobs[blob].background_at, self.blobs[blob].pieces.len() as u64);
            // What was doubted, or could not be had, lies behind.
            for pieces in [from..end, 0..from] {
                if let Some(run) = self.take(blob, &pieces, run_max, Wish::Background) {
                    self.blobs[blob].background_at = run.pieces.end;
                    self.background_runs += 1;
                    return Next::Fetch(run);
                }
            }
        }
        Next::Wait(None)
    }

    /// The first pieces of a range that nobody fetches yet.
    fn take(&mut self, blob: usize, pieces: &Range<u64>, max: u64, wish: Wish) -> Option<Run> {
        let run = self.take_if(blob, pieces, max, &|_| true)?;
        Some(Run { wish, ..run })
    }

    fn take_if(
        &mut self,
        number: usize,
        pieces: &Range<u64>,
        max: u64,
        is_it: &dyn Fn(&Run) -> bool,
    ) -> Option<Run> {
        let blob = self.blobs.get_mut(number).filter(|blob| !blob.is_done && blob.absent > 0)?;
        let is_absent = |piece: &u64| {
            usize::try_from(*piece).is_ok_and(|piece| blob.pieces.get(piece) == Some(&Piece::Absent))
        };
        let start = pieces.clone().find(is_absent)?;
        let limit = pieces.end.min(start.saturating_add(max));
        let end = (start..limit).find(|piece| !is_absent(piece)).unwrap_or(limit);
        let run = Run { blob: number, pieces: start..end, wish: Wish::Waiting };
        if !is_it(&run) {
            return None;
        }
        for piece in start..end {
            *blob.pieces.get_mut(usize::try_from(piece).ok()?)? = Piece::OnItsWay;
        }
        blob.runs += 1;
        Some(run)
    }

    /// A piece is there. Gives the answers to those who have all now.
    pub(super) fn arrived(&mut self, blob: usize, piece: u64, now: Instant) -> Vec<T> {
        self.failures = 0;
        self.silent_since = self.silent_since.map(|_| now);
        let of_it = self.blobs.get_mut(blob);
        let found = of_it.and_then(|blob| {
            let state = blob.pieces.get_mut(usize::try_from(piece).ok()?)?;
            (*state != Piece::There).then(|| {
                *state = Piece::There;
                blob.absent -= 1;
            })
        });
        if found.is_none() {
            return Vec::new();
        }
        let (blobs, mut done) = (&self.blobs, Vec::new());
        let waiting = std::mem::take(&mut self.waiters);
        for waiter in waiting {
            let is_its = waiter.blob == blob && waiter.pieces.contains(&piece);
            if is_its && has(blobs, blob, &waiter.pieces) {
                done.push(waiter.answer);
            } else {
                self.waiters.push(waiter);
            }
        }
        self.silent_since = self.silent_since.filter(|_| !self.waiters.is_empty());
        done
    }

    /// A run has come to its end, before the piece `end`; what did not come is to be fetched again, after a pause if it failed.
    pub(super) fn ended(&mut self, run: &Run, end: u64, failed: bool, now: Instant) {
        match run.wish {
            Wish::Waiting => {}
            Wish::Announced => self.announced_runs -= 1,
            Wish::Background => self.background_runs -= 1,
        }
        if let Some(blob) = self.blobs.get_mut(run.blob) {
            blob.runs -= 1;
            // What came may be somebody else's by now.
            for piece in (end..run.pieces.end).filter_map(|piece| usize::try_from(piece).ok()) {
                if blob.pieces.get(piece) == Some(&Piece::OnItsWay) {
                    blob.pieces[piece] = Piece::Absent;
                }
            }
        }
        if failed {
            let pause = PAUSES.0.saturating_mul(1 << self.failures.min(16)).min(PAUSES.1);
            self.failures = self.failures.saturating_add(1);
            self.paused_until = Some(now + pause);
        }
    }

    /// All of a blob turned out to be something else: nothing of it is there.
    pub(super) fn lost(&mut self, blob: usize) {
        if let Some(blob) = self.blobs.get_mut(blob) {
            blob.pieces.fill(Piece::Absent);
            blob.absent = blob.pieces.len() as u64;
            blob.is_done = false;
            blob.losses += 1;
            blob.background_at = 0;
        }
    }

    /// Nothing of a blob will come any more: those who wait for it.
    pub(super) fn give_up(&mut self, blob: usize) -> Vec<T> {
        if let Some(blob) = self.blobs.get_mut(blob) {
            blob.is_done = true;
        }
        self.waiting(blob)
    }

    /// Those who wait in vain: nothing has come for anybody for so long. Who has come meanwhile waits less.
    pub(super) fn overdue(&mut self, wait: Duration, now: Instant) -> Vec<T> {
        if self.silent_since.is_none_or(|since| now.saturating_duration_since(since) < wait) {
            return Vec::new();
        }
        self.take_waiters(|waiter| now.saturating_duration_since(waiter.since) >= wait.min(GRACE))
    }

    /// All who wait for a blob.
    pub(super) fn waiting(&mut self, blob: usize) -> Vec<T> {
        self.take_waiters(|waiter| waiter.blob == blob)
    }

    fn take_waiters(&mut self, is_it: impl Fn(&Waiter<T>) -> bool) -> Vec<T> {
        self.waiters.extract_if(.., |waiter| is_it(waiter)).map(|waiter| waiter.answer).collect()
    }

    /// How many pieces behind these somebody may want next.
    fn read_on(&mut self, blob: usize, pieces: &Range<u64>) -> u64 {
        // A range may begin in the piece in which the one before ended.
        let is_on = |reader: &(usize, u64, u64)| {
            reader.0 == blob && (pieces.start..=pieces.start + 1).contains(&reader.1)
        };
        let before = self.readers.iter().position(is_on).and_then(|at| self.readers.remove(at));
        let ahead = before.map_or(AHEAD.0, |(_, _, ahead)| (ahead * 2).min(AHEAD.1));
        self.readers.push_back((blob, pieces.end, ahead));
        if self.readers.len() > READERS_MAX {
            self.readers.pop_front();
        }
        ahead
    }

    fn has(&self, blob: usize, pieces: &Range<u64>) -> bool {
        has(&self.blobs, blob, pieces)
    }
}

/// Whether all of these are there; those behind the end are.
fn has(blobs: &[Blob], blob: usize, pieces: &Range<u64>) -> bool {
    let Some(blob) = blobs.get(blob) else { return true };
    let place = |piece: u64| usize::try_from(piece).unwrap_or(usize::MAX).min(blob.pieces.len());
    let (start, end) = (place(pieces.start), place(pieces.end));
    start >= end || blob.pieces[start..end].iter().all(|piece| *piece == Piece::There)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
