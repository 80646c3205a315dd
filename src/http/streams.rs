//! How many streams each address has. It bounds clients without a user (`limits.streams_per_address`).

use std::{net::IpAddr, sync::Arc};

use super::{HttpState, sse::Connected};
use crate::{
    access::Identity,
    error::ApiError,
    gateway::{Place, Places},
    net::network,
};

/// The streams of each address; an IPv6 network of 64 bits counts as one.
pub type Streams = Arc<Places<IpAddr>>;

/// How many streams an address other than this machine's may have where nothing says so.
const DEFAULT_LIMIT: usize = 100;

impl HttpState {
    /// A place among the streams of a client's address. `None` for those with a user, who count otherwise; for a trusted
    /// proxy that does not say who its client is; and for connections that are not known.
    ///
    /// # Errors
    /// [`LimitReached`](crate::error::ErrorCode::LimitReached) where the address has as many as it may.
    pub(super) fn stream_place(
        &self,
        identity: &Identity,
        connection: &Connected,
    ) -> Result<Option<Place<IpAddr>>, ApiError> {
        let Some(connection) = connection.as_ref().filter(|_| identity.user().is_none()) else {
            return Ok(None);
        };
        let Some(address) = connection.0.0.client() else { return Ok(None) };
        let limit = self.options.streams_per_address;
        let limit = limit.unwrap_or(if address.is_loopback() { usize::MAX } else { DEFAULT_LIMIT });
        self.streams.take(&network(address), limit).map(Some).ok_or_else(|| {
            let message = format!(
                "the address {address} may have at most {limit} streams (limits.streams_per_address); close one first, or \
                 use a token with a sub"
            );
            self.gateway.limited("streams_per_address", message)
        })
    }
}
