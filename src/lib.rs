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
//! use jobcast::{Gateway, GatewayOptions, ServerOptions, StoreOptions};
//!
//! let gateway = Gateway::open(&StoreOptions::default(), GatewayOptions::default()).await?;
//! let (jobs, sockets) = jobcast::router(&gateway, &ServerOptions::default());
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
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`id`], [`timestamp`], [`json`], [`room`], [`event`], [`position`], [`notice`], [`refusal`] | the domain: no runtime, no network |
//! | [`store`] | durable truth, and the feed of what was accepted: embedded or Redis |
//! | [`gateway`] | publishing, the hub, sessions, joining, catching up |
//! | [`http`], [`socketio`] | the edges: they translate and never decide |
//! | [`server`], [`connection`], [`draining`], [`descriptors`] | all edges on one listener; admission; the orderly end |
//! | [`config`], [`cli`] | options from file, environment and flags; the commands |
//! | [`tasks`], [`telemetry`] | everything that is spawned; metrics and logs |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod draining;
pub mod event;
pub mod gateway;
pub mod http;
pub mod id;
pub mod json;
pub mod notice;
pub mod position;
#[doc(hidden)]
pub mod redis;
pub mod refusal;
pub mod room;
pub mod server;
pub mod socketio;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod timestamp;

pub use crate::{
    gateway::{Gateway, GatewayOptions},
    server::{Server, ServerOptions, router},
    store::StoreOptions,
};
