//! Rooms' logs in Redis, where servers come back as another run, and where calls are missing or come in another order.

use jobcast::{
    Draft, Position, Room, Seq, Timestamp,
    internals::{AppendError, Content},
};
use redis::aio::MultiplexedConnection;

use crate::subject::{Kind, Subject, history, job, owned, update, user};

const LOG: &str = "p:jobcast:log:{user:u}";

fn draft() -> Draft {
    Draft::update(job("a"), "running", None, owned("u")).unwrap()
}

async fn run(connection: &mut MultiplexedConnection, command: &[&str]) {
    redis::cmd(command[0]).arg(&command[1..]).query_async::<redis::Value>(connection).await.unwrap();
}

async fn log(subject: &Subject, room: &Room) -> Vec<(Position, Seq)> {
    let page = subject.store.log(room, Position::START, 100).await.unwrap();
    let seq = |content: &Content| match content {
        Content::Event(event) => event.seq(),
        Content::Lost(gap) => panic!("{gap:?}"),
    };
    page.entries.iter().map(|entry| (entry.position, seq(&entry.content))).collect()
}

#[tokio::test]
async fn positions_go_on_above_the_clock_once_the_server_runs_as_another() {
    let subject = Subject::open(Kind::Redis, history(10)).await;
    let mut connection = subject.redis.as_ref().unwrap().connection().await;
    let room = Room::User(user("u"));
    subject.append(draft()).await.unwrap();
    let before = log(&subject, &room).await;
    assert!(before[0].0.millis() <= Timestamp::now().millis(), "nothing is known to be lost");
    // Everything is lost but for who wrote last.
    let state = "p:jobcast:state:{p:job-history:a}";
    run(&mut connection, &["DEL", LOG, "p:jobcast:log:{all-jobs}", "p:job-history:a", state]).await;
    let expires = (Timestamp::now().millis() + 7_200_000).to_string();
    run(&mut connection, &["SET", "p:jobcast:run", &format!("another 0 {expires}")]).await;
    let ahead = Timestamp::now().millis() + 10_000;
    for number in 0..5 {
        // Each job is new, and knows nothing of what the others have found.
        subject
            .append(Draft::update(job(&format!("j{number}")), "s", None, owned("u")).unwrap())
            .await
            .unwrap();
    }
    for room in [room, Room::AllJobs] {
        let after = log(&subject, &room).await;
        assert_eq!(after.len(), 5);
        assert!(
            after[0].0.millis() >= ahead && after.is_sorted_by(|one, other| one.0 < other.0),
            "{after:?}"
        );
        let range = subject.store.log_range(&room).await.unwrap();
        assert_eq!(range.end, after[4].0);
    }
}

#[tokio::test]
async fn a_room_in_a_cluster_goes_on_above_the_clock_too() {
    let subject = Subject::open(Kind::Cluster, history(10)).await;
    let room = Room::User(user("u"));
    subject.append(draft()).await.unwrap();
    let mut connection = subject.cluster_connection("p:jobcast:log:{user:u}").await;
    run(&mut connection, &["DEL", LOG]).await;
    run(&mut connection, &["HSET", "p:jobcast:logged:{user:u}", "/run", "another 0"]).await;
    let ahead = Timestamp::now().millis() + 10_000;
    subject.append(draft()).await.unwrap();
    let after = log(&subject, &room).await;
    assert!(after.len() == 1 && after[0].0.millis() >= ahead, "{after:?}");
}

/// Publishes three times: the second call does not reach the user's room.
async fn misses_a_call(between: &[Draft]) {
    let subject = Subject::open(Kind::Cluster, history(100)).await;
    let mut connection = subject.cluster_connection(LOG).await;
    let room = Room::User(user("u"));
    let mut seqs = Vec::new();
    for draft in between {
        seqs.push(subject.append(draft.clone()).await.unwrap().seq);
    }
    let aside = "p:aside:{user:u}";
    let kept = !log(&subject, &room).await.is_empty();
    if kept {
        run(&mut connection, &["RENAME", LOG, aside]).await;
    }
    run(&mut connection, &["SET", LOG, "of a wrong type"]).await;
    let missed = subject.append_keyed(draft(), Some("k")).await;
    assert!(matches!(missed, Err(AppendError::Unavailable(_))), "{missed:?}");
    assert!(subject.store.ping().await.is_err(), "what is refused is no state to be ready in");
    run(&mut connection, &["DEL", LOG]).await;
    if kept {
        run(&mut connection, &["RENAME", aside, LOG]).await;
    }
    // The next call logs both, and the repeated one nothing.
    let last = subject.append(draft()).await.unwrap().seq;
    let again = subject.append_keyed(draft(), Some("k")).await.unwrap();
    assert!(again.repeated && again.seq == last - 1, "{again:?} before {last}");
    let logged: Vec<Seq> = log(&subject, &room).await.into_iter().map(|(_, seq)| seq).collect();
    let expected: Vec<Seq> = seqs.into_iter().chain([again.seq, last]).collect();
    assert!(expected.ends_with(&logged) && logged.len() >= 2, "{logged:?} of {expected:?}");
    assert!(subject.store.ping().await.is_ok());
    let all = log(&subject, &Room::AllJobs).await;
    assert_eq!(all.into_iter().map(|(_, seq)| seq).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_first_call_that_is_missing_is_made_good() {
    misses_a_call(&[]).await;
}

#[tokio::test]
async fn the_first_call_that_names_a_user_and_is_missing_is_made_good() {
    misses_a_call(&[update("a"), update("a")]).await;
}

#[tokio::test]
async fn a_later_call_that_is_missing_is_made_good() {
    misses_a_call(&[draft(), draft()]).await;
}

#[tokio::test]
async fn a_repetition_makes_a_missing_call_good_by_itself() {
    let subject = Subject::open(Kind::Cluster, history(100)).await;
    let mut connection = subject.cluster_connection(LOG).await;
    run(&mut connection, &["SET", LOG, "of a wrong type"]).await;
    assert!(subject.append_keyed(draft(), Some("k")).await.is_err());
    run(&mut connection, &["DEL", LOG]).await;
    let again = subject.append_keyed(draft(), Some("k")).await.unwrap();
    assert!(again.repeated);
    let logged = log(&subject, &Room::User(user("u"))).await;
    assert!(matches!(logged[..], [(_, seq)] if seq == again.seq), "{logged:?}");
}
