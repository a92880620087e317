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
        let header = match challenge {
            None => return Ok(false),
            Some(Challenge::Basic) => match &self.endpoint.access {
                Access::Password { username, password } => Some(basic(username, password)),
                Access::Anonymous | Access::IdentityToken(_) => None,
            },
            Some(Challenge::Bearer(bearer)) => Some(format!("Bearer {}", self.token(bearer)?)),
        };
        let is_new =
            header.is_some() && (signed.header != header || matches!(challenge, Some(Challenge::Bearer(_))));
        if is_new {
            signed.header = header;
            signed.generation += 1;
        }
        Ok(is_new)
    }

    fn token(&self, bearer: &Bearer) -> Result<String, RegistryError> {
        let realm = Url::parse(&bearer.realm).map_err(|reason| self.wrong("its token server", reason))?;
        if !self.may_ask(&realm) {
            return Err(self.wrong("its token server", "not asked by HTTPS"));
        }
        let scope = bearer.scope.clone().unwrap_or_else(|| self.scope());
        let mut pairs = Vec::new();
        pairs.extend(bearer.service.as_deref().map(|service| ("service", service)));
        // A blob that is mounted needs two: the form has them in one word, the query one by one.
        match &self.endpoint.access {
            _ if scope.is_empty() => {}
            Access::IdentityToken(_) => pairs.push(("scope", &scope)),
            _ => pairs.extend(scope.split(' ').filter(|one| !one.is_empty()).map(|one| ("scope", one))),
        }
        let answer = match &self.endpoint.access {
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

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
