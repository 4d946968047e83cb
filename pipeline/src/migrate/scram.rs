//! A password as PostgreSQL keeps it, so that the password itself is in no statement and no log.
//!
//! Source: RFC 5802 and RFC 7677 (SCRAM-SHA-256), in the form of `pg_authid.rolpassword`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// PostgreSQL's own number of rounds.
const ROUNDS: u32 = 4_096;

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is taken.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("hmac takes keys of any length"),
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// The verifier of `password` under `salt`.
pub(super) fn verifier(password: &str, salt: &[u8; 16]) -> String {
    let mut last = mac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()]);
    let mut salted = last;
    for _ in 1..ROUNDS {
        last = mac(password.as_bytes(), &[&last]);
        salted.iter_mut().zip(last).for_each(|(all, one)| *all ^= one);
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    let [salt, stored, server] = [&salt[..], &stored[..], &server[..]].map(|b| STANDARD.encode(b));
    format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored}:{server}")
}
