//! `layerfs volume`

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use super::environment;
use crate::container::volumes::{VolumeRecord, users};
use crate::container::{Containers, Volumes};

/// `layerfs volume`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A volume is a directory of the store that outlives containers: `-v NAME:PATH` of run and create."
)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// What can be done with volumes.
#[derive(Clone, Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume; without a name it gets a random one
    Create {
        /// A label
        #[arg(long, short = 'l', value_name = "KEY[=VALUE]")]
        label: Vec<String>,
        /// The name
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(long, short = 'q')]
        quiet: bool,
    },
    /// Show everything known about volumes, as JSON
    Inspect {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm {
        /// One that is not there is no error
        #[arg(long, short = 'f')]
        force: bool,
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove the volumes without a name that no container uses; with --all, all that no container uses
    Prune {
        /// Those with a name, too
        #[arg(long, short = 'a')]
        all: bool,
        /// Do not ask
        #[arg(long, short = 'f')]
        force: bool,
    },
}

/// Does it.
pub(super) fn run(args: &VolumeArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let volumes = containers.volumes()?;
    volumes.sweep()?;
    match &args.command {
        VolumeCommand::Create { label, name } => create(&volumes, label, name.as_deref()),
        VolumeCommand::Ls { quiet } => list(&volumes, *quiet),
        VolumeCommand::Inspect { names } => inspect(&volumes, names),
        VolumeCommand::Rm { force, names } => super::each(names, |name| -> anyhow::Result<_> {
            match volumes.remove(name, &containers) {
                Err(crate::container::ContainerError::NoVolume(_)) if *force => {}
                removed => removed?,
            }
            Ok(name.to_owned())
        }),
        VolumeCommand::Prune { all, force } => prune(&volumes, &containers, *all, *force),
    }
}

fn create(volumes: &Volumes, labels: &[String], name: Option<&str>) -> anyhow::Result<u8> {
    let label = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    let labels: BTreeMap<String, String> = labels.iter().map(label).collect();
    let name = match name {
        Some(name) => name.to_owned(),
        None => crate::container::ContainerId::random().context("/dev/urandom")?.to_string(),
    };
    volumes.create(&name, labels, false)?;
    super::print(&format!("{name}\n"))?;
    Ok(0)
}

fn list(volumes: &Volumes, quiet: bool) -> anyhow::Result<u8> {
    let all = volumes.list()?;
    let mut text = if quiet { String::new() } else { "DRIVER    VOLUME NAME\n".to_owned() };
    for volume in all {
        let line = if quiet { volume.name } else { format!("local     {}", volume.name) };
        text.push_str(&line);
        text.push('\n');
    }
    super::print(&text)?;
    Ok(0)
}

/// With docker's names of fields.
fn inspect(volumes: &Volumes, names: &[String]) -> anyhow::Result<u8> {
    let document = |volume: VolumeRecord| {
        serde_json::json!({
            "Name": volume.name,
            "Driver": "local",
            "Mountpoint": volumes.data_of(&volume.name),
            "CreatedAt": volume.created,
            "Labels": volume.labels,
            "Scope": "local",
            "Anonymous": volume.anonymous,
        })
    };
    let found = names.iter().map(|name| volumes.find(name).map(document)).collect::<Result<Vec<_>, _>>()?;
    super::print_json(&serde_json::to_string_pretty(&found)?)?;
    Ok(0)
}

fn prune(volumes: &Volumes, containers: &Containers, all: bool, force: bool) -> anyhow::Result<u8> {
    let what = if all { "all volumes" } else { "all volumes without a name" };
    if !force && !agreed(&format!("This removes {what} that no container uses."))? {
        return Ok(0);
    }
    for volume in volumes.list()? {
        if (all || volume.anonymous) && users(&volume.name, containers)?.is_none() {
            volumes.remove(&volume.name, containers)?;
            super::print(&format!("{}\n", volume.name))?;
        }
    }
    Ok(0)
}

/// Whether the user says yes to what cannot be undone.
fn agreed(warning: &str) -> anyhow::Result<bool> {
    ensure!(std::io::stdin().is_terminal(), "{warning} There is no terminal to ask at: give --force");
    write!(std::io::stderr(), "{warning} Continue? [y/N] ").context("standard error")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
