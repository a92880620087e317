//! `layerfs save`

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::archive_args::{SaveArgs, SaveFormatArg};
use super::environment;
use super::progress::Told;
use crate::image::{SaveFormat, Saving};
use crate::sys::atomic::{self, TempFile};

/// An archive is its owner's alone, as docker has it.
const ARCHIVE_MODE: u32 = 0o600;
/// Bytes that go to the system at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes images as an archive or a layout. A file or directory is there when all of it is, or not at all.
pub(super) fn run(args: &SaveArgs) -> anyhow::Result<u8> {
    ensure!(
        !args.compress,
        "--compress is not supported: layers are saved as they are, or plain in a docker-archive"
    );
    let format = match args.format {
        SaveFormatArg::DockerArchive => SaveFormat::DockerArchive,
        SaveFormatArg::OciArchive => SaveFormat::OciArchive,
        SaveFormatArg::OciDir => SaveFormat::OciDirectory,
    };
    let is_to_terminal = args.output.is_none() && io::stdout().is_terminal();
    ensure!(!is_to_terminal, "cowardly refusing to save to a terminal. Use the -o flag or redirect");
    let sought = args.platform.sought(Told::unless(args.quiet));
    let saving = Saving::of(&args.images, &environment::store()?, &sought)?;
    match (&args.output, format) {
        (None, SaveFormat::OciDirectory) => bail!("--format oci-dir writes a directory: give -o DIR"),
        (None, format) => stream(&saving, format, io::stdout().lock(), Path::new("standard output"))?,
        (Some(dir), SaveFormat::OciDirectory) => directory(&saving, dir)?,
        (Some(path), format) => match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => bail!("{}: is a directory", path.display()),
            Ok(found) if !found.is_file() => {
                let out = OpenOptions::new().write(true).open(path);
                stream(
                    &saving,
                    format,
                    out.with_context(|| format!("cannot open {}", path.display()))?,
                    path,
                )?;
            }
            _ => archive(&saving, format, path)?,
        },
    }
    Ok(0)
}

fn stream(saving: &Saving, format: SaveFormat, out: impl io::Write, place: &Path) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    saving.archive(format, &mut out, place)?;
    out.flush().with_context(|| place.display().to_string())
}

fn archive(saving: &Saving, format: SaveFormat, path: &Path) -> anyhow::Result<()> {
    // Through a symlink, whose target is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let failed = || format!("cannot write {}", path.display());
    let mut temp = TempFile::create_in(parent(path)).with_context(failed)?;
    stream(saving, format, temp.file(), path)?;
    temp.publish(&parent(path).join(path.file_name().unwrap_or_default()), ARCHIVE_MODE).with_context(failed)
}

fn directory(saving: &Saving, dir: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", dir.display());
    let is_taken = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!is_taken, "{}: there is something in it: give a new directory, or an empty one", dir.display());
    let temp = TempDir::create_in(parent(dir)).with_context(failed)?;
    saving.directory(&temp.0)?;
    File::open(&temp.0).and_then(|dir| dir.sync_all()).with_context(failed)?;
    std::fs::rename(&temp.0, dir).with_context(failed)?;
    atomic::sync_dir(parent(dir)).with_context(failed)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A directory that goes unless it got its name.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn create_in(parent: &Path) -> io::Result<Self> {
        let mut count = 0_u64;
        loop {
            let path = parent.join(format!("{}{}-{count}", atomic::TEMP_PREFIX, std::process::id()));
            match std::fs::create_dir(&path) {
                // Somebody with this number was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                created => return created.map(|()| Self(path)),
            }
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{}: stays behind: {error}", self.0.display());
            }
            _ => {}
        }
    }
}
