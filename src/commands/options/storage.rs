//! What a container sees of the host's files, and what is mounted in it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::container::Wishes;
use crate::launcher::Volume;

/// What a container sees of the host's files
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Show a file or directory of the host inside
    #[arg(long, short = 'v', value_name = "SRC:DST[:ro]")]
    pub volume: Vec<String>,
    /// Refuse changes to the root filesystem; /run, /tmp and /var/tmp become tmpfs
    #[arg(long)]
    pub read_only: bool,
    /// Let the kernel keep what is written to files until they are closed or flushed: much faster small writes, but errors
    /// such as a full disk come from close and fsync
    #[arg(long, conflicts_with = "read_only")]
    pub writeback: bool,
}

impl StorageArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.volumes = self.volume.iter().map(|text| volume(text)).collect::<anyhow::Result<_>>()?;
        wishes.read_only = self.read_only;
        wishes.writeback = self.writeback;
        Ok(())
    }
}

/// `SRC:DST[:OPTIONS]`
fn volume(text: &str) -> anyhow::Result<Volume> {
    let mut parts = text.split(':');
    let (source, destination) = match (parts.next(), parts.next()) {
        (Some(source), Some(destination)) if !source.is_empty() => (source, destination),
        _ => bail!("-v {text}: expected SRC:DST or SRC:DST:ro"),
    };
    let mut read_only = false;
    for option in parts.next().unwrap_or_default().split(',') {
        match option {
            "" | "rw" => {}
            "ro" => read_only = true,
            // Labels of SELinux: nothing to do without it.
            "z" | "Z" => {}
            unknown => bail!("-v {text}: unknown option {unknown:?}: ro and rw are known"),
        }
    }
    ensure!(parts.next().is_none(), "-v {text}: too many colons");
    ensure!(destination.starts_with('/'), "-v {text}: the path in the container must be absolute");
    let by_path = source.starts_with('/') || source.starts_with('.');
    ensure!(by_path, "-v {text}: named volumes are not supported: give a path such as ./{source}");
    let source = Path::new(source).canonicalize().with_context(|| format!("-v {text}: {source}"))?;
    Ok(Volume { source, destination: PathBuf::from(destination), read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let made = volume("/tmp:/data:ro").unwrap();
        assert_eq!((made.destination.as_path(), made.read_only), (Path::new("/data"), true));
        for wrong in
            ["/tmp", ":/x", "/tmp:x", "/tmp:/x:odd", "/tmp:/x:ro:y", "name:/x", "/surely/not/there:/x"]
        {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }
}
