//! `layerfs prune`

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::args::PruneArgs;
use super::environment;
use crate::container::filter::Filters;
use crate::container::{Moment, pruning, size, spoken_time};
use crate::images::PATIENCE;
use crate::store;

/// Removes what can be made again and was not used for long, and says how much that was. Blobs stay: other tools write to
/// the layout as well, and use again what is there, without a lock.
pub(super) fn run(args: &PruneArgs) -> anyhow::Result<u8> {
    if args.containers {
        return containers(args);
    }
    let store = environment::store()?;
    let lock = store.lock_alone(PATIENCE)?;
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
    let containers = environment::containers(&environment::store()?)?;
    let (labels, times): (Vec<String>, Vec<String>) =
        args.filter.iter().cloned().partition(|filter| filter.starts_with("label"));
    let until = until(&times)?;
    let labels = Filters::parse(&labels, &containers, Moment::now())?;
    let warning = "WARNING! This will remove all stopped containers, and all changes that are kept in them.";
    if !args.force && !super::agreed(warning)? {
        return Ok(0);
    }
    let mut pruned = pruning::prune(&containers, until, &labels)?;
    if !pruned.ids.is_empty() {
        super::print("Deleted Containers:\n")?;
        let ids: String = pruned.ids.iter().map(|id| format!("{id}\n")).collect();
        super::print(&format!("{ids}\n"))?;
    }
    super::print(&format!("Total reclaimed space: {}\n", size::in_words(pruned.bytes)))?;
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
            bail!(
                "--filter {filter}: unknown: until=TIME, label=KEY[=VALUE] and label!=KEY[=VALUE] are what there is"
            )
        };
        let time = spoken_time::parse(text, Moment::now());
        let time = time.with_context(|| format!("--filter {filter}: no time: see layerfs logs --help"))?;
        until = Some(until.map_or(time, |other| other.min(time)));
    }
    Ok(until)
}

#[cfg(test)]
mod tests {
    use super::*;

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
