//! `layerfs stats`

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::args::StatsArgs;
use super::environment;
use crate::container::usage::{self, Row, Sample};
use crate::container::view::Width;
use crate::container::{Container, ContainerError, Containers, Purpose, Status};
use crate::look::told;
use crate::model::stats::Stats;

/// Prints what containers take, or the live counters of one mount.
pub(super) fn run(args: &StatsArgs) -> anyhow::Result<u8> {
    if args.mount || args.json || args.prometheus || is_mount(&args.names)? {
        return counters(args);
    }
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    let containers = environment::containers(&environment::store()?)?;
    let mut before = HashMap::new();
    if args.no_stream {
        before = look(&containers, args)?.into_iter().map(|(one, sample)| (one.id(), sample)).collect();
        std::thread::sleep(INTERVAL);
    }
    loop {
        let now = look(&containers, args)?;
        let row = |(one, sample): &(Container, Sample)| {
            Row::of((one.id(), &one.config().name), before.get(&one.id()), sample, width)
        };
        let rows: Vec<Row> = now.iter().map(row).collect();
        let text = match args.format.as_str() {
            "table" => usage::rows_as_table(&rows),
            "json" => usage::rows_as_json(&rows),
            template => usage::rows_by_template(&rows, template).context("--format")?,
        };
        if !show(&text, args)? || args.no_stream {
            return Ok(0);
        }
        before = now.into_iter().map(|(one, sample)| (one.id(), sample)).collect();
        std::thread::sleep(INTERVAL);
    }
}

/// Docker's.
const INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Whether what is named is a mount: a single name that no container has that is made to run.
fn is_mount(names: &[PathBuf]) -> anyhow::Result<bool> {
    let [name] = names else { return Ok(false) };
    let is_path = |text: &str| text.contains('/') || text.starts_with('.');
    let Some(text) = name.to_str().filter(|text| !is_path(text)) else { return Ok(true) };
    let store = environment::store()?;
    match environment::containers(&store)?.find(text) {
        Ok(container) => Ok(container.config().purpose == Purpose::Mount),
        Err(ContainerError::NotFound(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The containers that are wanted, and what they have used until now.
fn look(containers: &Containers, args: &StatsArgs) -> anyhow::Result<Vec<(Container, Sample)>> {
    let rows = if args.names.is_empty() {
        let mut rows = containers.list_with_status()?;
        rows.retain(|(one, status)| status.is_running() || args.all && one.config().purpose == Purpose::Run);
        rows
    } else {
        let found = |name: &PathBuf| -> anyhow::Result<_> {
            let container = containers.find(name.to_str().context("not the name of a container")?)?;
            let status = container.status()?;
            Ok((container, status))
        };
        args.names.iter().map(found).collect::<anyhow::Result<_>>()?
    };
    let sampled = |(container, status): (Container, Status)| {
        let sample = Sample::of(&container, &status);
        (container, sample)
    };
    Ok(rows.into_iter().map(sampled).collect())
}

/// Whether somebody still looks.
fn show(text: &str, args: &StatsArgs) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let clear = if !args.no_stream && out.is_terminal() { CLEAR } else { "" };
    match write!(out, "{clear}{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.context("standard output").map(|()| true),
    }
}

/// Prints the live counters of one mount.
fn counters(args: &StatsArgs) -> anyhow::Result<u8> {
    let [mount] = args.names.as_slice() else { anyhow::bail!("give one mount, or one container") };
    let stats = ask(mount)?;
    let text = if args.json {
        format!("{:#}\n", stats.json())
    } else if args.prometheus {
        stats.prometheus(&name(mount))
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
