//! Runs one of Jobcast's hot paths so many times, to have its instructions counted from outside:
//!
//! ```sh
//! jobcast-cost parse TIMES               # reads a publisher's body
//! jobcast-cost accept TIMES              # makes a draft an event
//! jobcast-cost deliver TIMES WATCHERS    # publishes to a room of so many, one event at a time
//! jobcast-cost serve                     # serves on a free port until its standard input ends
//! ```

#![forbid(unsafe_code)]

#[path = "../../audience/mod.rs"]
mod audience;

use std::{
    env,
    error::Error,
    future,
    hint::black_box,
    io,
    net::{Ipv4Addr, SocketAddr},
    process, thread,
};

use jobcast::{
    Authenticator, Backend, Draft, EventKind, Gateway, GatewayOptions, HistoryOptions, JobId, Owner, Server,
    ServerOptions, StoreOptions, Timestamp, internals::Members,
};
use tokio::runtime::{self, Runtime};

use self::audience::Audience;

/// A progress of a job, as publishers send it.
const PROGRESS: &[u8] = br#"{"progress":42.5,"message":"rendering picture 425 of 1,000"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["parse", times] => parse(times.parse()?),
        ["accept", times] => accept(times.parse()?),
        ["deliver", times, watchers] => deliver(times.parse()?, watchers.parse()?),
        ["serve"] => serve(),
        _ => Err("usage: jobcast-cost parse TIMES | accept TIMES | deliver TIMES WATCHERS | serve".into()),
    }
}

fn parse(times: u64) -> Result<(), Box<dyn Error>> {
    let job = job()?;
    for _ in 0..times {
        black_box(draft(&job)?);
    }
    Ok(())
}

fn accept(times: u64) -> Result<(), Box<dyn Error>> {
    let (draft, owner, at) = (draft(&job()?)?, Owner::default(), Timestamp::now());
    for seq in 1..=times {
        black_box(draft.accept(&owner, at, seq));
    }
    Ok(())
}

fn deliver(times: u64, watchers: u64) -> Result<(), Box<dyn Error>> {
    let job = job()?;
    let draft = draft(&job)?;
    current_thread()?.block_on(async {
        let audience = Audience::gather((0..watchers).map(|_| job.clone())).await?;
        for _ in 0..times {
            audience.publish(vec![(draft.clone(), None)], watchers).await?;
        }
        audience.dismiss().await
    })
}

fn serve() -> Result<(), Box<dyn Error>> {
    current_thread()?.block_on(async {
        let store = StoreOptions { backend: Backend::Memory, history: HistoryOptions::default() };
        let gateway = Gateway::open(&store, GatewayOptions::default()).await?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions { listen, ..ServerOptions::default() };
        let server = Server::bind(gateway, Authenticator::default(), options).await?;
        println!("listening on http://{}", server.address());
        thread::spawn(exit_with_input);
        server.run(future::pending()).await?;
        Ok(())
    })
}

/// Ends the process as soon as whoever started it closes its standard input, or is gone.
fn exit_with_input() {
    let ended = io::copy(&mut io::stdin(), &mut io::sink());
    process::exit(i32::from(ended.is_err()));
}

fn current_thread() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn job() -> Result<JobId, Box<dyn Error>> {
    Ok("import-7".parse()?)
}

fn draft(job: &JobId) -> Result<Draft, Box<dyn Error>> {
    Ok(Draft::read(EventKind::Progress, job.clone(), &Members::read(black_box(PROGRESS))?)?)
}
