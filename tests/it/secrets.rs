//! What of its keys is in the memory of a processor: it signs with its private key, and has its text no more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::not_run;
use super::whole::{Processor, succeed};

/// Everything that a process has written to its memory; nothing where that may not be read.
fn memory(id: u32) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{id}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let at = |hex| u64::from_str_radix(hex, 16).ok();
        let (from, to) = (at(from)?, at(to)?);
        for page in (from..to).step_by(4096) {
            let mut bytes = [0; 4096];
            // a page that was never touched is not there
            if memory.read_exact_at(&mut bytes, page).is_ok() {
                all.extend(bytes);
            }
        }
    }
    Some(all)
}

/// How often `secret` is in `memory`.
fn hits(memory: &[u8], secret: &[u8]) -> usize {
    memchr::memmem::find_iter(memory, secret).count()
}

#[test]
#[expect(clippy::print_stdout, reason = "says what was measured")]
fn a_running_processor_has_no_text_of_its_private_key_in_memory() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    succeed(dir, &["certs", "init", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"]);
    let files = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt"];
    let processor = Processor::start(dir, &[&files[..], &["--state-dir", "state"]].concat());
    let Some(memory) = memory(processor.id()) else {
        return not_run::say("a_running_processor_has_no_text_of_its_private_key", "its memory is root's to read");
    };
    let text = fs::read_to_string(dir.join("c/processor-mid.key")).unwrap();
    let certificate = fs::read_to_string(dir.join("c/processor-mid.crt")).unwrap();
    drop(processor.stop());

    // the private number is in the end of the first line and the beginning of the second; the public key behind it is in the certificate, too
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("---")).collect();
    let found = [&lines[0][46..], &lines[1][..24]].map(|part| hits(&memory, part.as_bytes()));
    let public: usize = certificate.lines().skip(3).take(3).map(|l| hits(&memory, l.as_bytes())).sum();
    let scalar = scalar(&text);
    let (der, turned) = (hits(&memory, &scalar), hits(&memory, &scalar.iter().rev().copied().collect::<Vec<_>>()));
    println!(
        "{} MiB: the key's text {found:?}, its number as in DER {der}, as the signer has it {turned}; text of the certificate {public}",
        memory.len() >> 20
    );
    assert_eq!((found.iter().sum::<usize>(), der), (0, 0));
}

/// The private number of a P-256 key in PKCS #8 (RFC 5208, RFC 5915): an octet string of 32 bytes.
fn scalar(pem: &str) -> Vec<u8> {
    let der = bytes_of(pem);
    let at = memchr::memmem::find(&der, &[2, 1, 1, 4, 32]).unwrap() + 5;
    der[at..at + 32].to_vec()
}

/// The bytes of a PEM text.
fn bytes_of(pem: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut have, mut out) = (0_u32, 0, Vec::new());
    for byte in pem.lines().filter(|l| !l.starts_with("---")).flat_map(str::bytes).filter(|b| *b != b'=') {
        bits = bits << 6 | u32::try_from(DIGITS.iter().position(|d| *d == byte).unwrap()).unwrap();
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from(bits >> have & 255).unwrap());
        }
    }
    out
}
