//! `layerfs login` and `layerfs logout`

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{complain, environment, print};
use crate::launcher::RawMode;
use crate::registry::credentials::{self, Dialogue, Offer, RegistryKey};
use crate::registry::surroundings::SurroundingsError;
use crate::registry::{Access, Patience, RegistryError, check_access};

/// Longest user name or password that is read: longer than the tokens of any registry.
const ANSWER_BYTES_MAX: usize = 32 << 10;
/// What keys send in raw mode (termios(3)).
const INTERRUPT: u8 = 3;
const END_OF_FILE: u8 = 4;
const ERASE_LINE: u8 = 0x15;
const ERASE: [u8; 2] = [8, 0x7f];

/// `layerfs login`
#[derive(Clone, Args)]
#[command(after_help = "\
REGISTRY is HOST[:PORT], or HOST[:PORT]/NAMESPACE for credentials that are for a part of it. They are tried at the registry and \
kept where podman, skopeo and buildah find them: in the file of --authfile, else $REGISTRY_AUTH_FILE, else \
$XDG_RUNTIME_DIR/containers/auth.json, or with the credential helper that is configured there.")]
pub struct LoginArgs {
    /// Who (default: asked for)
    #[arg(long, short = 'u', value_name = "USER")]
    pub username: Option<String>,
    /// The password; others on this machine can see it among the arguments of this process
    #[arg(long, short = 'p', conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// The file that credentials are kept in
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Only print who is logged in
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub get_login: bool,
    /// Whether HTTPS and a valid certificate are required (default: yes, but for this machine and what registries.conf says)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Say where the credentials are kept
    #[arg(long, short = 'v')]
    pub verbose: bool,
    /// Which one
    #[arg(value_name = "REGISTRY")]
    pub registry: RegistryKey,
}

/// Without the password.
impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// `layerfs logout`
#[derive(Clone, Debug, Args)]
pub struct LogoutArgs {
    /// All registries that the file has credentials for
    #[arg(long, short = 'a', conflicts_with = "registry")]
    pub all: bool,
    /// The file that credentials are kept in
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Which one
    #[arg(value_name = "REGISTRY", required_unless_present = "all")]
    pub registry: Option<RegistryKey>,
}

/// Tries credentials at a registry and keeps them.
pub(super) fn login(args: LoginArgs) -> anyhow::Result<u8> {
    let host = environment::surroundings(args.authfile.as_deref())?;
    let key = &args.registry;
    if args.get_login {
        let user = credentials::logged_in(&host.keychain, key)?;
        let user = user.with_context(|| format!("not logged into {key}"))?;
        print(&format!("{user}\n"))?;
        return Ok(0);
    }
    if args.password.is_some() {
        complain("Warning: others can see a password that is an argument: --password-stdin is safe");
    }
    let password = if args.password_stdin { Some(password_of_stdin()?) } else { args.password };
    let offer = Offer { username: args.username, password };
    let insecure = args.tls_verify.map(|verify| !verify);
    let accepts = |access: &Access| -> Result<bool, Unanswered> {
        let endpoint = host.for_login(key, insecure, access.clone())?;
        match check_access(&endpoint, Patience::default()) {
            Ok(()) => Ok(true),
            Err(error) if error.is_unauthorized() => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let keeper = credentials::login(&host.keychain, key, offer, &mut Terminal, accepts)?;
    let used = if args.verbose { format!("Used: {keeper}\n") } else { String::new() };
    print(&format!("{used}Login Succeeded!\n"))?;
    Ok(0)
}

/// Forgets credentials.
pub(super) fn logout(args: &LogoutArgs) -> anyhow::Result<u8> {
    let host = environment::surroundings(args.authfile.as_deref())?;
    let said = match &args.registry {
        Some(key) => credentials::logout(&host.keychain, key)?,
        None => credentials::logout_everywhere(&host.keychain)?.to_owned(),
    };
    print(&format!("{said}\n"))?;
    Ok(0)
}

/// Why a registry did not say whether it lets one in.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Surroundings(#[from] SurroundingsError),
}

/// All of it but the end of its line, as a file or echo(1) has it.
fn password_of_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = ANSWER_BYTES_MAX as u64 + 2;
    io::stdin().take(limit).read_to_string(&mut text).context("standard input")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    ensure!(password.len() <= ANSWER_BYTES_MAX, "standard input: longer than any password");
    Ok(password.to_owned())
}

/// Who sits at the terminal. Questions go to standard error: standard output is for results.
struct Terminal;

impl Dialogue for Terminal {
    fn tell(&mut self, line: &str) -> io::Result<()> {
        print(&format!("{line}\n")).map_err(io::Error::other)
    }

    fn ask_user(&mut self, known: Option<&str>) -> io::Result<String> {
        need_terminal("give --username, and --password-stdin")?;
        let known = known.map(|known| format!(" ({})", crate::look::told(known))).unwrap_or_default();
        write!(io::stderr(), "Username{known}: ")?;
        let mut line = String::new();
        io::stdin().lock().take(ANSWER_BYTES_MAX as u64).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn ask_password(&mut self) -> io::Result<String> {
        need_terminal("give --password-stdin")?;
        let typed = {
            // Before the question: who answers at once is not shown it, either.
            let _raw = RawMode::enter()?;
            write!(io::stderr(), "Password: ")?;
            read_hidden(&mut io::stdin().lock())
        };
        writeln!(io::stderr())?;
        typed
    }
}

fn need_terminal(instead: &str) -> io::Result<()> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(io::Error::other(format!("there is no terminal to ask at: {instead}")))
}

/// One line of a terminal in raw mode, which shows nothing and leaves all keys to us.
fn read_hidden(from: &mut impl io::Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        if from.read(&mut key)? == 0 {
            break;
        }
        match key[0] {
            b'\r' | b'\n' | END_OF_FILE => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            ERASE_LINE => line.clear(),
            key if ERASE.contains(&key) => {
                // A whole character, of however many bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            _ if line.len() == ANSWER_BYTES_MAX => {
                return Err(io::Error::other("longer than any password"));
            }
            key => line.push(key),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("the password is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_hidden_line() {
        let typed = |keys: &str| read_hidden(&mut keys.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(typed("s3cret\rnot this").unwrap(), "s3cret");
        assert_eq!(typed("s3\u{7f}\u{8}\u{8}\u{8}x\u{e9}\u{7f}y\n").unwrap(), "xy");
        assert_eq!(typed("wrong\u{15}right\u{4}").unwrap(), "right");
        assert_eq!(typed("abc\u{3}\r").unwrap_err(), "interrupted");
        assert_eq!(typed("").unwrap(), "");
        assert!(typed(&"x".repeat(ANSWER_BYTES_MAX + 1)).is_err());
        assert!(read_hidden(&mut &b"\xff\r"[..]).is_err());
    }
}
