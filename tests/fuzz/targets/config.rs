//! The configuration: what is wrong is told with its place, and no secret is.

use jobcast::internals::config::read_toml;

use super::text;

/// What stands for a secret.
const SECRET: &str = "hunter2";

/// The keys that hold secrets.
const SECRETS: [&str; 5] =
    ["redis.url", "auth.secret", "auth.previous_secret", "auth.jwks_url", "auth.api_keys"];

/// A file that is read has possible values, and an error names the file and a line of it.
pub fn config(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match read_toml("file.toml", text) {
        Ok(config) => {
            assert!((1024..=1 << 30).contains(&config.server.http.max_payload));
            assert!(config.server.drain_notice <= config.server.shutdown_grace);
            assert!(config.store.history.max_events >= 1);
        }
        Err(error) => {
            let lines = text.matches('\n').count() + 1;
            for place in error.to_string().split("file.toml, line ").skip(1) {
                let line = place.split(':').next().and_then(|line| line.parse().ok());
                assert!(
                    line.is_none_or(|line: usize| (1..=lines).contains(&line)),
                    "{place} of {lines} lines"
                );
            }
        }
    }
    // A value of a key that holds secrets, of whatever type and however malformed.
    let quoted = serde_json::to_string(&format!("{SECRET}{text}")).expect("a text can be written");
    let values =
        ["@", "[@]", "[[@]]", "{ a = @ }", "[{ name = \"ci\", sha256 = @ }]", "[{ name = \"ci\", key = @ }]"];
    for value in values.map(|value| value.replace('@', &quoted)) {
        for key in SECRETS {
            for end in ["", "\"", "\n]"] {
                assert_hidden(&format!("{key} = {value}{end}\n"));
            }
        }
    }
}

fn assert_hidden(file: &str) {
    if let Err(error) = read_toml("file.toml", file) {
        let error = error.to_string();
        assert!(!error.contains(SECRET), "an error shows a secret: {error}");
    }
}
