//! URLs as far as registries need them (RFC 3986): which server, and what of it.

use std::fmt;

/// Longer ones are not followed: presigned ones have 2 KiB, and servers stop at 8 to 16.
const URL_BYTES_MAX: usize = 16 << 10;

/// `http` or `https`, a host with perhaps a port, and a path with perhaps a query. Never a user, never a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    is_https: bool,
    host: String,
    /// From the first slash on.
    rest: String,
}

impl Url {
    /// The root of a server.
    pub(super) fn root(is_https: bool, host: &str) -> Result<Self, &'static str> {
        Self::parse(&format!("{}://{host}/", scheme(is_https)))
    }

    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > URL_BYTES_MAX {
            return Err("an URL of more than 16 KiB");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("an URL with characters that it may not have");
        }
        let (name, rest) = text.split_once("://").ok_or("no URL")?;
        let is_https = match name.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("an URL that is neither http nor https"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, rest) = rest.split_at(end);
        if host.contains('@') {
            return Err("an URL with a user in it");
        }
        if host.is_empty() || host.contains('\\') {
            return Err("an URL without a host");
        }
        let slash = if rest.starts_with('/') { "" } else { "/" };
        Ok(Self { is_https, host: host.to_ascii_lowercase(), rest: format!("{slash}{rest}") })
    }

    /// What a `Location` here means.
    pub(super) fn join(&self, location: &str) -> Result<Self, &'static str> {
        let server = format!("{}://{}", scheme(self.is_https), self.host);
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", scheme(self.is_https)));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{server}{location}"));
        }
        let before_path = location.find(['/', '?', '#']).unwrap_or(location.len());
        if location.find("://").is_some_and(|at| at < before_path) {
            return Self::parse(location);
        }
        let path = self.rest.split('?').next().unwrap_or_default();
        if location.starts_with('?') {
            return Self::parse(&format!("{server}{path}{location}"));
        }
        let dir = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        Self::parse(&format!("{server}{dir}{location}"))
    }

    /// The same server, and this path with perhaps a query.
    pub(super) fn at(&self, rest: &str) -> Self {
        Self { rest: rest.to_owned(), ..self.clone() }
    }

    /// With these in its query, besides what is in it.
    pub(super) fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let separator = if self.rest.contains('?') { '&' } else { '?' };
        let query = form(pairs);
        if query.is_empty() { self.clone() } else { self.at(&format!("{}{separator}{query}", self.rest)) }
    }

    /// Whether both are answered by the same server, in the same way: what one may see, the other may.
    pub(super) fn is_same_server(&self, other: &Self) -> bool {
        self.is_https == other.is_https && self.with_port() == other.with_port()
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn with_port(&self) -> (&str, &str) {
        let default = if self.is_https { "443" } else { "80" };
        match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, if port.is_empty() { default } else { port }),
            _ => (&self.host, default),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", scheme(self.is_https), self.host, self.rest)
    }
}

fn scheme(is_https: bool) -> &'static str {
    if is_https { "https" } else { "http" }
}

/// `application/x-www-form-urlencoded`, for queries and for forms.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", coded(key), coded(value))).collect();
    pairs.join("&")
}

fn coded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locations() {
        let url = Url::parse("https://Host:5000/v2/a/blobs/x?y=1").unwrap();
        for (location, means) in [
            ("https://cdn.example/x?sig=a/b://c", "https://cdn.example/x?sig=a/b://c"),
            ("HTTP://cdn.example", "http://cdn.example/"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/up?z=http://q", "https://host:5000/up?z=http://q"),
            ("other", "https://host:5000/v2/a/blobs/other"),
            ("?n=2", "https://host:5000/v2/a/blobs/x?n=2"),
            ("https://h?q#f", "https://h/?q"),
        ] {
            assert_eq!(url.join(location).unwrap().to_string(), means, "{location}");
        }
        for wrong in [
            "ftp://x/",
            "https://u:p@x/",
            "https:///x",
            "http://a b/",
            "https://x/\r\nEvil: 1",
            "https://\u{e9}/",
        ] {
            assert!(url.join(wrong).is_err(), "{wrong}");
        }
        assert!(url.join(&format!("/{}", "x".repeat(URL_BYTES_MAX))).is_err());
    }

    #[test]
    fn servers() {
        let same = |one: &str, two: &str| Url::parse(one).unwrap().is_same_server(&Url::parse(two).unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(same("http://[::1]/x", "http://[::1]:80/"));
        assert!(!same("https://a/", "http://a/"));
        assert!(!same("https://a/", "https://a:8443/"));
        assert!(!same("https://a/", "https://a.b/"));
        assert!(!same("http://[::1]:1/", "http://[::1]:2/"));
    }

    #[test]
    fn queries() {
        let url = Url::parse("https://a/token")
            .unwrap()
            .with_query(&[("scope", "repository:a/b:pull"), ("x", "&=")]);
        assert_eq!(url.to_string(), "https://a/token?scope=repository%3Aa%2Fb%3Apull&x=%26%3D");
        assert_eq!(url.with_query(&[]).to_string(), url.to_string());
        assert!(url.with_query(&[("b", "2")]).to_string().ends_with("&b=2"));
    }

    proptest! {
        /// Whatever a server sends is refused, or is an URL that means itself.
        #[test]
        fn any_location(location in "\\PC{0,24}") {
            let base = Url::parse("https://a/b/c").unwrap();
            if let Ok(url) = base.join(&location) {
                prop_assert_eq!(Url::parse(&url.to_string()).unwrap(), url);
            }
        }
    }
}
