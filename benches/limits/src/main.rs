//! `jobcast-limits write|coalesce`: the least that any server can do for a delivery, to hold Jobcast against.
//!
//! It speaks what a watcher and a publisher of job progress need, on one thread and straight on epoll: no runtime, no
//! library for HTTP, WebSocket or Socket.IO, no history and no store. A frame is built once and shared by all that get
//! it. The two modes differ in how frames reach the sockets:
//!
//! * `write` writes each of them at once: one system call per delivery.
//! * `coalesce` first reads every publisher that has something to read, and then writes to each socket once.
//!
//! A yardstick and no product: it trusts its publishers (payloads pass unchecked), never forgets a job, and bounds
//! nothing that waits for a socket whose buffers in the kernel are full.

#![forbid(unsafe_code)]

mod clock;
mod coalesce;
mod connection;
mod delivery;
mod event;
mod heartbeat;
mod http;
mod input;
mod rooms;
mod server;
mod socketio;
mod websocket;
mod write;

use std::{convert::Infallible, env, io, process::ExitCode};

use self::{coalesce::Coalesce, server::Server, write::Write};

/// Where it listens without `PORT`: on any free one.
const ANY_PORT: u16 = 0;

fn main() -> ExitCode {
    let outcome = match env::args().nth(1).as_deref() {
        Some("write") => serve(Server::<Write>::bind),
        Some("coalesce") => serve(Server::<Coalesce>::bind),
        _ => {
            eprintln!("usage: [PORT=…] jobcast-limits write|coalesce");
            return ExitCode::from(2);
        }
    };
    let Err(error) = outcome;
    eprintln!("jobcast-limits: {error}");
    ExitCode::FAILURE
}

fn serve<D: delivery::Delivery>(bind: fn(u16) -> io::Result<Server<D>>) -> io::Result<Infallible> {
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| io::Error::other(format!("PORT is no port: {port:?}")))?,
        Err(_) => ANY_PORT,
    };
    let server = bind(port)?;
    println!("listening on http://{}", server.address()?);
    server.run()
}
