//! The OpenAPI description against what is served: every route of the contract is described, and every
//! description is served.

use std::{collections::BTreeSet, time::Duration};

use jobcast::{
    Authenticator, Backend, Gateway, GatewayOptions, HistoryOptions, Server, ServerOptions, StoreOptions,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The routes of the contract's section 3.
const ROUTES: [&str; 23] = [
    "POST /api/jobs/{jobId}/update",
    "POST /api/jobs/{jobId}/progress",
    "POST /api/jobs/{jobId}/completed",
    "POST /api/jobs/{jobId}/error",
    "POST /api/events",
    "GET /api/jobs/{jobId}",
    "GET /api/jobs/{jobId}/history",
    "GET /api/jobs",
    "GET /api/jobs/{jobId}/events",
    "GET /api/users/{userId}/events",
    "GET /api/tenants/{tenantId}/events",
    "GET /api/events",
    "POST /api/broadcast",
    "POST /api/users/{userId}/emit",
    "GET /api/clients",
    "GET /api/clients/{clientId}",
    "GET /api/rooms/{room}",
    "POST /api/tokens",
    "POST /api/revocations",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
];

fn described(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().expect("paths");
    let operations = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("a path item").keys().map(|method| method.to_uppercase());
        methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    paths.iter().flat_map(operations).collect()
}

#[tokio::test]
async fn the_description_and_the_served_routes_agree() {
    let store = StoreOptions { backend: Backend::Memory, history: HistoryOptions::default() };
    let gateway = Gateway::open(&store, GatewayOptions::default()).await.expect("a store in memory opens");
    let listen = ([127, 0, 0, 1], 0).into();
    let options = ServerOptions { listen, ..ServerOptions::default() };
    let server = Server::bind(gateway, Authenticator::default(), options).await.expect("binds");
    let base = format!("http://{}", server.address());
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");

    let description: Value =
        client.get(format!("{base}/openapi.json")).send().await.expect("served").json().await.expect("JSON");
    assert!(
        description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{description}"
    );
    let expected: BTreeSet<String> = ROUTES.map(str::to_owned).into();
    assert_eq!(described(&description), expected);

    let operations = description["paths"].as_object().expect("paths").values().flat_map(|item| {
        item.as_object().expect("a path item").values().map(|operation| operation["operationId"].to_string())
    });
    assert_eq!(operations.collect::<BTreeSet<_>>().len(), ROUTES.len(), "operation ids are distinct");

    for route in ROUTES {
        let (method, path) = route.split_once(' ').expect("method and path");
        let path = path.replace("{room}", "all-jobs").replace(['{', '}'], "");
        let url = format!("{base}{path}");
        let ask =
            |method: Method| client.request(method, &url).header("content-type", "application/json").send();
        let status = ask(method.parse().expect("a method")).await.expect("answered").status();
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{route}");
        let missing = status == StatusCode::NOT_FOUND;
        assert_eq!(
            missing,
            matches!(path.as_str(), "/api/jobs/jobId" | "/api/clients/clientId"),
            "{route}: {status}"
        );
        let other = ask(Method::DELETE).await.expect("answered");
        assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED, "{route}");
        assert_eq!(other.headers()["content-type"], "application/problem+json", "{route}");
    }

    stop.cancel();
    running.await.expect("runs").expect("ends in order");
}
