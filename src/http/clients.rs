//! The directory over HTTP: who is connected, and how many are in a room.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use serde::Serialize;

use super::{
    HttpState,
    caller::Caller,
    extract::{PathParam, QueryParams},
    openapi::{ClientBody, ClientsBody, RoomBody},
    pages,
    problem::Problem,
};
use crate::{
    error::{ApiError, ErrorCode},
    id::ClientId,
    room::Room,
    store::ClientRecord,
};

/// The default and the maximum number of clients on one page.
const PAGE: (usize, usize) = (100, 1000);

/// The connected clients of all nodes, by id
#[utoipa::path(
    get,
    path = "/api/clients",
    operation_id = "listClients",
    tag = "operating",
    params(
        ("limit" = Option<u64>, Query, description = "How many at the most: 100 by default, 1,000 at the most"),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses(
        (status = 200, description = "The clients; the cursor is null at the end", body = ClientsBody),
        (status = 422, description = "A parameter of the wrong form", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    params: QueryParams,
) -> Result<Response, ApiError> {
    let cursor = params.optional::<ClientId>("cursor")?;
    let limit = params.limit()?.unwrap_or(PAGE.0).min(PAGE.1);
    let page = state.gateway.clients(caller.identity(), cursor.as_ref(), limit).await?;
    pages::whole(&state.gateway, &page)
}

/// One connected client
#[utoipa::path(
    get,
    path = "/api/clients/{clientId}",
    operation_id = "client",
    tag = "operating",
    params(("clientId" = String, Path, description = "The client")),
    responses(
        (status = 200, description = "The client", body = ClientBody),
        (status = 404, description = "No such client is connected", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid client id", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    PathParam(id): PathParam<ClientId>,
) -> Result<Json<ClientRecord>, ApiError> {
    let client = state.gateway.client(caller.identity(), &id).await?;
    client.map(Json).ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("no client {id} is connected")))
}

#[derive(Serialize)]
pub struct Occupancy {
    room: Room,
    clients: usize,
}

/// How many sessions are in a room, across all nodes
#[utoipa::path(
    get,
    path = "/api/rooms/{room}",
    operation_id = "room",
    tag = "operating",
    params(("room" = String, Path, description = "job:<id>, user:<id>, tenant:<id> or all-jobs")),
    responses(
        (status = 200, description = "The count; 0 for an empty room", body = RoomBody),
        (status = 422, description = "Not the name of a room", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn room(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    PathParam(room): PathParam<Room>,
) -> Result<Json<Occupancy>, ApiError> {
    let clients = state.gateway.sessions_in(caller.identity(), &room).await?;
    Ok(Json(Occupancy { room, clients }))
}
