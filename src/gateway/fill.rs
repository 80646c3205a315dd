//! Filling: after an interruption of the feed the node itself reads each room's log from its live edge, and delivers what
//! the feed left out. Rooms are read side by side, each on its own: one whose log is long holds up no other.

use futures_util::{StreamExt, stream};

use super::{
    Gateway,
    catch_up::Pages,
    hub::{Fill, Hub},
    live,
};
use crate::{position::Position, room::Room};

/// How many rooms are read at once.
const ROOMS_AT_ONCE: usize = 64;

/// Reads what the hub says is due, if anything is.
pub fn start(gateway: &Gateway) {
    let due = gateway.hub(Hub::take_fills_due);
    if due.is_empty() {
        return;
    }
    let (tasks, gateway) = (gateway.0.tasks.clone(), gateway.clone());
    tasks.spawn_until_stop("fill", async move {
        stream::iter(due).for_each_concurrent(ROOMS_AT_ONCE, |due| fill(&gateway, due)).await;
        if gateway.hub(|hub| hub.is_whole()) {
            tracing::info!("the feed is whole again: what it had left out has been delivered");
        }
    });
}

async fn fill(gateway: &Gateway, due: Fill) {
    let (mut pages, mut next) = (Pages::default(), Some(due));
    while let Some(mut fill) = next {
        let is_due = || gateway.hub(|hub| hub.is_due(&fill));
        let Some(mut page) = pages.read(gateway, &fill.room, fill.after, is_due).await else { return };
        let is_entry = matches!(fill.room, Room::Job(_)) || fill.after.number() > 0;
        if is_entry && page.end < fill.after {
            // The log has lost its tail, or began anew: what is younger than all that was delivered tells.
            let Some(whole) = pages.read(gateway, &fill.room, Position::START, is_due).await else { return };
            (fill.after, page) = (Position::START, whole);
        }
        next = gateway.hub(|hub| hub.fill(&fill, &page));
        live::flush(gateway).await;
    }
}
