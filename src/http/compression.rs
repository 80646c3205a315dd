//! Compression of answers: of small and medium ones, and never against the client's wish to get an answer at all.

use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{And, DefaultPredicate, Predicate},
    },
};

/// The largest body that is compressed, in bytes. Compressing holds up a worker, and with it everybody else; in slices as
/// well, since a worker that is never idle looks for new requests but seldom.
const MAX_COMPRESSED: u64 = 128 * 1024;

/// Compresses answers of a known and moderate length. Streams are sent as they are.
pub fn layer() -> CompressionLayer<And<DefaultPredicate, OfModerateLength>> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(DefaultPredicate::new().and(OfModerateLength))
}

/// Bodies whose length is known and at most [`MAX_COMPRESSED`].
#[derive(Debug, Clone, Copy)]
pub struct OfModerateLength;

impl Predicate for OfModerateLength {
    fn should_compress<B: HttpBody>(&self, response: &Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|length| length <= MAX_COMPRESSED)
    }
}

/// Lets every client have an answer as it is, also one that says it takes none such: its request has been carried out by
/// the time the answer is there, and a 406 would hide that.
pub fn allow_identity<B>(mut request: Request<B>) -> Request<B> {
    if let Some(accepted) = with_identity(request.headers()) {
        request.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    }
    request
}

/// The `Accept-Encoding` that takes an uncompressed answer in the last resort; `None` where the given one does.
fn with_identity(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = || headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    // Only a weight of 0 refuses something.
    if !given().any(|value| value.contains("=0")) {
        return None;
    }
    // The first weight of a coding counts.
    let codings = std::iter::once("identity;q=0.001").chain(given()).collect::<Vec<_>>();
    HeaderValue::try_from(codings.join(", ")).ok()
}
