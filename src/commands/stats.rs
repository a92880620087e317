//! `layerfs stats`

use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::args::StatsArgs;
use super::environment;
use crate::container::ContainerError;
use crate::look::told;
use crate::model::stats::Stats;

/// Prints the live counters of one mount.
pub(super) fn run(args: &StatsArgs) -> anyhow::Result<u8> {
    let stats = ask(&args.mount)?;
    let text = if args.json {
        format!("{:#}\n", stats.json())
    } else if args.prometheus {
        stats.prometheus(&name(&args.mount))
    } else {
        stats.table().split('\n').map(told).collect::<Vec<_>>().join("\n")
    };
    super::print(&text)?;
    Ok(0)
}

/// What exists is a path; what does not may be a container.
fn ask(mount: &Path) -> anyhow::Result<Stats> {
    match mount.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Of a mount that cannot be looked at, asking says more.
        _ => return Ok(Stats::of_mount(mount)?),
    }
    let text = mount.to_str().context("neither a path nor the name of a container")?;
    let store = environment::store()?;
    match environment::containers(&store)?.find(text) {
        Ok(container) => container.stats().with_context(|| text.to_owned()),
        Err(ContainerError::NotFound(_)) => {
            anyhow::bail!(
                "{text}: no such directory, and no such container: give the directory that is mounted, or a container"
            )
        }
        Err(error) => Err(error.into()),
    }
}

/// How monitoring tells mounts apart: by an absolute path, so that it does not matter where this ran. A terminal may be
/// shown it as well; made safe before it becomes a label, whose own escapes are few.
fn name(mount: &Path) -> String {
    let real = mount.canonicalize().unwrap_or_else(|_| mount.to_owned());
    told(&real.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_the_name_of_a_mount() {
        assert_eq!(name(Path::new("/nowhere/\u{1b}[2Jb\u{202e}\n")), r"/nowhere/\u{1b}[2Jb\u{202e}\n");
    }
}
