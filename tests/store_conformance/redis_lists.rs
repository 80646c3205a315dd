//! What other programs find in Redis, and what they may do there.

use jobcast::{
    JobEvent, Position, Room, Seq, Timestamp,
    internals::{Bounds, Window},
};

use crate::subject::{Kind, Subject, history, job, update};

#[tokio::test]
#[ignore = "needs redis-server"]
async fn carry_times_of_every_year() {
    let script = include_str!("../../src/store/redis/publish.lua");
    let begin = script.find("local function rfc3339").unwrap();
    let end = begin + script[begin..].find("\nend\n").unwrap();
    let call = format!("{}\nend\nreturn rfc3339(tonumber(ARGV[1]))", &script[begin..end]);
    let server = crate::support::RedisServer::start().await;
    let mut connection = server.connection().await;
    let (day, mut millis) = (86_400_000, 0);
    while millis < 200 * 366 * day {
        let text: String =
            redis::cmd("EVAL").arg(&call).arg(0).arg(millis).query_async(&mut connection).await.unwrap();
        assert_eq!(text, Timestamp::from_millis(millis).unwrap().to_string());
        millis += 13 * day + 12_345_678;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn are_as_the_contract_says() {
    let subject = Subject::open(Kind::Redis, history(3)).await;
    let mut seqs = Vec::new();
    for _ in 0..5 {
        seqs.push(subject.append(update("a")).await.unwrap().seq);
    }
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let list: Vec<String> = redis::cmd("LRANGE")
        .arg("p:job-history:a")
        .arg(0)
        .arg(-1)
        .query_async(&mut connection)
        .await
        .unwrap();
    let newest_first: Vec<_> = list.into_iter().map(|json| JobEvent::parse(json).unwrap().seq()).collect();
    assert_eq!(newest_first, [seqs[4], seqs[3], seqs[2]]);
    let expires: i64 = redis::cmd("TTL").arg("p:job-history:a").query_async(&mut connection).await.unwrap();
    assert!((3590..=3600).contains(&expires), "{expires}");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    for key in keys {
        assert!(key.starts_with("p:"), "{key}");
        let expires: i64 = redis::cmd("TTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(expires > 0, "{key} never expires");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn of_other_programs_are_served_and_do_not_stop_publishing() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let mut push = redis::cmd("LPUSH");
    push.arg("p:job-history:a")
        .arg(r#"{"old":1}"#)
        .arg("no json")
        .arg(r#"{"event":"job:update","status":"x"}"#);
    push.query_async::<()>(&mut connection).await.unwrap();
    let texts = || async {
        let entries = subject.store.history(&job("a"), Window::Newest(10)).await.unwrap();
        entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(texts().await, [r#"{"old":1}"#, r#"{"event":"job:update","status":"x"}"#]);
    assert_eq!(subject.store.head(&job("a"), 0).await.unwrap().1, None);
    let seq = subject.append(update("a")).await.unwrap().seq;
    assert_eq!(texts().await.len(), 3);
    assert_eq!(subject.seqs("a", Window::After { seq: 0, limit: 10 }).await, [seq]);
    let bounds = subject.store.head(&job("a"), 0).await.unwrap().1;
    assert_eq!(bounds, Some(Bounds { first: seq, oldest: seq, newest: seq, newer: 1, holds: false }));
}

/// By how much a number jumps at least.
const JUMP: Seq = 1 << 20;

const STATE: &str = "p:jobcast:state:{p:job-history:a}";

#[tokio::test]
#[ignore = "needs redis-server"]
async fn numbers_jump_where_another_run_of_the_server_wrote_last() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let mut seqs = Vec::new();
    for _ in 0..4 {
        seqs.push(subject.append(update("a")).await.unwrap().seq);
    }
    // The end is lost, and with it the scripts, as in a crash.
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let mut lose = redis::pipe();
    lose.cmd("LTRIM").arg("p:job-history:a").arg(2).arg(-1).ignore();
    lose.hset(STATE, "seq", seqs[1]).hset(STATE, "run", "another").ignore();
    lose.cmd("SCRIPT").arg("FLUSH").ignore();
    lose.query_async::<()>(&mut connection).await.unwrap();
    let mut after = Vec::new();
    for _ in 0..3 {
        after.push(subject.append(update("a")).await.unwrap().seq);
    }
    assert!(after[0] >= seqs[1] + JUMP && after[0] > seqs[3], "{after:?} after {seqs:?}");
    assert_eq!(after[1..], [after[0] + 1, after[0] + 2], "it jumps once");
    let read = |seq, limit| subject.seqs("a", Window::After { seq, limit });
    assert_eq!(read(seqs[1], 2).await, [after[0], after[1]]);
    assert_eq!(read(seqs[3], 1).await, [after[0]]);
    assert_eq!(read(seqs[0], 10).await, [seqs[1], after[0], after[1], after[2]]);
    assert_eq!(read(0, 3).await, [seqs[0], seqs[1], after[0]]);
    for (since, known) in
        [(seqs[0], true), (seqs[1], true), (seqs[3], false), (after[0], true), (seqs[0] - 1, true)]
    {
        let bounds = subject.store.head(&job("a"), since).await.unwrap().1.unwrap();
        assert_eq!((bounds.first, bounds.holds), (seqs[0], known), "{since}");
    }
    // A jump is no loss.
    let log = subject.store.log(&Room::Job(job("a")), Position::of_seq(seqs[0]), 10).await.unwrap();
    let places: Vec<_> = log.entries.iter().map(|entry| entry.position.seq()).collect();
    assert_eq!(places, [seqs[1], after[0], after[1], after[2]]);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn go_on_where_only_the_private_state_was_evicted() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let seq = subject.append(update("a")).await.unwrap().seq;
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let gone: i64 = redis::cmd("DEL").arg(STATE).query_async(&mut connection).await.unwrap();
    assert_eq!(gone, 1);
    let next = subject.append(update("a")).await.unwrap().seq;
    assert!(next >= seq + JUMP, "{next} after {seq}");
    assert_eq!(subject.append(update("a")).await.unwrap().seq, next + 1);
}

#[tokio::test]
async fn numbers_that_are_not_exact_are_of_other_programs() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let first = subject.append(update("a")).await.unwrap();
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let huge = |seq: u64| {
        let event = r#"{"event":"job:update","jobId":"a","status":"s","data":null,"timestamp""#;
        format!(r#"{event}:"{}","seq":{seq}}}"#, first.timestamp)
    };
    let mut push = redis::cmd("LPUSH");
    push.arg("p:job-history:a").arg(huge((1 << 53) - 1)).arg(huge(1 << 53)).arg(huge(u64::MAX));
    push.query_async::<()>(&mut connection).await.unwrap();
    redis::cmd("DEL").arg(STATE).query_async::<()>(&mut connection).await.unwrap();
    let second = subject.append(update("a")).await.unwrap().seq;
    let third = subject.append(update("a")).await.unwrap().seq;
    assert!((first.seq + JUMP..1 << 53).contains(&second) && third == second + 1, "{second} {third}");
    assert_eq!(subject.seqs("a", Window::Newest(10)).await, [first.seq, second, third]);
    assert_eq!(subject.seqs("a", Window::After { seq: first.seq, limit: 10 }).await, [second, third]);
}
