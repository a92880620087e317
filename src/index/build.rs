//! Builds an index in one pass over the blob; holds the index that becomes of it and a few MiB, never the content.
//!
//! ```text
//! read + sha256(blob) -> decode + crc32 -+-> sha256(diffID), blake3 of granules
//!                           |            +-> tar parser -> tree
//!                           +-> checkpoints -> windows reduced and packed
//! ```
//!
//! Every box is a thread, every arrow a bounded channel. A stage that fails hangs up; those before it then stop, and
//! those behind it see a short stream, so of several errors the one nearest to the blob counts.

use std::io::{self, BufRead as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use super::IndexError;
use super::decode::{self, Halt};
use super::encoding::Encoding;
use super::format::{GRANULE_BYTES, SpanRecord};
use super::source::DecodeError;
use super::stream::{self, CHUNK_BYTES, CHUNKS_AHEAD, Chunk, ChunkReader};
use super::tar::{self, TarError};
use super::tree::{NameOf, Tree};
use super::window::{Found, Reducer};
use super::write::{self, Facts};
use crate::model::Digest;
use crate::model::limits::LAYER_BYTES_MAX;
use crate::sys::atomic::TempFile;
use crate::sys::file_range::FileRange;

/// What the windows of a layer may take besides as much as its blob: they are 1 % of it, but a blob that repeats 32 KiB of
/// noise for a terabyte asks for fifty times as much as it has.
const WINDOW_HEAP_BYTES_MIN: u64 = 64 << 20;

/// What the bytes must hash to, as far as the image says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// As delivered.
    pub blob: Option<Digest>,
    /// Uncompressed.
    pub diff_id: Option<Digest>,
}

/// Builds the index of `blob` and publishes it as `file_name` in `directory`. `progress` is told now and then how many
/// bytes of the blob were read so far.
///
/// # Errors
/// [`IndexError`]; then nothing was published.
pub fn build(
    blob: &FileRange,
    expected: &Expected,
    directory: &Path,
    file_name: &str,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), IndexError> {
    let path = || blob.path().to_owned();
    let mut start = [0; Encoding::SNIFF_BYTES];
    let len = blob.read_at(0, &mut start).map_err(|source| IndexError::Io { path: path(), source })?;
    let encoding = Encoding::of(&start[..len]);
    let built = pass(blob, encoding, progress).map_err(|error| blame(blob, encoding, expected, error))?;
    let facts = &built.facts;
    let digests =
        [("blob digest", expected.blob, facts.blob_digest), ("diffID", expected.diff_id, facts.diff_id)];
    for (what, expected, found) in digests {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(IndexError::Mismatch { path: path(), what, expected, found });
        }
    }
    let target = directory.join(file_name);
    publish(&built, &target, directory).map_err(|source| IndexError::Io { path: target, source })
}

/// Bytes that make no sense and are not those that the image names: that is what to say, for a new copy helps.
fn blame(blob: &FileRange, encoding: Encoding, expected: &Expected, error: IndexError) -> IndexError {
    let promised = expected.blob.or(expected.diff_id.filter(|_| encoding == Encoding::Tar));
    let (Some(expected), IndexError::Encoded { .. } | IndexError::Tar { .. }) = (promised, &error) else {
        return error;
    };
    match digest(blob) {
        Ok(found) if found != expected => {
            IndexError::Mismatch { path: blob.path().to_owned(), what: "blob digest", expected, found }
        }
        Ok(_) => error,
        Err(source) => IndexError::Io { path: blob.path().to_owned(), source },
    }
}

fn digest(blob: &FileRange) -> io::Result<Digest> {
    let (mut sha256, mut reader) = (Sha256::new(), io::BufReader::with_capacity(CHUNK_BYTES, blob.reader()));
    loop {
        let count = reader.fill_buf()?.len();
        if count == 0 {
            return Ok(Digest::from_bytes(sha256.finalize().into()));
        }
        sha256.update(reader.buffer());
        reader.consume(count);
    }
}

fn publish(built: &Built, target: &Path, directory: &Path) -> io::Result<()> {
    let mut temp = TempFile::create_in(directory)?;
    let mut file = io::BufWriter::new(temp.file());
    write::write(&mut file, &built.facts, &built.tree, &built.names)?;
    io::Write::flush(&mut file)?;
    drop(file);
    temp.publish(target, 0o644)
}

/// What one pass over a blob finds.
struct Built {
    facts: Facts,
    tree: Tree,
    names: Vec<NameOf>,
}

fn pass(blob: &FileRange, encoding: Encoding, progress: &(dyn Fn(u64) + Sync)) -> Result<Built, IndexError> {
    let (raw, raw_ahead) = sync_channel(CHUNKS_AHEAD);
    let (to_hash, hash_ahead) = sync_channel(CHUNKS_AHEAD);
    let (to_tar, tar_ahead) = sync_channel(CHUNKS_AHEAD);
    let (to_windows, windows_ahead) = sync_channel(CHUNKS_AHEAD);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(blob, &raw, progress));
        let hasher = scope.spawn(move || hash(&hash_ahead, encoding));
        let parser = scope.spawn(move || parse(tar_ahead));
        let windows = scope.spawn(move || pack_windows(blob, &windows_ahead));
        let raw = ChunkReader::new(raw_ahead);
        let mut send = |chunk: Chunk| {
            let hash = to_hash.send(chunk.clone());
            hash.and_then(|()| to_tar.send(chunk)).map_err(|_| Halt::Stopped)
        };
        // A decoder that panics on hostile bytes has not decoded them.
        let decode = AssertUnwindSafe(|| decode::all(encoding, raw, &mut send, &to_windows));
        let decoded = panic::catch_unwind(decode).unwrap_or(Err(Halt::Panicked));
        // Hang up, so that the stages behind come to their end.
        drop((to_hash, to_tar, to_windows));

        let io = |source| IndexError::Io { path: blob.path().to_owned(), source };
        let read = join(reader).map_err(io)?;
        let hashes = join(hasher).map_err(io)?;
        let parsed = join(parser).map_err(io)?;
        let packed = join(windows).map_err(io)?;
        let blob_digest = read.map_err(io)?;
        check_decoded(blob, encoding, decoded)?;
        // Before the parser's word: when this stage ends the stream, the tar is only cut off because of it.
        let (spans, windows) = packed.map_err(io)?;
        let (tree, names) = parsed.map_err(|error| IndexError::Tar {
            path: blob.path().to_owned(),
            offset: error.offset,
            name: error.name,
            reason: error.reason,
        })?;
        let facts = Facts {
            encoding: encoding.number(),
            blob_digest,
            diff_id: hashes.diff_id.unwrap_or(blob_digest),
            blob_bytes: blob.len(),
            tar_bytes: hashes.bytes,
            granules: hashes.granules,
            spans,
            windows,
        };
        Ok(Built { facts, tree, names })
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a thread of the index build panicked"))
}

fn check_decoded(blob: &FileRange, encoding: Encoding, decoded: Result<(), Halt>) -> Result<(), IndexError> {
    let (path, encoding) = (blob.to_path_buf(), encoding.name());
    match decoded {
        // Stopped: because of another stage, whose own error is reported.
        Ok(()) | Err(Halt::Stopped) => Ok(()),
        Err(Halt::Bad(DecodeError::Io(source))) => Err(IndexError::Io { path, source }),
        Err(Halt::Bad(DecodeError::Bad { offset, reason })) => {
            Err(IndexError::Encoded { path, encoding, offset, reason })
        }
        Err(Halt::Panicked) => {
            let reason = "the decoder panicked".to_owned();
            Err(IndexError::Encoded { path, encoding, offset: 0, reason })
        }
        Err(Halt::TooLong) => {
            Err(IndexError::Limit { path, limit: LAYER_BYTES_MAX, unit: "uncompressed bytes" })
        }
    }
}

/// First stage: the blob's bytes and digest.
fn read(blob: &FileRange, to: &SyncSender<Chunk>, progress: &(dyn Fn(u64) + Sync)) -> io::Result<Digest> {
    let mut sha256 = Sha256::new();
    stream::send(blob, to, &mut |chunk| sha256.update(chunk), progress)?;
    // Of a part only when the next stage has failed: nobody will look at it then.
    Ok(Digest::from_bytes(sha256.finalize().into()))
}

/// What the hashing stage finds.
struct Hashes {
    /// `None` for a plain tar, where it is the blob's.
    diff_id: Option<Digest>,
    granules: Vec<[u8; 32]>,
    bytes: u64,
}

fn hash(chunks: &Receiver<Chunk>, encoding: Encoding) -> Hashes {
    let mut sha256 = (encoding != Encoding::Tar).then(Sha256::new);
    let mut granules = Vec::new();
    let mut granule = blake3::Hasher::new();
    let mut bytes = 0_u64;
    for chunk in chunks {
        if let Some(sha256) = &mut sha256 {
            sha256.update(&chunk[..]);
        }
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let room = GRANULE_BYTES - bytes % GRANULE_BYTES;
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            granule.update(&rest[..count]);
            bytes += count as u64;
            rest = &rest[count..];
            if bytes.is_multiple_of(GRANULE_BYTES) {
                granules.push(*granule.finalize().as_bytes());
                granule.reset();
            }
        }
    }
    if !bytes.is_multiple_of(GRANULE_BYTES) {
        granules.push(*granule.finalize().as_bytes());
    }
    let diff_id = sha256.map(|sha256| Digest::from_bytes(sha256.finalize().into()));
    Hashes { diff_id, granules, bytes }
}

fn parse(chunks: Receiver<Chunk>) -> Result<(Tree, Vec<NameOf>), TarError> {
    let mut tree = Tree::new();
    let mut reader = ChunkReader::new(chunks);
    tar::read(&mut reader, &mut |path, attributes, body| tree.apply(path, attributes, body))?;
    // What follows the archive still counts for the diffID, so it has to come through.
    reader.drain();
    let names = tree.finish();
    let names = names.map_err(|reason| TarError { offset: 0, name: Vec::new(), reason })?;
    Ok((tree, names))
}

fn pack_windows(blob: &FileRange, found: &Receiver<Found>) -> io::Result<(Vec<SpanRecord>, Vec<u8>)> {
    let mut reducer = Reducer::new(blob.clone())?;
    let (mut spans, mut windows) = (Vec::new(), Vec::new());
    let bytes_max = blob.len().saturating_add(WINDOW_HEAP_BYTES_MIN);
    for found in found {
        let packed = reducer.pack(&found)?;
        if (windows.len() as u64).saturating_add(packed.len() as u64) > bytes_max {
            return Err(io::Error::other("its checkpoints would need more space than the layer itself"));
        }
        spans.push(SpanRecord {
            tar_offset: found.tar_offset.into(),
            blob_offset: found.blob_offset.into(),
            window: (windows.len() as u64).into(),
            window_len: u32::try_from(packed.len()).map_err(io::Error::other)?.into(),
            window_bytes: u16::try_from(found.window.len()).map_err(io::Error::other)?.into(),
            bits: found.bits,
            reserved: 0,
        });
        windows.extend_from_slice(&packed);
    }
    Ok((spans, windows))
}
