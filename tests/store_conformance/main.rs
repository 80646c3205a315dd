//! One suite for all stores: what they promise, they promise alike.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

macro_rules! conformance {
    ($($promise:ident),* $(,)?) => {
        mod memory { $( #[tokio::test] async fn $promise() { super::$promise(super::Kind::Memory).await } )* }
        mod disk { $( #[tokio::test] async fn $promise() { super::$promise(super::Kind::Disk).await } )* }
        mod on_redis { $( #[tokio::test] #[ignore = "needs redis-server"] async fn $promise() { super::$promise(super::Kind::Redis).await } )* }
        mod on_a_cluster { $( #[tokio::test] #[ignore = "needs redis-server"] async fn $promise() { super::$promise(super::Kind::Cluster).await } )* }
    };
}

mod logs;
mod redis_lists;
mod redis_rooms;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, time::Duration};

use jobcast::{
    Audience, ClientRecord, Draft, Entry, HistoryOptions, JobId, Notice, Owner, Revocation, Room, Seq,
    Subject as Whose, Tasks, Timestamp,
    internals::{Accepted, Append, AppendError, Bounds, FeedItem, Store, Window},
};
use subject::{Kind, Subject, history, job, owned, progress, update, user};

async fn numbers_rise_by_one_from_the_clock(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let before = Timestamp::now().millis();
    let first = subject.append(update("a")).await.unwrap();
    assert!((before..=Timestamp::now().millis()).contains(&first.seq), "{first:?}");
    for next in 1..20 {
        assert_eq!(subject.append(update("a")).await.unwrap().seq, first.seq + next);
    }
    let all: Vec<_> = (first.seq..first.seq + 20).collect();
    assert_eq!(subject.seqs("a", Window::Newest(100)).await, all);
    assert_eq!(subject.seqs("unknown", Window::Newest(100)).await, [0; 0]);
}

async fn concurrent_appends_get_numbers_of_their_own(kind: Kind) {
    let subject = Subject::open(kind, history(1000)).await;
    let appends = (0..200).map(|number| subject.append(progress("a", f64::from(number % 100))));
    let seqs: Vec<Seq> = futures_util::future::join_all(appends)
        .await
        .into_iter()
        .map(|position| position.unwrap().seq)
        .collect();
    let distinct: BTreeSet<_> = seqs.iter().copied().collect();
    assert_eq!(distinct.len(), 200);
    assert_eq!(subject.seqs("a", Window::Newest(1000)).await, distinct.into_iter().collect::<Vec<_>>());
}

async fn a_batch_keeps_the_order_of_each_job(kind: Kind) {
    let subject = Subject::open(kind, history(1000)).await;
    let append = |draft| Append { draft, key: None };
    let drafts = (0..300)
        .flat_map(|step| [progress("a", f64::from(step) / 3.0), progress("b", f64::from(step) / 3.0)]);
    let outcomes = subject.store.append(drafts.map(append).collect(), None).await;
    let seqs: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().seq).collect();
    for of_one_job in [0, 1] {
        let seqs: Vec<_> = seqs.iter().skip(of_one_job).step_by(2).collect();
        assert!(seqs.windows(2).all(|pair| *pair[1] == pair[0] + 1), "{seqs:?}");
    }
    let entries = subject.store.history(&job("a"), Window::Newest(1000)).await.unwrap();
    let steps: Vec<f64> = entries
        .into_iter()
        .filter_map(Entry::event)
        .map(|event| {
            serde_json::from_str::<serde_json::Value>(event.json().get()).unwrap()["progress"]
                .as_f64()
                .unwrap()
        })
        .collect();
    assert!(steps.is_sorted() && steps.len() == 300, "{steps:?}");
}

async fn history_is_capped_and_read_in_windows(kind: Kind) {
    let subject = Subject::open(kind, history(10)).await;
    let first = subject.append(update("a")).await.unwrap().seq;
    for _ in 1..25 {
        subject.append(update("a")).await.unwrap();
    }
    let newest = first + 24;
    let from_to = |from: Seq, to: Seq| (from..=to).collect::<Vec<_>>();
    assert_eq!(subject.seqs("a", Window::Newest(100)).await, from_to(newest - 9, newest));
    assert_eq!(subject.seqs("a", Window::Newest(3)).await, from_to(newest - 2, newest));
    assert_eq!(subject.seqs("a", Window::Newest(0)).await, [0; 0]);
    let after = |seq, limit| subject.seqs("a", Window::After { seq, limit });
    assert_eq!(after(newest - 4, 100).await, from_to(newest - 3, newest));
    assert_eq!(after(newest - 4, 2).await, from_to(newest - 3, newest - 2));
    assert_eq!(after(first, 3).await, from_to(newest - 9, newest - 7));
    assert_eq!(after(0, 100).await, from_to(newest - 9, newest));
    assert_eq!(after(newest, 100).await, [0; 0]);
    assert_eq!(after(newest + 5, 100).await, [0; 0]);
    assert_eq!(after(Seq::MAX, 100).await, [0; 0]);
    let (latest, bounds) = subject.store.head(&job("a"), 0).await.unwrap();
    assert_eq!(bounds, Some(Bounds { first, oldest: newest - 9, newest, newer: 10, holds: false }));
    assert_eq!(latest.and_then(Entry::event).map(|event| event.seq()), Some(newest));
}

/// Reads a window part by part, and something between the parts.
async fn in_parts(subject: &Subject, window: Window, bytes: usize, between: &[Draft]) -> Vec<Vec<Seq>> {
    let (mut parts, mut next, mut between) = (Vec::new(), Some(window), between.iter());
    while let Some(window) = next {
        let part = subject.store.history_part(&job("a"), window, bytes).await.unwrap();
        parts.push(part.entries.into_iter().filter_map(Entry::event).map(|event| event.seq()).collect());
        next = part.rest;
        if let Some(draft) = between.next() {
            subject.append(draft.clone()).await.unwrap();
        }
    }
    parts
}

async fn history_is_read_in_parts(kind: Kind) {
    let subject = Subject::open(kind, history(60)).await;
    let sized = |bytes: usize| Draft::error(job("a"), &"x".repeat(bytes), Owner::default());
    let open = || update("a");
    let first = subject.append(open()).await.unwrap().seq;
    for _ in 1..59 {
        subject.append(open()).await.unwrap();
    }
    let newest = subject.append(sized(9000)).await.unwrap().seq;
    let from_to = |from: Seq, to: Seq| (from..=to).collect::<Vec<_>>();
    let all = from_to(first, newest);
    let flat = |parts: &[Vec<Seq>]| parts.concat();

    // One part, where it fits; and one event at least, however large.
    assert_eq!(in_parts(&subject, Window::Newest(60), 1 << 20, &[]).await, std::slice::from_ref(&all));
    let single = in_parts(&subject, Window::Newest(60), 1, &[]).await;
    assert_eq!((single.len(), flat(&single)), (60, all.clone()));
    let parts = in_parts(&subject, Window::Newest(60), 1000, &[]).await;
    assert_eq!(flat(&parts), all);
    assert!((5..40).contains(&parts.len()) && parts.last() == Some(&vec![newest]), "{parts:?}");
    // As many as asked for, and from where.
    assert_eq!(flat(&in_parts(&subject, Window::Newest(7), 300, &[]).await), from_to(newest - 6, newest));
    let after = Window::After { seq: first + 9, limit: 12 };
    assert_eq!(flat(&in_parts(&subject, after, 300, &[]).await), from_to(first + 10, first + 21));
    assert_eq!(in_parts(&subject, Window::Newest(0), 300, &[]).await, [[0; 0]]);
    assert_eq!(in_parts(&subject, Window::After { seq: newest, limit: 9 }, 300, &[]).await, [[0; 0]]);

    // History rotates between the parts: what it has lost is left out, nothing comes twice or out of order.
    let between: Vec<_> = (0..30).map(|_| open()).collect();
    let parts = in_parts(&subject, Window::Newest(60), 400, &between).await;
    let read = flat(&parts);
    assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "{parts:?}");
    assert!(read.contains(&newest) && read[0] == first && read.len() <= 60, "{parts:?}");
}

async fn newest_events_are_read_in_parts(kind: Kind) {
    let subject = Subject::open(kind, history(10)).await;
    let ids: Vec<JobId> = (0..300).map(|number| job(&format!("job-{number}"))).collect();
    for id in ids.iter().filter(|id| **id != job("job-7")) {
        subject.append(update(id.as_str())).await.unwrap();
    }
    subject.append(Draft::error(job("job-9"), &"x".repeat(9000), Owner::default())).await.unwrap();
    for bytes in [1, 1000, 20_000, 1 << 20] {
        let (mut jobs, mut read, mut parts) = (Vec::new(), 0, 0);
        while read < ids.len() {
            let (entries, count) = subject.store.latest_part(&ids[read..], bytes).await.unwrap();
            assert!(count > 0);
            let sizes: Vec<usize> = entries.iter().map(Entry::size).collect();
            assert!(sizes.len() == 1 || sizes.iter().sum::<usize>() <= bytes, "{sizes:?}");
            jobs.extend(entries.into_iter().filter_map(Entry::event).map(|event| event.job().clone()));
            (read, parts) = (read + count, parts + 1);
        }
        let known: Vec<JobId> = ids.iter().filter(|id| **id != job("job-7")).cloned().collect();
        assert_eq!(jobs, known);
        assert_eq!(parts == 1, bytes == 1 << 20, "{parts} parts of {bytes} bytes");
    }
}

async fn a_finished_job_takes_only_an_update(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let completed = || Draft::completed(job("a"), None, Owner::default()).unwrap();
    let failed = || Draft::error(job("a"), "x", Owner::default());
    subject.append(progress("a", 50.0)).await.unwrap();
    for end in [completed(), failed()] {
        subject.append(end).await.unwrap();
        let before = subject.seqs("a", Window::Newest(100)).await;
        for late in [progress("a", 80.0), completed(), failed()] {
            assert_eq!(subject.append(late).await, Err(AppendError::JobFinished));
        }
        assert_eq!(subject.seqs("a", Window::Newest(100)).await, before);
        subject.append(update("a")).await.unwrap();
        subject.append(progress("a", 10.0)).await.unwrap();
    }
}

async fn an_owner_is_sticky(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    for room in [Room::Job(job("a")), Room::User(user("u"))] {
        subject.store.cover(&room).await.unwrap();
    }
    subject.append(update("a")).await.unwrap();
    subject.append(Draft::update(job("a"), "s", None, owned("u")).unwrap()).await.unwrap();
    subject.append(update("a")).await.unwrap();
    let other = Draft::update(job("a"), "s", None, owned("v")).unwrap();
    assert_eq!(subject.append(other).await, Err(AppendError::OwnerMismatch));
    let entries = subject.store.history(&job("a"), Window::Newest(10)).await.unwrap();
    let owners: Vec<_> =
        entries.into_iter().filter_map(Entry::event).map(|event| event.owner().clone()).collect();
    assert_eq!(owners, [Owner::default(), owned("u"), owned("u")]);
    assert_eq!(subject.next_event().await.owner(), &Owner::default());
    assert_eq!(subject.next_event().await.owner(), &owned("u"));
    let since_ever = Timestamp::default();
    assert_eq!(subject.store.active(&Room::User(user("u")), since_ever, 10).await.unwrap(), [job("a")]);
    assert_eq!(
        subject.store.active(&Room::User(user("v")), since_ever, 10).await.unwrap(),
        Vec::<JobId>::new()
    );
}

async fn a_repeated_call_is_answered_and_not_stored(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    let first = subject.append_keyed(progress("a", 10.0), Some("k")).await.unwrap();
    let again = subject.append_keyed(progress("a", 10.0), Some("k")).await.unwrap();
    assert_eq!(again, Accepted { repeated: true, ..first.clone() });
    let other = subject.append_keyed(progress("a", 11.0), Some("k")).await;
    assert_eq!(other, Err(AppendError::IdempotencyConflict));
    subject.append_keyed(progress("b", 11.0), Some("k")).await.unwrap();
    assert_eq!(subject.seqs("a", Window::Newest(10)).await, [first.seq]);
    // What was refused does not use its key up.
    subject.append(Draft::completed(job("a"), None, Owner::default()).unwrap()).await.unwrap();
    assert_eq!(subject.append_keyed(progress("a", 1.0), Some("k2")).await, Err(AppendError::JobFinished));
    subject.append(update("a")).await.unwrap();
    assert!(!subject.append_keyed(progress("a", 1.0), Some("k2")).await.unwrap().repeated);
    if !matches!(kind, Kind::Memory) {
        subject.reopen().await;
        assert!(subject.append_keyed(progress("a", 10.0), Some("k")).await.unwrap().repeated);
    }
}

async fn active_jobs_come_most_recent_first(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let mut at = Vec::new();
    for id in ["a", "b", "c", "a"] {
        at.push(subject.append(update(id)).await.unwrap().timestamp.millis());
        // Each at a time of its own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let active = |since: u64, limit| {
        let store = subject.store.clone();
        async move { store.active(&Room::AllJobs, Timestamp::from_millis(since).unwrap(), limit).await.unwrap() }
    };
    assert_eq!(active(0, 10).await, [job("a"), job("c"), job("b")]);
    assert_eq!(active(0, 2).await, [job("a"), job("c")]);
    assert_eq!(active(at[2], 10).await, [job("a"), job("c")]);
    assert!(active(at[3] + 1, 10).await.is_empty());
    let known = subject.store.active(&Room::Job(job("b")), Timestamp::default(), 10).await.unwrap();
    assert_eq!(known, [job("b")]);
    let latest = subject.store.latest(&[job("b"), job("unknown"), job("a")]).await.unwrap();
    let jobs: Vec<_> = latest.into_iter().filter_map(Entry::event).map(|event| event.job().clone()).collect();
    assert_eq!(jobs, [job("b"), job("a")]);
}

async fn time_does_not_run_backwards_from_job_to_job(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let before = Timestamp::now();
    let mut times = Vec::new();
    for number in 0..50 {
        let accepted = subject.append(update(&format!("job-{number}"))).await.unwrap();
        // The first number of a job is its time.
        assert_eq!(accepted.seq, accepted.timestamp.millis());
        times.push(accepted.timestamp);
    }
    assert!(times.is_sorted() && times[0] >= before && times[49] <= Timestamp::now(), "{times:?}");
}

async fn the_feed_brings_what_is_covered_in_order(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    for room in [Room::Job(job("a")), Room::User(user("u"))] {
        subject.store.cover(&room).await.unwrap();
    }
    let first = subject.append(update("a")).await.unwrap().seq;
    for _ in 1..50 {
        subject.append(update("a")).await.unwrap();
    }
    for expected in first..first + 50 {
        let event = subject.next_event().await;
        assert_eq!((event.job().as_str(), event.seq()), ("a", expected));
    }
    subject.append(Draft::update(job("b"), "s", None, owned("u")).unwrap()).await.unwrap();
    assert_eq!(subject.next_event().await.job(), &job("b"));
    let data = serde_json::value::to_raw_value(&[1]).unwrap();
    let notice = Notice {
        audience: Audience::User(user("u")),
        name: "hello".parse().unwrap(),
        data: data.into(),
        timestamp: Timestamp::now(),
    };
    for audience in [Audience::User(user("u")), Audience::Everyone] {
        subject.store.notify(&Notice { audience: audience.clone(), ..notice.clone() }).await.unwrap();
        match subject.feed.recv().await {
            Some(FeedItem::Notice(got)) => assert_eq!((&got.audience, got.data.get()), (&audience, "[1]")),
            other => panic!("expected the notice, got {other:?}"),
        }
    }
}

async fn expired_jobs_are_gone(kind: Kind) {
    let retention = Duration::from_secs(1);
    let subject =
        Subject::open(kind, HistoryOptions { max_events: 100, retention, ..HistoryOptions::default() }).await;
    let old = subject.append(Draft::update(job("a"), "s", None, owned("u")).unwrap()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !subject.seqs("a", Window::Newest(10)).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the history expires");
    assert_eq!(subject.store.head(&job("a"), 0).await.unwrap().1, None);
    assert!(subject.store.latest(&[job("a")]).await.unwrap().is_empty());
    // Reborn: a larger number, and no owner yet.
    let new = subject.append(Draft::update(job("a"), "s", None, owned("v")).unwrap()).await.unwrap();
    assert!(new.seq > old.seq);
    assert_eq!(subject.seqs("a", Window::Newest(10)).await, [new.seq]);
}

async fn everything_survives_a_restart(kind: Kind) {
    let mut subject = Subject::open(kind, history(5)).await;
    let mut last = 0;
    for _ in 0..12 {
        last = subject.append(Draft::update(job("a"), "s", None, owned("u")).unwrap()).await.unwrap().seq;
    }
    subject.append(Draft::completed(job("a"), None, Owner::default()).unwrap()).await.unwrap();
    let before = subject.seqs("a", Window::Newest(100)).await;
    subject.reopen().await;
    assert_eq!(subject.seqs("a", Window::Newest(100)).await, before);
    assert_eq!(subject.append(progress("a", 1.0)).await, Err(AppendError::JobFinished));
    assert_eq!(subject.append(update("a")).await.unwrap().seq, last + 2);
    let entry = subject.store.latest(&[job("a")]).await.unwrap().pop().and_then(Entry::event).unwrap();
    assert_eq!(entry.owner(), &owned("u"));
}

async fn clients_are_listed_counted_and_forgotten(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let store = &subject.store;
    let record = |id: &str| ClientRecord {
        client_id: id.parse().unwrap(),
        connected_at: Timestamp::now(),
        user_id: None,
        address: "127.0.0.1".to_owned(),
        user_agent: "test".to_owned(),
        transport: "websocket".into(),
        node: "node".into(),
        subscriptions: Vec::new(),
    };
    let room = Room::Job(job("a"));
    for (connection, id) in (1..).zip(["c", "a", "b"]) {
        store.directory().connect(connection, record(id));
        store.directory().enter(connection, Some(&id.parse().unwrap()), &room);
    }
    store.publish_directory().await.unwrap();
    let page = store.clients(None, 2).await.unwrap();
    let ids: Vec<_> = page.clients.iter().map(|client| client.client_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    let rest = store.clients(page.cursor.as_ref(), 2).await.unwrap();
    assert_eq!((rest.clients.len(), rest.cursor), (1, None));
    assert_eq!(store.sessions_in(&room).await.unwrap(), 3);
    let one = store.client(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(one.subscriptions, std::slice::from_ref(&room));
    // A newer connection takes the record over; the older one's end leaves it alone.
    store.directory().connect(9, record("a"));
    store.directory().leave(2, Some(&"a".parse().unwrap()), &room);
    store.directory().disconnect(2, &"a".parse().unwrap());
    store.publish_directory().await.unwrap();
    assert!(store.client(&"a".parse().unwrap()).await.unwrap().is_some());
    for (connection, id) in [(1, "c"), (9, "a"), (3, "b")] {
        store.directory().disconnect(connection, &id.parse().unwrap());
    }
    for connection in [1, 3] {
        store.directory().leave(connection, None, &room);
    }
    store.publish_directory().await.unwrap();
    assert!(store.clients(None, 10).await.unwrap().clients.is_empty());
    assert_eq!(store.sessions_in(&room).await.unwrap(), 0);
    if let Some(redis) = &subject.redis {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut redis.connection().await).await.unwrap();
        let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(keys, ["p:jobcast:node:node"].into());
    }
}

async fn revocations_are_kept(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    let at = |millis: u64| Timestamp::from_millis(millis).unwrap();
    let now = Timestamp::now().millis();
    let of = |subject: Whose, before: u64| Revocation { subject, before: at(before) };
    let ada = || Whose::Sub("ada".parse().unwrap());
    let tenant = || Whose::TenantId("t:1".parse().unwrap());
    let token = || Whose::Jti("a: b".to_owned());
    let (version, none) = subject.store.revocations(None).await.unwrap().unwrap();
    assert_eq!(none, []);
    for revocation in [of(ada(), now), of(ada(), now - 5), of(tenant(), now + 7), of(token(), now)] {
        assert!(subject.store.revoke(&revocation).await.unwrap());
    }
    // What has ended goes with the next one.
    assert!(subject.store.revoke(&of(Whose::Jti("old".to_owned()), 1000)).await.unwrap());
    assert!(subject.store.revoke(&of(ada(), now + 1)).await.unwrap());
    if !matches!(kind, Kind::Memory) {
        subject.reopen().await;
    }
    let (newer, mut kept) = subject.store.revocations(None).await.unwrap().unwrap();
    kept.sort_by_key(|revocation| format!("{:?}", revocation.subject));
    assert_eq!(kept, [of(token(), now), of(ada(), now + 1), of(tenant(), now + 7)]);
    assert_eq!(subject.store.revocations(Some(newer)).await.unwrap(), None);
    assert!(newer > version || !subject.store.is_shared());
}

conformance!(
    numbers_rise_by_one_from_the_clock,
    concurrent_appends_get_numbers_of_their_own,
    a_batch_keeps_the_order_of_each_job,
    history_is_capped_and_read_in_windows,
    history_is_read_in_parts,
    newest_events_are_read_in_parts,
    a_finished_job_takes_only_an_update,
    an_owner_is_sticky,
    a_repeated_call_is_answered_and_not_stored,
    active_jobs_come_most_recent_first,
    time_does_not_run_backwards_from_job_to_job,
    the_feed_brings_what_is_covered_in_order,
    expired_jobs_are_gone,
    clients_are_listed_counted_and_forgotten,
    revocations_are_kept,
);

#[tokio::test]
async fn the_disk_survives_a_restart() {
    everything_survives_a_restart(Kind::Disk).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_survives_a_restart_of_the_gateway() {
    everything_survives_a_restart(Kind::Redis).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_cluster_survives_a_restart_of_the_gateway() {
    everything_survives_a_restart(Kind::Cluster).await;
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let subject = Subject::open(Kind::Disk, history(10)).await;
    let second = Store::open(&subject.options, "other", &Tasks::new()).await;
    let message = second.expect_err("the folder is taken").to_string();
    assert!(message.contains("in use by another process"), "{message}");
}
