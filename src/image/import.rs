//! Archives that are compressed as a whole (`docker save | gzip`): decompressed once into the store, in a single pass.
//!
//! Which file it is, and whether it is still the same, is told by what stat(2) says and by both its ends, in which all
//! compressors keep checksums: so a known one is found without reading it. What is not a tar of an image is refused before
//! it is kept, most of it after its first block.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::archive::begins_tar;
use super::{Archive, ImageError, Sought, write};
use crate::index::{Encoding, decompress};
use crate::model::Digest;
use crate::model::limits::LAYER_BYTES_MAX;
use crate::store::{ImportKey, Imports, NewImport, Store, StoreError, Turn};
use crate::sys::file_range::FileRange;
use crate::sys::sealed::SealedFile;

/// What is not used for so long goes when the next one comes.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// What an archive may take however small it is: a layer of zeros is a thousandth of itself.
const BYTES_ANYWAY: u64 = 4 << 30;
/// Beyond that, how often its compressed size: images have 2 to 10, those with large sparse files more.
const RATIO_MAX: u64 = 200;
/// Both ends of the file that are looked at.
const END_BYTES: usize = 4096;
/// Times of files move in steps of a clock tick, 10 ms at most. A change in the same tick as the last one is not seen.
const TICK: Duration = Duration::from_millis(20);

/// How the file is compressed, told by its first bytes.
pub(super) fn encoding_of(file: &FileRange) -> Result<Encoding, ImageError> {
    write::encoding_of(file).map_err(ImageError::io("read", file.path()))
}

/// The tar that is in `file`, from the store if it is there, under the name of `file`. `check` refuses what is no image.
pub(super) fn tar_in(
    file: &FileRange,
    encoding: Encoding,
    store: &Store,
    sought: &Sought,
    check: &dyn Fn(&Archive) -> Result<(), ImageError>,
) -> Result<FileRange, ImageError> {
    let bytes_max = bytes_max(file.len());
    Import { file, encoding, imports: store.imports(), sought, bytes_max }.tar(check)
}

/// One file on its way into the store.
pub(super) struct Import<'a> {
    pub(super) file: &'a FileRange,
    pub(super) encoding: Encoding,
    pub(super) imports: Imports,
    pub(super) sought: &'a Sought,
    /// What may come out of it.
    pub(super) bytes_max: u64,
}

impl Import<'_> {
    pub(super) fn tar(
        &self,
        check: &dyn Fn(&Archive) -> Result<(), ImageError>,
    ) -> Result<FileRange, ImageError> {
        let key = self.key()?;
        let tar = match self.imports.find(&key).map_err(self.failed())? {
            Some(tar) => tar,
            None => self.make(&key, check)?,
        };
        Ok(FileRange::stand_in(tar, self.file.path()))
    }

    fn make(
        &self,
        key: &ImportKey,
        check: &dyn Fn(&Archive) -> Result<(), ImageError>,
    ) -> Result<SealedFile, ImageError> {
        self.imports.clean(Some(key), UNUSED).map_err(self.failed())?;
        self.settle()?;
        let key = &self.key()?;
        let mut import = match self.imports.turn(key).map_err(self.failed())? {
            Turn::Done(tar) => return Ok(tar),
            Turn::Ours(import) => import,
        };
        self.decompress(&mut import)?;
        if self.key()?.state != key.state {
            return Err(self.refused("it was changed while it was read"));
        }
        let tar = import.sealed().map_err(self.failed())?;
        check(&Archive::of(FileRange::stand_in(tar, self.file.path()))?)?;
        import.publish().map_err(self.failed())?;
        let gone = || self.refused("what was decompressed was removed from the store at once");
        self.imports.find(key).map_err(self.failed())?.ok_or_else(gone)
    }

    fn decompress(&self, import: &mut NewImport) -> Result<(), ImageError> {
        let limit = self.bytes_max;
        let target = import.target().to_owned();
        let mut bytes = 0_u64;
        let mut stopped = None;
        let mut take = |chunk: &[u8]| {
            let is_first = bytes == 0 && !chunk.is_empty();
            bytes += chunk.len() as u64;
            let taken = if is_first && !begins_tar(chunk) {
                Err(self.refused("what is in it is no tar archive"))
            } else if bytes > limit {
                let (path, what) = (self.file.to_path_buf(), self.limited());
                Err(ImageError::Limit { path, what, count: bytes, limit })
            } else {
                let write = |source| StoreError::Io { action: "write", path: target.clone(), source };
                import.write_all(chunk).map_err(write).map_err(self.failed())
            };
            match taken {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    stopped = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let total = self.file.len();
        let progress = |done| {
            if let Some(progress) = &self.sought.progress {
                progress.decompressed(done, total);
            }
        };
        let decoded = decompress(self.file, self.encoding, &mut take, &progress);
        if let Some(error) = stopped {
            return Err(error);
        }
        decoded.map_err(|error| ImageError::undecoded(self.file.path(), self.encoding, error))?;
        match bytes {
            0 => Err(self.refused("nothing is in it")),
            _ => Ok(()),
        }
    }

    /// Which file it is, and in which state.
    fn key(&self) -> Result<ImportKey, ImageError> {
        let io = |source| ImageError::io("read", self.file.path())(source);
        let stat = self.file.metadata().map_err(io)?;
        let mut file = Sha256::new();
        for number in [stat.dev(), stat.ino()] {
            file.update(number.to_le_bytes());
        }
        let mut state = file.clone();
        state.update(stat.size().to_le_bytes());
        for number in [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()] {
            state.update(number.to_le_bytes());
        }
        let mut end = [0; END_BYTES];
        for position in [0, self.file.len().saturating_sub(END_BYTES as u64)] {
            let count = self.file.read_at(position, &mut end).map_err(io)?;
            state.update(&end[..count]);
        }
        let digest = |hash: Sha256| Digest::from_bytes(hash.finalize().into());
        Ok(ImportKey { file: digest(file), state: digest(state) })
    }

    /// Waits until a change of the file would be seen in its times.
    fn settle(&self) -> Result<(), ImageError> {
        let stat = self.file.metadata().map_err(ImageError::io("read", self.file.path()))?;
        let changed = Duration::new(
            u64::try_from(stat.ctime()).unwrap_or_default(),
            u32::try_from(stat.ctime_nsec()).unwrap_or_default(),
        );
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed).unwrap_or_default();
        thread::sleep(TICK.saturating_sub(since));
        Ok(())
    }

    /// What to run instead.
    fn command(&self) -> String {
        let tool = match self.encoding {
            Encoding::Zstd => "zstd -dc",
            Encoding::Xz => "xz -dc",
            Encoding::Bzip2 => "bzip2 -dc",
            Encoding::Gzip | Encoding::Tar => "gzip -dc",
        };
        // As a shell takes it: it will be pasted there.
        let path = self.file.path().display().to_string();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte);
        match path.bytes().all(is_plain) {
            true => format!("{tool} {path} >NEW.tar"),
            false => format!("{tool} '{}' >NEW.tar", path.replace('\'', r"'\''")),
        }
    }

    fn limited(&self) -> String {
        format!(
            "bytes that come out of {} bytes of {}; if it is to be trusted, run `{}` and use NEW.tar",
            self.file.len(),
            self.encoding.name(),
            self.command()
        )
    }

    fn refused(&self, reason: &str) -> ImageError {
        let reason = format!("compressed with {}, and {reason}", self.encoding.name());
        ImageError::NotAnImage { path: self.file.to_path_buf(), reason }
    }

    fn failed(&self) -> impl Fn(StoreError) -> ImageError + '_ {
        |source| ImageError::NotImported {
            path: self.file.to_path_buf(),
            format: self.encoding.name(),
            command: self.command(),
            source: Box::new(source),
        }
    }
}

pub(in crate::image) fn bytes_max(compressed: u64) -> u64 {
    compressed.saturating_mul(RATIO_MAX).clamp(BYTES_ANYWAY, LAYER_BYTES_MAX)
}
