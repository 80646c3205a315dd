//! Pairs of files, good and bad.

use std::process::{Command, Stdio};

use super::*;

/// Has openssl make a key, and a certificate of two days for localhost that vouches for itself, as `NAME.pem` and
/// `NAME.key`.
pub fn make(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&made.0)
        .arg("-keyout")
        .arg(&made.1)
        .stderr(Stdio::null())
        .status()
        .expect("openssl must be installed");
    assert!(status.success());
    made
}

fn contents(cert: &Path, key: &Path) -> Contents {
    Files { cert: cert.to_owned(), key: key.to_owned() }.read()
}

#[test]
fn a_pair_is_used_once_it_is_good_and_what_is_wrong_with_it_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let ((cert, key), (new_cert, new_key)) = (make(folder.path(), "old"), make(folder.path(), "new"));
    let tls = Tls::load(&cert, &key).unwrap();
    let mut watched = Watched { good: tls.fingerprint, bad: None };
    let mut look = |contents: &Contents| match watched.look(&tls.files, contents) {
        Look::Same => "same".to_owned(),
        Look::New(_) => "new".to_owned(),
        Look::Bad(error) => error.to_string(),
    };
    let (good, between, new) =
        (contents(&cert, &key), contents(&new_cert, &key), contents(&new_cert, &new_key));
    assert_eq!(look(&good), "same");
    assert_eq!(look(&between), "same", "the key may follow");
    assert!(look(&between).contains("not that of the first certificate"));
    assert_eq!(look(&between), "same", "it was told");
    assert!(look(&contents(&cert, Path::new("/nowhere"))) == "same");
    assert!(look(&contents(&cert, Path::new("/nowhere"))).contains("cannot be read"));
    assert_eq!(look(&good), "same");
    assert_eq!(look(&new), "new");
    assert_eq!(look(&new), "same");
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = make(folder.path(), "some");
    let tls = Tls::load(&cert, &key).unwrap();
    let expires = tls.current.borrow().expires.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = expires.saturating_sub(now).as_secs();
    assert!((47 * 3600..=48 * 3600).contains(&left), "{left} seconds are left");
    let shown = format!("{tls:?}");
    assert!(shown.contains("some.key") && !shown.contains("BEGIN"), "{shown}");
}
