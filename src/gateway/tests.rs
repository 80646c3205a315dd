//! What the gateway takes while it holds much already, and of how much one user may have.

use super::*;
use crate::{
    access::{KeyGrant, Pass, TokenGrant},
    store::{Backend, HistoryOptions},
};

fn update(bytes: usize) -> Publication {
    let data = RawValue::from_string(format!(r#""{}""#, "x".repeat(bytes))).unwrap();
    (Draft::update("j".parse().unwrap(), "s", Some(&data), Owner::default()).unwrap(), None)
}

#[tokio::test]
async fn publishes_count_while_they_wait_for_the_store() {
    let store = StoreOptions { backend: Backend::Memory, history: HistoryOptions::default() };
    let options = GatewayOptions { memory: 30_000, ..GatewayOptions::default() };
    let gateway = Gateway::open(&store, options).await.unwrap();
    let held = gateway.budget().reserve(Purpose::Outbox, 15_000).unwrap();
    let outcomes = gateway.publish_all(vec![update(3_000), update(3_000)]).await;
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().code, ErrorCode::LimitReached);
    }
    assert!(gateway.job(&"j".parse().unwrap()).await.unwrap().is_none());
    let (draft, key) = update(3_000);
    gateway.publish(draft, key).await.unwrap();
    drop(held);
    let outcomes = gateway.publish_all(vec![update(3_000), update(3_000)]).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(gateway.budget().used(), 0);
}

/// Takes everything, and keeps nothing.
struct Nowhere;

impl Outlet for Nowhere {
    fn offer(&self, _: Delivery<'_>) -> Offer {
        Offer::Taken
    }

    fn waiting(&self) -> u64 {
        0
    }

    fn is_full(&self) -> bool {
        false
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, _: CloseReason) {}
}

async fn opened(options: GatewayOptions) -> Gateway {
    let store = StoreOptions { backend: Backend::Memory, history: HistoryOptions::default() };
    Gateway::open(&store, options).await.unwrap()
}

fn token(user: Option<&str>) -> Pass {
    let user = user.map(|user| user.parse().unwrap());
    Identity::Token(Arc::new(TokenGrant { user, ..TokenGrant::default() })).into()
}

fn connect(gateway: &Gateway, pass: Pass) -> Result<Session, ErrorCode> {
    gateway.connect(Arc::new(Nowhere), None, pass).map_err(|error| error.code)
}

async fn join(session: &Session, job: &str) -> Result<(), ErrorCode> {
    let joined = session.join(&Subscription::Job(job.parse().unwrap(), None)).await;
    joined.map(Joined::start).map_err(|error| error.code)
}

#[tokio::test]
async fn a_user_has_so_many_sessions() {
    let gateway = opened(GatewayOptions { connections_per_user: 2, ..GatewayOptions::default() }).await;
    let ada = || connect(&gateway, token(Some("ada")));
    let (first, _second) = (ada().unwrap(), ada().unwrap());
    assert_eq!(ada().unwrap_err(), ErrorCode::LimitReached);
    assert_eq!(gateway.sessions(), 2);
    assert!(gateway.metrics_text().contains(r#"jobcast_limited_total{limit="connections_per_user"} 1"#));
    let _other = connect(&gateway, token(Some("eve"))).unwrap();
    let nobody: Vec<_> = (0..5).map(|_| connect(&gateway, token(None)).unwrap()).collect();
    assert_eq!(nobody.len(), 5, "without a user");
    drop(first);
    let _third = ada().unwrap();
    assert_eq!(ada().unwrap_err(), ErrorCode::LimitReached);
}

#[tokio::test]
async fn the_sessions_of_a_user_share_so_many_rooms() {
    let gateway = opened(GatewayOptions { rooms_per_user: 2, ..GatewayOptions::default() }).await;
    let ada = || connect(&gateway, token(Some("ada"))).unwrap();
    let (first, second) = (ada(), ada());
    join(&first, "a").await.unwrap();
    join(&second, "a").await.unwrap();
    assert_eq!(join(&second, "b").await, Err(ErrorCode::LimitReached));
    assert!(gateway.metrics_text().contains(r#"jobcast_limited_total{limit="rooms_per_user"} 1"#));
    // Where one is already.
    join(&second, "a").await.unwrap();
    join(&connect(&gateway, token(Some("eve"))).unwrap(), "b").await.unwrap();
    // A refused one left nothing behind, and neither does one that is given up.
    first.leave(&Room::Job("a".parse().unwrap())).await.unwrap();
    drop(second.join(&Subscription::Job("c".parse().unwrap(), None)).await.unwrap());
    join(&second, "b").await.unwrap();
    assert_eq!(join(&first, "a").await, Err(ErrorCode::LimitReached));
    drop(second);
    join(&first, "a").await.unwrap();
    join(&first, "b").await.unwrap();
    assert_eq!(join(&ada(), "a").await, Err(ErrorCode::LimitReached));
}

#[tokio::test]
async fn a_room_that_a_session_was_put_out_of_counts_no_more() {
    let gateway = opened(GatewayOptions { rooms_per_user: 1, ..GatewayOptions::default() }).await;
    let ada = connect(&gateway, token(Some("ada"))).unwrap();
    for job in ["a", "b", "c"] {
        // It has no owner yet, and then another one.
        join(&ada, job).await.unwrap();
        assert_eq!(join(&ada, "other").await, Err(ErrorCode::LimitReached));
        let owner = Owner { user: Some("eve".parse().unwrap()), tenant: None };
        gateway.publish(Draft::update(job.parse().unwrap(), "s", None, owner).unwrap(), None).await.unwrap();
        while !gateway.hub(|hub| hub.rooms_of(ada.key)).is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(gateway.0.user_rooms.count(&"ada".parse().unwrap()), 0);
}

#[tokio::test]
async fn what_a_key_publishes_beyond_its_rate_is_refused_as_a_whole() {
    let options = GatewayOptions { publishes_per_second: Some(2), ..GatewayOptions::default() };
    let gateway = opened(options).await;
    let key = Identity::Key(Arc::new(KeyGrant { name: "k".to_owned(), jobs: None, tenants: None }));
    let outcomes = gateway.publish_all_as(&key, vec![update(1), update(1), update(1)]).await;
    assert!(
        outcomes.len() == 3
            && outcomes
                .iter()
                .all(|outcome| { outcome.as_ref().is_err_and(|error| error.code == ErrorCode::TooLarge) })
    );
    assert!(gateway.job(&"j".parse().unwrap()).await.unwrap().is_none());
    assert!(gateway.metrics_text().contains(r#"jobcast_limited_total{limit="publishes_per_second"} 1"#));
    let outcomes = gateway.publish_all_as(&key, vec![update(1), update(1)]).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let many = (0..100).map(|_| update(1)).collect();
    assert!(gateway.publish_all_as(&Identity::Everybody, many).await.iter().all(Result::is_ok));
}
