//! Certificates of the services, from the files that the configuration names.

use anyhow::{Context as _, Result, ensure};
use redis::{ClientTlsConfig, TlsCertificates};

use crate::config::RedisConfig;

fn read(key: &str, file: &str) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{key}: {file} cannot be read"))
}

/// The certificates of a PEM file.
pub(crate) fn certificates(key: &str, file: &str) -> Result<Vec<reqwest::Certificate>> {
    let found = reqwest::Certificate::from_pem_bundle(&read(key, file)?)
        .with_context(|| format!("{key}: {file} is no PEM file of certificates"))?;
    ensure!(!found.is_empty(), "{key}: {file} holds no certificate");
    Ok(found)
}

impl RedisConfig {
    /// A client that connects when it is first used, and verifies certificates where it uses TLS.
    pub fn client(&self) -> Result<redis::Client> {
        // With two providers compiled in, rustls chooses none; an earlier choice is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        if !self.url.starts_with("rediss://") {
            return redis::Client::open(self.url.as_str()).context("redis.url");
        }
        let file =
            |key, file: &Option<String>| file.as_deref().map(|file| read(key, file)).transpose();
        let root_cert = file("redis.ca_file", &self.ca_file)?;
        let client_cert = file("redis.cert_file", &self.cert_file)?;
        let client_key = file("redis.key_file", &self.key_file)?;
        let client_tls = client_cert
            .zip(client_key)
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        redis::Client::build_with_tls(self.url.as_str(), TlsCertificates { client_tls, root_cert })
            .context("redis: redis.url with redis.ca_file, redis.cert_file and redis.key_file")
    }
}
