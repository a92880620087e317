//! Ports of a container, and how they are published on the host: what people type, and what is shown to them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports that one option may name: docker and podman have no such limit, but each is a socket of the host.
const RANGE_PORTS_MAX: usize = 1024;

/// What carries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of a container, as `80/tcp`; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// What carries it.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.protocol)
    }
}

/// A port of a container that is to be reached through one of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// In the container.
    pub port: Port,
    /// Address of the host; all of them when not set.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; any that is free when not set.
    pub host_port: Option<u16>,
}

/// A port of a container that can be reached through one of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// In the container.
    pub port: Port,
    /// Address of the host; all of them when not set.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
}

impl Published {
    /// The host's address as it is shown: all of them are `0.0.0.0`.
    #[must_use]
    pub fn shown_ip(&self) -> IpAddr {
        self.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// The host's side, as `0.0.0.0:8080` or `[::1]:8080`.
    #[must_use]
    pub fn host(&self) -> String {
        std::net::SocketAddr::new(self.shown_ip(), self.host_port).to_string()
    }
}

/// A text that names no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Neither a number from 1 to 65535 nor a range of them.
    #[error("{0:?} is no port: ports are from 1 to 65535, ranges as 8000-8010")]
    Number(String),
    /// Neither `tcp` nor `udp`.
    #[error("{0:?} is not supported: tcp and udp are")]
    Protocol(String),
    /// No address.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// Ranges of different lengths.
    #[error("the ranges {host} and {container} differ in length")]
    Lengths {
        /// Of the host.
        host: String,
        /// Of the container.
        container: String,
    },
    /// A very long range.
    #[error("a range of more than {RANGE_PORTS_MAX} ports")]
    TooMany,
}

impl FromStr for Port {
    type Err = PortError;

    /// `80`, `80/tcp` or `53/udp`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        match ports(text)?.as_slice() {
            [port] => Ok(*port),
            _ => Err(PortError::Number(text.to_owned())),
        }
    }
}

/// `PORT[-PORT][/PROTOCOL]`, as `--expose` and the `ExposedPorts` of an image have it.
///
/// # Errors
/// [`PortError`]
pub fn ports(text: &str) -> Result<Vec<Port>, PortError> {
    let (numbers, protocol) = split_protocol(text)?;
    Ok(range(numbers)?.into_iter().map(|number| Port { number, protocol }).collect())
}

/// `[[IP:][HOSTPORT]:]PORT[/PROTOCOL]` with ranges, as `--publish` has it. IPv6 addresses are in brackets.
///
/// # Errors
/// [`PortError`]
pub fn publishes(text: &str) -> Result<Vec<Publish>, PortError> {
    let (text, protocol) = split_protocol(text)?;
    let (host_ip, rest) = split_address(text)?;
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (host, container),
        None => ("", rest),
    };
    let numbers = range(container)?;
    let host_ports: Vec<Option<u16>> = match host {
        "" => vec![None; numbers.len()],
        host => range(host)?.into_iter().map(Some).collect(),
    };
    if host_ports.len() != numbers.len() {
        return Err(PortError::Lengths { host: host.to_owned(), container: container.to_owned() });
    }
    let pairs = numbers.into_iter().zip(host_ports);
    Ok(pairs
        .map(|(number, host_port)| Publish { port: Port { number, protocol }, host_ip, host_port })
        .collect())
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), PortError> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((numbers, protocol)) if protocol.eq_ignore_ascii_case("tcp") => Ok((numbers, Protocol::Tcp)),
        Some((numbers, protocol)) if protocol.eq_ignore_ascii_case("udp") => Ok((numbers, Protocol::Udp)),
        Some((_, protocol)) => Err(PortError::Protocol(protocol.to_owned())),
    }
}

/// The address in front, if there is one, and what follows its colon. One that means all addresses is as none.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), PortError> {
    let (address, rest) = if let Some(inner) = text.strip_prefix('[') {
        inner.split_once("]:").ok_or_else(|| PortError::Address(text.to_owned()))?
    } else {
        match text.split_once(':') {
            Some((address, rest)) if rest.contains(':') => (address, rest),
            _ => return Ok((None, text)),
        }
    };
    if address.is_empty() {
        return Ok((None, rest));
    }
    let parsed: IpAddr = address.parse().map_err(|_| PortError::Address(address.to_owned()))?;
    let all = parsed == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Ok(((!all).then_some(parsed), rest))
}

/// `80` or `8000-8010`.
fn range(text: &str) -> Result<Vec<u16>, PortError> {
    let wrong = || PortError::Number(text.to_owned());
    let number = |text: &str| match text.parse::<u16>() {
        Ok(number) if number > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(wrong()),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let numbers = number(first)?..=number(last)?;
    if numbers.is_empty() {
        return Err(wrong());
    }
    if numbers.len() > RANGE_PORTS_MAX {
        return Err(PortError::TooMany);
    }
    Ok(numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let one = |publish: &Publish| {
            let ip = publish.host_ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
            let host = publish.host_port.map_or_else(|| "?".to_owned(), |port| port.to_string());
            format!("{ip} {host} {}", publish.port)
        };
        match publishes(text) {
            Ok(all) => all.iter().map(one).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_docker_takes() {
        for (text, meant) in [
            ("80", "* ? 80/tcp"),
            ("8080:80", "* 8080 80/tcp"),
            ("8080:80/UDP", "* 8080 80/udp"),
            (":80", "* ? 80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080 80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ? 80/tcp"),
            ("0.0.0.0:8080:80", "* 8080 80/tcp"),
            ("[::1]:8080:80/tcp", "::1 8080 80/tcp"),
            ("[::1]::80", "::1 ? 80/tcp"),
            ("8000-8001:90-91", "* 8000 90/tcp, * 8001 91/tcp"),
            ("90-91/udp", "* ? 90/udp, * ? 91/udp"),
        ] {
            assert_eq!(shown(text), meant, "{text}");
        }
    }

    #[test]
    fn what_nobody_takes() {
        for (text, why) in [
            ("", "\"\" is no port"),
            ("0", "\"0\" is no port"),
            ("x:80", "\"x\" is no port"),
            ("+1:80", "\"+1\" is no port"),
            ("65536:80", "\"65536\" is no port"),
            ("9-8:9-8", "\"9-8\" is no port"),
            ("1-3:1-2", "differ in length"),
            ("80/sctp", "\"sctp\" is not supported"),
            ("host:1:2", "\"host\" is no IP address"),
            ("::1:80:80", "is no port"),
            ("[::1:80:80", "is no IP address"),
            ("1-65535", "more than 1024"),
        ] {
            assert!(shown(text).contains(why), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn shown_as_docker_does() {
        let port: Port = "80".parse().unwrap();
        assert_eq!(port.to_string(), "80/tcp");
        assert!("80-81".parse::<Port>().is_err());
        let mut published = Published { port, host_ip: None, host_port: 8080 };
        assert_eq!(published.host(), "0.0.0.0:8080");
        published.host_ip = Some("::1".parse().unwrap());
        assert_eq!(published.host(), "[::1]:8080");
    }
}
