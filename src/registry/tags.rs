//! What tags there are (distribution-spec, "Listing Tags").

use serde::Deserialize;

use super::http::{Content, Method};
use super::{Registry, RegistryError};

/// Pages that are asked for: a server that always says there is another one is not followed for ever.
const PAGES_MAX: u32 = 1000;
/// Tags on a page, if the server does as it is asked.
const PAGE_TAGS: u32 = 1000;

#[derive(Deserialize)]
struct Page {
    // Some say null where there are none.
    tags: Option<Vec<String>>,
}

impl Registry {
    /// The repository's tags in the order that the registry has them, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub fn tags(&self, limit: usize) -> Result<Vec<String>, RegistryError> {
        let what = format!("tags of {}", self.endpoint.repository);
        let path = format!("/v2/{}/tags/list?n={PAGE_TAGS}", self.endpoint.repository);
        let mut url = self.base.at(&path);
        let mut tags: Vec<String> = Vec::new();
        for _ in 0..PAGES_MAX {
            let answer = self.ask_url(Method::Get, &url, &what, &[], || Content::None)?;
            if answer.status != 200 {
                return Err(self.refused(&what, answer));
            }
            let page = self.page(&url, answer, &what)?;
            let names: Page = serde_json::from_slice(&page.bytes)
                .map_err(|error| self.wrong(&what, &format!("no list of tags: {error}")))?;
            tags.extend(names.tags.into_iter().flatten());
            tags.truncate(limit);
            match page.next {
                Some(next) if tags.len() < limit => url = next,
                _ => return Ok(tags),
            }
        }
        Ok(tags)
    }
}
