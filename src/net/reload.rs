//! Certificates that may change while the process runs: new connections use the new ones, old connections stay.

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest, Sha256};

use super::tls::{ClientTls, ServerTls, TlsError, read};

/// Something made of files.
pub trait Load {
    /// What is made.
    type Config;
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    fn load(&self) -> Result<Self::Config, TlsError>;
    /// The files.
    fn files(&self) -> Vec<&Path>;
}

impl Load for ServerTls {
    type Config = ServerConfig;
    fn load(&self) -> Result<ServerConfig, TlsError> {
        self.load()
    }
    fn files(&self) -> Vec<&Path> {
        self.files()
    }
}

impl Load for ClientTls {
    type Config = ClientConfig;
    fn load(&self) -> Result<ClientConfig, TlsError> {
        self.load()
    }
    fn files(&self) -> Vec<&Path> {
        self.files()
    }
}

/// A configuration that is read again on demand; a bad new version leaves the old one in force.
#[derive(Debug)]
pub struct Reloading<L: Load> {
    source: L,
    current: RwLock<Arc<L::Config>>,
    seen: Mutex<[u8; 32]>,
}

impl<L: Load> Reloading<L> {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(source: L) -> Result<Self, TlsError> {
        let seen = digest(&source)?;
        let current = RwLock::new(Arc::new(source.load()?));
        Ok(Self { source, current, seen: Mutex::new(seen) })
    }

    /// What is in force.
    pub fn current(&self) -> Arc<L::Config> {
        Arc::clone(&self.current.read())
    }

    /// What it is made of.
    pub const fn source(&self) -> &L {
        &self.source
    }

    /// Reads the files again if their content changed; says whether it did. Call it on SIGHUP and every few seconds; it
    /// reads small files, so not on a thread that must not wait.
    ///
    /// # Errors
    /// [`TlsError`]; the old configuration stays, and the next call tries again.
    pub fn reload(&self) -> Result<bool, TlsError> {
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

fn digest(source: &impl Load) -> Result<[u8; 32], TlsError> {
    let mut hash = Sha256::new();
    for path in source.files() {
        let bytes = read("TLS file", path)?;
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    Ok(hash.finalize().into())
}
