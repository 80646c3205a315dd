//! The gateway's router in an application that serves it itself: there it has no connections of its own to write to, and
//! leaves that to socketioxide.

use std::{sync::Arc, time::Duration};

use axum::{extract::Request, middleware::Next, response::Response};
use futures_util::{SinkExt, StreamExt};
use jobcast::{
    Authenticator, Backend, Draft, Gateway, GatewayOptions, Identity, Owner, Pass, ServerOptions,
    StoreOptions, TokenGrant,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn events_reach_websockets_of_an_application_that_mounts_the_router() {
    let store = StoreOptions { backend: Backend::Memory, ..StoreOptions::default() };
    let gateway = Gateway::open(&store, GatewayOptions::default()).await.expect("memory opens");
    let (jobs, sockets) = jobcast::router(&gateway, &Authenticator::default(), &ServerOptions::default());
    let app = axum::Router::new().route("/mine", axum::routing::get(|| async { "hello" })).merge(jobs);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) =
        timeout(PATIENCE, connect_async(url)).await.expect("in time").expect("it is let in");
    let said = [("0{", "40/jobs,{}"), ("40/jobs,{\"sid\":", r#"42/jobs,7["subscribe:jobs",{"jobId":"j"}]"#)];
    for (greeting, answer) in said {
        heard(&mut socket, greeting).await;
        socket.send(Message::text(answer)).await.expect("it is open");
    }
    heard(&mut socket, r#"43/jobs,7[{"success":true,"room":"job:j""#).await;
    for progress in 1..=3 {
        gateway.emit_job_progress("j", f64::from(progress), None).await.expect("it is accepted");
    }
    for progress in 1..=3 {
        let event =
            heard(&mut socket, r#"42/jobs,["job:progress",{"event":"job:progress","jobId":"j""#).await;
        assert!(event.contains(&format!(r#""progress":{progress},"#)), "{event}");
    }
    sockets.close(PATIENCE).await;
    assert!(gateway.stop(PATIENCE).await);
    serving.abort();
}

#[tokio::test]
async fn an_application_says_who_calls() {
    let store = StoreOptions { backend: Backend::Memory, ..StoreOptions::default() };
    let gateway = Gateway::open(&store, GatewayOptions::default()).await.expect("memory opens");
    let (jobs, sockets) = jobcast::router(&gateway, &Authenticator::default(), &ServerOptions::default());
    let app = jobs.layer(axum::middleware::from_fn(with_pass));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    gateway.publish(owned_by("ada"), None).await.expect("it is accepted");

    let client = reqwest::Client::new();
    for (user, status) in [("ada", 200), ("eve", 403)] {
        let request = client.get(format!("http://{address}/api/jobs/j")).header("x-user", user);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{user}");
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("x-user", user.parse().expect("a header"));
        let (mut socket, _) =
            timeout(PATIENCE, connect_async(request)).await.expect("in time").expect("it is let in");
        let said =
            [("0{", "40/jobs,{}"), ("40/jobs,{\"sid\":", r#"42/jobs,7["subscribe:jobs",{"jobId":"j"}]"#)];
        for (greeting, answer) in said {
            heard(&mut socket, greeting).await;
            socket.send(Message::text(answer)).await.expect("it is open");
        }
        let answer = heard(&mut socket, "43/jobs,7[").await;
        assert_eq!(answer.contains(r#""success":true"#), status == 200, "{answer}");
    }
    sockets.close(PATIENCE).await;
    assert!(gateway.stop(PATIENCE).await);
    serving.abort();
}

fn owned_by(user: &str) -> Draft {
    let owner = Owner { user: Some(user.parse().expect("an id")), tenant: None };
    Draft::update("j".parse().expect("an id"), "queued", None, owner).expect("a draft")
}

/// As an application would that has sessions of its own.
async fn with_pass(mut request: Request, next: Next) -> Response {
    let user = request.headers().get("x-user").and_then(|user| user.to_str().ok()?.parse().ok());
    let grant = TokenGrant { user, ..TokenGrant::default() };
    request.extensions_mut().insert(Pass::from(Identity::Token(Arc::new(grant))));
    next.run(request).await
}

/// The next text that is no heartbeat.
async fn heard<S>(socket: &mut S, beginning: &str) -> String
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>
        + SinkExt<Message, Error: std::fmt::Debug>
        + Unpin,
{
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("in time").expect("it is open");
        match message.expect("it is whole") {
            Message::Text(text) if text == "2" => socket.send(Message::text("3")).await.expect("it is open"),
            Message::Text(text) => {
                assert!(text.starts_with(beginning), "{text} does not begin with {beginning}");
                return text.to_string();
            }
            _ => {}
        }
    }
}
