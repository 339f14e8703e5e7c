//! Secrets, wiped from memory as soon as they are not needed any more.
//!
//! A private key is on its way from its file to the signer as text, as bytes in base64 and as DER; each is wiped. What stays is the signer's own
//! form, as long as the configuration is in force. An API key that is sent stays as long as it is sent; HTTP/2 copies it into what goes out.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::SigningKey;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What is read has room for whole ones of these: SHA-256's blocks.
pub(super) const BLOCK: usize = 64;

/// A file of `max` bytes at most, wiped when it is dropped.
///
/// # Errors
/// As `read(2)`; a larger file, `FileTooLarge`.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    // room for all of it at once: what grows leaves pieces behind
    let room = usize::try_from(length.min(max).saturating_add(1)).unwrap_or(0).next_multiple_of(BLOCK);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// `secret` as bytes to be shared, wiped when nobody has them any more.
pub(super) fn shared(secret: &str) -> Bytes {
    Bytes::from_owner(Zeroizing::new(secret.as_bytes().to_vec()))
}

/// A private key in DER.
pub(super) struct Key(PrivateKeyDer<'static>);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl Key {
    /// The first private key of a PEM text (RFC 7468), nothing where there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_pem(text: &[u8]) -> Result<Option<Self>, &'static str> {
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let Some(wrap) = lines.find_map(|line| WRAPS.iter().find(|(label, _)| is_marker(line, b"BEGIN", label))) else {
            return Ok(None);
        };
        let (label, wrap) = wrap;
        let mut der = Base64::with_room(text.len());
        for line in lines {
            if is_marker(line, b"END", label) {
                return Ok(Some(Self(wrap(der.finish()?))));
            }
            der.push(line)?;
        }
        Err("the key does not end")
    }

    /// The bytes.
    pub(super) const fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }

    /// What signs with it.
    ///
    /// # Errors
    /// A kind of key that is not known, or a broken one.
    pub(super) fn signer(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        any_supported_type(&self.0)
    }
}

/// Labels of private keys, and what is in them.
type Wrap = (&'static [u8], fn(Vec<u8>) -> PrivateKeyDer<'static>);
const WRAPS: [Wrap; 3] = [
    (b"PRIVATE KEY", |der| PrivatePkcs8KeyDer::from(der).into()),
    (b"EC PRIVATE KEY", |der| PrivateSec1KeyDer::from(der).into()),
    (b"RSA PRIVATE KEY", |der| PrivatePkcs1KeyDer::from(der).into()),
];

/// Whether a line is `-----what label-----`.
fn is_marker(line: &[u8], what: &[u8], label: &[u8]) -> bool {
    let inner = line.strip_prefix(b"-----").and_then(|line| line.strip_suffix(b"-----"));
    inner.and_then(|inner| inner.strip_prefix(what)?.strip_prefix(b" ")) == Some(label)
}

/// Base64 on its way to bytes (RFC 4648 §4).
struct Base64 {
    bytes: Zeroizing<Vec<u8>>,
    /// Bits that are no whole byte yet, and how many.
    bits: u32,
    have: u32,
    padded: bool,
}

impl Base64 {
    fn with_room(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)), bits: 0, have: 0, padded: false }
    }

    fn push(&mut self, text: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "what is in the PEM block is not base64";
        for byte in text {
            let value = match byte {
                b'A'..=b'Z' => byte.wrapping_sub(b'A'),
                b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
                b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.padded = true;
                    continue;
                }
                _ => return Err(WRONG),
            };
            if self.padded {
                return Err(WRONG);
            }
            self.bits = self.bits << 6 | u32::from(value);
            self.have = self.have.wrapping_add(6);
            if self.have >= 8 {
                self.have = self.have.wrapping_sub(8);
                let [.., byte] = (self.bits >> self.have).to_be_bytes();
                self.bytes.push(byte);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, &'static str> {
        if self.have >= 6 || self.bytes.is_empty() {
            return Err("what is in the PEM block ends too soon");
        }
        Ok(std::mem::take(&mut *self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Fails to compile where a secret is not wiped.
    const fn is_wiped<T: ZeroizeOnDrop>() {}
    const _: () = is_wiped::<Key>();
    const _: () = is_wiped::<Zeroizing<Vec<u8>>>();

    fn pem(label: &str, der: &[u8], width: usize, end: &str) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in der.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            let digits = (0..=three.len()).map(|n| char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]));
            text.extend(digits.chain(std::iter::repeat_n('=', 3 - three.len())));
        }
        let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("a word before\n-----BEGIN {label}-----{end}{}{end}-----END {label}-----{end}and after", lines.join(end))
    }

    #[test]
    fn keys_of_every_length_and_label_are_read_as_the_library_reads_them() {
        for length in 1..200_u8 {
            let der: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37) ^ length).collect();
            for (label, width, end) in [("PRIVATE KEY", 64, "\n"), ("EC PRIVATE KEY", 76, "\r\n"), ("RSA PRIVATE KEY", 4, "\n")] {
                let text = pem(label, &der, width, end);

                let key = Key::from_pem(text.as_bytes()).unwrap().unwrap();

                assert_eq!(key.der(), &PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap());
                assert_eq!(key.der().secret_der(), der);
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(Key::from_pem(b"").unwrap().is_none());
        assert!(Key::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap().is_none());
        for wrong in [
            "-----BEGIN PRIVATE KEY-----\nAAAA\n",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nAA?A\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nAA==\nAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nAAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(Key::from_pem(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [7; 100]).unwrap();

        assert_eq!(read(&path, 100).unwrap().len(), 100);
        assert_eq!(read(&path, 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
