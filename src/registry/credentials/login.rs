//! What happens when somebody logs in to a registry, or out of it. Who is asked, and how the registry is, comes from the
//! caller.

use std::io;

use super::super::Access;
use super::{CredentialsError, Keeper, Keychain, RegistryKey};

/// What was given with the command.
#[derive(Clone, Default)]
pub struct Offer {
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The person who logs in.
pub trait Dialogue {
    /// Tells something that is not the end of it.
    ///
    /// # Errors
    /// When nobody can be told.
    fn tell(&mut self, line: &str) -> io::Result<()>;

    /// Asks for the user; an empty answer means the one that is known.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn ask_user(&mut self, known: Option<&str>) -> io::Result<String>;

    /// Asks for the password, which is not shown.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn ask_password(&mut self) -> io::Result<String>;
}

/// Why nobody is logged in, or out. `E` is why the registry could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LoginError<E: std::error::Error + 'static> {
    /// The registry knows no such user and password.
    #[error("logging into {key:?}: invalid username/password")]
    Refused {
        /// The registry.
        key: String,
    },
    /// A user or a password was given, and it is empty.
    #[error("logging into {key:?}: the {what} is empty")]
    Empty {
        /// The registry.
        key: String,
        /// Which of both.
        what: &'static str,
    },
    /// The file format parts both with a colon (RFC 7617, section 2).
    #[error("logging into {key:?}: a user name cannot have a colon, nor either of both a control character")]
    Colon {
        /// The registry.
        key: String,
    },
    /// The registry cannot be asked.
    #[error("logging into {key:?}: {source}")]
    Registry {
        /// The registry.
        key: String,
        /// Why.
        source: E,
    },
    /// Nobody can be asked.
    #[error("{0}")]
    Dialogue(#[from] io::Error),
    /// They cannot be read or kept.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Logs in: tries credentials at the registry, and keeps them when they are accepted. Those that are known already are
/// tried when no others are given. Returns who keeps them.
///
/// `accepts` asks the registry: whether it lets this one in.
///
/// # Errors
/// [`LoginError`]; then nothing has changed.
pub fn login<E: std::error::Error + 'static>(
    keychain: &Keychain,
    key: &RegistryKey,
    offer: Offer,
    dialogue: &mut dyn Dialogue,
    mut accepts: impl FnMut(&Access) -> Result<bool, E>,
) -> Result<Keeper, LoginError<E>> {
    let name = key.to_string();
    let mut accepts = |access: &Access| {
        accepts(access).map_err(|source| LoginError::Registry { key: name.clone(), source })
    };
    let mut known_user = None;
    if offer.password.is_none() {
        // Files of --authfile that are not there yet are what a login makes.
        let known = match keychain.find(key) {
            Err(CredentialsError::NoFile { .. }) => None,
            known => known?,
        };
        if let Some((access, keeper)) = known.filter(|(access, _)| is_of(access, offer.username.as_deref())) {
            dialogue.tell(&format!("Authenticating with existing credentials for {key}"))?;
            if accepts(&access)? {
                dialogue.tell(&format!("Existing credentials are valid. Already logged in to {key}"))?;
                return Ok(keeper);
            }
            dialogue.tell("Existing credentials are invalid, please enter valid username and password")?;
            known_user = user_of(access);
        }
    }
    let username = match offer.username {
        Some(username) => username,
        None => {
            let said = dialogue.ask_user(known_user.as_deref())?;
            if said.is_empty() { known_user.unwrap_or_default() } else { said }
        }
    };
    let password = match offer.password {
        Some(password) => password,
        None => dialogue.ask_password()?,
    };
    check(&name, &username, &password)?;
    let access = Access::Password { username: username.clone(), password: password.clone() };
    if !accepts(&access)? {
        return Err(LoginError::Refused { key: name });
    }
    Ok(keychain.store(key, &username, &password)?)
}

fn check<E: std::error::Error + 'static>(
    key: &str,
    username: &str,
    password: &str,
) -> Result<(), LoginError<E>> {
    for (what, text) in [("user name", username), ("password", password)] {
        if text.is_empty() {
            return Err(LoginError::Empty { key: key.to_owned(), what });
        }
    }
    if username.contains(':') || username.chars().chain(password.chars()).any(char::is_control) {
        return Err(LoginError::Colon { key: key.to_owned() });
    }
    Ok(())
}

fn is_of(access: &Access, username: Option<&str>) -> bool {
    match (access, username) {
        (Access::Anonymous, _) => false,
        (_, None) => true,
        (Access::Password { username: known, .. }, Some(username)) => known == username,
        (Access::IdentityToken(_), Some(_)) => false,
    }
}

fn user_of(access: Access) -> Option<String> {
    match access {
        Access::Password { username, .. } => Some(username),
        Access::IdentityToken(_) | Access::Anonymous => None,
    }
}

/// The user that is logged in to a registry; `<token>` where only a token is known.
///
/// # Errors
/// As [`Keychain::find`].
pub fn logged_in(keychain: &Keychain, key: &RegistryKey) -> Result<Option<String>, CredentialsError> {
    let found = match keychain.find(key) {
        Err(CredentialsError::NoFile { .. }) => None,
        found => found?,
    };
    Ok(found.map(|(access, _)| user_of(access).unwrap_or_else(|| "<token>".to_owned())))
}

/// Logs out: what to tell of it.
///
/// # Errors
/// As [`Keychain::erase`].
pub fn logout(keychain: &Keychain, key: &RegistryKey) -> Result<String, CredentialsError> {
    if keychain.erase(key)?.is_some() {
        return Ok(format!("Removed login credentials for {key}"));
    }
    let other = match keychain.find(key) {
        Err(CredentialsError::NoFile { .. }) => None,
        found => found?,
    };
    Ok(match other {
        Some((_, keeper)) => {
            format!("Not logged into {key} by this tool: {keeper} has credentials, and belongs to others")
        }
        None => format!("Not logged into {key}"),
    })
}

/// Logs out of all registries: what to tell of it.
///
/// # Errors
/// As [`Keychain::erase_all`].
pub fn logout_everywhere(keychain: &Keychain) -> Result<&'static str, CredentialsError> {
    keychain.erase_all()?;
    Ok("Removed login credentials for all registries")
}
