//! Whom a container reaches, and who reaches it.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};

use crate::commands::complain;
use crate::container::Wishes;
use crate::launcher::{HostAddress, Names, Network};
use crate::model::port;

/// Whom a container reaches
#[derive(Clone, Debug, Default, Args)]
pub struct NetworkArgs {
    /// Host name inside (default: the container's short id)
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<String>,
    /// Network: none, host, or one of its own that a program of the host connects: pasta, slirp4netns, or private for whichever
    /// is installed (default: none; private where ports are published)
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    pub network: Option<String>,
    /// Reach a port of the container through one of the host: tcp, unless /udp follows; ranges as 8000-8010:80-90
    #[arg(long, short = 'p', value_name = "[[IP:][HOSTPORT]:]PORT")]
    pub publish: Vec<String>,
    /// Reach every port that is exposed through one of the host that is free
    #[arg(long, short = 'P')]
    pub publish_all: bool,
    /// Expose a port beside those of the image
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub expose: Vec<String>,
    /// Name server, in place of the host's
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,
    /// Domain to look for names in, in place of the host's; . for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option of resolv.conf, in place of the host's
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Line of /etc/hosts; host-gateway as IP is an address of the host
    #[arg(long, value_name = "NAME:IP")]
    pub add_host: Vec<String>,
}

/// `--network` of `layerfs build`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BuildNetworkArg {
    /// A network namespace with nothing but `lo`.
    None,
    /// The host's network.
    Host,
}

impl BuildNetworkArg {
    /// What is wished for.
    pub(in crate::commands) fn wanted(self) -> Network {
        match self {
            Self::None => Network::None,
            Self::Host => Network::Host,
        }
    }
}

impl NetworkArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.hostname.clone_from(&self.hostname);
        let publishes = self.publish_all || !self.publish.is_empty();
        wishes.network = match &self.network {
            Some(text) => network(text)?,
            None if publishes => Network::Private,
            None => Network::None,
        };
        for text in &self.expose {
            wishes.expose.extend(port::ports(text).with_context(|| format!("--expose {text}"))?);
        }
        let mut publish = Vec::new();
        for text in &self.publish {
            publish.extend(port::publishes(text).with_context(|| format!("-p {text}"))?);
        }
        match wishes.network {
            Network::None if publishes => bail!(
                "-p and -P need a network: leave out --network none, or choose private, pasta or slirp4netns"
            ),
            // The program's own ports are the host's.
            Network::Host if publishes => {
                complain("WARNING: Published ports are discarded when using host network mode");
            }
            _ => {
                wishes.publish = publish;
                wishes.publish_all = self.publish_all;
            }
        }
        wishes.names = self.names()?;
        let names = &wishes.names;
        let resolves = !(names.servers.is_empty() && names.search.is_empty() && names.options.is_empty());
        ensure!(
            !(resolves && wishes.network == Network::None),
            "--dns, --dns-search and --dns-option need a network: give --network host, private, pasta or slirp4netns"
        );
        Ok(())
    }

    fn names(&self) -> anyhow::Result<Names> {
        let one_word = |option: &str, texts: &[String]| -> anyhow::Result<Vec<String>> {
            for text in texts {
                let is_word =
                    !text.is_empty() && !text.contains(|one: char| one.is_whitespace() || one.is_control());
                ensure!(is_word, "{option} {text:?}: one word is expected");
            }
            Ok(texts.to_vec())
        };
        Ok(Names {
            servers: self.dns.clone(),
            search: one_word("--dns-search", &self.dns_search)?,
            options: one_word("--dns-option", &self.dns_option)?,
            hosts: self.add_host.iter().map(|text| further_host(text)).collect::<anyhow::Result<_>>()?,
        })
    }
}

fn network(text: &str) -> anyhow::Result<Network> {
    Ok(match text {
        "none" => Network::None,
        "host" => Network::Host,
        "private" => Network::Private,
        "pasta" => Network::Pasta,
        "slirp4netns" => Network::Slirp4netns,
        _ => bail!("--network {text} is not supported: there are none, host, private, pasta and slirp4netns"),
    })
}

/// `NAME:IP`, and as docker has it also `NAME=IP`, with an IPv6 address in brackets or not.
fn further_host(text: &str) -> anyhow::Result<(String, HostAddress)> {
    let expected = || format!("--add-host {text}: expected NAME:IP or NAME:host-gateway");
    let (name, address) = text.split_once(['=', ':']).with_context(expected)?;
    let is_name =
        !name.is_empty() && !name.contains(|one: char| one.is_whitespace() || one.is_control() || one == '#');
    ensure!(is_name, "{}", expected());
    if address == "host-gateway" {
        return Ok((name.to_owned(), HostAddress::Gateway));
    }
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    Ok((name.to_owned(), HostAddress::Ip(bare.parse().with_context(expected)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> NetworkArgs {
        NetworkArgs::default()
    }

    fn wished(args: &NetworkArgs) -> Result<Wishes, String> {
        let mut wishes = Wishes::default();
        args.add_to(&mut wishes).map(|()| wishes).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_network_follows_from_the_ports() {
        let text = |text: &str| vec![text.to_owned()];
        assert_eq!(wished(&args()).unwrap().network, Network::None);
        let with = wished(&NetworkArgs { publish: text("80"), ..args() }).unwrap();
        assert_eq!((with.network, with.publish.len()), (Network::Private, 1));
        let all = wished(&NetworkArgs { publish_all: true, ..args() }).unwrap();
        assert!(all.publish_all && all.network == Network::Private);
        let network =
            |name: &str, publish| wished(&NetworkArgs { network: Some(name.to_owned()), publish, ..args() });
        assert_eq!(network("slirp4netns", text("80")).unwrap().network, Network::Slirp4netns);
        assert!(network("none", text("80")).unwrap_err().contains("--network none"));
        assert!(network("host", text("80")).unwrap().publish.is_empty());
        for name in ["bridge", "container:x", "mine", "pasta:-t,auto"] {
            let error = network(name, Vec::new()).unwrap_err();
            assert!(error.contains(name) && error.contains("slirp4netns"), "{error}");
        }
        assert!(
            wished(&NetworkArgs { publish: text("1:2:3:4"), ..args() }).unwrap_err().contains("-p 1:2:3:4")
        );
        assert!(wished(&NetworkArgs { expose: text("x"), ..args() }).unwrap_err().contains("--expose x"));
    }

    #[test]
    fn hosts_of_the_user() {
        let ip = |text: &str| HostAddress::Ip(text.parse().unwrap());
        for (text, name, address) in [
            ("a:1.2.3.4", "a", ip("1.2.3.4")),
            ("a=1.2.3.4", "a", ip("1.2.3.4")),
            ("a:::1", "a", ip("::1")),
            ("a:[::1]", "a", ip("::1")),
            ("a:host-gateway", "a", HostAddress::Gateway),
        ] {
            assert_eq!(further_host(text).unwrap(), (name.to_owned(), address), "{text}");
        }
        for wrong in ["a", ":1.2.3.4", "a:", "a:b", "a b:1.2.3.4", "a\nb:1.2.3.4", "#:1.2.3.4"] {
            assert!(further_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn name_servers_need_a_network() {
        let dns = vec!["1.1.1.1".parse().unwrap()];
        let error = wished(&NetworkArgs { dns: dns.clone(), ..args() }).unwrap_err();
        assert!(error.contains("--dns"), "{error}");
        let host = Some("host".to_owned());
        assert!(wished(&NetworkArgs { dns, network: host.clone(), ..args() }).is_ok());
        let two =
            NetworkArgs { dns_search: vec!["a\nnameserver 6.6.6.6".to_owned()], network: host, ..args() };
        assert!(wished(&two).unwrap_err().contains("one word"));
    }
}
