//! API keys: the file a processor knows them by, and the one a client sends.
//!
//! ```text
//! # processor: one line per key     role      id       hash of the key
//!                                   hunter    edge-1   sha256:9f86d081884c7d65…
//! # client: the key itself, one line
//! ```
//!
//! Promises: the processor's file holds no key, only hashes; how long a comparison takes says nothing about a key; a key is shown by no
//! `Debug`. Refuses: files that others may read, lines it does not understand, keys too short to be secret.

use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::facts::{PeerIdentity, Role};
use super::reload::{Load, Reloading};
use super::secret;
use super::tls::TlsError;

/// Largest key file.
const FILE_MAX: u64 = 4 << 20;
/// Most keys in it: each call is compared with all.
const KEYS_MAX: usize = 10_000;
/// Shortest key that is sent: 16 characters of 6 bits.
const KEY_MIN: usize = 16;
/// Longest; a header has room for little more.
const KEY_MAX: usize = 1024;
/// Longest id.
pub(super) const ID_MAX: usize = 64;
/// Whether a key in use is still known is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Where a processor's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    path: PathBuf,
}

impl Keys {
    /// The file at `path`.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Load for Keys {
    type Config = Ring;
    const WHAT: &'static str = "API keys";

    fn load(&self) -> Result<Ring, TlsError> {
        Ring::parse(&private("API keys", &self.path)?, &self.path)
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// The keys of a file, as hashes.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    keys: Vec<([u8; 32], PeerIdentity)>,
}

impl Ring {
    fn parse(text: &str, path: &Path) -> Result<Self, TlsError> {
        let mut ring = Self::default();
        for (number, line) in lines(text) {
            let bad = |why: &str| TlsError::BadLine { path: path.into(), line: number, why: why.to_owned() };
            let mut words = line.split_whitespace();
            let (Some(role), Some(id), Some(key), None) = (words.next(), words.next(), words.next(), words.next()) else {
                return Err(bad("a line is ROLE ID sha256:HASH"));
            };
            let role = Role::by_name(role).ok_or_else(|| bad("the role is hunter, processor, admin or subscriber"))?;
            if id.len() > ID_MAX {
                return Err(bad("the id is longer than 64 bytes"));
            }
            let hash = key.strip_prefix("sha256:").and_then(unhex);
            let hash = hash.ok_or_else(|| bad("the third word is sha256: and 64 hexadecimal digits, the hash of the key"))?;
            if ring.keys.iter().any(|(known, _)| *known == hash) {
                return Err(bad("this key is there already"));
            }
            if ring.keys.len() >= KEYS_MAX {
                return Err(bad("more than 10000 keys"));
            }
            ring.keys.push((hash, PeerIdentity { role, id: id.to_owned() }));
        }
        Ok(ring)
    }

    /// Whose key it is. Every key is compared, and each in full.
    pub fn find(&self, key: &[u8]) -> Option<PeerIdentity> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (known, who) in &self.keys {
            let differs = known.iter().zip(hash).fold(0, |d, (a, b)| d | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(who);
            }
        }
        found.cloned()
    }
}

/// The key in whose name a call goes on.
#[derive(Clone, Debug)]
pub struct KeyInUse {
    keys: Arc<Reloading<Keys>>,
    hash: [u8; 32],
}

impl KeyInUse {
    /// `key` is one of `keys`.
    #[must_use]
    pub fn of(keys: &Arc<Reloading<Keys>>, key: &[u8]) -> Self {
        Self { keys: Arc::clone(keys), hash: Sha256::digest(key).into() }
    }

    /// Returns within two seconds of the key being taken out of the file.
    pub async fn gone(&self) {
        let mut seen = None;
        loop {
            sleep(LOOK).await;
            let fresh = self.keys.fresh();
            if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &fresh)) {
                continue;
            }
            if !fresh.keys.iter().any(|(known, _)| *known == self.hash) {
                return;
            }
            seen = Some(fresh);
        }
    }
}

/// The same key; there is one file of them.
impl PartialEq for KeyInUse {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for KeyInUse {}

/// A client's own key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// Reads the file; white space around the key does not count.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let text = private("API key", path)?;
        let key = text.trim();
        let bad = |why: &str| TlsError::BadLine { path: path.into(), line: 1, why: why.to_owned() };
        if !(KEY_MIN..=KEY_MAX).contains(&key.len()) {
            return Err(bad("a key has 16 to 1024 characters; make one with: openssl rand -hex 32"));
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("a key is one line of visible ASCII characters; make one with: openssl rand -hex 32"));
        }
        let mut value = HeaderValue::from_maybe_shared(secret::shared(key)).map_err(|_| bad("not a key"))?;
        // h2 neither logs nor indexes it
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the header `x-api-key`.
    pub const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([redacted])")
    }
}

/// The hash of a key as the file has it.
pub fn hash(key: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for b in Sha256::digest(key) {
        // Writing to a string does not fail.
        let _ = write!(out, "{b:02x}");
    }
    out
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (to, at) in out.iter_mut().zip((0..64_usize).step_by(2)) {
        *to = u8::from_str_radix(text.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    Some(out)
}

/// What a file of lines says, with their numbers: without comments, and without lines that say nothing.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let said = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    (1..).zip(said).filter(|(_, line)| !line.is_empty())
}

/// The text of a file that its owner alone may read.
pub(super) fn private(what: &'static str, path: &Path) -> Result<Zeroizing<String>, TlsError> {
    let unreadable = |cause| TlsError::Read { what, path: path.into(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(TlsError::Exposed { what, path: path.into(), mode: mode & 0o777 });
    }
    // room for all of it at once: what grows leaves pieces behind
    let room = file.metadata().map_err(unreadable)?.len().min(FILE_MAX).saturating_add(1);
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(FILE_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_on_both_sides() {
        let (_dir, path) = file("0123456789abcdef", 0o640);

        let (mine, known) = (ApiKey::read(&path).unwrap_err(), Keys::at(path).load().unwrap_err());

        for e in [mine, known] {
            assert!(e.to_string().contains("chmod 600"), "{e}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let good = format!("admin ops sha256:{}", hash(b"x"));
        for (text, line, part) in [
            (format!("{good}\nadmin"), 2, "ROLE ID"),
            (format!("# c\n\n{good} more"), 3, "ROLE ID"),
            (format!("root ops sha256:{}", hash(b"x")), 1, "the role is"),
            ("admin ops secret".into(), 1, "64 hexadecimal"),
            (format!("admin ops sha256:{}", &hash(b"x")[1..]), 1, "64 hexadecimal"),
            (format!("{good}\n{good}"), 2, "already"),
        ] {
            let (_dir, path) = file(&text, 0o600);
            let e = Keys::at(path).load().unwrap_err().to_string();
            assert!(e.contains(&format!("line {line}")) && e.contains(part), "{e}");
            assert!(!e.contains("secret"), "a key given in place of its hash is not repeated: {e}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_text_alone() {
        let text = format!("hunter edge sha256:{}\nadmin ops sha256:{} # two\n", hash(b"one"), hash(b"two").to_uppercase());
        let (_dir, path) = file(&text, 0o600);
        let ring = Keys::at(path).load().unwrap();

        assert_eq!(ring.find(b"one").unwrap().uri(), "lc:hunter:edge");
        assert_eq!(ring.find(b"two").unwrap().uri(), "lc:admin:ops");
        assert_eq!(ring.find(b"On"), None);
        assert!(Ring::default().find(b"").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_use_is_gone_when_it_is_taken_out_and_not_when_another_is() {
        let line = |id: &str| format!("hunter {id} sha256:{}\n", hash(id.as_bytes()));
        let (_dir, path) = file(&[line("a"), line("b")].concat(), 0o600);
        let keys = Arc::new(Reloading::new(Keys::at(path.clone())).unwrap());
        let [a, b] = ["a", "b"].map(|key| KeyInUse::of(&keys, key.as_bytes()));
        let wait = Duration::from_secs(10);

        std::fs::write(&path, line("a")).unwrap();
        assert!(tokio::time::timeout(wait, b.gone()).await.is_ok());
        assert!(tokio::time::timeout(wait, a.gone()).await.is_err());
        assert!(a == KeyInUse::of(&keys, b"a") && a != b);
    }

    #[test]
    fn a_key_shows_in_no_debug_output_and_short_ones_are_refused() {
        let (_dir, path) = file(" canary-0123456789abcdef\n", 0o400);
        let key = ApiKey::read(&path).unwrap();

        assert!(!format!("{key:?}").contains("canary") && !format!("{:?}", key.header()).contains("canary"));
        assert_eq!(key.header().as_bytes(), b"canary-0123456789abcdef");
        for short in ["", "0123456789abcde", "0123456789 abcdef"] {
            let (_dir, path) = file(short, 0o600);
            assert!(ApiKey::read(&path).is_err(), "{short:?}");
        }
    }
}
