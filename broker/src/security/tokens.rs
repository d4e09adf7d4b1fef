//! The token file: one `TOKEN ROLE` a line, `#` begins a comment. It is read again when it changes, so that tokens can be
//! replaced without a restart; a faulty new file leaves the tokens as they were.

use std::fs::Metadata;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Role;

/// The shortest token: anything shorter can be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// The longest token; more than any header needs.
const MAX_TOKEN_BYTES: usize = 512;
/// Each request is compared with every token, so that the time says nothing about which one matched.
const MAX_TOKENS: usize = 1_000;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It could not be read.
    #[error("cannot read token file {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A line is wrong.
    #[error("token file, line {line}: {fault}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// There is nothing in it.
    #[error("token file has no token: write lines of the form `TOKEN ROLE`")]
    Empty,
    /// There is too much in it.
    #[error("token file has more than {MAX_TOKENS} tokens")]
    TooMany,
}

/// A token and what it allows. Does not show itself in logs.
pub struct Token {
    secret: Box<[u8]>,
    role: Role,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.role.name())
    }
}

/// What tells a changed file from an unchanged one.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The tokens in force.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    seen: Mutex<Stamp>,
    tokens: ArcSwap<Vec<Token>>,
}

impl TokenFile {
    /// Reads the file at `path`.
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        let (stamp, tokens) = read(path)?;
        Ok(Self { path: path.to_owned(), seen: Mutex::new(stamp), tokens: ArcSwap::from_pointee(tokens) })
    }

    /// Reads the file again if it changed since; says whether it did. The tokens stay as they were on an error.
    pub fn refresh(&self) -> Result<bool, TokenFileError> {
        let now =
            std::fs::metadata(&self.path).map(|found| stamp(&found)).map_err(|cause| unreadable(&self.path, cause))?;
        let mut seen = self.seen.lock();
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let (stamp, tokens) = read(&self.path)?;
        *seen = stamp;
        self.tokens.store(tokens.into());
        Ok(true)
    }

    /// What `token` allows; `None` if it is not in the file. Takes the same time whichever token it is.
    pub fn role_of(&self, token: &[u8]) -> Option<Role> {
        let mut role = None;
        for known in self.tokens.load().iter() {
            if equal_in_constant_time(&known.secret, token) {
                role = Some(known.role);
            }
        }
        role
    }

    /// The tokens of a file's text.
    pub fn parse(text: &str) -> Result<Vec<Token>, TokenFileError> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                tokens.push(parse_line(line).map_err(|fault| TokenFileError::Line { line: index + 1, fault })?);
            }
        }
        match tokens.len() {
            0 => Err(TokenFileError::Empty),
            1..=MAX_TOKENS => Ok(tokens),
            _ => Err(TokenFileError::TooMany),
        }
    }

    /// Fixed tokens, without a file.
    #[cfg(test)]
    pub(super) fn of(tokens: Vec<Token>) -> Self {
        Self { path: PathBuf::new(), seen: Mutex::new(None), tokens: ArcSwap::from_pointee(tokens) }
    }
}

fn parse_line(line: &str) -> Result<Token, &'static str> {
    let mut words = line.split_whitespace();
    let (Some(secret), Some(role), None) = (words.next(), words.next(), words.next()) else {
        return Err("must be `TOKEN ROLE`");
    };
    if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&secret.len()) {
        return Err("a token has 16 to 512 characters");
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token consists of visible ASCII characters");
    }
    let known = Role::NAMES.into_iter().find(|(name, _)| *name == role);
    let (_, role) = known.ok_or("the role must be admin, client, producer, consumer or viewer")?;
    Ok(Token { secret: secret.as_bytes().into(), role })
}

fn read(path: &Path) -> Result<(Stamp, Vec<Token>), TokenFileError> {
    let found = std::fs::metadata(path).map_err(|cause| unreadable(path, cause))?;
    let text = std::fs::read_to_string(path).map_err(|cause| unreadable(path, cause))?;
    Ok((stamp(&found), TokenFile::parse(&text)?))
}

fn unreadable(path: &Path, cause: std::io::Error) -> TokenFileError {
    TokenFileError::Unreadable { path: path.display().to_string(), cause }
}

/// Modification time, length and inode: Kubernetes replaces a mounted secret by a new file behind a link.
fn stamp(found: &Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    found.modified().ok().map(|at| (at, found.len(), found.ino()))
}

/// Compares without an early end at the first difference. Only the length can be told from the time it takes.
fn equal_in_constant_time(known: &[u8], given: &[u8]) -> bool {
    if known.len() != given.len() {
        return false;
    }
    let difference = known.iter().zip(given).fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tokens_comments_and_blank_lines() {
        let text = "# who may what\n\n0123456789abcdef admin   # me\n  fedcba9876543210\tviewer\n";
        let file = TokenFile::of(TokenFile::parse(text).unwrap());
        assert_eq!(file.role_of(b"0123456789abcdef"), Some(Role::Admin));
        assert_eq!(file.role_of(b"fedcba9876543210"), Some(Role::Viewer));
        assert_eq!(file.role_of(b"fedcba9876543211"), None);
        assert_eq!(file.role_of(b""), None);
    }

    #[test]
    fn names_the_faulty_line() {
        let faults = [
            ("0123456789abcdef admin\nshort admin", "token file, line 2: a token has 16 to 512 characters"),
            ("0123456789abcdef", "token file, line 1: must be `TOKEN ROLE`"),
            ("0123456789abcdef admin now", "token file, line 1: must be `TOKEN ROLE`"),
            ("0123456789abcdéf admin", "token file, line 1: a token consists of visible ASCII characters"),
            (
                "0123456789abcdef root",
                "token file, line 1: the role must be admin, client, producer, consumer or viewer",
            ),
            ("# nothing", "token file has no token: write lines of the form `TOKEN ROLE`"),
        ];
        for (text, fault) in faults {
            assert_eq!(TokenFile::parse(text).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_faulty_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "first-token-first admin").unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert!(!file.refresh().unwrap());

        std::fs::write(&path, "second-token-of-all viewer").unwrap();
        assert!(file.refresh().unwrap());
        assert_eq!(file.role_of(b"first-token-first"), None);
        assert_eq!(file.role_of(b"second-token-of-all"), Some(Role::Viewer));

        std::fs::write(&path, "x").unwrap();
        assert!(file.refresh().is_err());
        assert!(!file.refresh().unwrap(), "a fault is reported once");
        assert_eq!(file.role_of(b"second-token-of-all"), Some(Role::Viewer));
    }
}
