//! `layerfs update`

use anyhow::Context as _;
use clap::Args;

use super::options::resources::ResourceArgs;
use super::{environment, selection};
use crate::container::updating::{self, Change, Turn};

/// `layerfs update`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is given replaces what the container was made with, also for its later starts; all else stays. A limit that cannot be set on a \
container that runs is an error, and nothing has changed then.")]
pub struct UpdateArgs {
    /// What it may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// When it runs again after its end: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// The one that was made last
    #[arg(long, short = 'l', conflicts_with = "container")]
    pub latest: bool,
    /// ID, unique prefix or name
    #[arg(required_unless_present = "latest")]
    pub container: Option<String>,
}

/// Changes what a container may take, and when it runs again; prints its id.
pub(super) fn run(args: &UpdateArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let container = match &args.container {
        Some(text) => containers.find(text)?,
        None => containers.find(&selection::latest(&containers)?)?,
    };
    let turn = Turn::wait(&containers, &container)?;
    let container = turn.container();
    let made_with = container.config().run.as_ref().with_context(|| {
        format!("container {} is a mount: there is nothing to limit", container.config().name)
    })?;
    let restart = args.restart.as_ref().map(|text| text.parse().context("--restart")).transpose()?;
    let change = Change {
        resources: args.resources.changed_from(&made_with.resources)?,
        restart: restart.unwrap_or(made_with.restart),
    };
    updating::update(&containers, &turn, &change)?;
    super::print(&format!("{}\n", container.id()))?;
    Ok(0)
}
