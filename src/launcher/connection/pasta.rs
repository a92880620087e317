//! What pasta(1) is told. All of it is understood since its version of March 2023, that of Debian 12.

use std::net::IpAddr;

use super::{ADDRESS, GATEWAY, NAME_SERVER};
use crate::model::port::{Protocol, Published};

/// Its arguments. Its standard input is the network namespace; the number of its process, which it writes when it is
/// ready, goes to standard output.
pub(super) fn arguments(published: &[Published]) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--foreground", "--quiet", "--config-net", "--netmask", "24"].map(str::to_owned).into();
    // With the host's own address, which it takes when nothing is said, the container could not reach the host by it.
    for (option, address) in [("--address", ADDRESS), ("--gateway", GATEWAY), ("--dns-forward", NAME_SERVER)]
    {
        arguments.extend([option.to_owned(), address.to_string()]);
    }
    // No address of the container leads to what listens on the host's loopback.
    arguments.push("--no-map-gw".to_owned());
    for (protocol, option) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
        let specs: Vec<String> =
            published.iter().filter(|one| one.port.protocol == protocol).map(spec).collect();
        if specs.is_empty() {
            arguments.extend([option.to_owned(), "none".to_owned()]);
        }
        arguments.extend(specs.into_iter().flat_map(|spec| [option.to_owned(), spec]));
    }
    // It is root of the container's user namespace, or of the host's when the container has none of its own.
    let rest = [
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        "--runas",
        "0",
        "--netns-only",
        "--no-netns-quit",
        "--netns",
        "/proc/self/fd/0",
        "--pid",
        "/proc/self/fd/1",
    ];
    arguments.extend(rest.map(str::to_owned));
    arguments
}

/// `[ADDRESS/]HOSTPORT:PORT`
fn spec(published: &Published) -> String {
    let ports = format!("{}:{}", published.host_port, published.port.number);
    match published.host_ip {
        // Every address of both protocols: that is what it does without one.
        None => ports,
        Some(IpAddr::V4(ip)) => format!("{ip}/{ports}"),
        Some(IpAddr::V6(ip)) => format!("{ip}/{ports}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::port::Port;

    #[test]
    fn ports_as_it_takes_them() {
        let published = |number, protocol, host_ip: Option<&str>| Published {
            port: Port { number, protocol },
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 8000 + number,
        };
        let all = [
            published(80, Protocol::Tcp, None),
            published(81, Protocol::Tcp, Some("127.0.0.1")),
            published(53, Protocol::Udp, Some("::1")),
        ];
        let line = arguments(&all).join(" ");
        let expected =
            "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/8081:81 --udp-ports ::1/8053:53 --tcp-ns none";
        assert!(line.contains(expected), "{line}");
        // Nothing that was not asked for: its own default is whatever listens.
        assert!(
            arguments(&[])
                .join(" ")
                .contains("--tcp-ports none --udp-ports none --tcp-ns none --udp-ns none")
        );
    }
}
