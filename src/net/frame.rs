//! WebSocket frames (RFC 6455, section 5.2): builds those that many connections share, and tells where those of the
//! library end.

use bytes::{BufMut, Bytes, BytesMut};

/// The first byte of a text message in one frame.
const TEXT: u8 = 0x81;

/// The opcode of a close frame. No frame may follow it.
const CLOSE: u8 = 8;

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

/// Whether a frame is a close frame.
pub fn is_close(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 0x0f == CLOSE)
}

/// The first frame of a server's, and what follows it. `None` if it is not there as a whole.
pub fn split_first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let long = |count: usize| {
        let length = bytes.get(2..2 + count)?.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        usize::try_from(length).ok()?.checked_add(2 + count)
    };
    let length = match *bytes.get(1)? & 0x7f {
        126 => long(2)?,
        127 => long(8)?,
        short => 2 + usize::from(short),
    };
    bytes.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_split_where_they_end(lengths in prop::collection::vec(prop_oneof![0usize..300, 65_000..66_000usize], 1..6)) {
            let frames: Vec<_> = lengths.iter().map(|length| text_frame(&["x".repeat(*length).as_bytes()])).collect();
            let (bytes, mut got) = (frames.concat(), Vec::new());
            let mut rest = &bytes[..];
            while let Some((frame, after)) = split_first(rest) {
                got.push(frame.to_vec());
                rest = after;
            }
            prop_assert_eq!(got, frames);
            prop_assert!(split_first(&bytes[..lengths[0] + 1]).is_none());
        }
    }

    #[test]
    fn knows_a_close_frame() {
        assert!(is_close(&[0x88, 0]) && !is_close(&text_frame(&[b"x"])) && !is_close(&[]));
    }
}
