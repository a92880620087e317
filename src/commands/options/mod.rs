//! The options of `layerfs run` and its relatives, one file for each kind: what can be typed, and what is wished for by it.

pub mod attachment;
pub mod health;
pub mod lazy;
pub mod life;
mod mount_option;
pub mod network;
pub mod process;
pub mod pull;
pub mod registry;
pub mod resources;
pub mod rights;
pub mod rlimits;
pub mod runtime;
pub mod storage;
pub mod userns;

use anyhow::Context as _;

use super::environment;

/// A size as docker has it: a number of bytes, or with k, m, g or t, and perhaps a b behind that.
fn bytes(option: &str, text: &str) -> anyhow::Result<u64> {
    let upper = text.to_ascii_uppercase();
    let number = upper.strip_suffix('B').unwrap_or(&upper);
    environment::bytes_of(number).with_context(|| format!("{option} {text}: expected a size such as 64m"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        let known = ["0", "17b", "2k", "3Mb", "1g"].map(|text| bytes("x", text).unwrap());
        assert_eq!(known, [0, 17, 2048, 3 << 20, 1 << 30]);
        for wrong in ["", "b", "-1", "1.5g", "m"] {
            assert!(bytes("--x", wrong).unwrap_err().to_string().contains("--x"), "{wrong}");
        }
    }
}
