//! Authorization: bearer tokens (RFC 6750) and their roles.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A permission of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Connect as an edge.
    Edge,
    /// Read everything that the REST API offers.
    Read,
    /// Change the routing document; includes `Read`.
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

    fn includes(self, required: Role) -> bool {
        self == required || (self == Self::Write && required == Self::Read)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token. Only a hash of its secret is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: String,
    sha256: [u8; 32],
    roles: Vec<Role>,
}

impl Token {
    /// Changes made with the token are recorded under `name`.
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

    /// Whether both have the same name or the same secret.
    pub fn clashes_with(&self, other: &Token) -> bool {
        self.name == other.name || self.sha256 == other.sha256
    }
}

impl fmt::Debug for Token {
    // Without the hash: a weak secret could be guessed from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// The tokens, which can be replaced at any time. Without tokens, every client has every role;
/// unless client certificates are required: then every client may connect as an edge, and no more,
/// as every edge has such a certificate.
#[derive(Default)]
pub struct Access {
    tokens: ArcSwap<Vec<Token>>,
    /// Client certificates are required.
    certificates: bool,
}

/// The authorized client of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token; `anonymous` if none is required.
    pub name: String,
}

/// Why a request is not authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No token, or not one of the configured tokens: 401.
    Unknown,
    /// The token lacks the role: 403.
    Forbidden { name: String, required: Role },
    /// No token is configured, and client certificates do not have the role: 403.
    NoTokens { required: Role },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("no valid token (send one as `Authorization: Bearer TOKEN`)")
            }
            Self::Forbidden { name, required } => {
                write!(f, "token {name:?} lacks the role \"{required}\"")
            }
            Self::NoTokens { required } => write!(
                f,
                "the role \"{required}\" requires a token, and none is configured: a client \
                 certificate alone only allows an edge to connect"
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

    /// Tokens where client certificates are required as well (`tls.client_ca`).
    pub fn with_certificates(tokens: Vec<Token>) -> Self {
        Self {
            certificates: true,
            ..Self::new(tokens)
        }
    }

    /// Replaces the tokens. Open connections stay open.
    pub fn replace(&self, tokens: Vec<Token>) {
        self.tokens.store(Arc::new(tokens));
    }

    /// Whether any token is configured.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.load().is_empty()
    }

    /// Whether every client has every role.
    pub fn is_open(&self) -> bool {
        !self.certificates && !self.has_tokens()
    }

    /// The client that sent this `Authorization` header.
    ///
    /// # Errors
    /// It does not have the role `required`.
    pub fn check(
        &self,
        authorization: Option<&HeaderValue>,
        required: Role,
    ) -> Result<Caller, Denied> {
        let tokens = self.tokens.load();
        if tokens.is_empty() {
            if self.certificates && required != Role::Edge {
                return Err(Denied::NoTokens { required });
            }
            return Ok(Caller {
                name: "anonymous".to_owned(),
            });
        }
        let secret = authorization.and_then(bearer).ok_or(Denied::Unknown)?;
        // Comparing hashes: the time that it takes reveals nothing about a secret.
        let sha256: [u8; 32] = Sha256::digest(secret).into();
        let token = tokens.iter().find(|token| token.sha256 == sha256);
        let token = token.ok_or(Denied::Unknown)?;
        match token.roles.iter().any(|role| role.includes(required)) {
            true => Ok(Caller {
                name: token.name.clone(),
            }),
            false => Err(Denied::Forbidden {
                name: token.name.clone(),
                required,
            }),
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme is case-insensitive (RFC 9110, section 11.1).
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
    fn a_token_has_its_roles() {
        let forbidden = |name: &str, required| {
            Err(Denied::Forbidden {
                name: name.to_owned(),
                required,
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
    fn without_tokens_every_client_has_every_role() {
        let open = Access::default();
        for role in Role::ALL {
            assert_eq!(check(&open, "", role), Ok("anonymous".to_owned()));
        }
        assert!(open.is_open());
    }

    #[test]
    fn a_certificate_alone_has_the_role_edge() {
        let access = Access::with_certificates(Vec::new());
        assert!(!access.is_open() && !access.has_tokens());
        for (wanted, result) in [
            (Role::Edge, Ok("anonymous".to_owned())),
            (
                Role::Read,
                Err(Denied::NoTokens {
                    required: Role::Read,
                }),
            ),
            (
                Role::Write,
                Err(Denied::NoTokens {
                    required: Role::Write,
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
