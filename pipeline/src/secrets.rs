//! Secrets at rest: sealed with XChaCha20-Poly1305 under a key that is not in the database (T11).
//!
//! A sealed text is `sealed:v1:<key id>:<base64 of nonce and ciphertext>`. It is bound to the
//! place it is kept in, so that one secret cannot be put in another's place.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, AeadCore, OsRng, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::config::SecretsConfig;

/// Variable that holds the keys where no file does.
pub const KEY_VARIABLE: &str = "TAPELINE_SECRETS_KEY";
/// What every sealed text begins with.
pub const SEALED: &str = "sealed:v1:";
const NONCE_BYTES: usize = 24;

/// The keys, the one that seals first; the others only open what they once sealed.
pub struct Keys(Vec<Key>);

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

/// A new key: 32 bytes in base64.
pub fn generate() -> String {
    STANDARD.encode(XChaCha20Poly1305::generate_key(&mut OsRng))
}

impl Keys {
    /// Keys from the configured file, or from [`KEY_VARIABLE`]: base64 of 32 bytes each, a line or
    /// a comma apart, the newest first.
    pub fn load(config: &SecretsConfig) -> Result<Keys> {
        let (origin, text) = match &config.key_file {
            Some(file) => (file.clone(), read_private(Path::new(file))?),
            None => match std::env::var(KEY_VARIABLE) {
                Ok(text) => (KEY_VARIABLE.to_owned(), text),
                Err(_) => bail!(
                    "no key for secrets: make one with `tapeline config new-key`, keep it in a file of its own \
                     and name that in secrets.key_file, or set {KEY_VARIABLE}"
                ),
            },
        };
        Keys::parse(&text).with_context(|| origin)
    }

    /// Keys from text.
    pub fn parse(text: &str) -> Result<Keys> {
        let mut keys = Vec::new();
        for line in text.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty()) {
            // What stands there is not repeated: it may be a key with one letter too many.
            let bytes = STANDARD.decode(line).ok().filter(|bytes| bytes.len() == 32);
            let Some(bytes) = bytes else { bail!("expected base64 of 32 bytes a line") };
            let id = Sha256::digest(&bytes)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).context("key")?;
            keys.push(Key { id, cipher });
        }
        ensure!(!keys.is_empty(), "expected base64 of 32 bytes a line, found none");
        Ok(Keys(keys))
    }

    /// Seals a secret for the place it is kept in.
    pub fn seal(&self, place: &str, secret: &str) -> Result<String> {
        let Some(key) = self.0.first() else { bail!("no key") };
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: secret.as_bytes(), aad: place.as_bytes() };
        let Ok(sealed) = key.cipher.encrypt(&nonce, payload) else {
            bail!("{place}: cannot be sealed")
        };
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(format!("{SEALED}{}:{}", key.id, STANDARD.encode(bytes)))
    }

    /// Opens what was sealed for this place; an error says why not, never what stood there.
    pub fn open(&self, place: &str, sealed: &str) -> Result<String> {
        let parts = sealed.strip_prefix(SEALED).and_then(|rest| rest.split_once(':'));
        let Some((id, text)) = parts else { bail!("{place}: not a sealed secret") };
        let Some(key) = self.0.iter().find(|key| key.id == id) else {
            bail!(
                "{place}: sealed under key {id}, which is not among the {} keys given",
                self.0.len()
            );
        };
        let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() > NONCE_BYTES);
        let Some(bytes) = bytes else { bail!("{place}: sealed secret is cut short") };
        let (nonce, msg) = bytes.split_at(NONCE_BYTES);
        let opened = key
            .cipher
            .decrypt(XNonce::from_slice(nonce), Payload { msg, aad: place.as_bytes() })
            .ok()
            .and_then(|secret| String::from_utf8(secret).ok());
        opened.with_context(|| {
            format!("{place}: was changed, or sealed for another place or under another key")
        })
    }

    /// Whether a sealed text is under the newest key.
    pub fn is_current(&self, sealed: &str) -> bool {
        let id =
            sealed.strip_prefix(SEALED).and_then(|rest| rest.split_once(':')).map(|(id, _)| id);
        self.0.first().is_some_and(|key| Some(key.id.as_str()) == id)
    }
}

fn read_private(file: &Path) -> Result<String> {
    let shown = file.display();
    let mode = std::fs::metadata(file).with_context(|| format!("{shown}"))?.permissions().mode();
    ensure!(
        mode & 0o077 == 0,
        "{shown}: others can read or write it (mode {:o}); chmod 600 it",
        mode & 0o777
    );
    std::fs::read_to_string(file).with_context(|| format!("{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_in_its_place_under_its_key_and_unchanged_only() {
        let (old, new) = (generate(), generate());
        let keys = Keys::parse(&old).expect("a key");
        let sealed = keys.seal("exchange_config/KRAKEN/api_secret", "s3cr3t").expect("seals");
        assert!(!sealed.contains("s3cr3t"));
        let open = |keys: &Keys, place: &str, sealed: &str| keys.open(place, sealed);
        let place = "exchange_config/KRAKEN/api_secret";
        assert_eq!(open(&keys, place, &sealed).expect("opens"), "s3cr3t");
        assert_ne!(keys.seal(place, "s3cr3t").expect("seals"), sealed, "a nonce is used once");
        let elsewhere = open(&keys, "exchange_config/BINANCE/api_secret", &sealed);
        assert!(format!("{:#}", elsewhere.expect_err("bound")).contains("another place"));
        // Every changed byte behind the key's id is noticed.
        let start = SEALED.len() + 9;
        for at in start..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ascii");
            assert!(open(&keys, place, &changed).is_err(), "byte {at}");
        }
        let rotated = Keys::parse(&format!("{new}\n{old}\n")).expect("keys");
        assert_eq!(open(&rotated, place, &sealed).expect("the old key still opens"), "s3cr3t");
        assert!(!rotated.is_current(&sealed) && keys.is_current(&sealed));
        let other =
            open(&Keys::parse(&new).expect("a key"), place, &sealed).expect_err("other key");
        assert!(format!("{other:#}").contains("not among the 1 keys given"), "{other:#}");
        assert!(!format!("{keys:?}").contains(&old));
    }

    #[test]
    fn a_key_of_another_length_is_refused_without_being_shown() {
        for text in ["", "c2hvcnQ=", "not base64!", &generate()[1..]] {
            let error = format!("{:#}", Keys::parse(text).expect_err("refused"));
            assert!(error.contains("32 bytes") && (text.is_empty() || !error.contains(text)));
        }
    }
}
