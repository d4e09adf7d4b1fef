//! Who calls, and whether they may: the one place where that is decided.
//!
//! [`Authenticator`] makes a [`Caller`] of a connection's address and the token of a request; [`authorize`] decides what
//! that caller may do. Every handler goes through it and nothing is reached around it.
//!
//! The rule of a standalone broker: callers from the loopback address need no token unless a token file is set; callers
//! from elsewhere always need one, unless the broker was told to be open. It knows nothing of topics but their names.

mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

pub use tokens::{TokenFile, TokenFileError};

/// What a token allows. Written in a token file in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Writes, reads and looks.
    Client,
    /// Writes and looks.
    Producer,
    /// Reads and looks.
    Consumer,
    /// Looks: topics, offsets, states.
    Viewer,
}

impl Role {
    /// All roles, by the names a token file uses.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("admin", Self::Admin),
        ("client", Self::Client),
        ("producer", Self::Producer),
        ("consumer", Self::Consumer),
        ("viewer", Self::Viewer),
    ];

    /// Its name in a token file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Viewer => "viewer",
        }
    }

    fn allows(self, verb: Verb) -> bool {
        match self {
            Self::Admin => true,
            Self::Client => matches!(verb, Verb::Produce | Verb::Consume | Verb::Describe),
            Self::Producer => matches!(verb, Verb::Produce | Verb::Describe),
            Self::Consumer => matches!(verb, Verb::Consume | Verb::Describe),
            Self::Viewer => matches!(verb, Verb::Describe),
        }
    }
}

/// Who somebody has proved to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody, and need not be anybody: from the loopback address, or the broker is open.
    Anonymous,
    /// The bearer of a token of this role.
    Bearer(Role),
}

/// Who makes a request, from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The connection's other end.
    pub address: SocketAddr,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Append records.
    Produce,
    /// Read records.
    Consume,
    /// See that something exists, its configuration, offsets and state.
    Describe,
    /// Make a topic.
    Create,
    /// Change a topic; delete some of its records.
    Alter,
    /// Delete a topic, or bring it back.
    Delete,
    /// See or change the broker itself.
    Admin,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce to",
            Self::Consume => "consume",
            Self::Describe => "describe",
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Delete => "delete",
            Self::Admin => "administer",
        }
    }
}

/// What somebody wants to do it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic, by name.
    Topic(&'a str),
    /// The broker and what it shares out: producer ids, metadata.
    Cluster,
}

impl std::fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name:?}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// The caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token of role {role} may not {verb} {resource}: use a token of a role that may")]
pub struct Denied {
    role: &'static str,
    verb: &'static str,
    resource: String,
}

/// Decides whether `caller` may do `verb` to `resource`.
pub fn authorize(caller: &Caller, verb: Verb, resource: Resource<'_>) -> Result<(), Denied> {
    match caller.principal {
        Principal::Anonymous => Ok(()),
        Principal::Bearer(role) if role.allows(verb) => Ok(()),
        Principal::Bearer(role) => Err(Denied { role: role.name(), verb: verb.name(), resource: resource.to_string() }),
    }
}

/// The request carries no valid credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// None at all.
    #[error("a token is needed: send it as `authorization: Bearer TOKEN`")]
    Missing,
    /// Something else than a bearer token.
    #[error("the authorization header is not `Bearer TOKEN`")]
    Malformed,
    /// A token that is not in the token file.
    #[error("the token is not known: ask the operator of the broker for a valid one")]
    Unknown,
    /// There is no token file, so no token can be valid.
    #[error("the broker has no tokens and serves the loopback address only: start it with --token-file")]
    NoTokens,
}

/// Makes callers of connections and tokens.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    tokens: Option<Arc<TokenFile>>,
    open: bool,
}

impl Authenticator {
    /// With the tokens of a file, if one is set. `open`: callers from everywhere are served without a token where no file
    /// is set.
    pub fn new(tokens: Option<Arc<TokenFile>>, open: bool) -> Self {
        Self { tokens, open }
    }

    /// The token file, if one is set.
    pub fn tokens(&self) -> Option<&Arc<TokenFile>> {
        self.tokens.as_ref()
    }

    /// The caller at `address` that sent this `authorization` header.
    pub fn authenticate(&self, address: SocketAddr, authorization: Option<&[u8]>) -> Result<Caller, Unauthenticated> {
        let principal = match &self.tokens {
            None if self.open || address.ip().to_canonical().is_loopback() => Principal::Anonymous,
            None => return Err(Unauthenticated::NoTokens),
            Some(tokens) => {
                let token = bearer_token(authorization.ok_or(Unauthenticated::Missing)?)?;
                Principal::Bearer(tokens.role_of(token).ok_or(Unauthenticated::Unknown)?)
            }
        };
        Ok(Caller { principal, address })
    }
}

/// The token in `Bearer TOKEN`; the scheme's name is not case-sensitive (RFC 9110, 11.1).
fn bearer_token(header: &[u8]) -> Result<&[u8], Unauthenticated> {
    let (scheme, token) = header.split_at_checked(7).ok_or(Unauthenticated::Malformed)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() {
        Ok(token.trim_ascii())
    } else {
        Err(Unauthenticated::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: &str = "127.0.0.1:5000";
    const NEAR_MAPPED: &str = "[::ffff:127.0.0.1]:5000";
    const FAR: &str = "192.0.2.7:5000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn with_tokens() -> Authenticator {
        let tokens = TokenFile::parse("secret-of-the-admin admin\nsecret-of-the-reader consumer\n").unwrap();
        Authenticator::new(Some(Arc::new(TokenFile::of(tokens))), false)
    }

    #[test]
    fn loopback_needs_no_token_without_a_file() {
        for near in [NEAR, NEAR_MAPPED, "[::1]:1"] {
            let caller = Authenticator::default().authenticate(address(near), None).unwrap();
            assert_eq!(caller.principal, Principal::Anonymous);
        }
    }

    #[test]
    fn other_addresses_are_refused_without_a_file_unless_open() {
        let refused = Authenticator::default().authenticate(address(FAR), Some(b"Bearer guess"));
        assert_eq!(refused, Err(Unauthenticated::NoTokens));
        let open = Authenticator::new(None, true).authenticate(address(FAR), None).unwrap();
        assert_eq!(open.principal, Principal::Anonymous);
    }

    #[test]
    fn with_a_file_everybody_needs_a_token() {
        for from in [NEAR, FAR] {
            let of = |header| with_tokens().authenticate(address(from), header);
            assert_eq!(of(None), Err(Unauthenticated::Missing));
            assert_eq!(of(Some(b"Basic abc")), Err(Unauthenticated::Malformed));
            assert_eq!(of(Some(b"Bearer ")), Err(Unauthenticated::Malformed));
            assert_eq!(of(Some(b"Bearer secret-of-the-admi")), Err(Unauthenticated::Unknown));
            let caller = of(Some(b"bearer secret-of-the-reader")).unwrap();
            assert_eq!(caller.principal, Principal::Bearer(Role::Consumer));
        }
    }

    #[test]
    fn roles_allow_what_their_names_say() {
        use Verb::{Admin, Alter, Consume, Create, Delete, Describe, Produce};
        let all = [Produce, Consume, Describe, Create, Alter, Delete, Admin];
        let allowed = |role: Role| -> Vec<Verb> { all.into_iter().filter(|verb| role.allows(*verb)).collect() };
        assert_eq!(allowed(Role::Admin), all);
        assert_eq!(allowed(Role::Client), [Produce, Consume, Describe]);
        assert_eq!(allowed(Role::Producer), [Produce, Describe]);
        assert_eq!(allowed(Role::Consumer), [Consume, Describe]);
        assert_eq!(allowed(Role::Viewer), [Describe]);
    }

    #[test]
    fn a_refusal_names_role_verb_and_resource() {
        let caller = Caller { principal: Principal::Bearer(Role::Consumer), address: address(FAR) };
        let denied = authorize(&caller, Verb::Delete, Resource::Topic("flights")).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "a token of role consumer may not delete topic \"flights\": use a token of a role that may"
        );
    }
}
