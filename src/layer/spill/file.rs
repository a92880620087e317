//! One spill file, version 1. This file is the format.
//!
//! ```text
//! 0            content    granule n of the uncompressed layer at n * GRANULE_BYTES; a hole where it is not kept
//! M            map        one byte for each granule: see `State`; M is the layer's length, rounded up to BLOCK_BYTES
//! M + n        footer     FooterRecord, the last FOOTER_BYTES of the file
//! ```
//!
//! The file is called by the 64 hex digits of the layer's diffID. Several processes read and write it at the same time,
//! each by pread(2) and pwrite(2): the map has a byte for each granule, and not a bit, because a byte can be changed
//! without reading its neighbours first, which another process may be changing. Content is written before its byte in the
//! map, and nothing is flushed.
//!
//! Nothing in it is trusted. Content is checked against the layer's index by who reads it; a wrong map makes something be
//! decoded that was there, or look for something that was not; a wrong footer, or another length than the footer says,
//! makes it no spill file, and it is made again. It may be cut off, overwritten or deleted at any time, also while it is
//! in use: it is never mapped.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::index::GRANULE_BYTES;
use crate::model::Digest;
use crate::model::limits::LAYER_BYTES_MAX;
use crate::sys::files;

/// The first bytes of every footer.
const MAGIC: [u8; 8] = *b"layerspl";
/// Grows with every change to anything in this file.
const VERSION: u32 = 1;
/// What holes are made of: the map begins behind the last block of the content, so that none is both.
const BLOCK_BYTES: u64 = 4096;
/// Map bytes looked at in one go.
const MAP_PIECE_BYTES: u64 = 64 << 10;

/// The end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FooterRecord {
    magic: [u8; 8],
    version: U32,
    granule_bytes: U32,
    diff_id: [u8; 32],
    tar_bytes: U64,
    /// Where the next eviction begins: a granule. The only field that changes.
    hand: U64,
}

/// Size of [`FooterRecord`].
const FOOTER_BYTES: u64 = 64;
/// Where in it the hand is.
const HAND_OFFSET: u64 = 56;

const _: () = {
    assert!(size_of::<FooterRecord>() == 64);
    assert!(std::mem::offset_of!(FooterRecord, diff_id) == 16);
    assert!(std::mem::offset_of!(FooterRecord, tar_bytes) == 48);
    assert!(std::mem::offset_of!(FooterRecord, hand) == 56);
};

/// What the map says of a granule. Any other byte is read as [`State::Absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known.
    Absent = 0,
    /// It is not here, but it was decoded once.
    Seen = 1,
    /// It is here, and was not asked for since eviction last came by.
    Kept = 2,
    /// It is here, and was asked for.
    Used = 3,
}

impl State {
    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Seen,
            2 => Self::Kept,
            3 => Self::Used,
            _ => Self::Absent,
        }
    }

    pub(super) fn is_here(self) -> bool {
        matches!(self, Self::Kept | Self::Used)
    }
}

/// Which layer's granules a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerId {
    pub(super) diff_id: Digest,
    pub(super) tar_bytes: u64,
}

impl LayerId {
    pub(super) fn granules(self) -> u64 {
        self.tar_bytes.div_ceil(GRANULE_BYTES)
    }

    fn map_start(self) -> u64 {
        self.tar_bytes.next_multiple_of(BLOCK_BYTES)
    }

    fn footer_start(self) -> u64 {
        self.map_start() + self.granules()
    }

    fn file_bytes(self) -> u64 {
        self.footer_start() + FOOTER_BYTES
    }

    fn footer(self) -> FooterRecord {
        FooterRecord {
            magic: MAGIC,
            version: VERSION.into(),
            granule_bytes: u32::try_from(GRANULE_BYTES).unwrap_or(0).into(),
            diff_id: *self.diff_id.as_bytes(),
            tar_bytes: self.tar_bytes.into(),
            hand: 0.into(),
        }
    }

    fn granule_len(self, granule: u64) -> u64 {
        self.tar_bytes.saturating_sub(granule.saturating_mul(GRANULE_BYTES)).min(GRANULE_BYTES)
    }
}

/// An open spill file.
#[derive(Debug)]
pub(super) struct SpillFile {
    file: File,
    layer: LayerId,
}

impl SpillFile {
    /// The file called `name` in `dir`; `None` when it is no spill file, `Err(NOENT)` when there is none.
    pub(super) fn open(dir: BorrowedFd<'_>, name: &str) -> Result<Option<Self>, Errno> {
        // NONBLOCK: whatever was put there, opening it must not wait.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match files::openat(dir, name, flags | OFlags::RDWR, Mode::empty()) {
            Err(Errno::ROFS | Errno::ACCESS) => files::openat(dir, name, flags, Mode::empty()),
            other => other,
        };
        let file = match opened {
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(None),
            other => File::from(other?),
        };
        let stat = stat(&file)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Ok(None);
        }
        let mut footer = [0; 64];
        let Some(at) = stat.stx_size.checked_sub(FOOTER_BYTES) else { return Ok(None) };
        if files::read_full_at(&file, &mut footer, at)? < footer.len() {
            return Ok(None);
        }
        let Ok(footer) = FooterRecord::read_from_bytes(&footer) else { return Ok(None) };
        let layer =
            LayerId { diff_id: Digest::from_bytes(footer.diff_id), tar_bytes: footer.tar_bytes.get() };
        let is_whole = layer.tar_bytes <= LAYER_BYTES_MAX
            && FooterRecord { hand: 0.into(), ..footer } == layer.footer()
            && layer.file_bytes() == stat.stx_size;
        Ok((is_whole && layer.diff_id.hex() == name).then_some(Self { file, layer }))
    }

    /// An empty one, in place of whatever has the name. For who holds the directory's lock.
    pub(super) fn create(dir: BorrowedFd<'_>, layer: LayerId) -> Result<Self, Errno> {
        let name = layer.diff_id.hex();
        match files::unlinkat(dir, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(files::openat(dir, &*name, flags, Mode::RUSR | Mode::WUSR)?);
        let made = Self { file, layer }.filled();
        if made.is_err() {
            files::unlinkat(dir, &*name, AtFlags::empty())?;
        }
        made
    }

    fn filled(self) -> Result<Self, Errno> {
        // Where no holes can be made, a file as long as the layer would be as large as the layer.
        self.punch(0, GRANULE_BYTES)?;
        files::ftruncate(&self.file, self.layer.file_bytes())?;
        files::write_all_at(&self.file, self.layer.footer().as_bytes(), self.layer.footer_start())?;
        Ok(self)
    }

    pub(super) fn layer(&self) -> LayerId {
        self.layer
    }

    /// Whether it still has a name, and its length.
    pub(super) fn is_whole(&self) -> Result<bool, Errno> {
        let stat = stat(&self.file)?;
        Ok(stat.stx_nlink > 0 && stat.stx_size == self.layer.file_bytes())
    }

    pub(super) fn state(&self, granule: u64) -> Result<State, Errno> {
        let mut byte = [0];
        let count = files::read_full_at(&self.file, &mut byte, self.layer.map_start() + granule)?;
        Ok(if count == 1 { State::of(byte[0]) } else { State::Absent })
    }

    pub(super) fn set_state(&self, granule: u64, state: State) -> Result<(), Errno> {
        files::write_all_at(&self.file, &[state as u8], self.layer.map_start() + granule)
    }

    /// Fills `bytes` from the place of a granule, of which nobody knows whether it is the granule; whether there is as much.
    pub(super) fn read(&self, granule: u64, bytes: &mut [u8]) -> Result<bool, Errno> {
        let count = files::read_full_at(&self.file, bytes, granule * GRANULE_BYTES)?;
        Ok(count == bytes.len())
    }

    /// Keeps a granule. What of it found no place is taken away again.
    pub(super) fn keep(&self, granule: u64, bytes: &[u8]) -> Result<(), Errno> {
        let written = files::write_all_at(&self.file, bytes, granule * GRANULE_BYTES);
        match written.and_then(|()| self.set_state(granule, State::Kept)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.drop_content(granule)?;
                Err(error)
            }
        }
    }

    /// Forgets a granule and frees its place.
    pub(super) fn drop_granule(&self, granule: u64) -> Result<(), Errno> {
        self.set_state(granule, State::Absent)?;
        self.drop_content(granule)
    }

    fn drop_content(&self, granule: u64) -> Result<(), Errno> {
        let start = granule * GRANULE_BYTES;
        let len = self.layer.granule_len(granule).next_multiple_of(BLOCK_BYTES);
        if len == 0 { Ok(()) } else { self.punch(start, len) }
    }

    fn punch(&self, start: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        files::fallocate(&self.file, mode, start, len)
    }

    /// Gives granules a second chance, or drops those that had it, from where the last time ended; until `wanted` bytes
    /// are free or all granules were seen. Returns how many bytes are free now that were not.
    pub(super) fn evict(&self, wanted: u64) -> Result<u64, Errno> {
        let granules = self.layer.granules();
        let mut hand = [0; 8];
        files::read_full_at(&self.file, &mut hand, self.layer.footer_start() + HAND_OFFSET)?;
        let hand = u64::from_le_bytes(hand).checked_rem(granules).unwrap_or(0);
        let mut freed = 0;
        let mut stopped = hand;
        for range in [hand..granules, 0..hand] {
            stopped = self.evict_in(range, wanted, &mut freed)?;
            if freed >= wanted {
                break;
            }
        }
        files::write_all_at(&self.file, &stopped.to_le_bytes(), self.layer.footer_start() + HAND_OFFSET)?;
        Ok(freed)
    }

    /// Returns the granule at which it stopped.
    fn evict_in(&self, range: std::ops::Range<u64>, wanted: u64, freed: &mut u64) -> Result<u64, Errno> {
        let mut piece = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(MAP_PIECE_BYTES);
            piece.resize(usize::try_from(len).unwrap_or(0), 0);
            let count = files::read_full_at(&self.file, &mut piece, self.layer.map_start() + at)?;
            for (granule, byte) in (at..).zip(&piece[..count]) {
                match State::of(*byte) {
                    State::Absent | State::Seen => {}
                    State::Used => self.set_state(granule, State::Kept)?,
                    State::Kept => {
                        self.drop_granule(granule)?;
                        *freed += self.layer.granule_len(granule);
                    }
                }
                if *freed >= wanted {
                    return Ok(granule + 1);
                }
            }
            at += len;
        }
        Ok(range.end)
    }
}

fn stat(file: impl AsFd) -> Result<Statx, Errno> {
    let mask = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::NLINK;
    files::statx(file, c"", AtFlags::EMPTY_PATH, mask)
}
