//! `layerfs search-tags`

use anyhow::Context as _;
use serde_json::json;

use super::options::pull::SearchTagsArgs;
use super::{environment, registries};
use crate::image::{Reference, pull};
use crate::look::told;

/// Prints the tags, one a line.
pub(super) fn run(args: &SearchTagsArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let name = args.name.strip_prefix("docker://").unwrap_or(&args.name);
    let reference: Reference = name.parse().with_context(|| args.name.clone())?;
    let tags = pull::tags(&store, &registries::pull_spec(&reference, None, &args.registry)?, args.limit)?;
    if args.json {
        let name = format!("{}/{}", reference.host(), reference.path());
        super::print_json(&serde_json::to_string_pretty(&json!({ "Name": name, "Tags": tags }))?)?;
    } else {
        let lines: Vec<String> = tags.iter().map(|tag| told(tag) + "\n").collect();
        super::print(&lines.concat())?;
    }
    Ok(0)
}
