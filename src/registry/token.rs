//! What a request is signed with: a password each time, or tokens (distribution, "Token Authentication Specification",
//! "OAuth2 Token Authentication").

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::challenge::{Bearer, Challenge};
use super::http::{Content, Method};
use super::url::{self, Url};
use super::{Access, Registry, RegistryError};

/// What a token server says at most.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// Who asks a token server.
const CLIENT_ID: &str = "layerfs";

/// What is known of how a registry wants to be asked.
/// The lock is held while a token is asked for: everybody else would only ask for the same one.
#[derive(Debug, Default)]
pub(super) struct Signing(Mutex<Signed>);

#[derive(Default)]
struct Signed {
    /// The value of `Authorization`.
    header: Option<String>,
    /// How often it was made: who finds that it counts no more makes the next one only if nobody has meanwhile.
    generation: u64,
    /// Who one is, if what is kept has changed since the endpoint was made.
    access: Option<Access>,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Signing {
    /// The value of `Authorization`, and which one it is.
    pub(super) fn header(&self) -> (Option<String>, u64) {
        let signed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (signed.header.clone(), signed.generation)
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Registry {
    /// Makes what the registry wants to see, unless somebody has since `generation`. Whether there is something new to show.
    pub(super) fn sign(&self, challenge: Option<&Challenge>, generation: u64) -> Result<bool, RegistryError> {
        let mut signed = self.signing.0.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.generation != generation {
            return Ok(true);
        }
        let Some(challenge) = challenge else { return Ok(false) };
        let access = signed.access.as_ref().unwrap_or(&self.endpoint.access).clone();
        let mut made = self.signature(challenge, &access, signed.header.as_deref());
        let is_refused = made.as_ref().map_or_else(RegistryError::is_unauthorized, Option::is_none);
        // Whoever has logged in since, or has been given another password, need not begin anew.
        if is_refused
            && let Some(other) = self.endpoint.kept.as_ref().and_then(|kept| kept.other_than(&access))
        {
            made = self.signature(challenge, &other, signed.header.as_deref());
            signed.access = Some(other);
        }
        let made = made?;
        let is_new = made.is_some();
        if is_new {
            signed.header = made;
            signed.generation += 1;
        }
        Ok(is_new)
    }

    /// The value of `Authorization`, unless there is none but that which was refused.
    fn signature(
        &self,
        challenge: &Challenge,
        access: &Access,
        refused: Option<&str>,
    ) -> Result<Option<String>, RegistryError> {
        Ok(match (challenge, access) {
            (Challenge::Basic, Access::Password { username, password }) => {
                Some(basic(username, password)).filter(|header| Some(header.as_str()) != refused)
            }
            (Challenge::Basic, Access::Anonymous | Access::IdentityToken(_)) => None,
            (Challenge::Bearer(bearer), access) => Some(format!("Bearer {}", self.token(bearer, access)?)),
        })
    }

    fn token(&self, bearer: &Bearer, access: &Access) -> Result<String, RegistryError> {
        let realm = Url::parse(&bearer.realm).map_err(|reason| self.wrong("its token server", reason))?;
        if !self.may_ask(&realm) {
            return Err(self.wrong("its token server", "not asked by HTTPS"));
        }
        let scope = bearer.scope.clone().unwrap_or_else(|| self.scope());
        let mut pairs = Vec::new();
        pairs.extend(bearer.service.as_deref().map(|service| ("service", service)));
        // A blob that is mounted needs two: the form has them in one word, the query one by one.
        match access {
            _ if scope.is_empty() => {}
            Access::IdentityToken(_) => pairs.push(("scope", &scope)),
            _ => pairs.extend(scope.split(' ').filter(|one| !one.is_empty()).map(|one| ("scope", one))),
        }
        let answer = match access {
            Access::IdentityToken(refresh) => {
                pairs.extend([
                    ("client_id", CLIENT_ID),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", refresh),
                ]);
                let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
                let form = url::form(&pairs);
                self.ask_plainly(Method::Post, &realm, &headers, || Content::Bytes(form.as_bytes()))?
            }
            Access::Password { username, password } => {
                pairs.push(("account", username));
                let headers = [("authorization", basic(username, password))];
                self.ask_plainly(Method::Get, &realm.with_query(&pairs), &headers, || Content::None)?
            }
            Access::Anonymous => {
                self.ask_plainly(Method::Get, &realm.with_query(&pairs), &[], || Content::None)?
            }
        };
        let what = format!("token server {}", realm.host());
        if answer.status != 200 {
            return Err(self.refused(&what, answer));
        }
        let bytes = answer.read(TOKEN_BYTES_MAX).map_err(|error| self.wrong(&what, &error.to_string()))?;
        let limit =
            || RegistryError::Limit { registry: self.name(), what: what.clone(), limit: TOKEN_BYTES_MAX };
        // What was wrong in it is not said: it may be the token.
        let token: Token = serde_json::from_slice(&bytes.ok_or_else(limit)?)
            .map_err(|_| self.wrong(&what, "its answer is not JSON with a token in it"))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.wrong(&what, "its answer has no token in it that can be sent"));
        }
        Ok(token)
    }

    /// What a token is asked for where the registry does not say it.
    fn scope(&self) -> String {
        match self.endpoint.repository.as_str() {
            "" => String::new(),
            repository => format!("repository:{repository}:{}", self.actions),
        }
    }
}

pub(super) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
