//! The rules, cell by cell: `tests/access.table` names each identity with each room, each ownership and each deed.

use super::*;

const TABLE: &str = include_str!("../../tests/access.table");

fn patterns(texts: &[&str]) -> Patterns {
    texts.iter().map(|text| text.parse::<Pattern>().unwrap()).collect()
}

fn identities() -> Vec<(&'static str, Identity)> {
    let token = |user: Option<&str>, tenant: Option<&str>, jobs: &[&str]| TokenGrant {
        user: user.map(|id| id.parse().unwrap()),
        tenant: tenant.map(|id| id.parse().unwrap()),
        jobs: patterns(jobs),
        ..TokenGrant::default()
    };
    let key = |jobs: Option<&[&str]>, tenant: Option<&str>| KeyGrant {
        name: "worker".to_owned(),
        jobs: jobs.map(patterns),
        tenants: tenant.map(|id| vec![id.parse().unwrap()]),
    };
    let of_token = |grant| Identity::Token(Arc::new(grant));
    let of_key = |grant| Identity::Key(Arc::new(grant));
    vec![
        ("everybody", Identity::Everybody),
        ("admin", of_token(TokenGrant { is_admin: true, ..token(Some("root"), None, &[]) })),
        ("publisher", of_token(TokenGrant { publishes: true, ..token(Some("worker"), None, &[]) })),
        ("ada", of_token(token(Some("ada"), Some("t"), &[]))),
        ("eve", of_token(token(Some("eve"), None, &[]))),
        ("member", of_token(token(None, Some("t"), &[]))),
        ("named", of_token(token(None, None, &["a-*"]))),
        ("empty", of_token(token(None, None, &[]))),
        ("key", of_key(key(None, None))),
        ("key-jobs", of_key(key(Some(&["a-*"]), None))),
        ("key-tenant", of_key(key(None, Some("t")))),
        ("key-both", of_key(key(Some(&["a-*"]), Some("t")))),
    ]
}

/// An owner as the table writes it: users have three letters, tenants one.
fn owner(text: &str) -> Owner {
    let mut owner = Owner::default();
    for id in text.split('+') {
        match id.len() {
            1 => owner.tenant = Some(id.parse().unwrap()),
            _ => owner.user = Some(id.parse().unwrap()),
        }
    }
    owner
}

/// Compares a section of the table with what `decide` says of an identity, a job (or "") and a column.
fn check(section: &str, has_jobs: bool, decide: impl Fn(&Identity, &str, &str) -> char) {
    let heading = format!("[{section}]");
    let lines = || TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut rest = lines().skip_while(|line| !line.starts_with(&heading));
    let columns: Vec<&str> =
        rest.next().unwrap().split_whitespace().skip(1 + usize::from(has_jobs)).collect();
    let rows: Vec<Vec<&str>> = rest
        .take_while(|line| !line.starts_with('['))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let jobs: &[&str] = if has_jobs { &["a-1", "b-1"] } else { &[""] };
    let mut places = rows.iter();
    for (name, identity) in identities() {
        for job in jobs {
            let row = places.next().unwrap_or_else(|| panic!("[{section}] has no line for {name} {job}"));
            let cells = &row[1 + usize::from(has_jobs)..];
            assert_eq!(row[0], name, "[{section}]");
            assert!(!has_jobs || row[1] == *job, "[{section}] {name}");
            assert_eq!(cells.len(), columns.len(), "[{section}] {name} {job}: an undecided cell");
            for (column, cell) in columns.iter().zip(cells) {
                let decided = decide(&identity, job, column).to_string();
                assert_eq!(decided, *cell, "[{section}] {name}, {job} {column}");
            }
        }
    }
    assert!(places.next().is_none(), "[{section}] has more lines than there are identities");
}

fn mark(allowed: bool) -> char {
    if allowed { '+' } else { '.' }
}

#[test]
fn jobs() {
    check("jobs", true, |identity, job, column| {
        let owner = owner(column);
        let (ownership, ownerless) = match column {
            "pending" => (Ownership::Pending, OwnerlessJobs::Deny),
            "nobody" => (Ownership::Known(&Owner::default()), OwnerlessJobs::Deny),
            "allowed" => (Ownership::Known(&Owner::default()), OwnerlessJobs::Allow),
            _ => (Ownership::Known(&owner), OwnerlessJobs::Deny),
        };
        match identity.watching(&job.parse().unwrap(), ownership, ownerless) {
            Watching::Always => '+',
            Watching::WithThisOwner => 'o',
            Watching::Never => '.',
        }
    });
}

#[test]
fn rooms_and_deeds() {
    check("rooms", false, |identity, _, column| {
        mark(match column {
            "clients" | "revoke" => identity.check_admin().is_ok(),
            "notify" => identity.check_notify().is_ok(),
            room => identity.check_room(&room.parse().unwrap()).is_ok(),
        })
    });
}

#[test]
fn publishing() {
    check("publish", true, |identity, job, column| {
        let tenant = |text: &str| Owner { user: None, tenant: (text != "-").then(|| text.parse().unwrap()) };
        let (has, names) = column.split_once('/').unwrap();
        let (has, names) = ((has != "new").then(|| tenant(has)), tenant(names));
        let ownership = has.as_ref().map_or(Ownership::Pending, Ownership::Known);
        mark(identity.check_publish(&job.parse().unwrap(), &names, ownership).is_ok())
    });
}

#[test]
fn tokens() {
    check("mint", false, |identity, _, column| {
        let mut grant = TokenGrant::default();
        match column.split_once('=') {
            Some(("tenantId", tenant)) => grant.tenant = Some(tenant.parse().unwrap()),
            Some((_, jobs)) => grant.jobs = patterns(&[jobs]),
            None if column == "sub" => grant.user = Some("ada".parse().unwrap()),
            None => {}
        }
        mark(identity.check_grant(&grant).is_ok())
    });
}

#[test]
fn revocations_end_what_was_issued_before() {
    let at = |millis: u64| crate::timestamp::Timestamp::from_millis(millis).unwrap();
    let pass = |issued: Option<u64>| Pass {
        identity: Identity::Token(Arc::new(TokenGrant {
            user: Some("ada".parse().unwrap()),
            tenant: Some("t".parse().unwrap()),
            ..TokenGrant::default()
        })),
        expires_at: None,
        issued_at: issued.map(at),
        token_id: Some("id".into()),
    };
    let subjects = [
        Subject::Sub("ada".parse().unwrap()),
        Subject::TenantId("t".parse().unwrap()),
        Subject::Jti("id".to_owned()),
    ];
    for subject in subjects {
        let mut revocations = Revocations::default();
        assert!(!revocations.revoke(&pass(None)));
        assert!(revocations.add(Revocation { subject: subject.clone(), before: at(5000) }));
        assert!(!revocations.add(Revocation { subject, before: at(4000) }), "the later one counts");
        assert!(revocations.revoke(&pass(Some(4999))) && revocations.revoke(&pass(None)));
        assert!(!revocations.revoke(&pass(Some(5000))));
        assert!(!revocations.revoke(&Identity::Everybody.into()));
    }
    let mut others = Revocations::default();
    others.add(Revocation { subject: Subject::Sub("eve".parse().unwrap()), before: at(9000) });
    assert!(!others.revoke(&pass(Some(1))));
}
