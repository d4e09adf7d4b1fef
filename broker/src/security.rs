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

/// Header by which a broker says for whom it asks another one.
pub const FORWARDED_FOR: &str = "taffrail-forwarded-for";

impl Caller {
    /// As a broker tells another one.
    pub fn to_text(&self) -> String {
        let role = match self.principal {
            Principal::Anonymous => "anonymous",
            Principal::Bearer(role) => role.name(),
        };
        format!("{role} {}", self.address)
    }

    /// The other way. Nobody, if it is not understood.
    pub fn parse(text: &str) -> Option<Self> {
        let (role, address) = text.split_once(' ')?;
        let address = address.parse().ok()?;
        let principal = match role {
            "anonymous" => Principal::Anonymous,
            role => Principal::Bearer(Role::NAMES.iter().find(|(name, _)| *name == role)?.1),
        };
        Some(Self { principal, address })
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Append records.
    Produce,
    /// Read records; be a member of a group.
    Consume,
    /// See that something exists, its configuration, offsets and state.
    Describe,
    /// Make a topic.
    Create,
    /// Change a topic, or delete some of its records; move a group's offsets.
    Alter,
    /// Delete a topic, or bring it back; delete a group.
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
    /// A consumer group, by its id.
    Group(&'a str),
    /// The broker and what it shares out: producer ids, metadata.
    Cluster,
}

impl std::fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name:?}"),
            Self::Group(id) => write!(f, "group {id:?}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// The caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Somebody else may.
    #[error("a token of role {role} may not {verb} {resource}: use a token of a role that may")]
    Role {
        /// The caller's.
        role: &'static str,
        /// What it wanted to do.
        verb: &'static str,
        /// To what.
        resource: String,
    },
    /// Nobody may.
    #[error("nobody may {verb} {resource}: it is internal, and only the broker itself writes and changes it")]
    Internal {
        /// What the caller wanted to do.
        verb: &'static str,
        /// To what.
        resource: String,
    },
}

/// Decides whether `caller` may do `verb` to `resource`. What the broker keeps in internal topics is changed by nobody else
/// and read by administrators only.
pub fn authorize(caller: &Caller, verb: Verb, resource: Resource<'_>) -> Result<(), Denied> {
    let internal = matches!(resource, Resource::Topic(name) if is_internal(name));
    if internal && matches!(verb, Verb::Produce | Verb::Alter | Verb::Delete) {
        return Err(Denied::Internal { verb: verb.name(), resource: resource.to_string() });
    }
    let needed = if internal && verb == Verb::Consume { Verb::Admin } else { verb };
    match caller.principal {
        Principal::Anonymous => Ok(()),
        Principal::Bearer(role) if role.allows(needed) => Ok(()),
        Principal::Bearer(role) => {
            Err(Denied::Role { role: role.name(), verb: verb.name(), resource: resource.to_string() })
        }
    }
}

/// A topic of this name is the broker's own.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
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

    #[test]
    fn nobody_changes_internal_topics_and_only_administrators_read_them() {
        let topic = Resource::Topic("__consumer_offsets");
        let may = |principal, verb| authorize(&Caller { principal, address: address(NEAR) }, verb, topic).is_ok();
        for verb in [Verb::Produce, Verb::Alter, Verb::Delete] {
            assert!(!may(Principal::Bearer(Role::Admin), verb) && !may(Principal::Anonymous, verb), "{verb:?}");
        }
        assert!(may(Principal::Bearer(Role::Admin), Verb::Consume) && may(Principal::Anonymous, Verb::Consume));
        assert!(!may(Principal::Bearer(Role::Client), Verb::Consume));
        assert!(may(Principal::Bearer(Role::Viewer), Verb::Describe));
    }

    #[test]
    fn groups_are_used_by_consumers_seen_by_viewers_and_changed_by_administrators() {
        let may = |role, verb| {
            let caller = Caller { principal: Principal::Bearer(role), address: address(NEAR) };
            authorize(&caller, verb, Resource::Group("g")).is_ok()
        };
        for role in [Role::Consumer, Role::Client] {
            assert!(may(role, Verb::Consume) && !may(role, Verb::Alter) && !may(role, Verb::Delete));
        }
        assert!(may(Role::Viewer, Verb::Describe) && !may(Role::Viewer, Verb::Consume));
        assert!(!may(Role::Producer, Verb::Consume));
        assert!(may(Role::Admin, Verb::Alter) && may(Role::Admin, Verb::Delete));
    }
}
