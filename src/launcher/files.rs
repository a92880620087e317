//! The files that every container gets: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, `/run/.containerenv`.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::plan::{GeneratedFile, Network};

/// What podman makes for a container of that name and network. With the host's network the host's own files are the base.
///
/// # Errors
/// A file of the host is there but cannot be read.
pub fn default_files(hostname: &str, network: Network) -> io::Result<Vec<GeneratedFile>> {
    let (hosts, resolv_conf) = match network {
        Network::Host => (read_or_empty("/etc/hosts")?, read_or_empty("/etc/resolv.conf")?),
        Network::None => (String::new(), String::new()),
    };
    let file = |destination: &str, content: String| GeneratedFile {
        destination: PathBuf::from(destination),
        content,
    };
    Ok(vec![
        file("/etc/hosts", complete_hosts(hosts, hostname)),
        file("/etc/hostname", format!("{hostname}\n")),
        file("/etc/resolv.conf", resolv_conf),
        // Its presence is how programs find out that they are in a container.
        file("/run/.containerenv", String::new()),
    ])
}

fn read_or_empty(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

fn complete_hosts(mut hosts: String, hostname: &str) -> String {
    let knows = |hosts: &str, name: &str| {
        let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
        lines.flat_map(|line| line.split_whitespace().skip(1)).any(|known| known == name)
    };
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    if !knows(&hosts, "localhost") {
        hosts.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost\n");
    }
    if !knows(&hosts, hostname) {
        hosts.push_str(&format!("127.0.0.1\t{hostname}\n"));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_knows_the_container_once() {
        assert_eq!(
            complete_hosts(String::new(), "box"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\tbox\n"
        );
        let host = "127.0.0.1 localhost box # other";
        assert_eq!(complete_hosts(host.into(), "box"), format!("{host}\n"));
        assert!(complete_hosts(host.into(), "other").ends_with("127.0.0.1\tother\n"));
    }

    #[test]
    fn without_a_network_nothing_of_the_host_shows() {
        let files = default_files("box", Network::None).unwrap();
        let resolv_conf = files.iter().find(|file| file.destination.ends_with("resolv.conf")).unwrap();
        assert_eq!(resolv_conf.content, "");
    }
}
