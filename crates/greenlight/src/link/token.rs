//! Tokens that let one machine join once: short-lived, for one role, kept by the server as hashes.
//!
//! ```text
//!   gl1.SECRET.FINGERPRINT        what a person carries: the fingerprint is that of the authority
//!   tokens/HASH                   what the server keeps: role and expiry; HASH is of SECRET
//!   tokens/HASH.used              the same once it was redeemed
//! ```
//!
//! Redeeming is one rename: of two who try, the file system lets one win, also across a crash.

use super::pki::{Authority, PkiError, Role, file, fingerprint, invalid, provider};
use crate::clock::wall_ms;
use crate::digest::sha256_hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const PREFIX: &str = "gl1";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 16;
/// Used and expired tokens are remembered for so long, to say what became of them.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What lets a machine join.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    /// The SHA-256 of the authority's certificate: who joins trusts nobody else.
    pub(super) authority: String,
}

/// The folder in which a server keeps its tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    dir: PathBuf,
}

/// Why a token is not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The server has never made it, or has forgotten it.
    #[error("this server knows no such token")]
    Unknown,
    /// Somebody has used it.
    #[error("the token was used already")]
    Used,
    /// It is too old.
    #[error("the token has expired")]
    Expired,
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] PkiError),
}

/// What is kept of a token.
#[derive(Serialize, Deserialize)]
struct Kept {
    role: String,
    expires_ms: u64,
}

impl Tokens {
    /// The tokens of the server that keeps its state in `state`.
    pub fn of(state: &Path) -> Self {
        Self {
            dir: state.join("tokens"),
        }
    }

    /// Makes a token. When this returns it is on disk.
    pub fn make(
        &self,
        authority: &Authority,
        role: &Role,
        valid: Duration,
    ) -> Result<Token, PkiError> {
        let mut bytes = [0; SECRET_BYTES];
        let filled = provider().secure_random.fill(&mut bytes);
        filled.map_err(|_| invalid("the system has no randomness"))?;
        let secret = bytes
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let token = Token {
            secret,
            authority: fingerprint(authority.certificate())?,
        };
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        let kept = Kept {
            role: role.dns_name(),
            expires_ms: wall_ms().saturating_add(valid_ms),
        };
        self.forget_old();
        self.keep(&token.secret, &kept)
            .map_err(|source| file(&self.dir, source))?;
        Ok(token)
    }

    fn keep(&self, secret: &str, kept: &Kept) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let path = self.path(secret);
        let mut open = File::options();
        let mut file = open.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        // Made by root for a server that is somebody else: that one must be able to read it.
        let state = self.dir.parent().unwrap_or(&self.dir).metadata()?;
        for path in [&self.dir, &path] {
            if path.metadata()?.uid() != state.uid() {
                std::os::unix::fs::chown(path, Some(state.uid()), Some(state.gid()))?;
            }
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Uses a token up. When this returns, that is on disk.
    pub fn redeem(&self, secret: &str) -> Result<Role, TokenError> {
        let path = self.path(secret);
        let used = path.with_extension("used");
        let failed = |source| TokenError::Store(file(&path, source));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(match used.exists() {
                    true => TokenError::Used,
                    false => TokenError::Unknown,
                });
            }
            Err(error) => return Err(failed(error)),
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| TokenError::Unknown)?;
        let role = Role::of_name(&kept.role).ok_or(TokenError::Unknown)?;
        if kept.expires_ms <= wall_ms() {
            return Err(TokenError::Expired);
        }
        match fs::rename(&path, &used) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenError::Used),
            Err(error) => return Err(failed(error)),
        }
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(failed)?;
        Ok(role)
    }

    fn path(&self, secret: &str) -> PathBuf {
        self.dir.join(sha256_hex(secret.as_bytes()))
    }

    /// Removes what nobody will ask about any more.
    fn forget_old(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let changed = path.metadata().and_then(|known| known.modified());
            if changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > REMEMBERED)) {
                // Another may have been faster.
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Token {
    /// The part that only the server may see.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.secret, self.authority)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('.');
        let hex = |part: Option<&str>, length| {
            let part = part.filter(|part| part.len() == length)?;
            let hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| part.to_ascii_lowercase())
        };
        let read = || {
            (parts.next()? == PREFIX).then_some(())?;
            let secret = hex(parts.next(), 2 * SECRET_BYTES)?;
            let authority = hex(parts.next(), 64)?;
            parts.next().is_none().then_some(Self { secret, authority })
        };
        let mut read = read;
        read().ok_or_else(|| {
            format!("it is not a token; one begins with `{PREFIX}.` and has three parts")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_token_is_redeemed_once_also_after_a_restart() {
        let (dir, authority) = authority();
        let role = Role::Agent("a".to_owned());
        let token = Tokens::of(dir.path()).make(&authority, &role, HOUR);
        let token: Token = token.expect("a folder").to_string().parse().expect("one");

        let again = Tokens::of(dir.path());
        assert_eq!(again.redeem(token.secret()).expect("it is good"), role);
        let used = Tokens::of(dir.path()).redeem(token.secret());
        assert!(matches!(used, Err(TokenError::Used)));
    }

    #[test]
    fn an_expired_and_an_invented_token_are_told_apart() {
        let (dir, authority) = authority();
        let tokens = Tokens::of(dir.path());
        let token = tokens.make(&authority, &Role::Operator, Duration::ZERO);
        let expired = tokens.redeem(token.expect("a folder").secret());
        assert!(matches!(expired, Err(TokenError::Expired)));
        assert!(matches!(tokens.redeem("0"), Err(TokenError::Unknown)));
    }

    #[test]
    fn what_is_kept_does_not_show_the_secret() {
        let (dir, authority) = authority();
        let token = Tokens::of(dir.path()).make(&authority, &Role::Operator, HOUR);
        let token = token.expect("a folder");
        for entry in fs::read_dir(dir.path().join("tokens")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("text");
            assert!(!text.contains(token.secret()));
            assert!(!path.display().to_string().contains(token.secret()));
        }
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "gl1", "gl1.00.00", "gl2.x.y", "gl1.00..", "password"] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("a folder");
        (dir, authority)
    }
}
