//! The certificate that the server presents, and its key: read from two files as one pair, and again when they change.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::{family::Family, gauge::Gauge};
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use crate::{tasks::Tasks, telemetry::NoLabels};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is wrong with a pair: which file, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificates.
    #[error("{} {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },
    /// The file of the key.
    #[error("{} {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },
}

/// TLS as the server offers it: versions 1.2 and 1.3, HTTP/1.1, one certificate. Cloning gives another handle.
#[derive(Clone)]
pub struct Tls {
    files: Files,
    /// How the files were when they were read.
    fingerprint: Fingerprint,
    current: watch::Sender<Arc<Pair>>,
    asked: Arc<Notify>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

/// A pair in use.
struct Pair {
    config: Arc<ServerConfig>,
    expires: Option<Duration>,
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its key (PKCS#8, PKCS#1 or SEC1), both as PEM.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read or used, or if the key is not the certificate's.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let files = Files { cert: cert_file.to_owned(), key: key_file.to_owned() };
        let contents = files.read();
        let pair = files.pair(&contents)?;
        let (current, _) = watch::channel(Arc::new(pair));
        Ok(Self { files, fingerprint: contents.fingerprint(), current, asked: Arc::default() })
    }

    /// Has the files read again now, by [`Tls::watch`].
    pub fn read_again(&self) {
        self.asked.notify_one();
    }

    /// What new connections use.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.borrow().config.clone()
    }

    /// Reads the files every few seconds, and when asked to, for as long as it is polled. New connections use a new pair
    /// once it is good; while it is bad, the old one stays, and the log says why once. `expires` tells when the certificate
    /// in use does.
    pub async fn watch(self, tasks: Tasks, expires: Family<NoLabels, Gauge>) {
        let mut watched = Watched { good: self.fingerprint, bad: None };
        self.tell_expiry(&expires);
        loop {
            let _either = tokio::time::timeout(INTERVAL, self.asked.notified()).await;
            let files = self.files.clone();
            let Some(contents) = tasks.block(move || files.read()).await else { continue };
            match watched.look(&self.files, &contents) {
                Look::Same => {}
                Look::New(pair) => {
                    self.current.send_replace(Arc::new(pair));
                    tracing::info!(file = %self.files.cert.display(), "new connections use a new certificate");
                    self.tell_expiry(&expires);
                }
                Look::Bad(error) => tracing::error!(
                    %error,
                    "the new certificate or key cannot be used; connections still use the old ones"
                ),
            }
        }
    }

    fn tell_expiry(&self, expires: &Family<NoLabels, Gauge>) {
        let Some(at) = self.current.borrow().expires else { return };
        expires.get_or_create(&NoLabels::default()).set(at.as_secs().try_into().unwrap_or(i64::MAX));
        if SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now > at) {
            tracing::warn!(file = %self.files.cert.display(), "the certificate has expired, and clients will refuse it");
        }
    }
}

/// Where a pair is.
#[derive(Debug, Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What the files of a pair hold.
struct Contents {
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
}

type Fingerprint = [u8; 32];

impl Files {
    fn read(&self) -> Contents {
        Contents { cert: fs::read(&self.cert), key: fs::read(&self.key) }
    }

    fn pair(&self, contents: &Contents) -> Result<Pair, TlsError> {
        let chain = certificates(&contents.cert)
            .map_err(|problem| TlsError::Certificate { path: self.cert.clone(), problem })?;
        let of_key = |problem| TlsError::Key { path: self.key.clone(), problem };
        let key = private_key(&contents.key).map_err(of_key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            of_key("has a key that cannot be used; it must be RSA, ECDSA or Ed25519".to_owned())
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let of = self.cert.display();
                return Err(of_key(format!("has a key that is not that of the first certificate in {of}")));
            }
            Err(error) => {
                let problem = format!("has a certificate that cannot be used: {error}");
                return Err(TlsError::Certificate { path: self.cert.clone(), problem });
            }
        }
        let expires = expiry(&certified);
        let config = server_config(provider, certified).map_err(|error| of_key(error.to_string()))?;
        Ok(Pair { config: Arc::new(config), expires })
    }
}

fn certificates(bytes: &io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = bytes.as_ref().map_err(|error| format!("cannot be read: {error}"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err("has no certificate in PEM".to_owned()),
        Err(error) => Err(format!("is not well-formed PEM: {error}")),
    }
}

/// What is wrong is told without a word of the file.
fn private_key(bytes: &io::Result<Vec<u8>>) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = bytes.as_ref().map_err(|error| format!("cannot be read: {error}"))?;
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|_| "has no private key in PEM (PKCS#8, PKCS#1 or SEC1, and not encrypted)".to_owned())
}

fn server_config(
    provider: Arc<rustls::crypto::CryptoProvider>,
    certified: CertifiedKey,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // Browsers that are offered HTTP/2 would use it for WebSockets as well.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients that come back after an interruption are many at once. Tickets spare them and us a full handshake.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// When the certificate expires, since the epoch. The library tells this only of a certificate that has expired, as every
/// one has at the end of time.
fn expiry(certified: &CertifiedKey) -> Option<Duration> {
    let certificate = ParsedCertificate::try_from(certified.end_entity_cert().ok()?).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], end_of_time, &[]) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

impl Contents {
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for file in [&self.cert, &self.key] {
            let digest = match file {
                Ok(bytes) => Sha256::digest(bytes),
                Err(error) => Sha256::digest(error.to_string()),
            };
            hash.update([u8::from(file.is_ok())]);
            hash.update(digest);
        }
        hash.finalize().into()
    }
}

/// What has become of the files so far.
struct Watched {
    good: Fingerprint,
    /// Files that cannot be used, and whether that was told.
    bad: Option<(Fingerprint, bool)>,
}

/// What a look at the files has found.
enum Look {
    Same,
    New(Pair),
    /// For the second time: files that are replaced one after the other do not match in between.
    Bad(TlsError),
}

impl Watched {
    fn look(&mut self, files: &Files, contents: &Contents) -> Look {
        let now = contents.fingerprint();
        let was_bad = self.bad.filter(|(bad, _)| *bad == now);
        if now == self.good {
            self.bad = None;
        }
        if now == self.good || was_bad.is_some_and(|(_, is_told)| is_told) {
            return Look::Same;
        }
        match files.pair(contents) {
            Ok(pair) => {
                (self.good, self.bad) = (now, None);
                Look::New(pair)
            }
            Err(error) => {
                self.bad = Some((now, was_bad.is_some()));
                if was_bad.is_some() { Look::Bad(error) } else { Look::Same }
            }
        }
    }
}

#[cfg(test)]
pub mod tests;
