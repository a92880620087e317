//! Lists that come in pages (distribution-spec, "Listing Tags", "Listing Referrers").

use super::http::Answer;
use super::url::Url;
use super::{Registry, RegistryError};

/// What one page may have.
pub(super) const PAGE_BYTES_MAX: u64 = 4 << 20;

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) bytes: Vec<u8>,
    /// Where the next one is.
    pub(super) next: Option<Url>,
}

impl Registry {
    /// The page that was asked for at `url`. The next one is on the same server: credentials would not follow, and nobody pages to
    /// somewhere else.
    pub(super) fn page(&self, url: &Url, answer: Answer, what: &str) -> Result<Page, RegistryError> {
        let next = answer.header("link").and_then(next_of).map(|link| url.join(link)).transpose();
        let next = next.map_err(|reason| self.wrong(what, reason))?;
        if next.as_ref().is_some_and(|next| !next.is_same_server(&self.base)) {
            return Err(self.wrong(what, "it says that there are more on another server"));
        }
        let bytes = answer.read(PAGE_BYTES_MAX).map_err(|error| self.wrong(what, &error.to_string()))?;
        let too_long =
            || RegistryError::Limit { registry: self.name(), what: what.to_owned(), limit: PAGE_BYTES_MAX };
        Ok(Page { bytes: bytes.ok_or_else(too_long)?, next })
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
