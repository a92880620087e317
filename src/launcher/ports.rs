//! Ports of the host: which are free, and why one is not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::model::port::{Port, Protocol, Publish, Published};

/// A port of the host that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish port {port} on {host}: {source}{hint}")]
pub struct PortTaken {
    port: Port,
    host: String,
    source: io::Error,
    hint: &'static str,
}

/// Chooses a port of the host for each that names none, and makes sure that all are to be had.
///
/// Nothing is held: who is quick may take one before it is published. Then the program that publishes it says so.
///
/// # Errors
/// [`PortTaken`]
pub fn choose(wanted: &[Publish]) -> Result<Vec<Published>, PortTaken> {
    let mut held = Vec::with_capacity(wanted.len());
    let mut chosen = Vec::with_capacity(wanted.len());
    for one in wanted {
        let ip = one.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = SocketAddr::new(ip, one.host_port.unwrap_or(0));
        let (socket, host_port) = bind(address, one.port.protocol).map_err(|source| PortTaken {
            port: one.port,
            host: address.to_string(),
            hint: hint(&source),
            source,
        })?;
        held.push(socket);
        chosen.push(Published { port: one.port, host_ip: one.host_ip, host_port });
    }
    Ok(chosen)
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<(Socket, u16)> {
    let socket = match protocol {
        Protocol::Tcp => Socket::Tcp(TcpListener::bind(address)?),
        Protocol::Udp => Socket::Udp(UdpSocket::bind(address)?),
    };
    let bound = match &socket {
        Socket::Tcp(socket) => socket.local_addr(),
        Socket::Udp(socket) => socket.local_addr(),
    }?;
    Ok((socket, bound.port()))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (ports below the sysctl net.ipv4.ip_unprivileged_port_start, 1024 unless changed, are root's)"
        }
        io::ErrorKind::AddrNotAvailable => " (the host does not have that address)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(host_port: Option<u16>, protocol: Protocol) -> Publish {
        let port = Port { number: 80, protocol };
        Publish { port, host_ip: Some(Ipv4Addr::LOCALHOST.into()), host_port }
    }

    #[test]
    fn free_ports_differ() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let chosen = choose(&[publish(None, protocol), publish(None, protocol)]).unwrap();
            assert!(chosen[0].host_port > 0 && chosen[0].host_port != chosen[1].host_port, "{chosen:?}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let error = choose(&[publish(Some(number), Protocol::Tcp)]).unwrap_err().to_string();
        let begins = format!("cannot publish port 80/tcp on 127.0.0.1:{number}: ");
        assert!(error.starts_with(&begins) && error.contains("in use"), "{error}");
        // The same number twice is as bad.
        drop(taken);
        let twice = [publish(Some(number), Protocol::Udp), publish(Some(number), Protocol::Udp)];
        assert!(choose(&twice).is_err());
        let permission = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(hint(&permission).contains("net.ipv4.ip_unprivileged_port_start"));
    }
}
