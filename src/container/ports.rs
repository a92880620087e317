//! Ports of a container that are reached through the host's: which are wanted, and which there are while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{Container, ContainerError, Listed, Status, Wishes};
use crate::model::image_config::ProcessConfig;
use crate::model::port::{self, Port, PortError, Publish, Published};
use crate::sys::atomic;

/// What was published when the container was last started; there only if something was.
const FILE: &str = "ports.json";
const MODE: u32 = 0o600;

/// What a container is to publish: what was asked for, and with `--publish-all` what else the image or the user exposes.
///
/// # Errors
/// When the image exposes what is no port.
pub fn wanted(image: &ProcessConfig, wishes: &Wishes) -> Result<Vec<Publish>, PortError> {
    let mut wanted = wishes.publish.clone();
    if wishes.publish_all {
        let mut exposed: BTreeSet<Port> = wishes.expose.iter().copied().collect();
        for text in image.exposed_ports() {
            exposed.extend(port::ports(text)?);
        }
        for port in &wishes.publish {
            exposed.remove(&port.port);
        }
        let any = |port| Publish { port, host_ip: None, host_port: None };
        wanted.extend(exposed.into_iter().map(any));
    }
    Ok(wanted)
}

/// The same where nobody said which port of the host, with that of the last time, if there was one: who reached the container
/// by it is to do so after a restart.
#[must_use]
pub(super) fn as_before(dir: &Path, wanted: &[Publish]) -> Vec<Publish> {
    // What cannot be read, as after a power cut, is not needed.
    let text = std::fs::read(dir.join(FILE)).unwrap_or_default();
    let mut before: Vec<Published> = serde_json::from_slice(&text).unwrap_or_default();
    let mut again = |one: &Publish| {
        let same = before.iter().position(|last| last.port == one.port && last.host_ip == one.host_ip);
        let last = same.map(|at| before.swap_remove(at).host_port);
        Publish { host_port: one.host_port.or(last), ..*one }
    };
    wanted.iter().map(&mut again).collect()
}

/// Writes down what is published from now on. It is true only as long as the container runs, so it need not be flushed.
///
/// # Errors
/// What the system says.
pub(super) fn write(dir: &Path, published: &[Published]) -> Result<(), ContainerError> {
    let path = dir.join(FILE);
    if published.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ContainerError::io("remove", &path)(error))
            }
            _ => Ok(()),
        };
    }
    let text = serde_json::to_vec(published).map_err(ContainerError::document(&path))?;
    atomic::write_volatile(&path, &text, MODE).map_err(ContainerError::io("write", &path))
}

/// What the container in `dir` publishes: nothing unless it runs.
///
/// # Errors
/// When that cannot be read.
pub fn published(dir: &Path, status: &Status) -> Result<Vec<Published>, ContainerError> {
    if !status.is_running() {
        return Ok(Vec::new());
    }
    let path = dir.join(FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(ContainerError::document(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(ContainerError::io("read", &path)(error)),
    }
}

/// The column PORTS of `ps`: `0.0.0.0:8080->80/tcp`.
#[must_use]
pub(super) fn cell_of(one: &Listed) -> String {
    cell(&known(one))
}

/// A list of many must not fail for one.
fn known(one: &Listed) -> Vec<Published> {
    published(&one.dir, &one.status).unwrap_or_else(|error| {
        tracing::warn!(%error, "which ports are published");
        Vec::new()
    })
}

fn cell(published: &[Published]) -> String {
    sorted(published).iter().map(|one| format!("{}->{}", one.host(), one.port)).collect::<Vec<_>>().join(", ")
}

/// The lines of `port`: `80/tcp -> 0.0.0.0:8080`, or of one port only the host's side.
#[must_use]
pub fn lines(published: &[Published], only: Option<Port>) -> Vec<String> {
    match only {
        Some(port) => published.iter().filter(|one| one.port == port).map(Published::host).collect(),
        None => sorted(published).iter().map(|one| format!("{} -> {}", one.port, one.host())).collect(),
    }
}

fn sorted(published: &[Published]) -> Vec<Published> {
    let mut sorted = published.to_vec();
    sorted.sort_by_key(|one| (one.port, one.host_port));
    sorted
}

/// `NetworkSettings` of `inspect`; the field names are docker's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedNetwork {
    /// What is published now.
    ports: BTreeMap<String, Vec<Binding>>,
}

/// Part of `HostConfig` of `inspect`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedBindings {
    /// What was asked for.
    port_bindings: BTreeMap<String, Vec<Binding>>,
    publish_all_ports: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_ip: String,
    /// Empty when any was wanted.
    host_port: String,
}

/// What `inspect` shows of what was asked for.
pub(super) fn bindings(wishes: &Wishes) -> InspectedBindings {
    let wanted = wishes.publish.iter().map(|one| {
        let host_ip = one.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let host_port = one.host_port.map(|port| port.to_string()).unwrap_or_default();
        (one.port, Binding { host_ip, host_port })
    });
    InspectedBindings { port_bindings: by_port(wanted), publish_all_ports: wishes.publish_all }
}

/// What `inspect` shows of what there is.
///
/// # Errors
/// As [`published`].
pub(super) fn network(container: &Container, status: &Status) -> Result<InspectedNetwork, ContainerError> {
    let published = published(container.dir(), status)?;
    let now = published.iter().map(|one| {
        let host_ip = one.shown_ip().to_string();
        (one.port, Binding { host_ip, host_port: one.host_port.to_string() })
    });
    Ok(InspectedNetwork { ports: by_port(now) })
}

/// A port in podman's list of containers.
#[derive(Debug, Serialize)]
pub(super) struct ListedPort {
    host_ip: String,
    container_port: u16,
    host_port: u16,
    range: u16,
    protocol: String,
}

/// What podman's list shows.
pub(super) fn listed(one: &Listed) -> Vec<ListedPort> {
    let port = |one: &Published| ListedPort {
        host_ip: one.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        container_port: one.port.number,
        host_port: one.host_port,
        range: 1,
        protocol: one.port.protocol.to_string(),
    };
    known(one).iter().map(port).collect()
}

fn by_port(bindings: impl Iterator<Item = (Port, Binding)>) -> BTreeMap<String, Vec<Binding>> {
    let mut found: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
    for (port, binding) in bindings {
        found.entry(port.to_string()).or_default().push(binding);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_exposed_and_not_published_otherwise() {
        let text = r#"{"ExposedPorts":{"80/tcp":{},"53/udp":{},"81/tcp":{}}}"#;
        let mut image: ProcessConfig = serde_json::from_str(text).unwrap();
        let wishes = Wishes {
            publish: port::publishes("8080:80").unwrap(),
            expose: port::ports("90").unwrap(),
            publish_all: true,
            ..Wishes::default()
        };
        let shown = |image: &ProcessConfig, wishes: &Wishes| {
            wanted(image, wishes).map(|all| all.iter().map(|one| one.port.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(shown(&image, &wishes).unwrap(), ["80/tcp", "53/udp", "81/tcp", "90/tcp"]);
        let only = Wishes { publish_all: false, ..wishes.clone() };
        assert_eq!(shown(&image, &only).unwrap(), ["80/tcp"]);
        image.other.insert("ExposedPorts".to_owned(), serde_json::json!({ "\u{1b}": {} }));
        assert!(shown(&image, &wishes).is_err());
    }

    #[test]
    fn the_same_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = [publish("80"), publish("80"), publish("53/udp"), publish("9000:90")];
        let numbers = |all: &[Publish]| all.iter().map(|one| one.host_port).collect::<Vec<_>>();
        let shown = || numbers(&as_before(dir.path(), &wanted));
        assert_eq!(shown(), [None, None, None, Some(9000)]);
        let last = |text: &str, host_port| {
            let one = publish(text);
            Published { port: one.port, host_ip: one.host_ip, host_port }
        };
        write(dir.path(), &[last("80", 1), last("127.0.0.1::53/udp", 3), last("80", 2), last("90", 4)])
            .unwrap();
        let found = shown();
        assert!(found[..2] == [Some(1), Some(2)] && found[2..] == [None, Some(9000)], "{found:?}");
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert_eq!(shown(), [None, None, None, Some(9000)]);
    }

    fn publish(text: &str) -> Publish {
        port::publishes(text).unwrap()[0]
    }

    #[test]
    fn as_docker_shows_them() {
        let published = |text: &str| {
            let one = port::publishes(text).unwrap()[0];
            Published { port: one.port, host_ip: one.host_ip, host_port: one.host_port.unwrap() }
        };
        let all = [published("[::1]:9000:90"), published("8080:80"), published("53:53/udp")];
        assert_eq!(cell(&all), "0.0.0.0:53->53/udp, 0.0.0.0:8080->80/tcp, [::1]:9000->90/tcp");
        assert_eq!(lines(&all, None)[1], "80/tcp -> 0.0.0.0:8080");
        assert_eq!(lines(&all, "90".parse().ok()), ["[::1]:9000"]);
    }
}
