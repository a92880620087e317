//! What slirp4netns(1) is told: at its start, and of ports through a socket.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::failure::{Context as _, Failure, Step};
use super::super::plan::Plan;
use super::super::rootfs;
use super::ADDRESS;
use crate::model::port::Published;

/// In the container's directory, which is private, and the program's working directory: the path of a socket must not be long.
/// Removed when it is ready, and by whoever finds it when it was killed before that.
pub const SOCKET: &str = "slirp4netns.sock";
/// Longest answer, and the longest time for one.
const ANSWER_BYTES_MAX: u64 = 4096;
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Its arguments. Its standard input is the network namespace; standard output hears that it is ready.
pub(super) fn arguments(published: &[Published]) -> Vec<&'static str> {
    let mut arguments = vec!["--configure", "--mtu=65520", "--disable-host-loopback"];
    arguments.extend(["--enable-sandbox", "--enable-seccomp", "--ready-fd=1"]);
    if !published.is_empty() {
        arguments.extend(["--api-socket", SOCKET]);
    }
    arguments.extend(["--netns-type=path", "/proc/self/fd/0", "tap0"]);
    arguments
}

/// Where its socket is.
pub(super) fn directory(plan: &Plan) -> &Path {
    plan.rootfs_mount_point.parent().unwrap_or(Path::new("/"))
}

/// Removes what an earlier one has left behind, as it does when it is killed.
pub(super) fn forget_socket(directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Publishes the ports of one that is ready.
pub(super) fn publish(directory: &Path, published: &[Published]) -> Step<()> {
    for one in published {
        let answer = ask(directory, &request(one)).stage("slirp4netns")?;
        if let Some(error) = answer.get("error") {
            let why = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
            let text = format!("cannot publish {}/{}: {why}", one.host(), one.port.protocol);
            return Err(Box::new(Failure::new("slirp4netns", &io::Error::other(text))));
        }
    }
    forget_socket(directory).at("remove", directory.join(SOCKET))
}

fn request(one: &Published) -> Value {
    json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": one.port.protocol.to_string(),
            "host_addr": one.shown_ip().to_string(),
            "host_port": one.host_port,
            "guest_addr": ADDRESS.to_string(),
            "guest_port": one.port.number,
        },
    })
}

/// One request for each connection, which ends it.
fn ask(directory: &Path, request: &Value) -> io::Result<Value> {
    let directory = rootfs::open_directory(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    socket.set_write_timeout(Some(ANSWER_WAIT))?;
    socket.write_all(request.to_string().as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Why a port cannot be published, if so.
pub(super) fn refusal(published: &[Published]) -> Option<Failure> {
    let one = published.iter().find(|one| matches!(one.host_ip, Some(IpAddr::V6(_))))?;
    let text = format!("cannot publish {}: it knows only IPv4 there", one.host());
    Some(Failure::new("slirp4netns", &io::Error::other(text)).hint("--network pasta knows both"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::port::{Port, Protocol};

    #[test]
    fn ports_as_it_takes_them() {
        let port = Port { number: 80, protocol: Protocol::Tcp };
        let mut one = Published { port, host_ip: None, host_port: 8080 };
        let asked = &request(&one)["arguments"];
        assert_eq!((&asked["proto"], &asked["host_addr"]), (&"tcp".into(), &"0.0.0.0".into()));
        assert_eq!((&asked["host_port"], &asked["guest_port"]), (&8080.into(), &80.into()));
        assert!(refusal(&[one]).is_none());
        one.host_ip = Some("::1".parse().unwrap());
        assert!(refusal(&[one]).unwrap().to_string().contains("[::1]:8080"));
        assert!(!arguments(&[]).contains(&"--api-socket") && arguments(&[one]).contains(&"--api-socket"));
    }
}
