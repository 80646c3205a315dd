//! WebSocket frames, however they are cut (RFC 6455, section 5).

use jobcast::{
    CloseReason,
    internals::{
        net::{is_close, split_first, text_frame},
        socketio::{ClientFrames, Incoming, put_text_frame},
    },
};

/// How large a message may be here.
const MAX_MESSAGE: usize = 300;

/// What comes out, up to the end or the first error.
type Outcome = (Vec<Incoming>, Option<CloseReason>);

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut frames, mut found) = (ClientFrames::new(MAX_MESSAGE), Vec::new());
    for chunk in chunks {
        frames.push(chunk);
        loop {
            match frames.next_incoming() {
                Ok(Some(incoming)) => found.push(incoming),
                Ok(None) => break,
                Err(reason) => return (found, Some(reason)),
            }
        }
    }
    (found, None)
}

/// The frames of a client are the same wherever they are cut, and what a plain reading of the RFC finds.
pub fn client_frames(bytes: &[u8]) {
    let whole = read([bytes]);
    assert_eq!(whole, plainly(bytes));
    assert_eq!(whole, read(bytes.chunks(1)));
    for place in 0..=bytes.len() {
        let (before, after) = bytes.split_at(place);
        assert_eq!(whole, read([before, after]), "cut at {place}");
    }
}

/// Reads all at once, byte by byte as the RFC has them.
fn plainly(bytes: &[u8]) -> Outcome {
    let (mut found, mut message, mut rest) = (Vec::new(), None::<(bool, Vec<u8>)>, bytes);
    loop {
        let frame = match frame(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (found, None),
            Err(reason) => return (found, Some(reason)),
        };
        let (raw, after) = rest.split_at(frame.end);
        rest = after;
        if frame.opcode >= 8 {
            if !frame.is_final {
                return (found, Some(CloseReason::Malformed));
            }
            found.push(Incoming::Control(raw.into()));
            continue;
        }
        let (is_text, mut so_far) = match (frame.opcode, message.take()) {
            (0, Some(message)) => message,
            (1, None) => (true, Vec::new()),
            (2, None) => (false, Vec::new()),
            _ => return (found, Some(CloseReason::Malformed)),
        };
        so_far.extend(frame.payload);
        if so_far.len() > MAX_MESSAGE {
            return (found, Some(CloseReason::TooLarge));
        }
        match (frame.is_final, is_text) {
            (false, _) => message = Some((is_text, so_far)),
            (true, true) => found.push(Incoming::Text(so_far.as_slice().into())),
            (true, false) => found.push(Incoming::Binary),
        }
    }
}

struct Frame {
    is_final: bool,
    opcode: u8,
    payload: Vec<u8>,
    end: usize,
}

fn frame(bytes: &[u8]) -> Result<Option<Frame>, CloseReason> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let opcode = first & 0x0f;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(lengths) = bytes.get(2..2 + extended) else { return Ok(None) };
    let length = match extended {
        0 => u64::from(second & 0x7f),
        _ => lengths.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let mask_end = 2 + extended + if second & 0x80 == 0 { 0 } else { 4 };
    let Some(mask) = bytes.get(2 + extended..mask_end) else { return Ok(None) };
    let is_known = matches!(opcode, 0..=2 | 8..=10);
    if !is_known || mask.is_empty() || first & 0x70 != 0 {
        return Err(CloseReason::Malformed);
    }
    if length > MAX_MESSAGE as u64 {
        return Err(CloseReason::TooLarge);
    }
    let end = mask_end + length as usize;
    let Some(payload) = bytes.get(mask_end..end) else { return Ok(None) };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some(Frame { is_final: first & 0x80 != 0, opcode, payload, end }))
}

/// Frames of the server are found where they were put together, and nothing is lost between them.
pub fn server_frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((frame, after)) = split_first(rest) {
        assert!(frame.len() >= 2 && [frame, after].concat() == rest);
        assert_eq!(is_close(frame), frame[0] & 0x0f == 8);
        for place in 0..frame.len() {
            assert!(split_first(&frame[..place]).is_none(), "a part of a frame is none");
        }
        rest = after;
    }
    let (before, after) = bytes.split_at(bytes.len() / 2);
    let frame = text_frame(&[before, after]);
    assert_eq!(split_first(&frame), Some((&frame[..], &[][..])));
    assert!(frame.ends_with(bytes) && frame.len() <= bytes.len() + 10 && !is_close(&frame));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut written = bytes::BytesMut::new();
    put_text_frame(text, &mut written);
    let expected = match bytes.len() > MAX_MESSAGE {
        true => (vec![], Some(CloseReason::TooLarge)),
        false => (vec![Incoming::Text(bytes.into())], None),
    };
    assert_eq!(read([&written[..]]), expected);
}
