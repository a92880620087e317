//! One request, one answer. The only place that knows the HTTP library.
//!
//! Redirects, credentials and repetitions are decided above; here are connections, TLS and time. Proxies are asked with
//! CONNECT for HTTPS.

use std::io::{self, Read};
use std::time::Duration;

use ureq::config::AutoHeaderValue;
use ureq::http::{self, HeaderMap};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Body, Error, Proxy, SendBody};

use super::url::Url;
use super::{Endpoint, Patience};
use early::EarlyAnswers;
use pace::Pace;

mod early;
mod pace;

/// All headers of an answer together.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Connections that are kept for the next request: as many as there are threads that transfer, and one.
const IDLE_CONNECTIONS: usize = 8;
/// Where systems keep the certificates of authorities, as Go's crypto/x509 looks for them.
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const AGENT: &str = concat!("layerfs/", env!("CARGO_PKG_VERSION"));

/// What is asked.
pub(super) struct Request<'a, 'c> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) content: Content<'c>,
}

/// What a request carries. Never printed: it may be a token.
pub(super) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// That many bytes of it.
    Stream(&'a mut dyn Read, u64),
}

/// The methods of the distribution specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether the registry itself has said it, and not somebody it has sent us to.
    pub(super) is_own: bool,
    headers: HeaderMap,
    body: Body,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) reason: String,
    pub(super) kind: SilenceKind,
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceKind {
    /// Nobody is there: it may be tried again.
    Connection,
    /// The connection is not secure, or not even TLS.
    Tls,
    /// The server speaks TLS, and does not take the certificate that it was shown, or that none was.
    ClientCertificate,
    /// It would be the same the next time.
    Final,
}

impl Answer {
    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers of that name that are text.
    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// A header that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The body, of whatever length.
    pub(super) fn into_reader(self) -> impl Read {
        self.body.into_reader()
    }

    /// The whole body; `None` when it has more than `limit` bytes.
    pub(super) fn read(self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.into_reader().take(limit + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
    }
}

/// Connections to one registry, and to where it sends us.
#[derive(Debug)]
pub(super) struct Http {
    registry: Agent,
    /// As the first, but shows nobody the user's certificate.
    elsewhere: Agent,
    patience: Patience,
}

impl Http {
    pub(super) fn new(endpoint: &Endpoint, patience: Patience) -> Result<Self, String> {
        let proxy = endpoint.proxy.as_deref().map(Proxy::new).transpose();
        // The URL may hold a password.
        let proxy = proxy.map_err(|_| "the proxy is no URL that can be used".to_owned())?;
        let trust = |insecure| {
            Ok::<_, String>(
                TlsConfig::builder().disable_verification(insecure).root_certs(roots(endpoint, insecure)?),
            )
        };
        let tls = trust(endpoint.insecure_elsewhere)?.build();
        let own = endpoint.client_certificate.as_ref().map(client_certificate).transpose()?;
        let with_own = trust(endpoint.insecure)?.client_cert(own).build();
        let agent = |tls| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_response_header_size(HEADER_BYTES_MAX)
                .max_idle_connections_per_host(IDLE_CONNECTIONS)
                .accept_encoding(AutoHeaderValue::from("identity"))
                .user_agent(AutoHeaderValue::from(AGENT))
                .timeout_connect(Some(patience.connect))
                .timeout_resolve(Some(patience.connect))
                .timeout_per_read(Some(patience.idle))
                .timeout_per_write(Some(patience.idle))
                .proxy(proxy.clone())
                .tls_config(tls)
                .build();
            let connector =
                ().chain(ConnectProxyConnector::default())
                    .chain(TcpConnector::default())
                    .chain(EarlyAnswers)
                    .chain(Pace::of(&patience))
                    .chain(RustlsConnector::default());
            Agent::with_parts(config, connector, DefaultResolver::default())
        };
        Ok(Self { registry: agent(with_own), elsewhere: agent(tls), patience })
    }

    /// Asks the registry, or with `elsewhere` somebody it has sent us to.
    pub(super) fn ask(&self, request: Request<'_, '_>, elsewhere: bool) -> Result<Answer, Silence> {
        let agent = if elsewhere { &self.elsewhere } else { &self.registry };
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Head => http::Method::HEAD,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
        };
        let mut head = http::Request::builder().method(method).uri(request.url.to_string());
        for (name, value) in request.headers {
            head = head.header(*name, value);
        }
        let is_bodiless = matches!(request.method, Method::Get | Method::Head);
        let idle = if is_bodiless { self.patience.idle } else { self.patience.idle_sent };
        let answer = match request.content {
            Content::None if is_bodiless => run(agent, head.body(()), idle),
            Content::None => run(agent, head.header("content-length", "0").body(&b""[..]), idle),
            Content::Bytes(bytes) => run(agent, head.body(bytes), idle),
            Content::Stream(mut reader, length) => {
                let head = head.header("content-length", length.to_string());
                run(agent, head.body(SendBody::from_reader(&mut reader)), idle)
            }
        };
        let (parts, body) = answer.map_err(|error| silence(&error))?.into_parts();
        Ok(Answer { status: parts.status.as_u16(), is_own: !elsewhere, headers: parts.headers, body })
    }
}

fn run<S: ureq::AsSendBody>(
    agent: &Agent,
    request: Result<http::Request<S>, http::Error>,
    idle: Duration,
) -> Result<http::Response<Body>, Error> {
    let request = agent.configure_request(request?).timeout_per_read(Some(idle)).build();
    agent.run(request)
}

/// What it means that there is no answer.
fn silence(error: &Error) -> Silence {
    let told = |reason: String, kind| Silence { reason, kind };
    match error {
        Error::Io(io) if io.kind() == io::ErrorKind::InvalidData => tls(io.to_string()),
        Error::Io(io) => told(io.to_string(), SilenceKind::Connection),
        Error::Timeout(which) => told(format!("no answer in time ({which})"), SilenceKind::Connection),
        Error::HostNotFound => told("its name cannot be resolved".to_owned(), SilenceKind::Final),
        Error::ConnectionFailed => told("no connection".to_owned(), SilenceKind::Connection),
        Error::Rustls(error) => tls(error.to_string()),
        Error::Tls(reason) => told((*reason).to_owned(), SilenceKind::Tls),
        Error::ConnectProxyFailed(reason) => told(format!("the proxy refuses: {reason}"), SilenceKind::Final),
        // Also of a server that closes an idle connection at the moment it is used again.
        Error::Protocol(error) => told(error.to_string(), SilenceKind::Connection),
        other => told(other.to_string(), SilenceKind::Final),
    }
}

/// What a server says by an alert of a certificate can only be about the client's (RFC 8446, section 6.2). rustls says which
/// alert it was in words alone, as far as ureq passes it on.
fn tls(reason: String) -> Silence {
    let about_certificates = [
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "CertificateRequired",
    ];
    let alert = reason.strip_prefix("received fatal alert: ");
    let kind = match alert.is_some_and(|alert| about_certificates.contains(&alert)) {
        true => SilenceKind::ClientCertificate,
        false => SilenceKind::Tls,
    };
    Silence { reason, kind }
}

/// The authorities that are trusted. Those compiled in count where the system has none, as in small containers.
fn roots(endpoint: &Endpoint, insecure: bool) -> Result<RootCerts, String> {
    if insecure {
        return Ok(RootCerts::WebPki);
    }
    let mut system = endpoint.roots.as_ref().map(|pem| pem.to_vec());
    if system.is_none() {
        system = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
    }
    let Some(system) = system else {
        return if endpoint.ca_certificates.is_empty() {
            Ok(RootCerts::WebPki)
        } else {
            authorities(endpoint.ca_certificates.iter().map(Vec::as_slice))
        };
    };
    authorities(std::iter::once(&system[..]).chain(endpoint.ca_certificates.iter().map(Vec::as_slice)))
}

fn authorities<'a>(files: impl Iterator<Item = &'a [u8]>) -> Result<RootCerts, String> {
    let mut found = Vec::new();
    for pem in files {
        let before = found.len();
        for item in parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => found.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(format!("a file of certificates: {error}")),
            }
        }
        if found.len() == before {
            return Err("a file of certificates has none in it".to_owned());
        }
    }
    Ok(RootCerts::from(found))
}

fn client_certificate(own: &super::ClientCertificate) -> Result<ClientCert, String> {
    let mut chain: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&own.chain) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| format!("the client certificate: {error}"))?
        {
            chain.push(certificate);
        }
    }
    if chain.is_empty() {
        return Err("the client certificate has no certificate in it".to_owned());
    }
    let key =
        ureq::tls::PrivateKey::from_pem(&own.key).map_err(|error| format!("the client key: {error}"))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
