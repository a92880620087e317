//! Asking a registry: redirects, credentials, and another try where that may help.

use std::time::Duration;

use super::answers::{is_passing, retry_after};
use super::challenge::Challenge;
use super::endpoint::is_loopback;
use super::http::{Answer, Content, Http, Method, Request, Silence, SilenceKind};
use super::token::Signing;
use super::upload::Sizes;
use super::url::Url;
use super::{Endpoint, Patience, RegistryError};

/// As many as browsers follow, roughly.
const REDIRECTS_MAX: u32 = 10;
/// How often somebody is greeted who does not answer: where there is no network, who waits should hear it soon.
const GREETINGS_MAX: u32 = 3;
/// New credentials for one request.
const SIGNINGS_MAX: u32 = 2;

/// A registry that has answered, and the repository in it that is asked for.
#[derive(Debug)]
pub struct Registry {
    pub(super) endpoint: Endpoint,
    /// What is done there, in the words of a token's scope.
    pub(super) actions: &'static str,
    pub(super) base: Url,
    pub(super) signing: Signing,
    pub(super) patience: Patience,
    pub(super) sizes: Sizes,
    http: Http,
}

/// Whether the registry knows who one is: `layerfs login` asks before it keeps a password.
///
/// # Errors
/// [`RegistryError::is_unauthorized`] when it does not.
pub fn check_access(endpoint: &Endpoint, patience: Patience) -> Result<(), RegistryError> {
    let registry = Registry::open(endpoint, patience)?;
    let answer = registry.ask(Method::Get, "/v2/", "its greeting", &[])?;
    if answer.status == 200 { Ok(()) } else { Err(registry.refused("its greeting", answer)) }
}

impl Registry {
    /// Greets the registry, by HTTPS; where that is not spoken and the endpoint may be insecure, by HTTP.
    ///
    /// # Errors
    /// [`RegistryError`] when nobody is there, or no registry.
    pub fn open(endpoint: &Endpoint, patience: Patience) -> Result<Self, RegistryError> {
        Self::open_to(endpoint, "pull", patience)
    }

    /// The same for who writes to the repository.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_push(endpoint: &Endpoint, patience: Patience) -> Result<Self, RegistryError> {
        Self::open_to(endpoint, "pull,push", patience)
    }

    fn open_to(
        endpoint: &Endpoint,
        actions: &'static str,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let registry = || endpoint.host.clone();
        let settings = |reason: String| RegistryError::Settings { registry: registry(), reason };
        let http = Http::new(endpoint, patience).map_err(settings)?;
        let base = Url::root(true, &endpoint.host).map_err(|reason| settings(reason.to_owned()))?;
        let signing = Signing::default();
        let mut opened = Self {
            endpoint: endpoint.clone(),
            actions,
            base,
            signing,
            patience,
            sizes: Sizes::default(),
            http,
        };
        match opened.greet() {
            Err(RegistryError::Unreachable { .. } | RegistryError::Insecure { .. }) if endpoint.insecure => {
                opened.base =
                    Url::root(false, &endpoint.host).map_err(|reason| settings(reason.to_owned()))?;
                opened.greet()?;
            }
            greeted => greeted?,
        }
        Ok(opened)
    }

    /// `HOST[:PORT]`.
    #[must_use]
    pub fn name(&self) -> String {
        self.endpoint.host.clone()
    }

    /// Where it is, and how it is asked.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The repository there.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.endpoint.repository
    }

    /// The first question: whether there is a registry, and what it wants to see.
    fn greet(&self) -> Result<(), RegistryError> {
        let url = self.base.at("/v2/");
        let mut failures = 0;
        let answer = loop {
            match self.follow(Method::Get, &url, &[], None, || Content::None) {
                Err(Asked::Silence(silence)) => {
                    failures += 1;
                    // Where HTTP is tried next there is no hurry to wait for HTTPS.
                    let gives_up = self.endpoint.insecure && self.base.is_https();
                    let is_last = failures >= self.patience.attempts.min(GREETINGS_MAX);
                    if gives_up || silence.kind != SilenceKind::Connection || is_last {
                        return Err(self.silent(silence));
                    }
                    std::thread::sleep(self.patience.pause(failures, None));
                }
                Err(Asked::Error(error)) => return Err(error),
                Ok(answer) if is_passing(answer.status) && failures + 1 < self.patience.attempts => {
                    failures += 1;
                    std::thread::sleep(self.patience.pause(failures, retry_after(&answer)));
                }
                Ok(answer) => break answer,
            }
        };
        match answer.status {
            200 => Ok(()),
            // Whoever we were sent to does not decide who is told a password.
            401 if answer.is_own => {
                let challenge = Challenge::of(answer.headers("www-authenticate"));
                // A token for the greeting alone is of no use; the scope comes with what is asked for.
                let challenge = match challenge {
                    Some(Challenge::Bearer(bearer)) if !self.endpoint.repository.is_empty() => {
                        Some(Challenge::Bearer(super::challenge::Bearer { scope: None, ..bearer }))
                    }
                    other => other,
                };
                self.sign(challenge.as_ref(), 0).map(drop)
            }
            404 => Err(self.wrong("its greeting", "there is no registry at /v2/")),
            _ => Err(self.refused("its greeting", answer)),
        }
    }

    /// Asks for a path below the registry's root; `what` is for messages. Any answer that will stay the same is one.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        what: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, RegistryError> {
        self.ask_url(method, &self.base.at(path), what, headers, || Content::None)
    }

    /// The same for an URL; `content` is asked for anew each time.
    pub(super) fn ask_url<'c>(
        &self,
        method: Method,
        url: &Url,
        what: &str,
        headers: &[(&'static str, String)],
        content: impl Fn() -> Content<'c>,
    ) -> Result<Answer, RegistryError> {
        let (mut failures, mut signings) = (0, 0);
        loop {
            let (header, generation) = self.signing.header();
            let wanted = match self.follow(method, url, headers, header.as_deref(), &content) {
                Err(Asked::Error(error)) => return Err(error),
                Err(Asked::Silence(silence)) => {
                    if silence.kind != SilenceKind::Connection || failures + 1 >= self.patience.attempts {
                        return Err(self.silent(silence));
                    }
                    None
                }
                Ok(answer)
                    if matches!(answer.status, 401 | 403) && answer.is_own && signings < SIGNINGS_MAX =>
                {
                    signings += 1;
                    let challenge = Challenge::of(answer.headers("www-authenticate"));
                    if !self.sign(challenge.as_ref(), generation)? {
                        return Err(self.refused(what, answer));
                    }
                    continue;
                }
                Ok(answer) if is_passing(answer.status) && failures + 1 < self.patience.attempts => {
                    retry_after(&answer)
                }
                Ok(answer) => return Ok(answer),
            };
            failures += 1;
            tracing::debug!(registry = %self.endpoint.host, what, failures, "asked again");
            std::thread::sleep(self.patience.pause(failures, wanted));
        }
    }

    /// Sends what cannot be sent twice: one request, which is not followed, signed for the registry alone. With the answer, which
    /// signature it was given to.
    pub(super) fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&'static str, String)],
        content: Content<'_>,
    ) -> (Result<Answer, Silence>, u64) {
        let (signature, generation) = self.signing.header();
        let is_own = self.base.is_same_server(url);
        let mut headers = headers.to_vec();
        headers.extend(signature.filter(|_| is_own).map(|value| ("authorization", value)));
        (self.http.ask(Request { method, url, headers: &headers, content }, !is_own), generation)
    }

    /// Asks a token server: signed only with what is in `headers`.
    pub(super) fn ask_plainly<'c>(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&'static str, String)],
        content: impl Fn() -> Content<'c>,
    ) -> Result<Answer, RegistryError> {
        let mut failures = 0;
        loop {
            let is_last = failures + 1 >= self.patience.attempts;
            // Not followed: it would have to be signed again, for somebody who is not the one that was named.
            let request = Request { method, url, headers, content: content() };
            let wanted = match self.http.ask(request, !self.base.is_same_server(url)) {
                Err(silence) if silence.kind != SilenceKind::Connection || is_last => {
                    let reason = format!("token server {}: {}", url.host(), silence.reason);
                    return Err(self.silent(Silence { reason, ..silence }));
                }
                Err(_) => None,
                Ok(answer) if is_passing(answer.status) && !is_last => retry_after(&answer),
                Ok(answer) => return Ok(answer),
            };
            failures += 1;
            std::thread::sleep(self.patience.pause(failures, wanted));
        }
    }

    /// One request, and where it leads. The signature goes to the registry alone.
    fn follow<'c>(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&'static str, String)],
        signature: Option<&str>,
        content: impl Fn() -> Content<'c>,
    ) -> Result<Answer, Asked> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_own = self.base.is_same_server(&url);
            let mut headers = headers.to_vec();
            headers.extend(signature.filter(|_| is_own).map(|value| ("authorization", value.to_owned())));
            let request = Request { method, url: &url, headers: &headers, content: content() };
            let answer = self.http.ask(request, !is_own).map_err(Asked::Silence)?;
            let is_led_on = match method {
                Method::Get | Method::Head => matches!(answer.status, 301 | 302 | 303 | 307 | 308),
                // The others would become something else.
                _ => matches!(answer.status, 307 | 308),
            };
            if !is_led_on {
                return Ok(answer);
            }
            let wrong = |reason: &str| Asked::Error(self.wrong("a redirect", reason));
            let location = answer.header("location").ok_or_else(|| wrong("it says not whereto"))?;
            let next = url.join(location).map_err(wrong)?;
            if !self.may_ask(&next) {
                return Err(wrong("to a place without HTTPS"));
            }
            url = next;
        }
        Err(Asked::Error(
            self.wrong("a redirect", &format!("more than {REDIRECTS_MAX} of them, one after the other")),
        ))
    }

    /// Whether an URL that a server gave is one to ask: plain HTTP goes to the registry itself, if that speaks it, within this
    /// machine, or where the user says that nobody there need be secure.
    pub(super) fn may_ask(&self, url: &Url) -> bool {
        let is_near =
            || self.base.is_same_server(url) || (is_loopback(self.base.host()) && is_loopback(url.host()));
        url.is_https() || self.endpoint.insecure_elsewhere || is_near()
    }

    pub(super) fn silent(&self, silence: Silence) -> RegistryError {
        let (registry, reason) = (self.name(), silence.reason);
        match silence.kind {
            SilenceKind::Tls => RegistryError::Insecure { registry, reason },
            SilenceKind::ClientCertificate => RegistryError::ClientCertificate { registry, reason },
            SilenceKind::Connection | SilenceKind::Final => RegistryError::Unreachable { registry, reason },
        }
    }

    /// A pause after so many failures.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        self.patience.pause(failures, None)
    }
}

/// Why one request has no answer.
enum Asked {
    /// It may have one later.
    Silence(Silence),
    /// It will not.
    Error(RegistryError),
}
