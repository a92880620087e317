//! `layerfs start`, `layerfs restart` and `layerfs wait`

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::container_args::{ConditionArg, RestartArgs, StartArgs, WaitArgs};
use super::progress::Told;
use super::run::{Made, provide_volumes};
use super::selection::{self, Missing, SelectionArgs};
use super::{attach, environment, mount};
use crate::container::attaching;
use crate::container::restarting::RestartPolicy;
use crate::container::stopping::{self, Stop};
use crate::container::waiting::{self, Condition};
use crate::container::{Container, ContainerError, Containers, Listed, Purpose, State, Wishes, command_line};
use crate::store::Store;

/// Starts containers in the background and prints what they were called by; with `--attach` one, to its end.
pub(super) fn start(args: &StartArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let selection = SelectionArgs {
        all: args.all,
        latest: args.latest,
        filter: args.filter.clone(),
        containers: args.containers.clone(),
        ..SelectionArgs::default()
    };
    let can_start = |one: &Listed| one.about.run.is_some() && one.status.can_start();
    let names = selection.names(&containers, Missing::Told, can_start)?;
    if args.attach {
        ensure!(names.len() == 1, "-a: one container only");
        return start_attached(args, &names[0], &store, &containers);
    }
    super::each(&names, |text| -> anyhow::Result<_> {
        let container = containers.find(text)?;
        let status = container.status()?;
        if !status.is_running() && !status.is_restarting() {
            again(&store, &containers, container)?.begin_in_background()??;
        }
        Ok(text.to_owned())
    })
}

/// Starts a container, unless it runs, and stays with it to its end.
fn start_attached(
    args: &StartArgs,
    text: &str,
    store: &Store,
    containers: &Containers,
) -> anyhow::Result<u8> {
    let container = containers.find(text)?;
    let mut wishes = wishes(&container)?;
    let how = args.keys.attach(&wishes, args.interactive, args.sig_proxy)?;
    if container.status()?.is_running() {
        return Ok(attach::left(attaching::attach(containers, text, &how)?));
    }
    // Its terminal goes on reading when we are detached; without one it reads what we do.
    wishes.interactive = args.interactive || wishes.terminal && wishes.interactive;
    let needs_terminal = args.interactive && wishes.terminal;
    ensure!(!needs_terminal || io::stdin().is_terminal(), "the input device is not a TTY: leave out -i");
    ensure!(
        how.signals || wishes.terminal,
        "--sig-proxy=false: without a terminal the container ends with this command: leave out -a, and then use \
         `layerfs attach`"
    );
    ensure!(
        wishes.restart == RestartPolicy::No || wishes.terminal,
        "the container is run again when it ends (--restart {}), for which it must be in the background: leave out -a",
        wishes.restart
    );
    ensure!(
        wishes.health.is_none() || wishes.terminal,
        "the container's health is checked, for which it must be in the background: leave out -a"
    );
    let made = again(store, containers, container)?;
    Made { wishes, ..made }.begin_here(&how)
}

/// Stops containers, where they run, and starts them.
pub(super) fn restart(args: &RestartArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let how = Stop { signal: None, wait: args.wait.wanted() };
    let names = args.selection.names(&containers, Missing::Told, |one| one.about.run.is_some())?;
    super::each(&names, |text| -> anyhow::Result<_> {
        let container = containers.find(text)?;
        wishes(&container)?;
        let goes = container.config().remove_at_end;
        ensure!(!goes, "container {text} is removed when it stops (--rm), so it cannot be restarted");
        stopping::stop(&containers, text, &how)?;
        again(&store, &containers, containers.find(text)?)?.begin_in_background()??;
        Ok(text.to_owned())
    })
}

/// Waits for containers, one after the other, and prints their exit codes.
pub(super) fn wait(args: &WaitArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let names = if args.latest { vec![selection::latest(&containers)?] } else { args.containers.clone() };
    if args.condition.iter().all(|condition| *condition == ConditionArg::Exited) {
        return super::each(&names, |text| waiting::wait(&containers, text).map(|code| code.to_string()));
    }
    let interval = interval(&args.interval)
        .with_context(|| format!("--interval {}: give it as 250ms or 2s", args.interval))?;
    let conditions: Vec<Condition> = args.condition.iter().copied().map(Condition::from).collect();
    super::each(&names, |text| {
        let ended = waiting::wait_until(&containers, text, &conditions, interval)?;
        Ok::<_, ContainerError>(ended.map_or_else(|| "-1".to_owned(), |code| code.to_string()))
    })
}

impl From<ConditionArg> for Condition {
    fn from(arg: ConditionArg) -> Self {
        match arg {
            ConditionArg::Created => Self::Created,
            ConditionArg::Running => Self::Running,
            ConditionArg::Paused => Self::Paused,
            ConditionArg::Exited => Self::Exited,
            ConditionArg::Healthy => Self::Healthy,
            ConditionArg::Unhealthy => Self::Unhealthy,
        }
    }
}

/// Podman's: a number alone is one of milliseconds.
fn interval(text: &str) -> Option<Duration> {
    let (number, unit) =
        text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let number = number.parse().ok()?;
    match unit {
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// How a container is run.
fn wishes(container: &Container) -> anyhow::Result<Wishes> {
    let config = container.config();
    config.run.clone().with_context(|| match config.purpose {
        Purpose::Mount => {
            format!(
                "container {0} was made by `layerfs mount`: mount it again with --container {0}",
                config.name
            )
        }
        Purpose::Run => format!("container {} was made by an earlier version of layerfs", config.name),
    })
}

/// A container that was made or has run before.
fn again(store: &Store, containers: &Containers, container: Container) -> anyhow::Result<Made> {
    let wishes = wishes(&container)?;
    let held = containers.hold(container)?;
    if held.is_new()? {
        provide_volumes(containers, &wishes)?;
    }
    let image = mount::image_of(held.config(), store, Told::Nothing)?;
    let arguments = command_line::arguments(&held.config().image.process, &wishes)?;
    let caches = environment::caches(store, &image, &arguments)?;
    let layers = mount::open_layers_told(store, &image, caches, Told::Nothing)?;
    // What is true of the last time says nothing about this one.
    held.set_state(&State::Created)?;
    Ok(Made { containers: containers.clone(), held, layers, wishes, users: None, quiet: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        let millis = ["250ms", "7", "2s"].map(|text| interval(text).unwrap().as_millis());
        assert_eq!(millis, [250, 7, 2000]);
        assert!(["", "ms", "1h", "-1s", "1.5s"].iter().all(|text| interval(text).is_none()));
    }
}
