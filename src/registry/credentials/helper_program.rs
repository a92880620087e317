//! Programs that keep credentials: `docker-credential-NAME get|store|erase` (docker-credential-helpers, "Development").
//!
//! What they are asked goes through their standard input, what they say comes from their standard output, so no secret is
//! among arguments that others can list. They have the caller's environment and standard error.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::super::Access;
use super::CredentialsError;

/// How long a helper may take: it may ask its user to unlock a keychain.
const TIME_MAX: Duration = Duration::from_secs(120);
/// What a helper may say: tokens of some cloud registries have several KiB.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of a helper's complaint is repeated.
const COMPLAINT_CHARS_MAX: usize = 300;
/// How long one look takes at whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);
/// What every helper says when it has nothing (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user of an identity token.
const TOKEN_USER: &str = "<token>";

/// One helper, by what follows `docker-credential-`.
#[derive(Debug)]
pub(super) struct Helper<'a> {
    name: &'a str,
    program: OsString,
    time_max: Duration,
}

/// What `get` answers and `store` is given.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

struct Answer {
    status: ExitStatus,
    text: Vec<u8>,
}

impl<'a> Helper<'a> {
    /// The name comes from a file: it may not lead to a program that is no helper.
    pub(super) fn new(name: &'a str) -> Result<Self, CredentialsError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(allowed) {
            return Err(failed(name, "this cannot be the name of a helper"));
        }
        Ok(Self { name, program: format!("docker-credential-{name}").into(), time_max: TIME_MAX })
    }

    /// What it has for any of these names of one server.
    pub(super) fn get(&self, servers: &[&str]) -> Result<Option<Access>, CredentialsError> {
        for server in servers {
            let Some(text) = self.call("get", server.as_bytes())? else { continue };
            // What it said holds a secret: the reason does not quote it.
            let kept: Kept = serde_json::from_slice(&text)
                .map_err(|_| failed(self.name, "get: expected JSON with ServerURL, Username and Secret"))?;
            if kept.username.is_empty() && kept.secret.is_empty() {
                continue;
            }
            return Ok(Some(match kept.username.as_str() {
                TOKEN_USER => Access::IdentityToken(kept.secret),
                _ => Access::Password { username: kept.username, password: kept.secret },
            }));
        }
        Ok(None)
    }

    /// Gives it credentials to keep.
    pub(super) fn store(&self, server: &str, username: &str, secret: &str) -> Result<(), CredentialsError> {
        let [server_url, username, secret] = [server, username, secret].map(str::to_owned);
        let kept = serde_json::to_vec(&Kept { server_url, username, secret });
        let kept = kept.map_err(|error| failed(self.name, &error.to_string()))?;
        match self.call("store", &kept)? {
            Some(_) => Ok(()),
            None => Err(failed(self.name, NOT_FOUND)),
        }
    }

    /// Has it forget a server under all of its names; whether it says that it knew one.
    pub(super) fn erase(&self, servers: &[&str]) -> Result<bool, CredentialsError> {
        let mut erased = false;
        for server in servers {
            match self.call("erase", server.as_bytes()) {
                // Not all of them say in the usual words that there is nothing under the other name.
                Err(error) if erased => tracing::debug!(%error, server, "nothing more to erase"),
                done => erased |= done?.is_some(),
            }
        }
        Ok(erased)
    }

    /// What it printed; `None` when it says that it has no such credentials.
    fn call(&self, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>, CredentialsError> {
        let mut command = Command::new(&self.program);
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CredentialsError::NoHelper { name: self.name.to_owned() },
            _ => failed(self.name, &error.to_string()),
        })?;
        let answer = converse(&mut child, input.to_vec(), Instant::now() + self.time_max);
        if answer.is_err() {
            end(&mut child);
        }
        let answer = answer.map_err(|error| failed(self.name, &format!("{verb}: {error}")))?;
        if answer.status.success() {
            return Ok(Some(answer.text));
        }
        let said = String::from_utf8_lossy(&answer.text);
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        let said: String = said.trim().chars().take(COMPLAINT_CHARS_MAX).collect();
        Err(failed(self.name, &format!("{verb}: {}: {said}", answer.status)))
    }
}

fn converse(child: &mut Child, input: Vec<u8>, end: Instant) -> io::Result<Answer> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // A thread of its own: one that reads nothing must not stop us. When the child has ended, so does this.
        thread::spawn(move || {
            if let Err(error) = stdin.write_all(&input) {
                tracing::debug!(%error, "a credential helper did not read what it was asked");
            }
        });
    }
    let mut text = Vec::new();
    if let Some(stdout) = stdout {
        read_answer(child, stdout, &mut text, end)?;
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Answer { status, text });
        }
        in_time(end)?;
        thread::sleep(PAUSE);
    }
}

/// To the end of what it says, or its own end: what it started may keep its standard output open.
fn read_answer(child: &mut Child, mut from: ChildStdout, to: &mut Vec<u8>, end: Instant) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut ended = false;
    loop {
        in_time(end)?;
        let wait = if ended { PollTimeout::ZERO } else { PollTimeout::from(10_u8) };
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, wait) {
            Ok(0) if ended => return Ok(()),
            Ok(0) => ended = child.try_wait()?.is_some(),
            Ok(_) => {
                let count = from.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                to.extend_from_slice(&buffer[..count]);
                if to.len() > ANSWER_BYTES_MAX {
                    return Err(io::Error::other(format!("it said more than {ANSWER_BYTES_MAX} bytes")));
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn in_time(end: Instant) -> io::Result<()> {
    if Instant::now() < end { Ok(()) } else { Err(io::Error::other("it took too long and was killed")) }
}

/// Best effort: it may just have ended by itself.
fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait().map(|_| ())) {
        tracing::debug!(%error, "cannot end a credential helper");
    }
}

fn failed(name: &str, reason: &str) -> CredentialsError {
    CredentialsError::Helper { name: name.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a helper that is this script says to `get`.
    fn get(script: &str, time_max: Duration) -> Result<Option<Access>, String> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("helper");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let helper = Helper { name: "test", program: program.into(), time_max };
        // Another thread that forks meanwhile may have the script open for writing (ETXTBSY) for a moment.
        loop {
            match helper.get(&["r.io"]).map_err(|error| error.to_string()) {
                Err(error) if error.contains("Text file busy") => thread::sleep(PAUSE),
                done => return done,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn what_helpers_say() {
        let me = Access::Password { username: "me".to_owned(), password: "s3cret".to_owned() };
        let answer = r#"echo '{"ServerURL":"'$(cat)'","Username":"me","Secret":"s3cret","More":1}'"#;
        assert_eq!(get(answer, LONG), Ok(Some(me.clone())));
        // One that reads nothing, and one whose child keeps the pipe open.
        assert_eq!(
            get(r#"echo '{"Username":"me","Secret":"s3cret"}'; sleep 30 & exit 0"#, LONG),
            Ok(Some(me))
        );
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(get(token, LONG), Ok(Some(Access::IdentityToken("t".to_owned()))));
        assert_eq!(get("echo credentials not found in native keychain; exit 1", LONG), Ok(None));
        assert_eq!(get("echo '{}'", LONG), Ok(None));
    }

    #[test]
    fn what_helpers_do_wrong() {
        let error = get("echo keychain is locked; exit 3", LONG).unwrap_err();
        assert!(
            error.contains("docker-credential-test: get: ") && error.contains("keychain is locked"),
            "{error}"
        );
        let error = get("echo s3cret", LONG).unwrap_err();
        assert!(error.contains("expected JSON") && !error.contains("s3cret"), "{error}");
        let error = get("exec tr '\\0' x </dev/zero", LONG).unwrap_err();
        assert!(error.contains("more than"), "{error}");
        for hangs in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let start = Instant::now();
            let error = get(hangs, SHORT).unwrap_err();
            assert!(error.contains("too long"), "{error}");
            assert!(start.elapsed() < LONG, "it was waited for");
        }
    }
}
