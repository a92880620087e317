//! What tags there are (distribution-spec, "Listing Tags").

use serde::Deserialize;

use super::http::Method;
use super::{Registry, RegistryError};

/// What one page may have.
const PAGE_BYTES_MAX: u64 = 4 << 20;
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
            let answer = self.ask_url(Method::Get, &url, &what, &[], || super::http::Content::None)?;
            if answer.status != 200 {
                return Err(self.refused(&what, answer));
            }
            let next = answer.header("link").and_then(next_of).map(|link| url.join(link)).transpose();
            let next = next.map_err(|reason| self.wrong(&what, reason))?;
            let bytes = answer.read(PAGE_BYTES_MAX).map_err(|error| self.wrong(&what, &error.to_string()))?;
            let too_long =
                || RegistryError::Limit { registry: self.name(), what: what.clone(), limit: PAGE_BYTES_MAX };
            let page: Page = serde_json::from_slice(&bytes.ok_or_else(too_long)?)
                .map_err(|error| self.wrong(&what, &format!("no list of tags: {error}")))?;
            tags.extend(page.tags.into_iter().flatten());
            tags.truncate(limit);
            match next {
                // Credentials would not follow, and nobody pages to somewhere else.
                Some(next) if !next.is_same_server(&self.base) => {
                    return Err(self.wrong(&what, "it says that there are more on another server"));
                }
                Some(next) if tags.len() < limit => url = next,
                _ => return Ok(tags),
            }
        }
        Ok(tags)
    }
}

/// The address in `<URL>; rel="next"` (RFC 8288).
fn next_of(link: &str) -> Option<&str> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.replace(['"', ' '], "").split(';').any(|part| part == "rel=next").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(
            next_of(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(next_of("<x>;rel=next"), Some("x"));
        for none in ["", "<x>", r#"<x>; rel="prev""#, "x; rel=next", "<x"] {
            assert_eq!(next_of(none), None, "{none}");
        }
    }
}
