//! The attacks: each the life of one connection, or of a few that belong together.

mod answers;
mod batches;
mod bodies;
mod heads;
mod http2;
mod known;
mod packets;
mod polling;
mod requests;
mod sockets;
mod websocket;

use std::pin::Pin;

pub use self::{polling::join as join_by_polling, websocket::join as join_by_websocket};

use crate::{Failure, credentials::Attackers, hand::Hand};

/// What becomes of a life: it has done what it was to do, or has been cut.
type Life = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub about: &'static str,
    /// How many hands it has in the short and in the full form.
    hands: (usize, usize),
    /// From how many addresses it comes, at most.
    pub sources: usize,
    pub life: fn(Hand) -> Life,
}

impl Attack {
    pub fn hands(&self, full: bool) -> usize {
        if full { self.hands.1 } else { self.hands.0 }
    }

    /// The third number of the addresses that it comes from.
    pub fn subnet(&self) -> u8 {
        let place = ALL.iter().position(|attack| attack.name == self.name);
        // Honest clients come from lower ones.
        10 + place.unwrap_or_default() as u8
    }
}

/// An attack from several addresses.
macro_rules! attack {
    ($name:literal, $about:literal, $hands:expr, $life:path) => {
        Attack {
            name: $name,
            about: $about,
            hands: $hands,
            sources: usize::MAX,
            life: |hand| Box::pin($life(hand)),
        }
    };
}

/// The attacks of these attackers.
pub fn of(attackers: Attackers) -> Vec<&'static Attack> {
    let tried = ALL.iter().filter(|attack| TRIED_BY_ALL.contains(&attack.name));
    match attackers {
        Attackers::Anybody => ALL.iter().collect(),
        Attackers::Token => KNOWN.iter().chain(tried).collect(),
        Attackers::Key => PUBLISHING.iter().chain(KNOWN).chain(tried).collect(),
    }
}

/// What one with a token or a key does beside that.
const TRIED_BY_ALL: [&str; 8] = [
    "sid-jam",
    "ping-flood",
    "fragments",
    "repeated-connect",
    "namespaces",
    "giant-acks",
    "idle-later",
    "abandoned-polls",
];

/// What one may do with a token, or tries.
const KNOWN: &[Attack] = &[
    attack!("sockets", "joined sockets that say nothing", (40, 400), known::sockets),
    attack!("pending-jobs", "each socket in as many pending jobs as it gets", (20, 100), known::pending_jobs),
    attack!(
        "comings",
        "rooms are joined and left at the message rate and beyond",
        (4, 8),
        known::comings_and_goings
    ),
    attack!("histories", "histories are asked for at the message rate and beyond", (4, 8), known::histories),
    attack!("refreshes", "good and bad tokens in place of the own one", (4, 8), known::refreshes),
    attack!(
        "unread-replays",
        "all there ever was, again and again, not read",
        (20, 100),
        known::unread_replays
    ),
    attack!("unread-answers", "own histories, lists and streams, not read", (30, 150), known::unread_answers),
    attack!("streams", "as many event streams as it gets", (30, 200), known::streams),
    attack!("takeovers", "its own record, and those of others", (4, 16), known::takeovers),
    attack!("polling-sessions", "polling sessions without end", (4, 16), known::polling_sessions),
    attack!("bad-tokens", "unknown keys, expired tokens, garbage", (4, 8), known::bad_tokens),
];

/// What one may do with a key, or tries.
const PUBLISHING: &[Attack] = &[
    attack!("publishes", "a new job with each publish, as fast as it is answered", (2, 8), known::publishes),
    attack!(
        "forbidden",
        "publishes, notices, tokens and revocations beyond its bounds",
        (2, 4),
        known::forbidden_publishes
    ),
];

/// All that anybody can do.
pub const ALL: &[Attack] = &[
    attack!(
        "sid-jam",
        "an upgrade is cut after its request, and its session polls on",
        (20, 60),
        polling::jam
    ),
    attack!(
        "jammed-outbox",
        "the same, and the session asks for much that it never reads",
        (20, 60),
        polling::jam_and_ask
    ),
    attack!("unread-jobs", "GET /api/jobs of large jobs is not read", (20, 40), answers::unread_jobs),
    attack!("unread-histories", "large histories are not read", (40, 200), answers::unread_history),
    attack!("slow-readers", "large answers are read at 6 KB/s", (20, 60), answers::slow_reader),
    attack!(
        "gzip-readers",
        "large histories are asked for compressed, again and again",
        (8, 40),
        answers::gzip_reader
    ),
    attack!("unread-sse", "event streams from the beginning are not read", (20, 60), answers::unread_stream),
    attack!("http2", "HTTP/2 with prior knowledge and a window of 0", (2, 4), http2::no_window),
    attack!("ping-flood", "WebSocket pings without reading a pong", (3, 6), sockets::ping_flood),
    attack!("mute-sockets", "WebSockets that say nothing", (50, 200), sockets::mute),
    attack!("fragments", "messages in fragments of one byte", (2, 2), sockets::fragments),
    attack!("endless-bodies", "bodies of 8 MiB that lack their last byte", (24, 100), bodies::endless),
    attack!("silent-bodies", "bodies that never begin", (60, 300), bodies::silent),
    attack!("dripping-bodies", "bodies at a byte a second", (60, 200), bodies::dripping),
    attack!(
        "unread-latest",
        "subscriptions' snapshots are asked for and not read",
        (50, 200),
        sockets::unread_latest
    ),
    attack!("unread-asks", "history:jobs of large histories, not read", (50, 200), sockets::unread_asks),
    attack!(
        "repeated-connect",
        "CONNECT again and again on a connected socket",
        (4, 8),
        sockets::repeated_connect
    ),
    attack!("namespaces", "thousands of namespaces", (2, 4), sockets::namespaces),
    attack!("giant-acks", "acks of 100 KB to nothing", (2, 2), sockets::giant_acks),
    attack!(
        "malformed",
        "malformed packets, ack ids beyond i64, binary payloads",
        (3, 3),
        packets::malformed
    ),
    attack!("slowloris", "a first head at a byte every half second", (60, 300), heads::slowloris),
    attack!("idle-later", "nothing after the first request", (100, 500), heads::idle_later),
    attack!("dripping-later", "later heads at a byte every half second", (60, 300), heads::dripping_later),
    attack!("pipelining", "requests in a row, whose answers are not read", (4, 8), heads::pipelining),
    Attack {
        sources: 1,
        ..attack!(
            "handshake-flood",
            "160 handshakes a second from one page",
            (8, 8),
            polling::handshake_flood
        )
    },
    attack!("abandoned-polls", "polls that are left", (10, 40), polling::abandoned),
    attack!("large-items", "batches of items larger than one event may be", (2, 2), batches::large_items),
    attack!("million-items", "batches of millions of tiny items", (2, 2), batches::million_items),
    attack!("deep-nesting", "JSON nested beyond any bound", (2, 2), batches::deep_nesting),
    attack!("publish-bytes", "batches of 7 MB, all in the same moment", (24, 40), requests::publish_bytes),
    attack!("job-ids", "a new job with each publish", (1, 1), requests::job_ids),
    attack!("bursts", "bursts of broadcasts and emits", (4, 4), requests::bursts),
    attack!("no-identity", "Accept-Encoding: *;q=0", (1, 1), requests::no_identity),
    attack!("half-closed", "requests whose sender closes its side", (4, 4), requests::half_closed),
];
