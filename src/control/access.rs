//! Who may do what: bearer tokens (RFC 6750) and their roles.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To connect as an edge.
    Edge,
    /// To read everything that REST offers.
    Read,
    /// To change the routing document, and to read.
    Write,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Edge, Role::Read, Role::Write];

    /// `edge`, `read` or `write`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn allows(self, wanted: Role) -> bool {
        self == wanted || (self == Self::Write && wanted == Self::Read)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token by its name. The secret itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: String,
    sha256: [u8; 32],
    roles: Vec<Role>,
}

impl Token {
    /// `name` is what changes are recorded under.
    pub fn new(name: impl Into<String>, secret: &str, roles: Vec<Role>) -> Self {
        Self {
            name: name.into(),
            sha256: Sha256::digest(secret).into(),
            roles,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the two cannot be told apart, by their names or by their secrets.
    pub fn clashes_with(&self, other: &Token) -> bool {
        self.name == other.name || self.sha256 == other.sha256
    }
}

impl fmt::Debug for Token {
    // Not the hash: it may be that of a guessable secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// The tokens. Without any, everyone may do everything; or, where clients show
/// certificates, connect as an edge and no more: a certificate that every edge has
/// is not one to change the table with. Tokens can be replaced while others ask.
#[derive(Default)]
pub struct Access {
    tokens: ArcSwap<Vec<Token>>,
    /// Whoever connects has shown a certificate.
    certificates: bool,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token; `anonymous` where none is wanted.
    pub name: String,
}

/// Why someone may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No token, or one that nobody has: 401.
    Unknown,
    /// A good token that does not allow this: 403.
    Forbidden { name: String, wanted: Role },
    /// There are only certificates, and those do not allow this: 403.
    NoTokens { wanted: Role },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("no valid token (send one as `Authorization: Bearer TOKEN`)")
            }
            Self::Forbidden { name, wanted } => {
                write!(f, "token {name:?} has not the role {wanted}")
            }
            Self::NoTokens { wanted } => write!(
                f,
                "the role {wanted} takes a token, and there are none in the settings: a client's \
                 certificate alone lets an edge connect, and no more"
            ),
        }
    }
}

impl std::error::Error for Denied {}

impl Access {
    pub fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens: ArcSwap::from_pointee(tokens),
            certificates: false,
        }
    }

    /// The same, where only those can connect who have shown a certificate
    /// (`tls.client_ca`).
    pub fn with_certificates(tokens: Vec<Token>) -> Self {
        Self {
            certificates: true,
            ..Self::new(tokens)
        }
    }

    /// From now on, these tokens are the ones. Whoever is connected stays so.
    pub fn replace(&self, tokens: Vec<Token>) {
        self.tokens.store(Arc::new(tokens));
    }

    /// Whether there are tokens.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.load().is_empty()
    }

    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        !self.certificates && !self.has_tokens()
    }

    /// Who sent this `Authorization` header, if they may do what `wanted` allows.
    ///
    /// # Errors
    /// They may not.
    pub fn check(
        &self,
        authorization: Option<&HeaderValue>,
        wanted: Role,
    ) -> Result<Caller, Denied> {
        let tokens = self.tokens.load();
        if tokens.is_empty() {
            if self.certificates && wanted != Role::Edge {
                return Err(Denied::NoTokens { wanted });
            }
            return Ok(Caller {
                name: "anonymous".to_owned(),
            });
        }
        let secret = authorization.and_then(bearer).ok_or(Denied::Unknown)?;
        // Of hashes, so that the time a comparison takes tells nothing of a secret.
        let sha256: [u8; 32] = Sha256::digest(secret).into();
        let token = tokens.iter().find(|token| token.sha256 == sha256);
        let token = token.ok_or(Denied::Unknown)?;
        match token.roles.iter().any(|role| role.allows(wanted)) {
            true => Ok(Caller {
                name: token.name.clone(),
            }),
            false => Err(Denied::Forbidden {
                name: token.name.clone(),
                wanted,
            }),
        }
    }
}

/// The token of `Bearer TOKEN`, whose scheme has no case (RFC 9110, section 11.1).
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(vec![
            Token::new("fleet", "e-secret", vec![Role::Edge]),
            Token::new("ops", "w-secret", vec![Role::Write]),
            Token::new("dashboard", "r-secret", vec![Role::Read]),
        ])
    }

    fn check(access: &Access, header: &'static str, wanted: Role) -> Result<String, Denied> {
        let header = HeaderValue::from_static(header);
        let header = (!header.is_empty()).then_some(&header);
        access.check(header, wanted).map(|caller| caller.name)
    }

    #[test]
    fn a_token_allows_what_its_roles_say() {
        let forbidden = |name: &str, wanted| {
            Err(Denied::Forbidden {
                name: name.to_owned(),
                wanted,
            })
        };
        for (header, wanted, result) in [
            ("Bearer e-secret", Role::Edge, Ok("fleet".to_owned())),
            ("bearer  e-secret ", Role::Edge, Ok("fleet".to_owned())),
            (
                "Bearer e-secret",
                Role::Read,
                forbidden("fleet", Role::Read),
            ),
            ("Bearer w-secret", Role::Write, Ok("ops".to_owned())),
            ("Bearer w-secret", Role::Read, Ok("ops".to_owned())),
            ("Bearer w-secret", Role::Edge, forbidden("ops", Role::Edge)),
            (
                "Bearer r-secret",
                Role::Write,
                forbidden("dashboard", Role::Write),
            ),
            ("Bearer other", Role::Read, Err(Denied::Unknown)),
            ("Basic e-secret", Role::Edge, Err(Denied::Unknown)),
            ("Bearer ", Role::Edge, Err(Denied::Unknown)),
            ("Bearer", Role::Edge, Err(Denied::Unknown)),
            ("", Role::Read, Err(Denied::Unknown)),
        ] {
            assert_eq!(check(&access(), header, wanted), result, "{header:?}");
        }
    }

    #[test]
    fn tokens_are_replaced() {
        let access = access();
        let new = vec![Token::new("ops", "new-secret", vec![Role::Write])];
        access.replace(new);
        assert_eq!(
            check(&access, "Bearer w-secret", Role::Write),
            Err(Denied::Unknown)
        );
        assert_eq!(
            check(&access, "Bearer new-secret", Role::Write),
            Ok("ops".to_owned())
        );
    }

    #[test]
    fn without_tokens_everyone_may_everything() {
        let open = Access::default();
        for role in Role::ALL {
            assert_eq!(check(&open, "", role), Ok("anonymous".to_owned()));
        }
        assert!(open.is_open());
    }

    #[test]
    fn a_certificate_alone_is_an_edges() {
        let access = Access::with_certificates(Vec::new());
        assert!(!access.is_open() && !access.has_tokens());
        for (wanted, result) in [
            (Role::Edge, Ok("anonymous".to_owned())),
            (Role::Read, Err(Denied::NoTokens { wanted: Role::Read })),
            (
                Role::Write,
                Err(Denied::NoTokens {
                    wanted: Role::Write,
                }),
            ),
        ] {
            assert_eq!(check(&access, "", wanted), result);
        }
        // With tokens as well, those decide.
        let tokens = vec![Token::new("ops", "w-secret", vec![Role::Write])];
        let access = Access::with_certificates(tokens);
        assert_eq!(check(&access, "", Role::Edge), Err(Denied::Unknown));
        assert_eq!(
            check(&access, "Bearer w-secret", Role::Write),
            Ok("ops".to_owned())
        );
    }
}
