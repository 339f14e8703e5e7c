//! What is to be told about how connections are protected: whether they are, and how long our certificates are good.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::certs;

/// The files are looked at this often at most.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate and its end, in seconds since 1970; none when it cannot be read.
pub type Expiry = (&'static str, Option<i64>);

/// How connections are protected.
#[derive(Debug, Default)]
pub struct Transport {
    /// Plain text, or a peer that is not verified.
    pub insecure: bool,
    /// Certificates in use, and what they are.
    pub certificates: Vec<(&'static str, PathBuf)>,
    seen: Mutex<Option<(Instant, Vec<Expiry>)>>,
}

impl Transport {
    /// By these certificates; a word for each.
    pub fn new(insecure: bool, certificates: Vec<(&'static str, PathBuf)>) -> Self {
        Self { insecure, certificates, seen: Mutex::default() }
    }

    /// When each certificate ends; of a file with several, the first that does.
    pub fn expiries(&self) -> Vec<Expiry> {
        let mut seen = self.seen.lock();
        match &*seen {
            Some((at, known)) if at.elapsed() < LOOK => known.clone(),
            _ => {
                let end = |path| certs::show(path).ok()?.into_iter().map(|c| c.not_after).min();
                let known: Vec<Expiry> = self.certificates.iter().map(|(what, path)| (*what, end(path))).collect();
                *seen = Some((Instant::now(), known.clone()));
                known
            }
        }
    }

    /// What is wrong with a certificate at `now`, in seconds since 1970.
    pub fn trouble(&self, now: i64) -> Option<String> {
        let is_bad = |(what, end): &Expiry| end.is_none_or(|end| end <= now).then_some(*what);
        self.expiries().iter().find_map(is_bad).map(|what| format!("certificate ({what}) is over or cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::facts::Role;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_each_certificate_is_told_and_a_missing_one_is_trouble() {
        let folder = tempfile::tempdir().unwrap();
        certs::init(folder.path(), "x", 10).unwrap();
        let order = certs::Order { role: Role::Hunter, id: "a".into(), dns: Vec::new(), ips: Vec::new(), days: 1 };
        let own = certs::issue(folder.path(), &order).unwrap().cert;
        let transport = Transport::new(false, vec![("own", own.clone()), ("ca", folder.path().join("ca.crt"))]);

        let [("own", Some(end)), ("ca", Some(ca))] = transport.expiries()[..] else { panic!("{:?}", transport.expiries()) };

        assert!((8 * 86_400..10 * 86_400).contains(&(ca - end)), "{end} {ca}");
        assert_eq!((transport.trouble(end - 1), transport.trouble(end).is_some()), (None, true));
        std::fs::remove_file(own).unwrap();
        assert_eq!(transport.trouble(end - 1), None, "looked at now and then only");
        tokio::time::advance(LOOK).await;
        assert!(transport.trouble(end - 1).is_some_and(|t| t.contains("own")));
    }
}
