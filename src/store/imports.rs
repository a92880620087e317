//! Archives that were compressed as a whole, decompressed: `imported/<file>-<state>`.
//!
//! The name says of which file, and in which state, so a file that was changed is another one. Nothing in here is needed:
//! whatever is missing or damaged is made again from the file that the user has. An import is a temporary file, locked (flock(2)) by who
//! writes it, until it is complete and flushed; then it is renamed. Who reads one holds a shared lock on it. So what a
//! killed process left is known by nobody's lock, and who comes second waits for the first.

use std::fs::{DirBuilder, File, FileTimes, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::StoreError;
use crate::model::Digest;
use crate::sys::atomic::{self, TEMP_PREFIX, TempFile};
use crate::sys::sealed::{SealedFile, Sealer};

/// Who waits for another's import looks this often whether it is done.
const PAUSE: Duration = Duration::from_millis(50);
/// An import that has not grown for so long will not be waited for: its process may be stopped. Flushing takes part of it.
const STALLED: Duration = Duration::from_secs(60);
/// Who only tests a lock holds it for microseconds.
const TEST: Duration = Duration::from_millis(200);
/// Digits that say which file it is: only equal files have to be equal.
const FILE_DIGITS: usize = 16;

/// The directory of imports.
#[derive(Clone, Debug)]
pub struct Imports {
    dir: PathBuf,
}

/// What an import is of.
#[derive(Clone, Copy, Debug)]
pub struct ImportKey {
    /// Which file it is.
    pub file: Digest,
    /// In which state.
    pub state: Digest,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// It is to be made.
    Ours(NewImport),
    /// Somebody else made it meanwhile.
    Done(SealedFile),
}

/// An import that is being made: gone when dropped, unless published.
#[derive(Debug)]
pub struct NewImport {
    temp: Temp,
    target: PathBuf,
    /// `None` when the seal is written.
    sealer: Option<Sealer>,
}

#[derive(Debug)]
enum Temp {
    /// The one that others wait for.
    Shared(SharedTemp),
    /// Beside somebody who makes no progress, or where there are no locks.
    Own(TempFile),
}

/// A temporary file under a known name, locked.
#[derive(Debug)]
struct SharedTemp {
    file: File,
    path: PathBuf,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Complete imports.
    pub imports: u64,
    /// What was left of incomplete ones.
    pub temporaries: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl Imports {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The import of that file in that state, if there is one. It counts as used now, and as in use while the file is open.
    /// One without its seal is none, and removed.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub fn find(&self, key: &ImportKey) -> Result<Option<SealedFile>, StoreError> {
        let path = self.path(key);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(StoreError::io("open", &path))?,
        };
        let since = Instant::now();
        // Without the lock it may be removed meanwhile, which only means to make it again the next time.
        while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) && since.elapsed() < TEST {
            thread::sleep(Duration::from_millis(1));
        }
        let used = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        if let Err(error) = used {
            tracing::debug!("{}: {error}", path.display());
        }
        let io = |source| StoreError::Io { action: "read", path: path.clone(), source };
        let again = file.try_clone().map_err(io)?;
        let sealed = SealedFile::of(file, &path).map_err(io)?;
        if sealed.is_none() && is_at(&again, &path).map_err(io)? {
            tracing::warn!("{}: its seal is damaged: it is made again", path.display());
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(sealed)
    }

    /// Waits while somebody else makes the import and gets on with it; else it is the caller's turn.
    ///
    /// # Errors
    /// When nothing can be written here.
    pub fn turn(&self, key: &ImportKey) -> Result<Turn, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(StoreError::io("create", &self.dir))?;
        let target = self.path(key);
        let path = self.dir.join(format!("{TEMP_PREFIX}{}", name(key)));
        let io = |source| StoreError::Io { action: "create", path: path.clone(), source };
        let (mut grown, mut since) = (0, Instant::now());
        loop {
            if let Some(file) = self.find(key)? {
                return Ok(Turn::Done(file));
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(io)?;
            match file.try_lock() {
                // Who had the lock may have renamed or removed it meanwhile.
                Ok(()) if !is_at(&file, &path).map_err(io)? => continue,
                Ok(()) => {
                    let temp = SharedTemp { file, path };
                    // Published between our look and our making a new temporary file, which goes with `temp`.
                    if let Some(file) = self.find(key)? {
                        return Ok(Turn::Done(file));
                    }
                    temp.file.set_len(0).map_err(|source| StoreError::Io {
                        action: "create",
                        path: temp.path.clone(),
                        source,
                    })?;
                    return Ok(Turn::Ours(NewImport {
                        temp: Temp::Shared(temp),
                        target,
                        sealer: Some(Sealer::default()),
                    }));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("lock {}: {error}", path.display());
                    break;
                }
            }
            let len = file.metadata().map_err(io)?.len();
            if len != grown {
                (grown, since) = (len, Instant::now());
            } else if since.elapsed() >= STALLED {
                break;
            }
            thread::sleep(PAUSE);
        }
        let mut temp =
            TempFile::create_in(&self.dir).map_err(StoreError::io("create a file in", &self.dir))?;
        // So that nobody takes it for what was left behind; where there are no locks, nothing is.
        if let Err(error) = temp.file().try_lock() {
            tracing::debug!("lock {}: {error}", self.dir.display());
        }
        Ok(Turn::Ours(NewImport { temp: Temp::Own(temp), target, sealer: Some(Sealer::default()) }))
    }

    /// Removes what nobody is making and what nobody uses: of the file in other states, and all that was not used for `age`.
    ///
    /// # Errors
    /// When the directory cannot be read; a single file that cannot be removed is only logged.
    pub fn clean(&self, key: Option<&ImportKey>, age: Duration) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
            entries => entries.map_err(StoreError::io("list", &self.dir))?,
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &self.dir))?.path();
            let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_temporary = file_name.starts_with(TEMP_PREFIX);
            let is_outdated = key.is_some_and(|key| {
                file_name.starts_with(&name(key)[..=FILE_DIGITS]) && file_name != name(key)
            });
            let age = if is_temporary || is_outdated { Duration::ZERO } else { age };
            if !is_temporary && !is_import(&file_name) {
                continue;
            }
            match remove_unused(&path, age) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    removed.bytes += bytes;
                    removed.temporaries += u64::from(is_temporary);
                    removed.imports += u64::from(!is_temporary);
                }
                Err(error) => tracing::debug!("{}: {error}", path.display()),
            }
        }
        Ok(removed)
    }

    fn path(&self, key: &ImportKey) -> PathBuf {
        self.dir.join(name(key))
    }
}

impl NewImport {
    fn file(&mut self) -> &mut File {
        match &mut self.temp {
            Temp::Shared(temp) => &mut temp.file,
            Temp::Own(temp) => temp.file(),
        }
    }

    /// Where it lies until it is published, for messages.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// All that was written, as who finds it will read it; nothing can be added any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn sealed(&mut self) -> Result<SealedFile, StoreError> {
        let target = self.target.clone();
        let io = |source| StoreError::Io { action: "write", path: target.clone(), source };
        if let Some(sealer) = self.sealer.take() {
            self.file().write_all(&sealer.finish()).map_err(io)?;
        }
        let file = self.file().try_clone().map_err(io)?;
        let sealed = SealedFile::of(file, &target).map_err(io)?;
        sealed.ok_or_else(|| io(io::Error::other("what was written is not what is there")))
    }

    /// Makes it durable and visible.
    ///
    /// # Errors
    /// What the system says; then nothing of it is left.
    pub fn publish(mut self) -> Result<(), StoreError> {
        drop(self.sealed()?);
        let Self { temp, target, .. } = self;
        let published = match temp {
            Temp::Own(temp) => temp.publish(&target, 0o600),
            Temp::Shared(temp) => temp.publish(&target),
        };
        published.map_err(StoreError::io("write", &target))
    }
}

impl io::Write for NewImport {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let count = self.file().write(content)?;
        if let (Some(sealer), Some(written)) = (&mut self.sealer, content.get(..count)) {
            sealer.update(written);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl SharedTemp {
    fn publish(&self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        target.parent().map_or(Ok(()), atomic::sync_dir)
    }
}

impl Drop for SharedTemp {
    /// While it is locked: who waits for the lock sees that it is not the file of that name any more.
    fn drop(&mut self) {
        let removed = match is_at(&self.file, &self.path) {
            Ok(true) => std::fs::remove_file(&self.path),
            other => other.map(drop),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "temporary file stays behind");
        }
    }
}

fn name(key: &ImportKey) -> String {
    format!("{}-{}", &key.file.hex()[..FILE_DIGITS], key.state.hex())
}

fn is_import(file_name: &str) -> bool {
    file_name.split_once('-').is_some_and(|(file, state)| {
        file.len() == FILE_DIGITS
            && file.bytes().all(|byte| byte.is_ascii_hexdigit())
            && Digest::from_hex(state).is_ok()
    })
}

/// Whether the open file is the one that has this name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(other) => Ok((own.dev(), own.ino()) == (other.dev(), other.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file that nobody has locked and that was not used for `age`; the bytes that it took.
fn remove_unused(path: &Path, age: Duration) -> io::Result<Option<u64>> {
    // For writing: on NFS flock(2) wants that of who locks alone.
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    // A clock that went back makes a file young, which keeps it.
    let unused = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if unused < age || file.try_lock().is_err() || !is_at(&file, path)? {
        return Ok(None);
    }
    std::fs::remove_file(path)?;
    Ok(Some(metadata.blocks() * 512))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::sys::file_range::FileRange;
    use crate::sys::lock::soon;

    const LATER: Duration = Duration::from_secs(3600);

    fn imports(dir: &tempfile::TempDir) -> Imports {
        Imports::at(dir.path().join("imported"))
    }

    fn key(file: u8, state: u8) -> ImportKey {
        ImportKey { file: Digest::from_bytes([file; 32]), state: Digest::from_bytes([state; 32]) }
    }

    fn ours(imports: &Imports, key: &ImportKey) -> NewImport {
        match imports.turn(key).unwrap() {
            Turn::Ours(import) => import,
            Turn::Done(_) => panic!("it is there"),
        }
    }

    fn put(imports: &Imports, key: &ImportKey, text: &str) {
        let mut import = ours(imports, key);
        import.write_all(text.as_bytes()).unwrap();
        import.publish().unwrap();
    }

    fn text(file: SealedFile) -> String {
        let mut text = String::new();
        FileRange::stand_in(file, Path::new("the user's")).reader().read_to_string(&mut text).unwrap();
        text
    }

    fn count(imports: &Imports) -> usize {
        std::fs::read_dir(&imports.dir).unwrap().count()
    }

    #[test]
    fn complete_ones_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let imports = imports(&dir);
        assert!(imports.find(&key(1, 1)).unwrap().is_none());
        let mut dropped = ours(&imports, &key(1, 1));
        dropped.write_all(b"half").unwrap();
        assert!(imports.find(&key(1, 1)).unwrap().is_none());
        drop(dropped);
        assert_eq!(count(&imports), 0);
        // What a killed process left is written from its beginning.
        std::fs::write(imports.dir.join(format!("{TEMP_PREFIX}{}", name(&key(1, 1)))), "longer than that")
            .unwrap();
        put(&imports, &key(1, 1), "whole");
        assert_eq!(text(imports.find(&key(1, 1)).unwrap().unwrap()), "whole");
        assert!(matches!(imports.turn(&key(1, 1)).unwrap(), Turn::Done(_)));
        assert!(imports.find(&key(1, 2)).unwrap().is_none() && imports.find(&key(2, 1)).unwrap().is_none());
        assert_eq!(count(&imports), 1);
    }

    #[test]
    fn the_second_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let imports = imports(&dir);
        for is_published in [true, false] {
            let key = key(3, u8::from(is_published));
            let mut first = ours(&imports, &key);
            let second = thread::spawn({
                let imports = imports.clone();
                move || imports.turn(&key).unwrap()
            });
            thread::sleep(2 * PAUSE);
            assert!(!second.is_finished());
            first.write_all(b"first").unwrap();
            if is_published {
                first.publish().unwrap();
            } else {
                drop(first);
            }
            match second.join().unwrap() {
                Turn::Done(file) => assert!(is_published && text(file) == "first"),
                Turn::Ours(mut import) => {
                    assert!(!is_published && import.file().metadata().unwrap().len() == 0);
                }
            }
        }
    }

    #[test]
    fn many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let imports = imports(&dir);
        let made = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match imports.turn(&key(1, 1)).unwrap() {
                    Turn::Done(file) => assert_eq!(text(file), "whole"),
                    Turn::Ours(mut import) => {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        import.write_all(b"whole").unwrap();
                        import.publish().unwrap();
                    }
                });
            }
        });
        assert_eq!((made.into_inner(), count(&imports)), (1, 1));
    }

    #[test]
    fn what_is_unused_goes() {
        let dir = tempfile::tempdir().unwrap();
        let imports = imports(&dir);
        assert_eq!(imports.clean(None, Duration::ZERO).unwrap(), Removed::default());
        for state in 1..4 {
            put(&imports, &key(1, state), "whole");
        }
        put(&imports, &key(2, 1), "another");
        let left = imports.dir.join(format!("{TEMP_PREFIX}{}", name(&key(4, 1))));
        std::fs::write(&left, "half").unwrap();
        std::fs::write(imports.dir.join("README"), "somebody's").unwrap();
        let being_made = ours(&imports, &key(5, 1));
        let in_use = imports.find(&key(1, 2)).unwrap().unwrap();
        // Of a file in a new state the old ones go, but for those in use.
        clean(&imports, Some(&key(1, 3)), LATER, (1, 1));
        assert!(imports.find(&key(1, 1)).unwrap().is_none() && !left.exists());
        clean(&imports, None, Duration::ZERO, (2, 0));
        assert_eq!(text(in_use), "whole");
        clean(&imports, None, Duration::ZERO, (1, 0));
        being_made.publish().unwrap();
        assert_eq!(count(&imports), 2);
        // Use makes it young.
        let long_ago = SystemTime::now() - 2 * LATER;
        let old = || File::open(imports.path(&key(5, 1))).unwrap().set_modified(long_ago).unwrap();
        old();
        imports.find(&key(5, 1)).unwrap().unwrap();
        assert_eq!(imports.clean(None, LATER).unwrap().imports, 0);
        old();
        clean(&imports, None, LATER, (1, 0));
    }

    /// So many imports and temporary files go, in all.
    fn clean(imports: &Imports, of: Option<&ImportKey>, unused: Duration, expected: (u64, u64)) {
        let mut sum = (0, 0);
        soon(|| {
            let removed = imports.clean(of, unused).unwrap();
            sum = (sum.0 + removed.imports, sum.1 + removed.temporaries);
            (sum == expected).then_some(())
        });
    }
}
