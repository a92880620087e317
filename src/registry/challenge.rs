//! What a server wants to know before it answers: `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution, "Token
//! Authentication Specification").

/// Longer headers are not read.
const BYTES_MAX: usize = 8 << 10;
/// More parameters of one challenge are not read.
const PARAMETERS_MAX: usize = 32;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of that server.
    Bearer(Bearer),
}

/// Where a token is had, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The URL of the token server.
    pub(super) realm: String,
    /// What the token is shown to.
    pub(super) service: Option<String>,
    /// What may be done with it.
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// The best of what the headers offer: a token rather than a password that is sent each time.
    pub(super) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for header in headers.filter(|header| header.len() <= BYTES_MAX) {
            for (scheme, parameters) in challenges(header) {
                let value = |name: &str| {
                    let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
                    parameters.iter().find(same).map(|(_, value)| value.clone())
                };
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = value("realm")
                {
                    return Some(Self::Bearer(Bearer {
                        realm,
                        service: value("service"),
                        scope: value("scope"),
                    }));
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    found = Some(Self::Basic);
                }
            }
        }
        found
    }
}

/// Scheme and parameters of each challenge of a header; of one that is written wrong, those before the mistake.
fn challenges(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        if token.is_empty() {
            return found;
        }
        match after.trim_start().strip_prefix('=') {
            None => {
                found.push((token.to_owned(), Vec::new()));
                rest = after;
            }
            Some(after) => {
                let (Some((_, parameters)), Some((value, after))) =
                    (found.last_mut(), value(after.trim_start()))
                else {
                    return found;
                };
                if parameters.len() < PARAMETERS_MAX {
                    parameters.push((token.to_owned(), value));
                }
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((out, &quoted[at + 1..])),
            '\\' => out.push(letters.next()?.1),
            other => out.push(other),
        }
    }
    None
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(header: &str) -> Option<Challenge> {
        Challenge::of([header].into_iter())
    }

    #[test]
    fn what_registries_send() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let bearer = Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(of(docker), Some(Challenge::Bearer(bearer)));
        assert_eq!(of(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        let both = of(r#"Basic realm="x", bearer Realm = "https:\/\/t" , service=s"#);
        let bearer = Bearer { realm: "https://t".into(), service: Some("s".into()), scope: None };
        assert_eq!(both, Some(Challenge::Bearer(bearer)));
        for nothing in
            ["", "Negotiate", "Bearer", r#"Bearer service="x""#, r#"Bearer realm="open"#, "=x", ",,"]
        {
            assert_eq!(of(nothing), None, "{nothing}");
        }
        assert_eq!(of(&format!("Basic {}", "x".repeat(BYTES_MAX))), None);
    }

    proptest! {
        /// No header makes it panic.
        #[test]
        fn any_header(header in "(Bearer |Basic |realm=|service=|\"|\\\\|,|=|\\PC){0,16}") {
            of(&header);
        }
    }
}
