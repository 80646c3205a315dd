//! `jobcast serve`: runs the gateway until a signal stops it.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, ServeArguments, block_on};
use crate::{
    auth::Authenticator,
    config::{Config, Environment, Overrides},
    fd_limit,
    gateway::Gateway,
    net::Tls,
    server::Server,
    telemetry,
};

/// The variables of the environment that are valid Unicode.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Runs the gateway until SIGTERM or Ctrl-C.
pub fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let overrides = Overrides { listen: arguments.listen };
    let config = Config::load(arguments.config.config.as_deref(), &environment(), &overrides)?;
    let _last_lines = telemetry::start_logging(config.log.format, config.log.level);
    fd_limit::raise();
    block_on(serve(&config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let options = config.server.clone();
    let (listen, grace, tls) = (options.listen, options.shutdown_grace, options.tls.clone());
    let gateway = Gateway::open(&config.store, config.gateway).await?;
    let auth = Authenticator::open(&config.auth, gateway.tasks(), gateway.metrics()).await?;
    let server = match Server::bind(gateway.clone(), auth, options).await {
        Ok(server) => server,
        Err(error) => {
            gateway.stop(grace).await;
            return Err(format!("cannot listen on {listen} (server.listen): {error}").into());
        }
    };
    let mut out = std::io::stdout();
    // The parent process may have closed its end of the pipe. The gateway serves anyway.
    let _told = writeln!(out, "listening on {}", server.url()).and_then(|()| out.flush());
    tracing::info!(address = %server.address(), node = gateway.node(), "serving");
    let read_again = read_again_when_told(tls)?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = read_again => {}
        }
    };
    Ok(server.run(shutdown).await?)
}

/// Has the certificate read again at every SIGHUP. Never ends.
fn read_again_when_told(tls: Option<Tls>) -> std::io::Result<impl Future<Output = ()>> {
    // Without TLS there is nothing to read again, and the signal ends the process as always.
    let told = tls.map(|tls| signal(SignalKind::hangup()).map(|hangup| (tls, hangup))).transpose()?;
    Ok(async {
        if let Some((tls, mut hangup)) = told {
            while hangup.recv().await.is_some() {
                tls.read_again();
            }
        }
        std::future::pending().await
    })
}
