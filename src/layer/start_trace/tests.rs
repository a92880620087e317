//! Learning, and reading ahead.
