//! Certificates that may change while the process runs: new connections use the new ones, old connections stay.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::secret::BLOCK;
use super::tls::{ClientTls, ServerSetup, ServerTls, TlsError, read};
use crate::telemetry::{OPERATOR, RELOADS};

/// Something made of files.
pub trait Load {
    /// What is made.
    type Config;
    /// What the files are, in the plural.
    const WHAT: &'static str;
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    fn load(&self) -> Result<Self::Config, TlsError>;
    /// The files.
    fn files(&self) -> Vec<&Path>;
}

impl Load for ServerTls {
    type Config = ServerSetup;
    const WHAT: &'static str = "certificates";
    fn load(&self) -> Result<ServerSetup, TlsError> {
        self.load()
    }
    fn files(&self) -> Vec<&Path> {
        self.files()
    }
}

impl Load for ClientTls {
    type Config = ClientConfig;
    const WHAT: &'static str = "certificates";
    fn load(&self) -> Result<ClientConfig, TlsError> {
        self.load()
    }
    fn files(&self) -> Vec<&Path> {
        self.files()
    }
}

/// The files are looked at this often at most.
const LOOK: Duration = Duration::from_secs(1);

/// A configuration that is read again on demand; a bad new version leaves the old one in force.
#[derive(Debug)]
pub struct Reloading<L: Load> {
    source: L,
    current: RwLock<Arc<L::Config>>,
    seen: Mutex<[u8; 32]>,
    looked: Mutex<Instant>,
}

impl<L: Load> Reloading<L> {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(source: L) -> Result<Self, TlsError> {
        let seen = digest(&source)?;
        let current = RwLock::new(Arc::new(source.load()?));
        Ok(Self { source, current, seen: Mutex::new(seen), looked: Mutex::new(Instant::now()) })
    }

    /// What is in force for a new connection: the files are looked at, once a second at most. What cannot be used is said,
    /// and the old configuration stays.
    pub fn fresh(&self) -> Arc<L::Config> {
        let due = {
            let mut looked = self.looked.lock();
            let due = looked.elapsed() >= LOOK;
            if due {
                *looked = Instant::now();
            }
            due
        };
        let changed = if due { self.reload() } else { Ok(false) };
        match changed {
            Ok(true) => tracing::info!(name: OPERATOR, "{} changed; new connections use the new ones", L::WHAT),
            Ok(false) => {}
            Err(e) => tracing::warn!(name: OPERATOR, error = %e, "{} not reloaded; the old ones stay in force", L::WHAT),
        }
        self.current()
    }

    /// What is in force.
    pub fn current(&self) -> Arc<L::Config> {
        Arc::clone(&self.current.read())
    }

    /// What it is made of.
    pub const fn source(&self) -> &L {
        &self.source
    }

    /// Reads the files again if their content changed; says whether it did. Call it on SIGHUP; [`Self::fresh`] does for each
    /// connection.
    ///
    /// # Errors
    /// [`TlsError`]; the old configuration stays, and the next call tries again.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let changed = self.load_changed();
        match changed {
            Ok(true) => RELOADS.succeeded(),
            Ok(false) => {}
            Err(_) => RELOADS.failed(),
        }
        changed
    }

    fn load_changed(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock();
        let now = digest(&self.source)?;
        if *seen == now {
            return Ok(false);
        }
        let fresh = Arc::new(self.source.load()?);
        *self.current.write() = fresh;
        *seen = now;
        Ok(true)
    }
}

/// Whole blocks at a time: what is no whole one stays in the hash's own buffer, and may be part of a key.
fn digest(source: &impl Load) -> Result<[u8; 32], TlsError> {
    let (mut hash, mut lengths) = (Sha256::new(), Vec::new());
    for path in source.files() {
        let mut bytes = read("TLS file", path)?;
        lengths.extend((bytes.len() as u64).to_le_bytes());
        let blocks = bytes.len().next_multiple_of(BLOCK);
        bytes.resize(blocks, 0);
        hash.update(&*bytes);
    }
    hash.update(lengths);
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::super::certs::{self, Order};
    use super::super::facts::Role;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_certificate_serves_the_next_connection_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let issue = |id: &str| {
            let order = Order { role: Role::Hunter, id: id.to_owned(), dns: Vec::new(), ips: Vec::new(), days: 1 };
            certs::issue(folder.path(), &order).unwrap()
        };
        certs::init(folder.path(), "x", 1).unwrap();
        let (first, second) = (issue("a"), issue("b"));
        let tls = ClientTls {
            ca: Some(folder.path().join("ca.crt")),
            cert: Some(first.cert.clone()),
            key: Some(first.key.clone()),
            ..ClientTls::default()
        };
        let reloading = Reloading::new(tls).unwrap();
        let before = reloading.fresh();

        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&before, &reloading.fresh()), "nothing changed");
        std::fs::write(&first.cert, "broken").unwrap();
        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&before, &reloading.fresh()), "a broken file changes nothing");
        std::fs::copy(&second.cert, &first.cert).unwrap();
        std::fs::copy(&second.key, &first.key).unwrap();
        assert!(Arc::ptr_eq(&before, &reloading.fresh()), "looked at once a second");
        tokio::time::advance(LOOK).await;
        assert!(!Arc::ptr_eq(&before, &reloading.fresh()));
    }
}
