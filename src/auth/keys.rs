//! The keys that tokens are verified with. Each is for one algorithm, which its own type decides (RFC 8725, 3.1).

use std::{fs, io, path::Path};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;

use super::Secret;
use crate::json::Object;

/// A key and the algorithm that it is for.
#[derive(Debug)]
pub struct VerificationKey {
    /// Its `kid`, where it has one.
    pub id: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// Why a file has no public key for tokens.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeyFile {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It has no key in PEM.
    #[error("must be a PEM file with a public key or a certificate")]
    NoKey,
    /// The key is of another kind.
    #[error("must have a key of RSA (2048 to 8192 bits), P-256 or Ed25519")]
    Unsupported,
}

/// The largest key file.
const MAX_FILE: u64 = 64 * 1024;

impl VerificationKey {
    /// A key of HS256.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        let key = DecodingKey::from_secret(secret.as_bytes()).ok()?;
        Some(Self { id: None, algorithm: Algorithm::HS256, key })
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// [`InvalidKeyFile`] says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, InvalidKeyFile> {
        let mut pem = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAX_FILE), &mut pem)?;
        Self::from_pem(&pem)
    }

    /// The first public key, or the key of the first certificate. Whether the certificate is trusted or has expired does
    /// not matter: who configures it means its key.
    fn from_pem(pem: &[u8]) -> Result<Self, InvalidKeyFile> {
        let info = match SubjectPublicKeyInfoDer::from_pem_slice(pem) {
            Ok(info) => info,
            Err(_) => {
                let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| InvalidKeyFile::NoKey)?;
                let certificate =
                    webpki::EndEntityCert::try_from(&certificate).map_err(|_| InvalidKeyFile::NoKey)?;
                certificate.subject_public_key_info()
            }
        };
        let der = info.as_ref();
        let (algorithm, key) = if ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).is_ok() {
            (Algorithm::RS256, DecodingKey::from_rsa_der(der))
        } else if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).is_ok() {
            (Algorithm::ES256, DecodingKey::from_ec_der(der))
        } else if ParsedPublicKey::new(&ED25519, der).is_ok() {
            (Algorithm::EdDSA, DecodingKey::from_ed_der(der))
        } else {
            return Err(InvalidKeyFile::Unsupported);
        };
        Ok(Self { id: None, algorithm, key })
    }

    /// A key of a JWKS. `None` where it is for something else, or malformed.
    fn from_jwk(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            // A symmetric key in a public place is no secret.
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_it = common.key_algorithm.is_none_or(|named| named == algorithm.into());
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (is_for_it && is_for_signatures && verifies).then(|| Self { id: jwk.common.key_id, algorithm, key })
    }
}

/// The keys of a JWKS.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<VerificationKey>,
    /// How many of its keys are of no use here.
    pub ignored: usize,
}

impl KeySet {
    /// Reads a JWKS (RFC 7517, section 5). A key that cannot be used is left out.
    ///
    /// # Errors
    /// The text is not a JWKS.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let Object(Jwks { keys: all }) = serde_json::from_slice(text)?;
        let count = all.len();
        let keys: Vec<_> = all.into_iter().filter_map(VerificationKey::from_jwk).collect();
        Ok(Self { ignored: count - keys.len(), keys })
    }

    /// The keys that a token may mean: those of its `kid`, or the only one.
    pub fn named<'a>(&'a self, kid: Option<&'a str>) -> impl Iterator<Item = &'a VerificationKey> {
        let is_only = self.keys.len() == 1;
        self.keys.iter().filter(move |key| match (&key.id, kid) {
            (Some(id), Some(kid)) => id == kid,
            _ => is_only,
        })
    }

    /// Whether there is a key that a token may mean.
    pub fn knows(&self, kid: Option<&str>) -> bool {
        self.named(kid).next().is_some()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }
}
