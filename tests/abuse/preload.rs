//! What attackers read: many jobs of 20 KB, some with long histories.

use std::net::SocketAddr;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    Failure,
    credentials::{EVE, EVES_TENANT},
    ledger::OF_OTHERS,
};

/// How large a job's data is.
const DATA: usize = 20_000;

/// How many jobs have long histories, and how many events each.
const DEEP: usize = 4;
const EVENTS: usize = 500;

/// How many events one batch has.
const BATCH: usize = 300;

/// One of the jobs with a long history.
pub fn deep_job(random: &mut fastrand::Rng) -> String {
    format!("{OF_OTHERS}deep-{}", random.usize(0..DEEP))
}

/// Publishes them: `jobs` of one event, and those with long histories.
pub async fn publish(
    gateway: SocketAddr,
    http: &reqwest::Client,
    jobs: usize,
    mut random: fastrand::Rng,
) -> Result<(), Failure> {
    let ids = (0..EVENTS).flat_map(|_| (0..DEEP).map(|job| format!("{OF_OTHERS}deep-{job}")));
    let ids: Vec<_> = ids.chain((0..jobs).map(|job| format!("{OF_OTHERS}large-{job}"))).collect();
    // It does compress, with some effort.
    let text: String = (0..10 * DATA).map(|_| char::from(random.u8(b'a'..b'q'))).collect();
    for ids in ids.chunks(BATCH) {
        let event = |id: &String| {
            let from = random.usize(0..text.len() - DATA);
            json!({
                "event": "job:update", "jobId": id, "status": "running", "data": &text[from..from + DATA],
                "userId": EVE, "tenantId": EVES_TENANT,
            })
        };
        let events: Vec<Value> = ids.iter().map(event).collect();
        let answer = http.post(format!("http://{gateway}/api/events")).json(&events).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status != StatusCode::OK || text.contains(r#""error""#) {
            return Err(format!("the preload was answered {status}: {}", &text[..text.len().min(500)]).into());
        }
    }
    Ok(())
}
