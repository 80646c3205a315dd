//! Builds WebSocket frames that many connections share.

use bytes::{BufMut, Bytes, BytesMut};

/// The first byte of a text message in one frame (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;

/// A server's WebSocket frame of a text that is given in parts. Its receivers share the bytes.
pub fn text_frame(parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut frame = BytesMut::with_capacity(length + 10);
    frame.put_u8(TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => frame.put_u8(short),
        (_, Ok(medium)) => {
            frame.put_u8(126);
            frame.put_u16(medium);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    parts.iter().for_each(|part| frame.put_slice(part));
    frame.freeze()
}
