//! Who one is to a registry.

use std::fmt;

/// What a registry, or its token server, is told of the user. Printing it for debugging shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    #[default]
    Anonymous,
    /// A name and what proves it.
    Password {
        /// The user's name.
        username: String,
        /// The password, or a token that stands for it.
        password: String,
    },
    /// A refresh token, which a token server takes instead of both (distribution, "OAuth2 Token Authentication").
    IdentityToken(String),
}

impl Access {
    /// `USER:PASSWORD`, as `--creds` has it. Without a colon there is no password.
    #[must_use]
    pub fn of_pair(text: &str) -> Self {
        let (username, password) = text.split_once(':').unwrap_or((text, ""));
        Self::Password { username: username.to_owned(), password: password.to_owned() }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { username, .. } => {
                f.debug_struct("Password").field("username", username).finish()
            }
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let printed =
            format!("{:?} {:?}", Access::of_pair("me:s3cret"), Access::IdentityToken("s3cret".into()));
        assert!(printed.contains("me") && !printed.contains("s3cret"), "{printed}");
        let with_colon = Access::Password { username: "a".into(), password: "b:c".into() };
        assert_eq!(Access::of_pair("a:b:c"), with_colon);
    }
}
