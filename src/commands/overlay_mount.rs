//! Mounts that are asked for in the grammar of overlay mount programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::Level;

use super::logging;
use super::lowers::Lowers;
use super::overlay_call::OverlayCall;
use super::overlay_options::OverlayOptions;
use super::progress::Indexing;
use crate::fs::{IdRange, IdView, OwnerView};
use crate::fuse::Flag;
use crate::mount::{self, OverlaySpec, Place, Standalone, UpperDirs};
use crate::upper::UpperOptions;

const HELP: &str = "\
Usage: layerfs [-f] [-d] -o lowerdir=A:B[,upperdir=U,workdir=W][,OPTION]... DIR
       layerfs SOURCE DIR -o lowerdir=A:B[,upperdir=U,workdir=W][,OPTION]...

Mounts layers, the topmost first, with a writable directory above them, as container engines ask their mount program to.
`layerfs --help` tells of everything else. A layer is a directory, an image (with all of its layers), the blob of a layer
in an OCI layout, or an index NAME.lfx with its blob. Changes go to the directory U, as an overlay filesystem keeps them;
without one there are none. A backslash protects `:`, `,` and `\\` in names.

  uidmapping=, gidmapping=STORED:SHOWN:COUNT[:...]   owners are shown, and stored, as others
  squash_to_uid=ID, squash_to_gid=ID, squash_to_root  all owners are shown as this one
  xattr_permissions=2   owners and modes are recorded in user.containers.override_stat
  volatile              nothing is flushed: after a crash of the system, throw U and W away
  allow_other           for other users too, when an ordinary user mounts
  ro, suid, nosuid, dev, nodev, exec, noexec, atime, noatime, nodiratime

  -f   stay in the foreground     -d   the same, and say what is done
  -h, --help                      -V, --version

Unknown options are warned about and ignored. The log of a mount with a writable directory is W/log.";

/// Does what was asked for; the program's own name is left out.
pub(super) fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<u8> {
    match OverlayCall::parse(arguments)? {
        OverlayCall::Help => super::print(&format!("{HELP}\n"))?,
        OverlayCall::Version => super::print(concat!("layerfs ", env!("CARGO_PKG_VERSION"), "\n"))?,
        OverlayCall::Mount { options, source, dir, foreground } => {
            logging::start_at(if options.debug { Level::DEBUG } else { Level::WARN });
            for unknown in &options.unknown {
                super::complain(&format!("layerfs: unknown option {unknown}: ignored"));
            }
            mount(&options, &source, &dir, foreground)?;
        }
    }
    Ok(0)
}

fn mount(options: &OverlayOptions, source: &OsString, dir: &Path, foreground: bool) -> anyhow::Result<()> {
    let target = mount::mount_point(dir)?;
    let Lowers { layers, index_dir, caches } = Lowers::find(&options.lowers)?;
    let spec = OverlaySpec { layers, index_dir, caches, target: target.clone() };
    let layers = spec.layers(&Indexing::of_any())?;
    let mut flags = options.flags.clone();
    let upper = upper(options)?;
    if upper.is_none() && !flags.contains(&Flag::ReadOnly) {
        flags.push(Flag::ReadOnly);
    }
    let log = upper.as_ref().map_or_else(|| PathBuf::from("/dev/null"), |dirs| dirs.work.join("log"));
    let source = source.to_string_lossy().into_owned();
    let place = Place { target, source, allow_other: options.allow_other, flags };
    let standalone = Standalone { place, upper, owners: owners(options)?, log };
    if foreground {
        standalone.in_foreground(layers)?
    } else {
        standalone.in_background(layers)?
    }
    Ok(())
}

/// Where changes go, and how: others read them in this form at any time.
fn upper(options: &OverlayOptions) -> anyhow::Result<Option<UpperDirs>> {
    let (Some(upper), Some(work)) = (&options.upper, &options.work) else { return Ok(None) };
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let (volatile, record_owners) = (options.volatile, options.record_owners);
    let how = UpperOptions { volatile, record_owners, shared: true };
    Ok(Some(UpperDirs { upper: absolute(upper)?, work: absolute(work)?, options: how }))
}

fn owners(options: &OverlayOptions) -> anyhow::Result<OwnerView> {
    let view = |ranges: &[IdRange], squash, overflow| {
        let ranges = if ranges.is_empty() { vec![IdRange::EVERY_ID] } else { ranges.to_vec() };
        Ok::<_, anyhow::Error>(IdView { ranges, overflow: overflow_id(overflow)?, squash })
    };
    Ok(OwnerView::Mapped {
        uids: view(&options.uids, options.squash_uid, "/proc/sys/kernel/overflowuid")?,
        gids: view(&options.gids, options.squash_gid, "/proc/sys/kernel/overflowgid")?,
    })
}

fn overflow_id(file: &str) -> anyhow::Result<u32> {
    let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    text.trim().parse().with_context(|| file.to_owned())
}
