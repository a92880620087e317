//! Who one is to a registry.

use std::fmt;

/// Who one is to a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password, or with what the registry takes for one.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// What an earlier login was given in place of a password: a refresh token (distribution, "OAuth2 token
    /// authentication").
    IdentityToken(String),
}

/// Without secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { username, .. } => write!(f, "Password({username:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let password = Access::Password { username: "me".to_owned(), password: "hidden".to_owned() };
        let token = Access::IdentityToken("hidden".to_owned());
        let text = format!("{password:?} {token:?} {:?}", Access::Anonymous);
        assert_eq!(text, "Password(\"me\") IdentityToken Anonymous");
    }
}
