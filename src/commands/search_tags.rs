//! `layerfs search-tags`

use serde_json::json;

use super::options::pull::SearchTagsArgs;
use super::registries::{self, Asking};
use super::{environment, pull};
use crate::image::pull as image;
use crate::look::told;

/// Prints the tags, one a line.
pub(super) fn run(args: &SearchTagsArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let asking = Asking::new(&args.registry)?;
    let references = asking.references(registries::plain(&args.name))?;
    let (reference, tags) = pull::first(&references, |reference| {
        let tags = image::tags(&store, &asking.pull_spec(reference, None)?, args.limit)?;
        Ok((reference.clone(), tags))
    })?;
    if args.json {
        let name = format!("{}/{}", reference.host(), reference.path());
        super::print_json(&serde_json::to_string_pretty(&json!({ "Name": name, "Tags": tags }))?)?;
    } else {
        let lines: Vec<String> = tags.iter().map(|tag| told(tag) + "\n").collect();
        super::print(&lines.concat())?;
    }
    Ok(0)
}
