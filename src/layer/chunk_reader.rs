//! Verified bytes of a layer, by their place in its uncompressed tar.
//!
//! A read goes place -> granule -> cache, else spill, else blob. What leaves is a [`VerifiedChunk`]: its bytes hash to
//! what the index says, and there is no other way to make one. A mismatch drops what was cached of the layer, starts
//! afresh from the blob once, and then is an error. Nobody can have a layer decoded from its beginning again and again by
//! that: it is done [`REREADS_MAX`] times.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::arriving::bytes_of;
use super::chunk_cache::{ChunkCache, LayerKey};
use super::read_counts::{ReadCounts, Tier};
use super::read_on::{self, Follower};
use super::spill::{LayerSpill, Spill};
use super::start_trace::Touches;
use super::turns::{Turns, Waited};
use super::{LayerError, Place};
use crate::index::{Checkpoint, DecodeError, Decoder, Encoding, GRANULE_BYTES, IndexError, LayerIndex};
use crate::model::{Digest, EntryId, TarOffset};
use crate::sys::file_range::FileRange;

/// How often wrong bytes of a layer are looked for again from the start of their span: what was wrong on its way from the
/// disk is right then. Of a layer that has so many, the blob is wrong.
const REREADS_MAX: u32 = 16;

/// How often they are fetched again for one read, where the layer's blob arrives over a network.
const REFETCHES_MAX: u32 = 3;

/// One granule of a layer, or what there is of it at the end.
#[derive(Clone, Debug)]
pub(super) struct VerifiedChunk(Arc<Vec<u8>>);

impl VerifiedChunk {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads one layer.
#[derive(Debug)]
pub(super) struct ChunkReader {
    pub(super) index: Arc<LayerIndex>,
    blob: FileRange,
    pub(super) cache: Arc<ChunkCache>,
    pub(super) key: LayerKey,
    pub(super) turns: Turns,
    /// See [`REREADS_MAX`].
    rereads: AtomicU32,
    /// How often what was cached of the layer was dropped: a decoder that began before may have read wrong bytes ahead.
    restarts: AtomicU64,
    /// Of a compressed layer.
    pub(super) spill: Option<Arc<LayerSpill>>,
    /// Of a compressed layer: who wants to know which granules are asked for.
    touches: Option<Touches>,
    /// Who decodes what comes next.
    follower: OnceLock<Follower>,
    /// The granule that was last read from where it lies as it is, in a plain blob or the spill.
    pub(super) last_read: AtomicU64,
    /// How often something was decoded.
    #[cfg(test)]
    pub(super) decodes: AtomicU32,
}

/// Why a granule is not to be had.
pub(super) enum Failure {
    Layer(LayerError),
    /// The bytes are wrong.
    Wrong(String),
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl ChunkReader {
    pub(super) fn new(index: Arc<LayerIndex>, blob: FileRange, cache: Arc<ChunkCache>) -> Self {
        let key = cache.add_layer();
        Self {
            index,
            blob,
            cache,
            key,
            turns: Turns::default(),
            rereads: AtomicU32::new(0),
            restarts: AtomicU64::new(0),
            spill: None,
            touches: None,
            follower: OnceLock::new(),
            last_read: AtomicU64::new(u64::MAX),
            #[cfg(test)]
            decodes: AtomicU32::new(0),
        }
    }

    /// Keeps what is decoded in `spill`, too. What is not compressed needs no second place.
    pub(super) fn spill_to(&mut self, spill: &Arc<Spill>) {
        let is_compressed = self.index.encoding() != Encoding::Tar;
        self.spill = is_compressed.then(|| spill.layer(self.index.diff_id(), self.index.tar_bytes()));
    }

    /// Tells which granules are asked for.
    pub(super) fn tell(&mut self, touches: Touches) {
        self.touches = (self.index.encoding() != Encoding::Tar).then_some(touches);
    }

    /// Has `follower` keep ahead, unless what it brings would push out what is read.
    pub(super) fn follow(&self, follower: Follower) {
        if self.cache.bytes_max() >= 8 * read_on::WINDOW * GRANULE_BYTES {
            // Who came first stays.
            self.follower.set(follower).ok();
        }
    }

    /// Fills `buffer` with the layer's bytes from `place` on.
    pub(super) fn read(&self, place: TarOffset, buffer: &mut [u8]) -> Result<(), LayerError> {
        let end = place.0.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.index.tar_bytes()) {
            return Err(self.corrupt(place.0, "the index points behind the end of the layer"));
        }
        let (mut place, mut rest) = (place.0, buffer);
        while !rest.is_empty() {
            let chunk = self.granule(place / GRANULE_BYTES)?;
            let skip = usize::try_from(place % GRANULE_BYTES).unwrap_or(usize::MAX);
            let bytes = chunk.bytes().get(skip..).unwrap_or_default();
            let count = bytes.len().min(rest.len());
            if count == 0 {
                return Err(self.corrupt(place, "a granule is shorter than it should be"));
            }
            rest[..count].copy_from_slice(&bytes[..count]);
            rest = &mut rest[count..];
            place += count as u64;
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> &ReadCounts {
        &self.cache.counts
    }

    fn granule(&self, granule: u64) -> Result<VerifiedChunk, LayerError> {
        self.granule_or_error(granule).inspect_err(|_| self.counts().failed.add(1))
    }

    fn granule_or_error(&self, granule: u64) -> Result<VerifiedChunk, LayerError> {
        if let Some(touches) = &self.touches {
            touches.add(granule);
        }
        if let Some(chunk) = self.cached(granule) {
            self.counts().memory_hits.add(1);
            return Ok(chunk);
        }
        let place = granule * GRANULE_BYTES;
        let reason = match self.load(granule) {
            Ok(chunk) => return Ok(chunk),
            Err(Failure::Layer(error)) => return Err(error),
            Err(Failure::Wrong(reason)) => reason,
        };
        let diff_id = self.index.diff_id();
        let mut again = Err(Failure::Wrong(reason));
        for _ in 0..REFETCHES_MAX {
            // What comes from far away may be wrong once, and right the next time.
            let is_new = self.doubt(granule, false);
            if !is_new {
                if self.rereads.fetch_add(1, Ordering::Relaxed) >= REREADS_MAX {
                    break;
                }
                self.doubt(granule, true);
            }
            tracing::warn!(%diff_id, offset = place, "wrong bytes in a layer: reading again");
            // First this, so that nobody puts such a decoder away who has not been seen by what drops them.
            self.restarts.fetch_add(1, Ordering::AcqRel);
            self.cache.remove_layer(self.key);
            again = self.load(granule);
            // What was on its way before may have been wrong as well.
            if !is_new || !matches!(again, Err(Failure::Wrong(_))) {
                break;
            }
        }
        match again {
            Ok(chunk) => Ok(chunk),
            Err(Failure::Layer(error)) => Err(error),
            Err(Failure::Wrong(reason)) => {
                tracing::error!(%diff_id, offset = place, reason, "corrupt layer");
                Err(self.corrupt(place, &reason))
            }
        }
    }

    pub(super) fn cached(&self, granule: u64) -> Option<VerifiedChunk> {
        let hit = self.cache.get(self.key, granule)?;
        if let (true, Some(follower)) = (hit.is_marked, self.follower.get()) {
            follower.ask(granule + read_on::WINDOW);
        }
        Some(VerifiedChunk(hit.bytes))
    }

    pub(super) fn is_plain(&self) -> bool {
        self.index.encoding() == Encoding::Tar
    }

    /// How many granules there are.
    pub(super) fn granules(&self) -> u64 {
        self.index.tar_bytes().div_ceil(GRANULE_BYTES)
    }

    pub(super) fn has(&self, granule: u64) -> bool {
        self.cache.has(self.key, granule)
    }

    /// Whether no more than `bytes` have to be decoded before a granule begins.
    pub(super) fn is_near(&self, checkpoint: &Checkpoint, granule: u64, bytes: u64) -> bool {
        let place = TarOffset(granule * GRANULE_BYTES);
        let from = TarOffset(place.0.saturating_sub(bytes).max(checkpoint.place.0));
        from == checkpoint.place || self.cache.suspended.stands_near(self.key, from, place)
    }

    #[cfg(test)]
    pub(super) fn forget_suspended(&self) {
        self.cache.suspended.remove_layer(self.key);
    }

    /// Marks a granule for who finds it first.
    pub(super) fn mark(&self, granule: u64) {
        self.cache.mark(self.key, granule);
    }

    /// The bytes as delivered.
    pub(super) fn blob(&self) -> &FileRange {
        &self.blob
    }

    /// A decoder that panics on hostile bytes has not decoded them: the process lives on.
    fn load(&self, granule: u64) -> Result<VerifiedChunk, Failure> {
        guarded(|| self.load_unguarded(granule))
    }

    /// Bytes that the cache may hold.
    pub(super) fn cache_bytes_max(&self) -> u64 {
        self.cache.bytes_max()
    }

    /// The span that a granule is decoded from; `None` when the index does not say.
    pub(super) fn span(&self, granule: u64) -> Option<u64> {
        Some(self.checkpoint(granule).ok()?.number)
    }

    fn load_unguarded(&self, granule: u64) -> Result<VerifiedChunk, Failure> {
        match self.index.encoding() {
            Encoding::Tar => {
                let (chunk, reads_on) = self.read_plain(granule)?;
                self.ask_for_next(granule, reads_on);
                Ok(chunk)
            }
            _ => match self.read_spilled(granule) {
                Some((chunk, reads_on)) => {
                    self.ask_for_next(granule, reads_on);
                    Ok(chunk)
                }
                None => self.decode(granule),
            },
        }
    }

    /// Has what comes behind a granule decoded, if somebody reads on.
    fn ask_for_next(&self, granule: u64, reads_on: bool) {
        if let (true, Some(follower)) = (reads_on, self.follower.get()) {
            follower.ask(granule + 1);
        }
    }

    /// One decoder per span at a time: who comes later finds the granule in the cache.
    fn decode(&self, granule: u64) -> Result<VerifiedChunk, Failure> {
        let checkpoint = self.checkpoint(granule)?;
        let clock = self.counts().start(Tier::Waited);
        let turn = match self.turns.take(checkpoint.number, || self.cached(granule)) {
            Waited::Turn(turn) => turn,
            Waited::Found(chunk) => {
                clock.stop();
                return Ok(chunk);
            }
        };
        // A long span may have more than the cache holds: it went through since.
        if checkpoint.is_long()
            && let Some(chunk) = self.spilled(granule)
        {
            return Ok(chunk);
        }
        let (chunk, reads_on) = self.decode_in_passing(&checkpoint, granule)?;
        drop(turn);
        self.ask_for_next(granule, reads_on);
        Ok(chunk)
    }

    /// Decodes a granule, and tells whether the one before had just been decoded: then somebody passes by, front to back.
    pub(super) fn decode_in_passing(
        &self,
        checkpoint: &Checkpoint,
        granule: u64,
    ) -> Result<(VerifiedChunk, bool), Failure> {
        let place = TarOffset(granule * GRANULE_BYTES);
        let reads_on = self.cache.suspended.stands_near(self.key, place, place);
        let chunk = self.decode_from(checkpoint, granule)?;
        // Of a long span it would be dear to decode again what somebody wants of it after all.
        if reads_on && !(checkpoint.is_long() && self.spill.is_none()) {
            self.cache.pass(self.key, granule);
        }
        Ok((chunk, reads_on))
    }

    /// Where the decoding of a granule begins.
    pub(super) fn checkpoint(&self, granule: u64) -> Result<Checkpoint, Failure> {
        let found = self.index.checkpoint(TarOffset(granule * GRANULE_BYTES));
        let found = found.map_err(|error| self.bad_index(&error))?;
        found.ok_or_else(|| Failure::Wrong("the index has no checkpoint".to_owned()))
    }

    pub(super) fn decode_from(
        &self,
        checkpoint: &Checkpoint,
        granule: u64,
    ) -> Result<VerifiedChunk, Failure> {
        let clock = self.counts().start(Tier::Decoded);
        let place = TarOffset(granule * GRANULE_BYTES);
        let restarts = self.restarts.load(Ordering::Acquire);
        let mut decoder = match self.cache.suspended.take(self.key, checkpoint.place, place) {
            Some(decoder) => {
                self.counts().decodes_continued.add(1);
                decoder
            }
            None => {
                self.counts().decodes_resumed.add(1);
                let window = self.index.window(checkpoint).map_err(|error| self.bad_index(&error))?;
                // Of a long span nobody knows how much is wanted.
                if !checkpoint.is_long() {
                    self.blob.await_bytes(bytes_of(checkpoint)).map_err(|source| self.io(source))?;
                }
                let resumed = Decoder::resume(self.index.encoding(), &self.blob, checkpoint, &window);
                resumed.map_err(|error| self.undecoded(error))?
            }
        };
        #[cfg(test)]
        self.decodes.fetch_add(1, Ordering::Relaxed);
        let chunk = self.decode_to(&mut decoder, granule, checkpoint.place);
        // Even of wrong bytes it goes on as one would that begins again, if it came so far.
        let end = (granule + 1) * GRANULE_BYTES;
        if decoder.position().0 == end && end < self.index.tar_bytes() {
            let is_current = || self.restarts.load(Ordering::Acquire) == restarts;
            self.cache.suspended.keep(self.key, decoder, is_current);
        }
        chunk.inspect(|_| clock.stop())
    }

    /// Decodes up to the end of `granule`; whole granules on the way are verified and kept. `start` is where decoding would
    /// have to begin again.
    fn decode_to(
        &self,
        decoder: &mut Decoder,
        granule: u64,
        start: TarOffset,
    ) -> Result<VerifiedChunk, Failure> {
        loop {
            let position = decoder.position().0;
            let now = position / GRANULE_BYTES;
            let is_whole = position.is_multiple_of(GRANULE_BYTES);
            let skip = usize::try_from(position % GRANULE_BYTES).unwrap_or(0);
            let len = self.granule_len(now).saturating_sub(skip);
            let mut bytes = self.cache.buffer(len);
            let read = decoder.read(&mut bytes).map_err(|error| self.undecoded(error))?;
            self.counts().decoded_bytes.add(read as u64);
            if read < len || len == 0 || now > granule {
                return Err(Failure::Wrong("decoding ends too early".to_owned()));
            }
            if is_whole {
                // A wrong one on the way is for its own readers to hear of: what is behind it may be right.
                let is_wanted = now == granule;
                let verified = if is_wanted { self.verify(now, bytes) } else { self.compare(now, bytes) };
                if let (Some(spill), Ok(chunk)) = (&self.spill, &verified) {
                    spill.decoded(now, &chunk.0, position.saturating_sub(start.0));
                }
                if is_wanted {
                    return verified;
                }
            } else {
                self.cache.give_back(bytes);
            }
        }
    }

    /// How many decoders are suspended, and the memory that they hold on to.
    pub(super) fn suspended(&self) -> (u64, u64) {
        self.cache.suspended.held(self.key)
    }

    pub(super) fn granule_len(&self, granule: u64) -> usize {
        let rest = self.index.tar_bytes().saturating_sub(granule.saturating_mul(GRANULE_BYTES));
        usize::try_from(rest.min(GRANULE_BYTES)).unwrap_or(0)
    }

    /// What somebody waits for.
    pub(super) fn verify(&self, granule: u64, bytes: Vec<u8>) -> Result<VerifiedChunk, Failure> {
        let verified = self.compare(granule, bytes);
        if let Err(Failure::Wrong(_)) = verified {
            self.counts().mismatches.add(1);
        }
        verified
    }

    /// The only place where bytes become a [`VerifiedChunk`].
    fn compare(&self, granule: u64, bytes: Vec<u8>) -> Result<VerifiedChunk, Failure> {
        let expected = self.index.granule_digest(granule).map_err(|error| self.bad_index(&error))?;
        if bytes.len() != self.granule_len(granule) || *blake3::hash(&bytes).as_bytes() != expected {
            return Err(Failure::Wrong("the bytes do not have the digest that the index says".to_owned()));
        }
        self.counts().verified_bytes.add(bytes.len() as u64);
        let bytes = Arc::new(bytes);
        self.cache.put(self.key, granule, Arc::clone(&bytes));
        Ok(VerifiedChunk(bytes))
    }

    fn corrupt(&self, offset: u64, reason: &str) -> LayerError {
        let (diff_id, place) = (self.index.diff_id(), Place::Tar(TarOffset(offset)));
        LayerError::Corrupt { diff_id, place, reason: reason.to_owned() }
    }

    /// A blob that cannot be read says nothing about its bytes.
    fn undecoded(&self, error: DecodeError) -> Failure {
        match error {
            DecodeError::Io(source) => Failure::Layer(self.io(source)),
            error => Failure::Wrong(error.to_string()),
        }
    }

    pub(super) fn io(&self, source: std::io::Error) -> LayerError {
        LayerError::Io { layer: self.index.diff_id().to_string(), source }
    }

    fn bad_index(&self, error: &IndexError) -> LayerError {
        bad_index(self.index.diff_id(), EntryId(0), error)
    }
}

/// What panics has failed.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode));
    decoded.unwrap_or_else(|_| Err(Failure::Wrong("the decoder panicked".to_owned())))
}

impl Drop for ChunkReader {
    fn drop(&mut self) {
        self.cache.remove_layer(self.key);
    }
}

/// An index that turned out to be damaged, as an error of the layer.
pub(super) fn bad_index(diff_id: Digest, entry: EntryId, error: &IndexError) -> LayerError {
    let layer = diff_id.to_string();
    let reason = match error {
        IndexError::Stale { reason, .. } => reason,
        _ => "the index cannot be read",
    };
    LayerError::BadEntry { layer, entry, reason }
}
