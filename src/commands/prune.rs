//! `layerfs prune`

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::args::PruneArgs;
use super::environment;
use crate::container::{Moment, pruning, spoken_time};
use crate::store;

/// Removes what can be made again and was not used for long, and says how much that was. Blobs stay: other tools write to
/// the layout as well, and use again what is there, without a lock.
pub(super) fn run(args: &PruneArgs) -> anyhow::Result<u8> {
    if args.containers {
        return containers(args);
    }
    let store = environment::store()?;
    let lock = store.lock_exclusive()?;
    let unused = Duration::from_secs(u64::from(args.unused) * 24 * 3600);
    let done = store::collect_caches(&store, &lock, unused)?;
    super::print(&format!(
        "removed {} indexes, {} caches, {} temporary files: {} MB\n",
        done.indexes,
        done.caches,
        done.temporaries,
        done.bytes / 1_000_000
    ))?;
    Ok(0)
}

/// Removes the containers that nobody uses, and prints their ids.
fn containers(args: &PruneArgs) -> anyhow::Result<u8> {
    let until = until(&args.filter)?;
    let containers = environment::containers(&environment::store()?)?;
    if !args.force && io::stdin().is_terminal() && !is_confirmed()? {
        return Ok(0);
    }
    let mut pruned = pruning::prune(&containers, until)?;
    if !pruned.ids.is_empty() {
        super::print("Deleted Containers:\n")?;
        let ids: String = pruned.ids.iter().map(|id| format!("{id}\n")).collect();
        super::print(&format!("{ids}\n"))?;
    }
    super::print(&format!("Total reclaimed space: {}\n", size(pruned.bytes)))?;
    let last = pruned.failed.pop();
    for error in pruned.failed {
        super::complain(&format!("Error: {error}"));
    }
    last.map_or(Ok(0), |error| Err(error.into()))
}

/// As docker understands it: made before then.
fn until(filters: &[String]) -> anyhow::Result<Option<Moment>> {
    let mut until: Option<Moment> = None;
    for filter in filters {
        let Some(text) = filter.strip_prefix("until=") else {
            bail!("--filter {filter}: unknown: until=TIME is what there is")
        };
        let time = spoken_time::parse(text, Moment::now());
        let time = time.with_context(|| format!("--filter {filter}: no time: see layerfs logs --help"))?;
        until = Some(until.map_or(time, |other| other.min(time)));
    }
    Ok(until)
}

fn is_confirmed() -> anyhow::Result<bool> {
    super::print(
        "WARNING! This will remove all stopped containers, and all changes that are kept in them.\n\
         Are you sure you want to continue? [y/N] ",
    )?;
    io::stdout().flush().context("standard output")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// In docker's units.
fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"].into_iter().zip(1_u32..);
    let (unit, power) =
        units.take_while(|(_, power)| bytes >= 1000_u64.pow(*power)).last().unwrap_or(("B", 0));
    let unit_bytes = 1000_u64.pow(power);
    let hundredths = bytes % unit_bytes * 100 / unit_bytes;
    if power == 0 { format!("{bytes}B") } else { format!("{}.{hundredths:02}{unit}", bytes / unit_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 999, 1000, 2_050_000, 3_000_000_000].map(size),
            ["0B", "999B", "1.00kB", "2.05MB", "3.00GB"]
        );
    }

    #[test]
    fn filters() {
        assert_eq!(until(&[]).unwrap(), None);
        assert!(until(&["until=1h".to_owned()]).unwrap() < Some(Moment::now()));
        let both = ["until=2001-02-03T04:05:06Z".to_owned(), "until=1h".to_owned()];
        assert_eq!(until(&both).unwrap(), until(&both[..1]).unwrap());
        for wrong in ["until=x", "label=a", ""] {
            assert!(until(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
