//! Proxies, as `http_proxy`, `https_proxy` and `no_proxy` say: which one a registry is reached through, if any.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

/// Parts of `no_proxy` that are looked at: more than any that was written by hand or by a tool.
const EXCEPTIONS_MAX: usize = 4096;

/// What the environment says about proxies.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exceptions: Vec<Exception>,
}

/// Without the URLs, which may hold passwords.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<String>| url.as_deref().map(without_password);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

/// A variable that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProxyError {
    /// Not what a proxy can be.
    #[error("{variable}: {reason}; expected http://[USER:PASSWORD@]HOST[:PORT]")]
    Url {
        /// The variable.
        variable: String,
        /// What is wrong; without the URL, which may hold a password.
        reason: &'static str,
    },
}

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// With TLS: the proxy is asked for a tunnel.
    Https,
}

/// One part of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// `*`
    All,
    /// An address, or a network of addresses.
    Network { address: IpAddr, bits: u8, port: Option<u16> },
    /// A name and all below it; only those below it, when it was written with a dot in front.
    Domain { name: String, itself: bool, port: Option<u16> },
}

impl Proxies {
    /// `variable` says what a variable of the environment is. Names in lower case win, an empty one counts as missing.
    ///
    /// # Errors
    /// [`ProxyError`] for a proxy that cannot be one. Parts of `no_proxy` that mean nothing are left out, as everywhere.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ProxyError> {
        let set = |name: &str| {
            let value = variable(name).and_then(|value| value.into_string().ok());
            let value = value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
            value.map(|value| (name.to_owned(), value))
        };
        // What a web server runs gets the header `Proxy:` of a stranger's request as HTTP_PROXY (httpoxy, CVE-2016-5385).
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let http = set("http_proxy").or_else(|| (!is_cgi).then(|| set("HTTP_PROXY")).flatten());
        let https = set("https_proxy").or_else(|| set("HTTPS_PROXY"));
        let except = set("no_proxy").or_else(|| set("NO_PROXY")).map(|(_, value)| value).unwrap_or_default();
        let parts = except.split([',', ' ', '\t']).filter(|part| !part.is_empty()).take(EXCEPTIONS_MAX);
        Ok(Self {
            http: http.map(|(name, value)| url(&name, &value)).transpose()?,
            https: https.map(|(name, value)| url(&name, &value)).transpose()?,
            exceptions: parts.filter_map(exception).collect(),
        })
    }

    /// The URL of the proxy for a registry, `HOST[:PORT]`; with user and password, when it has them. Loopback addresses
    /// and `localhost` are never reached through a proxy: there they would be the proxy's own.
    #[must_use]
    pub fn for_host(&self, scheme: Scheme, host: &str) -> Option<&str> {
        let (url, default_port) = match scheme {
            Scheme::Http => (self.http.as_deref()?, 80),
            Scheme::Https => (self.https.as_deref()?, 443),
        };
        let (name, port) = split_port(host);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let port = port.unwrap_or(default_port);
        let address = name.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if name == "localhost"
            || name.ends_with(".localhost")
            || address.is_some_and(|address| address.is_loopback())
        {
            return None;
        }
        let excepted = self.exceptions.iter().any(|exception| exception.covers(&name, address, port));
        (!excepted).then_some(url)
    }
}

impl Exception {
    fn covers(&self, host: &str, address: Option<IpAddr>, host_port: u16) -> bool {
        let right = |port: &Option<u16>| port.is_none_or(|port| port == host_port);
        match self {
            Self::All => true,
            Self::Network { address: network, bits, port } => {
                right(port) && address.is_some_and(|address| same_network(*network, address, *bits))
            }
            Self::Domain { name, itself, port } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|front| front.ends_with('.'));
                right(port) && (below || (*itself && host == name))
            }
        }
    }
}

/// A proxy's URL, completed with `http://`.
fn url(variable: &str, value: &str) -> Result<String, ProxyError> {
    let wrong = |reason| Err(ProxyError::Url { variable: variable.to_owned(), reason });
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    if !matches!(scheme, "http" | "https") {
        return wrong("only proxies that speak HTTP are supported");
    }
    // A path means nothing to a proxy; many write one slash.
    let authority = rest.trim_end_matches('/');
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = split_port(host);
    if name.is_empty() || name.contains(['/', '?', '#']) {
        return wrong("there is no host in it");
    }
    if port.is_none() && host.len() > name.len() && !host.ends_with(']') {
        return wrong("its port is not a number up to 65535");
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("it has blanks or letters that must be written as %XX");
    }
    Ok(format!("{scheme}://{authority}"))
}

fn exception(part: &str) -> Option<Exception> {
    if part == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = part.split_once('/') {
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        return (bits <= address_bits(address)).then_some(Exception::Network { address, bits, port: None });
    }
    let (name, port) = split_port(part);
    if let Ok(address) = name.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Some(Exception::Network { address, bits: address_bits(address), port });
    }
    // `*.example.com` is the same as `.example.com`.
    let name = name.strip_prefix('*').unwrap_or(name).trim_end_matches('.').to_ascii_lowercase();
    let itself = !name.starts_with('.');
    let name = name.trim_start_matches('.').to_owned();
    (!name.is_empty()).then_some(Exception::Domain { name, itself, port })
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_network(network: IpAddr, address: IpAddr, bits: u8) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::from(width - bits.min(width));
    network.checked_shr(rest).unwrap_or(0) == address.checked_shr(rest).unwrap_or(0)
}

/// `HOST[:PORT]` in two; IPv6 addresses in brackets, or bare and then without a port.
fn split_port(host: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

/// For people to read.
fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((front, host)) => format!("{}://...@{host}", front.split("://").next().unwrap_or_default()),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(set: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::new(|name| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn is_direct(no_proxy: &str, host: &str) -> bool {
        let set = proxies(&[("https_proxy", "http://p:1"), ("no_proxy", no_proxy)]).unwrap();
        set.for_host(Scheme::Https, host).is_none()
    }

    #[test]
    fn which_variable_counts() {
        let both = [("http_proxy", "l:1"), ("HTTP_PROXY", "u:1"), ("HTTPS_PROXY", "https://s/")];
        let set = proxies(&both).unwrap();
        assert_eq!(set.for_host(Scheme::Http, "r.io"), Some("http://l:1"));
        assert_eq!(set.for_host(Scheme::Https, "r.io"), Some("https://s"));
        let upper = proxies(&[("http_proxy", " "), ("HTTP_PROXY", "u:1")]).unwrap();
        assert_eq!(upper.for_host(Scheme::Http, "r.io"), Some("http://u:1"));
        assert_eq!(upper.for_host(Scheme::Https, "r.io"), None);
        let cgi = proxies(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "u:1")]).unwrap();
        assert_eq!(cgi.for_host(Scheme::Http, "r.io"), None);
    }

    #[test]
    fn passwords_are_kept_and_not_printed() {
        let set = proxies(&[("https_proxy", "http://me:p%40ss@proxy:3128/")]).unwrap();
        assert_eq!(set.for_host(Scheme::Https, "r.io:5000"), Some("http://me:p%40ss@proxy:3128"));
        let text = format!("{set:?}");
        assert!(text.contains("proxy:3128") && !text.contains("ss@"), "{text}");
    }

    #[test]
    fn what_is_no_proxy() {
        for wrong in ["socks5://p:1", "http://", "http://u:s3cret@", "p:99999", "p:x", "a b", "http://p/x"] {
            let error = proxies(&[("HTTPS_PROXY", wrong)]).unwrap_err().to_string();
            assert!(error.starts_with("HTTPS_PROXY: ") && !error.contains("s3cret"), "{wrong}: {error}");
        }
        assert!(proxies(&[("https_proxy", "http://[::1]:3128")]).is_ok());
        assert!(proxies(&[("https_proxy", "[::1]")]).is_ok());
    }

    #[test]
    fn loopback_is_always_direct() {
        for host in ["localhost", "LOCALHOST:5000", "x.localhost", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert!(is_direct("", host), "{host}");
        }
        assert!(is_direct("", "[::ffff:127.0.0.1]:1"));
        assert!(!is_direct("", "localhost.example.com"));
    }

    #[test]
    fn exceptions() {
        for (no_proxy, host, direct) in [
            ("*", "r.io", true),
            ("r.io", "r.io", true),
            ("r.io", "a.r.io:5000", true),
            ("r.io", "ar.io", false),
            ("R.io.", "r.IO", true),
            (".r.io", "r.io", false),
            (".r.io", "a.r.io", true),
            ("*.r.io", "a.b.r.io", true),
            ("r.io:443", "r.io", true),
            ("r.io:5000", "r.io", false),
            ("r.io:5000", "r.io:5000", true),
            ("x, r.io", "r.io", true),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "r.io", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:80", "10.1.2.3", false),
            ("fd00::/8", "[fd12::1]:5000", true),
            ("fd00::/8", "[fe80::1]", false),
            ("::1", "[fe80::1]", false),
            ("10.0.0.0/33,,/,*.,.", "10.0.0.0", false),
        ] {
            assert_eq!(is_direct(no_proxy, host), direct, "{no_proxy} {host}");
        }
    }

    proptest! {
        /// No text makes it panic, and a host that is listed is never reached through a proxy.
        #[test]
        fn any_text(before in "\\PC{0,20}", host in "[a-z]{1,5}\\.[a-z]{1,5}") {
            let listed = format!("{before},{host}");
            prop_assert!(is_direct(&listed, &host));
            drop(proxies(&[("http_proxy", &before)]));
        }
    }
}
