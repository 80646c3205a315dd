use super::*;

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
    assert_eq!(config.server().listen.port(), 5000);
    assert_eq!(config.server().http.max_payload, 64 * 1024);
    assert_eq!(config.store().history.max_events, 7);
    assert_eq!(config.store().history.retention, Duration::from_secs(24 * 3600));
    assert!(matches!(config.store().backend, Backend::Embedded(_)));
}

#[test]
fn redis_url_selects_the_store() {
    let backend = |variables: &[(&str, &str)]| load("", variables).unwrap().store().backend;
    let url = ("REDIS_URL", "redis://:12345@h:1");
    assert!(
        matches!(backend(&[url]), Backend::Redis(RedisOptions { urls, .. }) if urls == ["redis://:12345@h:1"])
    );
    assert!(matches!(backend(&[url, ("JOBCAST_STORE__BACKEND", "embedded")]), Backend::Embedded(_)));
    assert!(matches!(backend(&[("JOBCAST_STORE__PATH", ":memory:")]), Backend::Memory));
}

#[test]
fn numbers_and_lists_come_from_variables() {
    let origins = |value| load("", &[("JOBCAST_CORS__ORIGINS", value)]).unwrap().server().cors.origins;
    assert_eq!(origins("http://a.example"), ["http://a.example"]);
    assert_eq!(
        origins("http://a.example,https://b.example:8443"),
        ["http://a.example", "https://b.example:8443"]
    );
    assert_eq!(
        origins(r#"["http://a.example","http://b.example"]"#),
        ["http://a.example", "http://b.example"]
    );
    let config =
        load("", &[("JOBCAST_HISTORY__MAX_EVENTS", "5"), ("JOBCAST_REDIS__KEY_PREFIX", "123")]).unwrap();
    assert_eq!(config.store().history.max_events, 5);
}

#[test]
fn errors_name_the_source_the_key_and_what_is_right() {
    let cases = [
        ("[server]\nlisten = \"nowhere\"", "jobcast.toml: server.listen: ", "127.0.0.1:3000"),
        ("[server]\nport = 1", "jobcast.toml: server", "unknown field `port`, expected one of `listen`"),
        ("[sever]", "jobcast.toml: ", "unknown field `sever`, expected one of `server`"),
        (
            "[history]\nmax_events = 0",
            "jobcast.toml: history.max_events: ",
            "must be from 1 to 100000, got 0",
        ),
        ("[history]\nretention = \"soon\"", "jobcast.toml: history.retention: ", "such as \"10s\""),
        ("[history]\nmax_events = \"many\"", "jobcast.toml: history.max_events: ", "integer"),
        ("[server]\nmax_payload = \"big\"", "jobcast.toml: server.max_payload: ", "128KiB"),
        ("[cors]\norigins = [\"http://a/\"]", "jobcast.toml: cors.origins: ", "without a slash"),
        (
            "[store]\nbackend = \"mysql\"",
            "jobcast.toml: store.backend: ",
            "must be \"embedded\" or \"redis\", got \"mysql\"",
        ),
        ("[auth]\nmode = \"jwt\"", "jobcast.toml: auth.mode: ", "must be \"none\", got \"jwt\""),
        ("[server", "jobcast.toml: ", ""),
        (
            "[server]\nlisten = \"0.0.0.0:3000\"",
            "jobcast.toml: server.listen: ",
            "auth.allow_anonymous = true",
        ),
        ("[cors]\norigins = [\"*\"]", "jobcast.toml: cors.origins: ", "cors.credentials"),
    ];
    for (toml, place, right) in cases {
        let problem = problem(toml, &[]);
        assert!(problem.starts_with(place) && problem.contains(right), "{toml:?}: {problem}");
    }
    let variable = problem("", &[("JOBCAST_HISTORY__MAX_EVENTS", "x")]);
    assert!(variable.starts_with("JOBCAST_HISTORY__MAX_EVENTS: history.max_events: "), "{variable}");
    let open = problem("", &[("JOBCAST_SERVER__LISTEN", "0.0.0.0:1")]);
    assert!(open.starts_with("JOBCAST_SERVER__LISTEN: server.listen: "), "{open}");
    let unknown = problem("", &[("JOBCAST_SERVER__LISTN", "x")]);
    assert!(unknown.starts_with("JOBCAST_SERVER__LISTN: server") && unknown.contains("`listn`"), "{unknown}");
    let shape = problem("", &[("JOBCAST_LISTEN", "x")]);
    assert!(shape.contains("JOBCAST_SERVER__LISTEN"), "{shape}");
}

#[test]
fn several_urls_are_a_cluster() {
    let urls = |toml: &str, variables: &[(&str, &str)]| match load(toml, variables).unwrap().store().backend {
        Backend::Redis(RedisOptions { urls, .. }) => urls,
        other => panic!("{other:?}"),
    };
    let expected = ["redis://:a,b@h:1", "rediss://h:2"];
    let array = "[store]\nbackend = \"redis\"\n[redis]\nurl = [\"redis://:a,b@h:1\", \"rediss://h:2\"]";
    assert_eq!(urls(array, &[]), expected);
    assert_eq!(urls("", &[("REDIS_URL", "redis://:a,b@h:1,rediss://h:2")]), expected);
    assert_eq!(urls("", &[("REDIS_URL", r#"["redis://:a,b@h:1","rediss://h:2"]"#)]), expected);
    assert!(problem("[redis]\nurl = []", &[]).contains("as an array"));
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
    let uncommented: String = example
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") && !rest.contains(": "))
                .unwrap_or(line)
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let without_unset: String = uncommented
        .lines()
        .filter(|line| !line.starts_with("ca_file"))
        .fold(String::new(), |text, line| text + line + "\n");
    let loaded = load(&without_unset, &[]).unwrap();
    assert_eq!(format!("{loaded:?}"), format!("{:?}", Config::default()));
    for key in keys_of(&format!("{:?}", Config::default())) {
        assert!(
            example.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))),
            "{key}"
        );
    }
}

/// The field names in a debug text that stand before a value that is not itself a struct.
fn keys_of(debug: &str) -> Vec<String> {
    let words = debug.split([' ', '{', '}', ',']).filter(|word| word.ends_with(':') && word.len() > 1);
    let sections = ["server:", "log:", "cors:", "store:", "redis:", "history:", "auth:", "limits:"];
    words
        .filter(|word| !sections.contains(word))
        .map(|word| word.trim_matches(['_', ':']).to_owned())
        .map(|key| if key == "urls" { "url".to_owned() } else { key })
        .collect()
}
