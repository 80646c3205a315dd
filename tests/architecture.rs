//! The rules of ARCHITECTURE.md that a search can hold: who may name whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file with its text, without its unit tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path: PathBuf = entry.expect("src is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).expect("src is readable");
                let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((name, text));
            }
        }
    }
    assert!(found.len() > 30, "too few sources: {}", found.len());
    found
}

/// The lines of code that name something outside of the files that may.
fn named_elsewhere(patterns: &[&str], may: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources() {
        if may.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let hits = code.filter(|line| patterns.iter().any(|pattern| line.contains(pattern)));
        found.extend(hits.map(|line| format!("{name}: {}", line.trim())));
    }
    found
}

#[track_caller]
fn only(patterns: &[&str], may: &[&str]) {
    assert_eq!(named_elsewhere(patterns, may), Vec::<String>::new(), "only {may:?} may name {patterns:?}");
}

/// The modules that a module's files name by `crate::module` or in a `use crate::{…}` block.
fn named_modules(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let words = match rest.strip_prefix('{') {
            Some(block) => top_level_words(block),
            None => vec![rest],
        };
        for word in words {
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
            named.push(word[..end].to_owned());
        }
    }
    named
}

/// The beginnings of a block's elements, up to its end.
fn top_level_words(block: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0, 0, Vec::new());
    for (at, c) in block.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                words.push(block[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(block[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn only_tasks_spawns() {
    only(
        &["tokio::spawn", "task::spawn", "thread::spawn", "tracker.spawn", "thread::Builder", "JoinSet"],
        &["tasks.rs", "log_writer.rs"],
    );
}

#[test]
fn libraries_are_named_where_they_belong() {
    only(&["socketioxide"], &["socketio"]);
    only(&["axum::"], &["http", "socketio", "server.rs", "net"]);
    only(&["fjall"], &["store/embedded/disk.rs", "telemetry.rs"]);
    only(&["reqwest"], &["cli", "auth"]);
    only(&["jsonwebtoken"], &["auth"]);
    only(&["rustls::"], &["net"]);
    only(&["aws_lc_rs"], &["auth", "net"]);
}

/// Only `src/redis` names the library. Others import from that module, by which they never get at more of the library than
/// it hands on; and the store has a module of the same name.
#[test]
fn redis_is_named_by_its_own_module() {
    for (name, text) in sources().into_iter().filter(|(name, _)| !name.starts_with("redis")) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let is_item = line.starts_with("redis::") && !line.contains('(');
            let imported = is_item || line.contains("crate::redis::");
            let module =
                name == "store.rs" && ["redis::Redis", "redis::internals"].iter().any(|it| line.contains(it));
            assert!(
                !line.contains("redis::") || imported || module,
                "{name} must not name the library: {line}"
            );
        }
    }
    only(&["jobs", "job:", "JobId", "Room", "JobEvent"], &redis_excepted());
}

/// The source files but for those of `src/redis`: these have no word of jobs.
fn redis_excepted() -> Vec<&'static str> {
    let others = sources().into_iter().map(|(name, _)| name).filter(|name| !name.starts_with("redis"));
    others.map(|name| &*name.leak()).collect()
}

#[test]
fn dependencies_run_one_way() {
    const DOMAIN: [&str; 9] =
        ["access", "error", "event", "id", "json", "notice", "position", "room", "timestamp"];
    let layers: [(&str, &[&str]); 14] = [
        ("main.rs", &["cli"]),
        ("cli", &["auth", "config", "fd_limit", "gateway", "net", "server", "telemetry"]),
        ("config", &["auth", "gateway", "http", "net", "server", "socketio", "store", "telemetry"]),
        ("server.rs", &["auth", "net", "drain", "fd_limit", "gateway", "http", "socketio"]),
        ("http", &["auth", "budget", "net", "drain", "gateway", "store", "telemetry"]),
        ("socketio", &["auth", "budget", "net", "drain", "gateway", "store", "tasks", "telemetry"]),
        ("auth", &["tasks", "telemetry"]),
        ("net", &["budget", "tasks", "telemetry"]),
        ("gateway", &["budget", "memory_limit", "store", "tasks", "telemetry"]),
        ("store/redis", &["redis", "store", "tasks"]),
        ("store", &["budget", "redis", "tasks"]),
        ("redis", &[]),
        ("telemetry.rs", &["budget", "log_writer", "tasks"]),
        ("tasks.rs", &[]),
    ];
    for (name, text) in sources() {
        let own = name.split(['/', '.']).next().unwrap_or_default().to_owned();
        if own == "lib" {
            continue;
        }
        let layer =
            layers.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(&[][..], |(_, may)| may);
        for module in named_modules(&text) {
            let allowed =
                module == own || DOMAIN.contains(&module.as_str()) || layer.contains(&module.as_str());
            assert!(allowed, "{name} must not name crate::{module}");
        }
    }
}
