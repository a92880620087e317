//! The files that every container gets: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, `/run/.containerenv`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::connection;
use super::plan::{GeneratedFile, Network};

/// What is wished for names and those who know them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Name servers, in place of the host's.
    pub servers: Vec<IpAddr>,
    /// Domains to look in, in place of the host's; `.` for none.
    pub search: Vec<String>,
    /// Options of resolv.conf(5), in place of the host's.
    pub options: Vec<String>,
    /// Further hosts.
    pub hosts: Vec<(String, HostAddress)>,
}

/// The address of a further host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAddress {
    /// This one.
    Ip(IpAddr),
    /// One by which the container reaches the host (`host-gateway`).
    Gateway,
}

/// What podman makes for a container of that name and network. With any network the host's own files are the base.
///
/// # Errors
/// A file of the host is there but cannot be read; nobody knows an address that was asked for.
pub fn default_files(hostname: &str, network: Network, names: &Names) -> io::Result<Vec<GeneratedFile>> {
    let (hosts, resolv_conf) = match network {
        Network::None => (String::new(), String::new()),
        _ => (read_or_empty("/etc/hosts")?, read_or_empty("/etc/resolv.conf")?),
    };
    let gateway = gateway(network);
    let own = if network.is_connected() { connection::ADDRESS } else { Ipv4Addr::LOCALHOST };
    let mut lines = further_hosts(&names.hosts, gateway)?;
    lines.push_str(&complete_hosts(hosts, hostname, own));
    if let (true, Some(gateway)) = (network.is_connected(), gateway) {
        lines.push_str(&format!("{gateway}\thost.containers.internal host.docker.internal\n"));
    }
    let file = |destination: &str, content: String| GeneratedFile {
        destination: PathBuf::from(destination),
        content,
    };
    Ok(vec![
        file("/etc/hosts", lines),
        file("/etc/hostname", format!("{hostname}\n")),
        file("/etc/resolv.conf", resolv_conf_for(&resolv_conf, network, names)),
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

/// An address by which a container of that network reaches the host, if there is one.
fn gateway(network: Network) -> Option<IpAddr> {
    /// For documentation only (RFC 5737): a host that everybody routes by default.
    const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    match network {
        Network::None => None,
        Network::Host => Some(Ipv4Addr::LOCALHOST.into()),
        _ => {
            // That sends nothing, but chooses the address that would be sent from.
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
            socket.connect(ANYWHERE).ok()?;
            let address = socket.local_addr().ok()?.ip();
            (!address.is_loopback() && !address.is_unspecified()).then_some(address)
        }
    }
}

fn further_hosts(hosts: &[(String, HostAddress)], gateway: Option<IpAddr>) -> io::Result<String> {
    let mut lines = String::new();
    for (name, address) in hosts {
        let address = match (*address, gateway) {
            (HostAddress::Ip(address), _) | (HostAddress::Gateway, Some(address)) => address,
            (HostAddress::Gateway, None) => {
                return Err(io::Error::other(format!(
                    "--add-host {name}:host-gateway: the container has no way to the host"
                )));
            }
        };
        lines.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(lines)
}

fn complete_hosts(mut hosts: String, hostname: &str, own: Ipv4Addr) -> String {
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
        hosts.push_str(&format!("{own}\t{hostname}\n"));
    }
    hosts
}

/// What a container of that network makes of the host's `/etc/resolv.conf`.
fn resolv_conf_for(hosts: &str, network: Network, names: &Names) -> String {
    if !network.is_connected()
        && names.servers.is_empty()
        && names.search.is_empty()
        && names.options.is_empty()
    {
        return hosts.to_owned();
    }
    let of_host = |keys: &[&str]| -> Vec<Vec<&str>> {
        let lines = hosts.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let told = lines.filter(|words| words.first().is_some_and(|key| keys.contains(key)));
        told.map(|words| words[1..].to_vec()).collect()
    };
    let mut text = String::new();
    // Of several lines the last one counts.
    let search = if names.search.is_empty() {
        of_host(&["search", "domain"]).pop().unwrap_or_default().join(" ")
    } else {
        names.search.iter().filter(|domain| *domain != ".").cloned().collect::<Vec<_>>().join(" ")
    };
    if !search.is_empty() {
        text.push_str(&format!("search {search}\n"));
    }
    let servers: Vec<String> = if names.servers.is_empty() {
        // What follows the address is a comment.
        let told = of_host(&["nameserver"]).into_iter().filter_map(|words| words.first().copied());
        let told: Vec<&str> = told.collect();
        if network.is_connected() { reachable(&told) } else { told.into_iter().map(str::to_owned).collect() }
    } else {
        names.servers.iter().map(ToString::to_string).collect()
    };
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options = if names.options.is_empty() {
        of_host(&["options"]).concat().join(" ")
    } else {
        names.options.join(" ")
    };
    if !options.is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    text
}

/// First who answers for the host's first name server, wherever that listens; then those that are no business of the
/// host's loopback or of one of its interfaces.
fn reachable(of_host: &[&str]) -> Vec<String> {
    let addresses = of_host.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let others = addresses.filter(|address| !address.is_loopback() && !address.is_unspecified());
    std::iter::once(connection::NAME_SERVER.into()).chain(others).map(|address| address.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(hosts: &str, hostname: &str) -> String {
        complete_hosts(hosts.to_owned(), hostname, Ipv4Addr::LOCALHOST)
    }

    #[test]
    fn hosts_knows_the_container_once() {
        assert_eq!(completed("", "box"), "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\tbox\n");
        let host = "127.0.0.1 localhost box # other";
        assert_eq!(completed(host, "box"), format!("{host}\n"));
        assert!(completed(host, "other").ends_with("127.0.0.1\tother\n"));
    }

    fn content(network: Network, names: &Names, name: &str) -> String {
        let files = default_files("box", network, names).unwrap();
        files.into_iter().find(|file| file.destination.ends_with(name)).unwrap().content
    }

    #[test]
    fn without_a_network_nothing_of_the_host_shows() {
        assert_eq!(content(Network::None, &Names::default(), "resolv.conf"), "");
    }

    #[test]
    fn a_connected_container_has_an_address_of_its_own() {
        let hosts = content(Network::Pasta, &Names::default(), "hosts");
        assert!(hosts.contains("10.0.2.100\tbox\n"), "{hosts}");
    }

    #[test]
    fn further_hosts_come_first() {
        let ip = HostAddress::Ip("::7".parse().unwrap());
        let mut names = Names { hosts: vec![("seven".to_owned(), ip)], ..Names::default() };
        let hosts = content(Network::None, &names, "hosts");
        assert!(hosts.starts_with("::7\tseven\n127.0.0.1\tlocalhost\n"), "{hosts}");
        names.hosts.push(("host".to_owned(), HostAddress::Gateway));
        assert!(content(Network::Host, &names, "hosts").contains("127.0.0.1\thost\n"));
        let error = default_files("box", Network::None, &names).unwrap_err().to_string();
        assert!(error.contains("host-gateway"), "{error}");
    }

    #[test]
    fn name_servers_that_can_be_reached() {
        let none = Names::default();
        let host = "domain old\nnameserver 127.0.0.53 # stub\nnameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver ::1\n\
                    options edns0 trust-ad\nsearch a.example b.example\n";
        let made = resolv_conf_for(host, Network::Private, &none);
        assert_eq!(
            made,
            "search a.example b.example\nnameserver 10.0.2.3\nnameserver 9.9.9.9\noptions edns0 trust-ad\n"
        );
        assert_eq!(resolv_conf_for(host, Network::Host, &none), host);
        let wished = Names {
            servers: vec!["1.1.1.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
            ..Names::default()
        };
        for network in [Network::Host, Network::Slirp4netns] {
            assert_eq!(resolv_conf_for(host, network, &wished), "nameserver 1.1.1.1\noptions ndots:2\n");
        }
        let searched = Names { search: vec!["c".to_owned()], ..Names::default() };
        let made = resolv_conf_for(host, Network::Host, &searched);
        assert!(made.starts_with("search c\nnameserver 127.0.0.53\n"), "{made}");
    }
}
