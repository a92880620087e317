//! Which containers a command is about.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::container::filter::Filters;
use crate::container::{ContainerError, Containers, Listed, Listing, Moment};

/// Which containers
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// All of them
    #[arg(long, short = 'a', conflicts_with_all = ["latest", "containers", "cidfile"])]
    pub all: bool,
    /// The one that was made last
    #[arg(long, short = 'l', conflicts_with_all = ["containers", "filter", "cidfile"])]
    pub latest: bool,
    /// Those of which this holds, as in `layerfs ps`
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["containers", "cidfile"])]
    pub filter: Vec<String>,
    /// The one whose id is in a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Vec<PathBuf>,
    /// IDs, unique prefixes or names
    #[arg(required_unless_present_any = ["all", "latest", "filter", "cidfile"])]
    pub containers: Vec<String>,
}

/// What becomes of names that nothing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are an error.
    Told,
    /// They are passed over (`--ignore`).
    Ignored,
}

impl Missing {
    pub(super) fn ignored_if(ignore: bool) -> Self {
        if ignore { Self::Ignored } else { Self::Told }
    }
}

impl SelectionArgs {
    /// Their names or ids. Of all, and of those that filters find, only those that `fit`.
    pub(super) fn names(
        &self,
        containers: &Containers,
        missing: Missing,
        fit: impl Fn(&Listed) -> bool,
    ) -> anyhow::Result<Vec<String>> {
        if self.latest {
            return latest(containers).map(|id| vec![id]);
        }
        let mut names = self.containers.clone();
        for path in &self.cidfile {
            match std::fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Ignored => {}
                text => {
                    let text = text.with_context(|| format!("--cidfile {}", path.display()))?;
                    let id = text.lines().next().unwrap_or_default().to_owned();
                    ensure!(!id.is_empty(), "--cidfile {}: there is no id in it", path.display());
                    names.push(id);
                }
            }
        }
        if missing == Missing::Ignored {
            names.retain(|name| !matches!(containers.find(name), Err(ContainerError::NotFound(_))));
        }
        if self.all || !self.filter.is_empty() {
            let filters = Filters::parse(&self.filter, containers, Moment::now())?;
            let found = containers.listed(Listing::Chosen)?.into_iter();
            let meant = found.filter(|one| fit(one) && filters.admit(one));
            names.extend(meant.map(|one| one.about.id.to_string()));
        }
        Ok(names)
    }
}

/// The id of the container that was made last.
pub(super) fn latest(containers: &Containers) -> anyhow::Result<String> {
    let all = containers.listed(Listing::Shown)?;
    let latest = all.first().context("--latest: there is no container")?;
    Ok(latest.about.id.to_string())
}
