//! Tokens that let one machine join once: short-lived, for one role, kept by the server as hashes.
//!
//! ```text
//!   gl1.SECRET.FINGERPRINT        what a person carries: the fingerprint is that of the authority
//!   tokens/HASH                   what the server keeps: role and expiry; HASH is of SECRET
//!   tokens/HASH.used              the same once it was redeemed
//! ```
//!
//! Redeeming is one rename: if two clients try, the file system lets one win, also across a crash.

use super::pki::{Authority, PkiError, file, fingerprint, invalid, provider};
use super::role::Role;
use greenlight_release::digest::sha256_hex;
use greenlight_release::duration::written;
use greenlight_shell::clock::{millis, wall_ms};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, openat, statat, unlinkat};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a token is valid at most.
const LONGEST: Duration = Duration::from_hours(24);
const PREFIX: &str = "gl1";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 16;
/// Used and expired tokens are remembered for so long, to say what became of them.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What lets a machine join.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    /// The SHA-256 of the authority's certificate: the joining machine trusts nothing else.
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
    #[error("the token was used already")]
    Used,
    /// It is too old.
    #[error("the token has expired")]
    Expired,
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] PkiError),
}

/// Why a token cannot be made for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// Its validity is zero.
    #[error("a token must be valid for some time")]
    Never,
    /// It would lie around for too long.
    #[error("a token is valid for at most {}", written(LONGEST))]
    TooLong,
}

/// Refuses a validity that no token may have.
pub fn check_validity(valid: Duration) -> Result<Duration, ValidityError> {
    if valid.is_zero() {
        return Err(ValidityError::Never);
    }
    match valid <= LONGEST {
        true => Ok(valid),
        false => Err(ValidityError::TooLong),
    }
}

/// What is kept of a token.
#[derive(Serialize, Deserialize)]
struct TokenRecord {
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
    ) -> Result<JoinToken, PkiError> {
        let mut bytes = [0; SECRET_BYTES];
        let filled = provider().secure_random.fill(&mut bytes);
        filled.map_err(|_| invalid("the system has no randomness"))?;
        let secret = bytes
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let token = JoinToken {
            secret,
            authority: fingerprint(authority.certificate())?,
        };
        let kept = TokenRecord {
            role: role.dns_name(),
            expires_ms: wall_ms().saturating_add(millis(valid)),
        };
        self.keep(&token.secret, &kept)
            .map_err(|source| file(&self.dir, source))?;
        Ok(token)
    }

    fn keep(&self, secret: &str, kept: &TokenRecord) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        // Root may do this in another user's folder, and that user may put links there. So no link
        // is followed, and all that comes is about what was opened.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(open(&self.dir, flags, Mode::empty())?);
        forget_old(&dir);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&dir, name(secret), flags, mode)?);
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        // If root makes it for a server of another user, that user must be able to read it.
        let state = self.dir.parent().unwrap_or(&self.dir).metadata()?;
        for made in [&dir, &file] {
            if made.metadata()?.uid() != state.uid() {
                fchown(made, Some(state.uid()), Some(state.gid()))?;
            }
        }
        dir.sync_all()
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
        let kept: TokenRecord = serde_json::from_slice(&bytes).map_err(|_| TokenError::Unknown)?;
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
        self.dir.join(name(secret))
    }
}

/// The name of a token's file.
fn name(secret: &str) -> String {
    sha256_hex(secret.as_bytes())
}

/// Removes tokens that are no longer needed.
fn forget_old(dir: &File) {
    let Ok(entries) = Dir::read_from(dir) else {
        return;
    };
    let before = wall_ms() / 1000;
    let before = before.saturating_sub(REMEMBERED.as_secs());
    for entry in entries.flatten() {
        let known = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        if known.is_ok_and(|known| u64::try_from(known.st_mtime).is_ok_and(|at| at < before)) {
            // Another may have been faster; and a folder stays.
            let _ = unlinkat(dir, entry.file_name(), AtFlags::empty());
        }
    }
}

impl JoinToken {
    /// The part that only the server may see.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.secret, self.authority)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(***)")
    }
}

impl FromStr for JoinToken {
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
        let token: JoinToken = token.expect("a folder").to_string().parse().expect("one");

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
    fn a_token_is_good_for_some_time_and_at_most_a_day() {
        assert_eq!(check_validity(LONGEST), Ok(LONGEST));
        assert_eq!(check_validity(Duration::ZERO), Err(ValidityError::Never));
        let longer = LONGEST + Duration::from_millis(1);
        let refused = check_validity(longer).expect_err("it is too long");
        assert_eq!(refused.to_string(), "a token is valid for at most 24h");
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
        assert_eq!(format!("{token:?}"), "JoinToken(***)");
    }

    #[test]
    fn a_folder_that_is_a_link_is_not_followed() {
        let (dir, authority) = authority();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("tokens");
        std::os::unix::fs::symlink(elsewhere.path(), link).expect("a folder");

        let made = Tokens::of(dir.path()).make(&authority, &Role::Operator, HOUR);

        assert!(matches!(made, Err(PkiError::File { .. })));
        let mut entries = fs::read_dir(elsewhere.path()).expect("a folder");
        assert!(entries.next().is_none(), "it was followed");
    }

    #[test]
    fn only_what_nobody_asks_about_any_more_is_forgotten() {
        let (dir, authority) = authority();
        let tokens = Tokens::of(dir.path());
        let make = || tokens.make(&authority, &Role::Operator, HOUR);
        let (old, new) = (make().expect("a folder"), make().expect("a folder"));
        let file = File::open(tokens.path(old.secret())).expect("it is there");
        let long_ago = std::time::SystemTime::now() - REMEMBERED - HOUR;
        file.set_modified(long_ago).expect("a file");

        make().expect("a folder");

        assert!(!tokens.path(old.secret()).exists());
        assert!(tokens.path(new.secret()).exists());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "gl1", "gl1.00.00", "gl2.x.y", "gl1.00..", "password"] {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("a folder");
        (dir, authority)
    }
}
