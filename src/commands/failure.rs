//! How a failure is said: in one line, from the outermost message to the cause, nothing twice.

use std::error::Error;

/// The message and its causes. Those of the library are whole sentences that end with their cause, contexts given in
/// this row are not; so a cause is added only when the line does not say it already.
pub(super) fn line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;
    use crate::index::IndexError;
    use crate::mount::MountError;

    fn library() -> MountError {
        let source = io::Error::other("disk on fire");
        let index = IndexError::Io { path: "blob".into(), source };
        MountError::Index { layer: 2, source: Box::new(index) }
    }

    #[test]
    fn nothing_is_said_twice() {
        assert_eq!(line(&library()), "layer 2: blob: disk on fire");
    }

    #[test]
    fn contexts_come_with_their_cause() {
        let error = Err::<(), _>(library()).context("demo").unwrap_err();
        assert_eq!(line(error.as_ref()), "demo: layer 2: blob: disk on fire");
        let error = anyhow::anyhow!("inner").context("middle").context("outer");
        assert_eq!(line(error.as_ref()), "outer: middle: inner");
    }
}
