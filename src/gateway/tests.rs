//! What the gateway takes while it holds much already.

use super::*;
use crate::store::{Backend, HistoryOptions};

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
