//! Tests of the configuration, from text and variables to options and errors.

use proptest::prelude::*;

use super::*;
use crate::net::TrustedProxies;

fn load(toml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobcast.toml");
    std::fs::write(&file, toml).unwrap();
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = Config::load(Some(&file), &environment, &Overrides::default());
    loaded.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn problem(toml: &str, variables: &[(&str, &str)]) -> String {
    load(toml, variables).expect_err("this must not be accepted")
}

#[test]
fn environment_wins_over_file_and_file_over_defaults() {
    let file = "[server]\nlisten = \"127.0.0.1:4000\"\nmax_payload = \"64KiB\"\n[history]\nmax_events = 7";
    let config = load(file, &[("JOBCAST_SERVER__LISTEN", "127.0.0.1:5000")]).unwrap();
    assert_eq!(config.server.listen.port(), 5000);
    assert_eq!(config.server.http.max_payload, 64 * 1024);
    assert_eq!(config.store.history.max_events, 7);
    assert_eq!(config.store.history.retention, Duration::from_secs(24 * 3600));
    assert!(matches!(config.store.backend, Backend::Embedded(_)));
}

#[test]
fn redis_url_selects_the_store() {
    let backend = |variables: &[(&str, &str)]| load("", variables).unwrap().store.backend;
    let url = ("REDIS_URL", "redis://:12345@h:1");
    assert!(
        matches!(backend(&[url]), Backend::Redis(RedisOptions { urls, .. }) if urls == ["redis://:12345@h:1"])
    );
    assert!(matches!(backend(&[url, ("JOBCAST_STORE__BACKEND", "embedded")]), Backend::Embedded(_)));
    assert!(matches!(backend(&[("JOBCAST_STORE__PATH", ":memory:")]), Backend::Memory));
}

#[test]
fn numbers_and_lists_come_from_variables() {
    let origins = |value| load("", &[("JOBCAST_CORS__ORIGINS", value)]).unwrap().server.cors.origins;
    assert_eq!(origins("http://a.example"), ["http://a.example"]);
    assert_eq!(
        origins("http://a.example,https://b.example:8443"),
        ["http://a.example", "https://b.example:8443"]
    );
    assert_eq!(
        origins(r#"["http://a.example","http://b.example"]"#),
        ["http://a.example", "http://b.example"]
    );
    let hosts = load("", &[("JOBCAST_SERVER__HOSTS", "a.example, b.example:8443")]).unwrap().server.hosts;
    assert_eq!(hosts.names, ["a.example", "b.example:8443"].map(|host| host.parse().unwrap()));
    let proxies = ["10.0.0.0/8", "::1"];
    let config = load("", &[("JOBCAST_SERVER__TRUSTED_PROXIES", &proxies.join(","))]).unwrap();
    assert_eq!(config.server.net.trusted_proxies, TrustedProxies::new(proxies).unwrap());
    let config =
        load("", &[("JOBCAST_HISTORY__MAX_EVENTS", "5"), ("JOBCAST_REDIS__KEY_PREFIX", "123")]).unwrap();
    assert_eq!(config.store.history.max_events, 5);
}

#[test]
fn errors_name_the_place_the_key_and_what_is_right() {
    let cases = [
        ("[server]\nlisten = \"nowhere\"", "line 2: server.listen: ", "\"127.0.0.1:3000\", got \"nowhere\""),
        ("[server]\nport = 1", "line 2: server: ", "unknown key `port`, expected one of `drain_notice`"),
        ("[log]\n\n levle = 1", "line 3: log: ", "unknown key `levle`, did you mean `level`?"),
        ("[sever]", "line 1: unknown section `sever`", "did you mean `server`?"),
        ("[sever]\nlisten = 1", "line 1: unknown section `sever`", "did you mean `server`?"),
        ("listen = 1", "line 1: unknown section `listen`", ""),
        ("server = 5", "line 1: server: ", "must be a section, [server], got 5"),
        ("server.listen.port = 1", "line 1: server.listen: ", "got a table"),
        ("[history]\nmax_events = 0", "line 2: history.max_events: ", "an integer from 1 to 100000, got 0"),
        (
            "[history]\nmax_events = 50.5",
            "line 2: history.max_events: ",
            "an integer from 1 to 100000, got 50.5",
        ),
        (
            "[history]\nmax_events = true",
            "line 2: history.max_events: ",
            "an integer from 1 to 100000, got true",
        ),
        (
            "[history]\nmax_events = \"5\"",
            "line 2: history.max_events: ",
            "an integer from 1 to 100000, got \"5\"",
        ),
        (
            "[history]\nmax_events = 99999999999999999999",
            "line 2: history.max_events: ",
            "99999999999999999999",
        ),
        ("[history]\nretention = \"soon\"", "line 2: history.retention: ", "such as \"10s\""),
        ("[history]\nretention = 10", "line 2: history.retention: ", "such as \"10s\""),
        ("[history]\nretention = 1979-05-27", "line 2: history.retention: ", "got the time 1979-05-27"),
        ("[server]\nmax_payload = \"big\"", "line 2: server.max_payload: ", "128KiB"),
        ("[server]\nmax_payload = -1", "line 2: server.max_payload: ", "got -1"),
        ("[server]\nhosts = [\"https://a.example\"]", "line 2: server.hosts: ", "without a scheme"),
        ("[server]\nhosts = [\"a.example:port\"]", "line 2: server.hosts: ", "\"jobs.example.com:8443\""),
        ("[server]\nhosts = \"a.example\"", "line 2: server.hosts: ", "an array of hosts"),
        ("[server]\ntrusted_proxies = [\"a.example\"]", "line 2: server.trusted_proxies: ", "\"10.0.0.0/8\""),
        ("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]", "line 2: server.trusted_proxies: ", "an array of"),
        ("[server]\ntls_key_file = \"k\"", "line 2: server.tls_key_file: ", "goes with server.tls_cert_file"),
        (
            "[server]\ntls_cert_file = \"/nowhere\"\ntls_key_file = \"k\"",
            "line 2: server.tls_cert_file: ",
            "/nowhere cannot be read",
        ),
        ("[cors]\norigins = [\"http://a/\"]", "line 2: cors.origins: ", "without a slash"),
        ("[cors]\norigins = [1]", "line 2: cors.origins: ", "an array of origins"),
        ("[cors]\norigins = \"http://a\"", "line 2: cors.origins: ", "an array of origins"),
        (
            "[cors]\ncredentials = \"yes\"",
            "line 2: cors.credentials: ",
            "a boolean, true or false, got \"yes\"",
        ),
        ("[auth]\nallow_anonymous = 1", "line 2: auth.allow_anonymous: ", "a boolean, true or false, got 1"),
        ("[store]\npath = true", "line 2: store.path: ", "folder's path"),
        (
            "[store]\nbackend = \"mysql\"",
            "line 2: store.backend: ",
            "must be \"embedded\" or \"redis\", got \"mysql\"",
        ),
        ("[redis]\nkey_prefix = 5", "line 2: redis.key_prefix: ", "must be text of at most"),
        ("[redis]\nca_file = \"/nowhere.pem\"", "line 2: redis.ca_file: ", "No such file"),
        ("[redis]\nca_file = \"Cargo.toml\"", "line 2: redis.ca_file: ", "it has none"),
        ("[auth]\nmode = \"basic\"", "line 2: auth.mode: ", "must be \"none\" or \"jwt\", got \"basic\""),
        (
            "[limits]\njobs = 5\n[store]\nbackend = \"redis\"",
            "line 2: limits.jobs: ",
            "bounds the embedded store alone",
        ),
        (
            "[limits]\npublishes_per_second = 0",
            "line 2: limits.publishes_per_second: ",
            "an integer from 1 to",
        ),
        ("\n[server", "line 2: ", ""),
        ("[server]\nlisten = \"0.0.0.0:3000\"", "line 2: server.listen: ", "auth.allow_anonymous = true"),
        ("[cors]\norigins = [\"*\"]", "line 2: cors.origins: ", "cors.credentials"),
    ];
    for (toml, place, right) in cases {
        let problem = problem(toml, &[]);
        assert!(problem.starts_with(&format!("jobcast.toml, {place}")), "{toml:?}: {problem}");
        assert!(problem.contains(right) && !problem.contains('\n'), "{toml:?}: {problem}");
    }
    let variable = problem("", &[("JOBCAST_HISTORY__MAX_EVENTS", "x")]);
    assert!(variable.starts_with("JOBCAST_HISTORY__MAX_EVENTS: history.max_events: "), "{variable}");
    let open = problem("", &[("JOBCAST_SERVER__LISTEN", "0.0.0.0:1")]);
    assert!(open.starts_with("JOBCAST_SERVER__LISTEN: server.listen: "), "{open}");
    let unknown = problem("", &[("JOBCAST_SERVER__LISTN", "x")]);
    assert!(
        unknown.starts_with("JOBCAST_SERVER__LISTN: server: ") && unknown.contains("`listn`"),
        "{unknown}"
    );
    let unknown = problem("", &[("JOBCAST_SEVER__LISTEN", "x")]);
    assert!(unknown.starts_with("JOBCAST_SEVER__LISTEN: unknown section `sever`"), "{unknown}");
    let shape = problem("", &[("JOBCAST_LISTEN", "x")]);
    assert!(shape.contains("JOBCAST_SERVER__LISTEN"), "{shape}");
}

#[test]
fn all_errors_are_told_at_once() {
    let file = "[server]\nlisten = \"0.0.0.0:1\"\nshutdown_grace = \"soon\"\ndrain_window = \"20s\"\n[sever]\n[history]\nmax_events = true";
    let problem = problem(file, &[("JOBCAST_HISTORY__MAX_EVENTS", "5"), ("JOBCAST_CORS__CREDENTIALS", "1")]);
    let lines: Vec<_> = problem.lines().collect();
    let beginnings = [
        "5 problems in the configuration",
        "  jobcast.toml, line 2: server.listen: with auth.mode",
        // What a wrong grace allows is not told.
        "  jobcast.toml, line 3: server.shutdown_grace: must be a span",
        "  jobcast.toml, line 5: unknown section `sever`",
        "  jobcast.toml, line 7: history.max_events: must be an integer",
        "  JOBCAST_CORS__CREDENTIALS: cors.credentials: must be a boolean",
    ];
    assert_eq!(lines.len(), beginnings.len(), "{problem}");
    for (line, beginning) in lines.iter().zip(beginnings) {
        assert!(line.starts_with(beginning), "{problem}");
    }
}

#[test]
fn a_file_that_is_not_toml_hides_nothing_of_the_variables() {
    let problem = problem("[redis]\nurl = \"redis://:secret@h", &[("JOBCAST_LOG__LEVEL", "loud")]);
    assert!(
        problem.contains("jobcast.toml, line 2: ") && problem.contains("JOBCAST_LOG__LEVEL: "),
        "{problem}"
    );
    assert!(!problem.contains("secret"), "{problem}");
}

#[test]
fn parts_of_the_grace_are_within_it() {
    let stop = |grace, part, value| {
        problem(&format!("[server]\nshutdown_grace = \"{grace}\"\n{part} = \"{value}\""), &[])
    };
    let notice = stop("1s", "drain_notice", "251ms");
    let right = "jobcast.toml, line 3: server.drain_notice: must be at most a quarter of server.shutdown_grace, which is \"250ms\", got \"251ms\"";
    assert_eq!(notice, right);
    let window = stop("1s", "drain_window", "20s");
    let right = "jobcast.toml, line 3: server.drain_window: must be at most half of server.shutdown_grace, which is \"500ms\", got \"20s\"";
    assert_eq!(window, right);
    assert!(
        load("[server]\nshutdown_grace = \"2s\"\ndrain_notice = \"500ms\"\ndrain_window = \"1s\"", &[])
            .is_ok()
    );
    assert!(load("[server]\nshutdown_grace = \"1s\"", &[]).is_ok(), "defaults give way");
}

#[test]
fn several_urls_are_a_cluster() {
    let urls = |toml: &str, variables: &[(&str, &str)]| match load(toml, variables).unwrap().store.backend {
        Backend::Redis(RedisOptions { urls, .. }) => urls,
        other => panic!("{other:?}"),
    };
    let expected = ["redis://:a,b@h:1", "rediss://h:2"];
    let array = "[store]\nbackend = \"redis\"\n[redis]\nurl = [\"redis://:a,b@h:1\", \"rediss://h:2\"]";
    assert_eq!(urls(array, &[]), expected);
    assert_eq!(urls("", &[("REDIS_URL", "redis://:a,b@h:1,rediss://h:2")]), expected);
    assert_eq!(urls("", &[("REDIS_URL", r#"["redis://:a,b@h:1","rediss://h:2"]"#)]), expected);
    assert!(problem("[redis]\nurl = []", &[]).contains("an array of URLs"));
    assert!(problem("[redis]\nurl = 6379", &[]).contains("an array of URLs"));
}

#[test]
fn a_password_is_never_told() {
    let problem = problem("", &[("REDIS_URL", "http://:secret@h")]);
    assert!(problem.starts_with("REDIS_URL: redis.url: ") && !problem.contains("secret"), "{problem}");
}

#[test]
fn anonymous_access_from_elsewhere_must_be_meant() {
    assert!(load("[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nallow_anonymous = true", &[]).is_ok());
    assert!(load("[server]\nlisten = \"[::1]:1\"", &[]).is_ok());
}

#[test]
fn the_example_file_has_every_key_with_its_default() {
    let example = include_str!("../../config.toml");
    let mut defaults = Settings::default();
    let default = Config::read(&mut defaults);
    assert_eq!(format!("{:?}", load(example, &[]).unwrap()), format!("{default:?}"));

    let mut named = Settings::default();
    // Keys without a fixed default are comments.
    let all = [
        "tls_cert_file",
        "tls_key_file",
        "ca_file",
        "memory",
        "connections",
        "connections_per_address",
        "connections_per_second",
        "streams_per_address",
        "publishes_per_second",
        "jobs",
        "secret",
        "previous_secret",
        "public_key_file",
        "jwks_url",
        "issuer",
        "audience",
    ]
    .iter()
    .fold(example.to_owned(), |text, key| text.replace(&format!("# {key} = "), &format!("{key} = ")));
    sources::add_toml(&mut named, "config.toml", &all);
    let named = named.written.iter().map(|(key, _, _)| key.as_str());
    let mut named: Vec<_> = named.filter(|key| key.contains('.')).collect();
    let mut known = defaults.known;
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
}

proptest! {
    #[test]
    fn no_text_breaks_it(file in ".*", key in "[A-Z_]{0,12}", value in ".*") {
        let _ = load(&file, &[(&format!("JOBCAST_{key}"), &value)]);
        let _ = load(&format!("[server]\nlisten = {file}"), &[("JOBCAST_CORS__ORIGINS", &value), ("REDIS_URL", &file)]);
    }
}

const SECRET: &str = "a secret of HS256 with 32 bytes!";
const DIGEST: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

fn auth(toml: &str, variables: &[(&str, &str)]) -> AuthOptions {
    load(toml, variables).unwrap().auth
}

#[test]
fn authentication_comes_from_the_file_or_from_variables() {
    let keys = format!(
        "[[auth.api_keys]]\nname = \"a\"\nsha256 = \"{DIGEST}\"\njobs = [\"x-*\", \"y\"]\ntenants = [\"acme\"]\n\
         expires = 2030-01-31T00:00:00Z"
    );
    let file = format!(
        "[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\nissuer = \"us\"\naudience = [\"a\", \"b\"]\n\
         jwks_url = \"https://id.example/keys\"\nownerless_jobs = \"allow\"\n{keys}"
    );
    let from_file = auth(&file, &[]);
    let json = format!(
        r#"[{{"name": "a", "sha256": "{DIGEST}", "jobs": ["x-*", "y"], "tenants": ["acme"], "expires": "2030-01-31T00:00:00Z"}}]"#
    );
    let variables = [
        ("JOBCAST_AUTH__MODE", "jwt"),
        ("JOBCAST_AUTH__SECRET", SECRET),
        ("JOBCAST_AUTH__ISSUER", "us"),
        ("JOBCAST_AUTH__AUDIENCE", r#"["a", "b"]"#),
        ("JOBCAST_AUTH__JWKS_URL", "https://id.example/keys"),
        ("JOBCAST_AUTH__OWNERLESS_JOBS", "allow"),
        ("JOBCAST_AUTH__API_KEYS", &json),
    ];
    let from_variables = auth("", &variables);
    assert_eq!(format!("{from_file:?}"), format!("{from_variables:?}"));
    assert!(!format!("{from_file:?}").contains(SECRET));
    let key = &from_file.api_keys[0];
    assert_eq!((key.sha256[0], key.sha256[15]), (1, 0xef));
    assert!(key.jobs.as_ref().unwrap().matches("x-1") && key.expires.is_some());
    let one = auth("", &[("JOBCAST_AUTH__AUDIENCE", "a")]);
    assert!(matches!(one.mode, AuthMode::None));
}

#[test]
fn authentication_that_would_not_work_is_told() {
    let key = |members: &str| format!("mode = \"jwt\"\n[[auth.api_keys]]\nname = \"a\"\n{members}");
    let cases = [
        ("mode = \"jwt\"".to_owned(), "line 2: auth.mode: ", "\"jwt\" needs auth.secret, "),
        (format!("secret = \"{SECRET}\""), "line 2: auth.secret: ", "set auth.mode = \"jwt\""),
        ("mode = \"jwt\"\nsecret = \"\"".to_owned(), "line 3: auth.secret: ", "at least 32 bytes"),
        ("mode = \"jwt\"\nsecret = \"hunter2\"".to_owned(), "line 3: auth.secret: ", "it has 7"),
        ("mode = \"jwt\"\nsecret = 5".to_owned(), "line 3: auth.secret: ", "text of at least 32 bytes"),
        (
            format!("mode = \"jwt\"\nprevious_secret = \"{SECRET}\""),
            "line 3: auth.previous_secret: ",
            "needs auth.secret",
        ),
        ("jwks_url = \"http://me:hunter2@h/\"".to_owned(), "line 2: auth.jwks_url: ", "an https:// URL"),
        ("public_key_file = \"/nowhere\"".to_owned(), "line 2: auth.public_key_file: ", "No such file"),
        (
            "public_key_file = \"Cargo.toml\"".to_owned(),
            "line 2: auth.public_key_file: ",
            "must be a PEM file",
        ),
        ("audience = []".to_owned(), "line 2: auth.audience: ", "the claim aud"),
        ("ownerless_jobs = \"maybe\"".to_owned(), "line 2: auth.ownerless_jobs: ", "\"deny\" or \"allow\""),
        ("api_keys = [\"hunter2\"]".to_owned(), "line 2: auth.api_keys: ", "of key 1, which must be a table"),
        (key(""), "line 3: auth.api_keys: ", "of key 1, \"a\", sha256 must be"),
        (key("sha256 = \"hunter2\""), "line 3: auth.api_keys: ", "64 hexadecimal digits"),
        (key("key = \"hunter2\""), "line 3: auth.api_keys: ", "the member `key` is unknown"),
        (
            key(&format!("sha256 = \"{DIGEST}\"\njobs = []")),
            "line 3: auth.api_keys: ",
            "jobs must be an array",
        ),
        (
            key(&format!("sha256 = \"{DIGEST}\"\njobs = [\"a b\"]")),
            "line 3: auth.api_keys: ",
            "jobs: \"a b\" must be",
        ),
        (
            key(&format!("sha256 = \"{DIGEST}\"\ntenants = [\"\"]")),
            "line 3: auth.api_keys: ",
            "tenants: must not be empty",
        ),
        (
            key(&format!("sha256 = \"{DIGEST}\"\nexpires = \"soon\"")),
            "line 3: auth.api_keys: ",
            "expires must be a time",
        ),
        (
            key(&format!("sha256 = \"{DIGEST}\"\n[[auth.api_keys]]\nname = \"b\"\nsha256 = \"{DIGEST}\"")),
            "line 3: auth.api_keys: ",
            "key 2, \"b\", has the name or the digest of \"a\"",
        ),
    ];
    for (section, place, right) in cases {
        let problem = problem(&format!("[auth]\n{section}"), &[]);
        assert!(problem.starts_with(&format!("jobcast.toml, {place}")), "{section}: {problem}");
        assert!(problem.contains(right), "{section}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains(SECRET), "{section}: {problem}");
    }
    let problem = problem("", &[("JOBCAST_AUTH__API_KEYS", "hunter2"), ("JOBCAST_AUTH__SECRET", "hunter2")]);
    assert!(problem.contains("an array of tables") && !problem.contains("hunter2"), "{problem}");
}
