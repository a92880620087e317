//! `layerfs search-tags`, and `search`.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;

use super::options::registry::RegistryArgs;
use super::registries::{self, Asking};
use super::{complain, pull};
use crate::registry::{Patience, Registry};

/// As podman has it.
const LIMIT: usize = 25;
/// More are not asked for.
const LIMIT_MAX: usize = 100_000;

/// `layerfs search-tags`
#[derive(Clone, Debug, Args)]
pub struct SearchTagsArgs {
    /// How many are shown at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: usize,
    /// "json", or a Go template with .Name and .Tag for each
    #[arg(long)]
    pub format: Option<String>,
    /// Print no headings
    #[arg(long)]
    pub noheading: bool,
    /// How the registry is asked
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// The repository: HOST/NAME without tag
    pub name: String,
}

/// `layerfs search`
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// List the tags of a repository: `layerfs search-tags`
    #[arg(long)]
    pub list_tags: bool,
    /// As for `search-tags`
    #[command(flatten)]
    pub tags: SearchTagsArgs,
}

/// There is nothing to ask.
pub(super) fn search(args: &SearchArgs) -> anyhow::Result<u8> {
    if args.list_tags {
        return tags(&args.tags);
    }
    let name = &args.tags.name;
    bail!(
        "search {name}: registries cannot be searched, as the OCI protocol has no question for it; \
         `layerfs search-tags {name}` lists the tags of a repository"
    )
}

/// Asks a registry for the tags of a repository.
pub(super) fn tags(args: &SearchTagsArgs) -> anyhow::Result<u8> {
    ensure!((1..=LIMIT_MAX).contains(&args.limit), "--limit {}: from 1 to {LIMIT_MAX}", args.limit);
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(super::ps::template(text)?),
    };
    let name = registries::plain(&args.name);
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    ensure!(!has_tag, "{name}: give the name without tag and digest");
    let asking = Asking::new(&args.registry)?;
    let (reference, mut tags) = pull::first(&asking.references(name)?, |reference| {
        // Mirrors may have fewer.
        let endpoints = asking.endpoints(reference)?;
        let endpoint = endpoints.last().context("no registry to ask")?;
        // One more tells whether there are more.
        let tags = Registry::open(endpoint, Patience::default())?.tags(args.limit + 1)?;
        Ok((reference.clone(), tags))
    })?;
    let has_more = tags.len() > args.limit;
    tags.truncate(args.limit);
    let place = format!("{}/{}", reference.host(), reference.path());
    match (args.format.as_deref(), template) {
        (Some("json"), _) => {
            let document = json!([{ "Name": place, "Tags": tags }]);
            super::print_json(&serde_json::to_string_pretty(&document)?)?;
        }
        (_, Some(template)) => {
            for tag in &tags {
                let line = template.render(&json!({ "Name": place, "Tag": tag }))?;
                super::print(&format!("{}\n", crate::look::told(&line)))?;
            }
        }
        (_, None) => super::print(&table(&place, &tags, args.noheading))?,
    }
    if has_more {
        complain(&format!("There are more tags than these {}: see --limit", args.limit));
    }
    Ok(0)
}

fn table(place: &str, tags: &[String], noheading: bool) -> String {
    let row = |name: &str, tag: &str| vec![name.to_owned(), tag.to_owned()];
    let headings = (!noheading).then(|| row("NAME", "TAG"));
    let rows: Vec<Vec<String>> =
        headings.into_iter().chain(tags.iter().map(|tag| row(place, &crate::look::told(tag)))).collect();
    crate::container::view::aligned(&rows)
}
