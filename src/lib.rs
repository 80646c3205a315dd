//! Jobcast: live job events that no watcher misses.
//!
//! Backends publish events of long-running jobs; browsers, services and terminals watch them live. What a
//! publisher was answered for is in the store, and reaches every watcher in order, once: whoever falls behind or
//! comes back is caught up from history.
//!
//! The binary `jobcast` is this library with a command line. To mount a gateway in an application of one's own:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use jobcast::{Authenticator, Gateway, GatewayOptions, ServerOptions, StoreOptions};
//!
//! let gateway = Gateway::open(&StoreOptions::default(), GatewayOptions::default()).await?;
//! // Nobody is asked who they are; `Authenticator::open` asks for tokens and keys.
//! let auth = Authenticator::default();
//! let (jobs, sockets) = jobcast::router(&gateway, &auth, &ServerOptions::default());
//! let app = axum::Router::new().route("/mine", axum::routing::get(|| async { "hello" })).merge(jobs);
//! gateway.emit_job_progress("import-7", 40.0, Some("reading rows")).await?;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app).await?;
//! sockets.close(std::time::Duration::from_secs(5)).await;
//! gateway.stop(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | to | use |
//! |---|---|
//! | publish and read | [`Gateway`], [`Draft`], [`Published`], [`Entry`] |
//! | choose a store | [`StoreOptions`], [`Backend`], [`HistoryOptions`], [`RedisOptions`] |
//! | mount the edges | [`router`], [`ServerOptions`], [`Sockets`] |
//! | run the whole server, with routes of your own | [`Server`], [`NetOptions`], [`Tls`], [`Connection`] |
//! | watch from your own code | [`Outlet`], [`Gateway::connect`], [`Session::join`] |
//! | say who may do what | [`Authenticator`], or a [`Pass`] of your own among a request's extensions |
//! | handle errors | [`ApiError`], [`ErrorCode`] |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod auth;
mod budget;
#[doc(hidden)]
pub mod cli;
mod config;
mod drain;
mod error;
mod event;
mod fd_limit;
mod gateway;
mod http;
mod id;
mod json;
mod log_writer;
mod memory_limit;
mod net;
mod notice;
mod position;
#[doc(hidden)]
pub mod redis;
mod room;
mod server;
mod socketio;
mod store;
mod tasks;
mod telemetry;
mod timestamp;

pub use crate::{
    access::{
        Identity, InvalidPattern, KeyGrant, OwnerlessJobs, Pass, Pattern, Patterns, Revocation, Subject,
        TokenGrant,
    },
    auth::{
        ApiKeyOptions, AuthError, AuthMode, AuthOptions, Authenticator, InvalidJwksUrl, InvalidKeyFile,
        Minted, Secret, TokenOptions, WeakSecret,
    },
    error::{ApiError, ErrorCode},
    event::{Draft, EventKind, Gap, IdempotencyKey, InvalidDraft, JobEvent, Owner, Seq},
    gateway::{
        CloseReason, Delivery, Expiring, Gateway, GatewayOptions, JobResume, Joined, Latest, Offer, Outlet,
        Peer, Publication, Published, Resumed, Session, Signal, Subscription,
    },
    http::{CorsOptions, Host, HostOptions, HttpOptions, InvalidHost},
    id::{ClientId, InvalidId, JobId, TenantId, UserId},
    net::{Connection, InvalidNetwork, NetOptions, Tls, TlsError, TrustedProxies},
    notice::{Audience, InvalidNoticeName, Notice, NoticeName},
    position::{InvalidPosition, Position, Positions, RoomSet},
    room::{InvalidRoom, Room},
    server::{Server, ServerOptions, router},
    socketio::{SocketIoOptions, Sockets},
    store::{
        Arrival, Backend, ClientRecord, ClientsPage, Entry, HistoryOptions, OpenError, RedisOptions,
        StoreError, StoreOptions,
    },
    tasks::Tasks,
    telemetry::Metrics,
    timestamp::{InvalidTimestamp, Timestamp},
};

/// What the tests and benchmarks of this repository use besides. It may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        auth::internals as auth,
        config::internals as config,
        http::internals as http,
        json::{MAX_DEPTH, Members, TooDeep, compact},
        net::internals as net,
        socketio::internals as socketio,
        store::internals as stores,
        store::{
            Accepted, Append, AppendError, Bounds, Content, Feed, FeedItem, HistoryPart, LogEntry, LogPage,
            LogRange, Rooms, Store, Window,
        },
    };
}
