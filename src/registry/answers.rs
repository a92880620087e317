//! What answers other than success mean.

use std::time::Duration;

use serde::Deserialize;

use super::http::Answer;
use super::{Registry, RegistryError};

/// What is read of an answer that says why not.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// What is shown of it.
const MESSAGE_LETTERS_MAX: usize = 300;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// How long the server wants us to wait, if it says so in seconds (RFC 9110, section 10.2.3).
pub(super) fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.number("retry-after").map(Duration::from_secs)
}

/// Whether the same request may be answered later.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

impl Registry {
    /// The error for an answer that is no success.
    pub(super) fn refused(&self, what: &str, answer: Answer) -> RegistryError {
        let (registry, what, status) = (self.name(), what.to_owned(), answer.status);
        let message = said(answer);
        match status {
            401 | 403 => RegistryError::Denied { registry, what, message },
            404 => RegistryError::NotFound { registry, what, message },
            _ => RegistryError::Status { registry, what, status, message },
        }
    }

    /// The error for an answer that makes no sense.
    pub(super) fn wrong(&self, what: &str, reason: &str) -> RegistryError {
        RegistryError::Answer { registry: self.name(), what: what.to_owned(), reason: reason.to_owned() }
    }
}

/// What an answer says of why, made harmless: in brackets, or nothing.
pub(super) fn said(answer: Answer) -> String {
    let is_text =
        answer.header("content-type").is_some_and(|kind| kind.trim_start().starts_with("text/plain"));
    let body = answer.read(MESSAGE_BYTES_MAX).ok().flatten().unwrap_or_default();
    let text = message(&body).or_else(|| is_text.then(|| String::from_utf8_lossy(&body).into_owned()));
    text.map(|text| shown(&text)).unwrap_or_default()
}

/// What the specification's error document says (distribution-spec, "Error Codes").
fn message(body: &[u8]) -> Option<String> {
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    let error = errors.into_iter().next()?;
    Some(format!("{} {}", error.code, error.message))
}

fn shown(text: &str) -> String {
    let shown: String = text.trim().escape_debug().take(MESSAGE_LETTERS_MAX).collect();
    if shown.is_empty() { shown } else { format!(" ({shown})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(body: &[u8]) -> String {
        message(body).map(|text| shown(&text)).unwrap_or_default()
    }

    #[test]
    fn messages_are_short_and_harmless() {
        let body = br#"{"errors":[{"code":"DENIED","message":"\u001b[2J no"}]}"#;
        assert_eq!(shown_of(body), " (DENIED \\u{1b}[2J no)");
        for nothing in [&b""[..], b"{}", b"<html>", br#"{"errors":[]}"#, br#"{"errors":[{}]}"#] {
            assert_eq!(shown_of(nothing), "");
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(shown_of(long.as_bytes()).len(), MESSAGE_LETTERS_MAX + 3);
    }
}
