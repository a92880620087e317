//! What a command in a container has for itself.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::container::Wishes;

/// What a command in a container has for itself
#[derive(Clone, Debug, Args)]
pub struct ProcessArgs {
    /// Set a variable (KEY=VALUE), or pass the caller's on (KEY)
    #[arg(long, short = 'e', value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Read variables from a file: KEY=VALUE or KEY in each line, taken literally; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Directory in the container to start in
    #[arg(long, short = 'w', value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User to run as, a name or a number of the image
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
}

impl ProcessArgs {
    /// What is wished for.
    pub(in crate::commands) fn wishes(&self) -> anyhow::Result<Wishes> {
        Ok(Wishes {
            env: variables(&self.env_file, &self.env)?,
            workdir: self.workdir.clone().map(Into::into),
            user: self.user.clone(),
            terminal: self.tty,
            interactive: self.interactive,
            ..Wishes::default()
        })
    }

    /// A terminal needs one of the user's to take its input from.
    pub(in crate::commands) fn must_be_terminal(&self) -> anyhow::Result<()> {
        let is_terminal = !(self.tty && self.interactive) || std::io::stdin().is_terminal();
        ensure!(is_terminal, "the input device is not a TTY: leave out -t, or -i");
        Ok(())
    }
}

/// What `--env-file` and `-e` say.
fn variables(files: &[PathBuf], variables: &[String]) -> anyhow::Result<Vec<OsString>> {
    let mut env = Vec::new();
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("--env-file {}", file.display()))?;
        env.extend(env_file(&text).with_context(|| format!("--env-file {}", file.display()))?);
    }
    for variable in variables {
        env.extend(variable_of(variable.as_ref())?);
    }
    Ok(env)
}

/// `KEY=value`, or `KEY` for the caller's value, if it has one.
fn variable_of(text: &OsStr) -> anyhow::Result<Option<OsString>> {
    let bytes = text.as_bytes();
    ensure!(!bytes.is_empty() && bytes[0] != b'=', "-e {}: no name before the =", text.display());
    if bytes.contains(&b'=') {
        return Ok(Some(text.to_owned()));
    }
    let joined = |value: OsString| OsString::from_vec([bytes, b"=", value.as_bytes()].concat());
    Ok(std::env::var_os(text).map(joined))
}

/// One variable in each line, taken literally as docker does; `#` begins a comment.
fn env_file(text: &[u8]) -> anyhow::Result<Vec<OsString>> {
    let mut variables = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if !line.is_empty() && line[0] != b'#' {
            variables.extend(variable_of(OsStr::from_bytes(line))?);
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_literal() {
        let text = b"# comment\n\nA=1\n B=\"x y\" # no comment\r\nLAYERFS_SURELY_UNSET\nC=a=b\n";
        assert_eq!(env_file(text).unwrap(), ["A=1", "B=\"x y\" # no comment", "C=a=b"]);
        assert!(env_file(b"=x\n").is_err());
    }
}
