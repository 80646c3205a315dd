//! What other programs find in Redis, and what they may do there.

use jobcast::{
    event::{JobEvent, Seq},
    store::{Append, Bounds, Window},
    timestamp::Timestamp,
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
    assert_eq!(subject.store.bounds(&job("a")).await.unwrap(), None);
    let seq = subject.append(update("a")).await.unwrap().seq;
    assert_eq!(texts().await.len(), 3);
    assert_eq!(subject.seqs("a", Window::After { seq: 0, limit: 10 }).await, [seq]);
    let bounds = subject.store.bounds(&job("a")).await.unwrap();
    assert_eq!(bounds, Some(Bounds { first: seq, oldest: seq, newest: seq, broken: None }));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn that_lost_their_end_go_on_with_numbers_nobody_has_seen() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let mut seqs = Vec::new();
    for _ in 0..4 {
        seqs.push(subject.append(update("a")).await.unwrap().seq);
    }
    subject.store.raise(&[(job("a"), seqs[1])]).await.unwrap();
    assert_eq!(subject.store.bounds(&job("a")).await.unwrap().unwrap().broken, None);
    // The end is lost, and with it the scripts, as in a crash.
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let mut lose = redis::pipe();
    lose.cmd("LTRIM").arg("p:job-history:a").arg(2).arg(-1).ignore();
    lose.hset("p:jobcast:state:{p:job-history:a}", "seq", seqs[1]).ignore();
    lose.cmd("SCRIPT").arg("FLUSH").ignore();
    lose.query_async::<()>(&mut connection).await.unwrap();
    subject.store.raise(&[(job("a"), seqs[3]), (job("b"), 7)]).await.unwrap();
    let drafts = (0..3).map(|_| Append { draft: update("a"), key: None });
    let after: Vec<Seq> = subject
        .store
        .append(drafts.collect())
        .await
        .into_iter()
        .map(|position| position.unwrap().seq)
        .collect();
    assert_eq!(after, [seqs[3] + 1, seqs[3] + 2, seqs[3] + 3]);
    let bounds = subject.store.bounds(&job("a")).await.unwrap().unwrap();
    assert_eq!((bounds.first, bounds.broken), (seqs[0], Some(after[0])));
    let read = |seq, limit| subject.seqs("a", Window::After { seq, limit });
    assert_eq!(read(seqs[1], 2).await, [after[0], after[1]]);
    assert_eq!(read(seqs[3], 1).await, [after[0]]);
    assert_eq!(read(seqs[0], 10).await, [seqs[1], after[0], after[1], after[2]]);
    assert_eq!(read(0, 3).await, [seqs[0], seqs[1], after[0]]);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn go_on_where_only_the_private_state_was_evicted() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let seq = subject.append(update("a")).await.unwrap().seq;
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let gone: i64 = redis::cmd("DEL")
        .arg("p:jobcast:state:{p:job-history:a}")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(gone, 1);
    assert_eq!(subject.append(update("a")).await.unwrap().seq, seq + 1);
}
