//! What is to be told about how connections are protected: whether they are, and how long our certificates are good.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::certs;
use crate::telemetry::Exposition;
use crate::telemetry::exposition::Kind;

/// The files are looked at this often at most.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate and its end, in seconds since 1970; none when it could never be read.
pub type Expiry = (&'static str, Option<i64>);

/// How connections are protected.
#[derive(Debug)]
pub struct Transport {
    /// Plain text, or a peer that is not verified.
    pub insecure: bool,
    certificates: Vec<(&'static str, PathBuf)>,
    /// When they were last looked at.
    looked: Mutex<(Instant, Vec<Expiry>)>,
}

impl Default for Transport {
    fn default() -> Self {
        Self::new(false, Vec::new())
    }
}

impl Transport {
    /// By these certificates; a word for each. They are read here: later they may be root's alone.
    pub fn new(insecure: bool, certificates: Vec<(&'static str, PathBuf)>) -> Self {
        let known = certificates.iter().map(|(what, path)| (*what, end(path))).collect();
        Self { insecure, certificates, looked: Mutex::new((Instant::now(), known)) }
    }

    /// When each certificate ends; of a file with several, the first that does. What cannot be read any more is as it was.
    pub fn expiries(&self) -> Vec<Expiry> {
        let mut looked = self.looked.lock();
        if looked.0.elapsed() >= LOOK {
            looked.0 = Instant::now();
            for ((_, known), (_, path)) in looked.1.iter_mut().zip(&self.certificates) {
                *known = end(path).or(*known);
            }
        }
        looked.1.clone()
    }

    /// Its figures, at `now` in seconds since 1970.
    pub fn tell(&self, x: &mut Exposition, now: i64) {
        x.gauge("lc_insecure", "Whether packets travel unprotected, or to an unverified peer.", u8::from(self.insecure));
        let mut expiry = x.family("lc_cert_expiry_seconds", Kind::Gauge, "Until a certificate is over; negative: since it was.");
        for (role, end) in self.expiries().iter().filter_map(|(role, end)| Some((role, (*end)?))) {
            expiry.sample(&[("role", role)], end.saturating_sub(now));
        }
    }

    /// What is wrong with a certificate at `now`, in seconds since 1970.
    pub fn trouble(&self, now: i64) -> Option<String> {
        let is_over = |(what, end): &Expiry| end.is_some_and(|end| end <= now).then_some(*what);
        self.expiries().iter().find_map(is_over).map(|what| format!("the certificate ({what}) is over"))
    }
}

fn end(path: &Path) -> Option<i64> {
    certs::show(path).ok()?.into_iter().map(|c| c.not_after).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::facts::Role;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_each_certificate_is_told_and_one_that_is_over_is_trouble() {
        let folder = tempfile::tempdir().unwrap();
        certs::init(folder.path(), "x", 10).unwrap();
        let order = certs::Order { role: Role::Hunter, id: "a".into(), dns: Vec::new(), ips: Vec::new(), days: 1 };
        let own = certs::issue(folder.path(), &order).unwrap().cert;
        let transport = Transport::new(false, vec![("own", own.clone()), ("ca", folder.path().join("ca.crt"))]);

        let [("own", Some(end)), ("ca", Some(ca))] = transport.expiries()[..] else { panic!("{:?}", transport.expiries()) };

        assert!((8 * 86_400..10 * 86_400).contains(&(ca - end)), "{end} {ca}");
        assert_eq!((transport.trouble(end - 1), transport.trouble(end).is_some()), (None, true));
        std::fs::copy(folder.path().join("ca.crt"), &own).unwrap();
        assert_eq!(transport.expiries()[0].1, Some(end), "looked at now and then only");
        tokio::time::advance(LOOK).await;
        assert_eq!(transport.expiries()[0].1, Some(ca));
        std::fs::remove_file(own).unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(transport.expiries()[0].1, Some(ca), "as it was");
    }
}
