//! WebSocket (RFC 6455), without extensions and without fragments.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha1_smol::Sha1;

/// The longest payload that a client may send, in bytes.
const MAX_PAYLOAD: usize = 128 * 1024;

/// The longest head of a frame that is not masked.
const HEAD: usize = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Ping(&'a [u8]),
    Pong,
    Close,
}

/// Input that is no frame, or one that is not understood here.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The answer to the key of an upgrade.
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::from(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.digest().bytes())
}

/// Reads the first frame of `input`, which it unmasks in place, and says how long it is; `None` where it has not come
/// to its end.
pub fn read(input: &mut [u8]) -> Result<Option<(Message<'_>, usize)>, Malformed> {
    let &mut [first, second, ..] = input else { return Ok(None) };
    if first & 0xf0 != FINAL || second & MASKED == 0 {
        return Err(Malformed);
    }
    let (length, mask_start) = match second & !MASKED {
        126 => match input.get(2..4) {
            Some(bytes) => (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
            None => return Ok(None),
        },
        127 => match input.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (usize::try_from(u64::from_be_bytes(bytes)).map_err(|_| Malformed)?, 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if length > MAX_PAYLOAD {
        return Err(Malformed);
    }
    let start = mask_start + 4;
    let Some(masked) = input.get_mut(mask_start..start + length) else { return Ok(None) };
    let (mask, payload) = masked.split_at_mut(4);
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let message = match first & 0x0f {
        TEXT => Message::Text(str::from_utf8(payload).map_err(|_| Malformed)?),
        PING => Message::Ping(payload),
        PONG => Message::Pong,
        CLOSE => Message::Close,
        _ => return Err(Malformed),
    };
    Ok(Some((message, start + length)))
}

/// Writes a text frame whose payload `write` appends.
pub fn write_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    write_frame(TEXT, out, write);
}

/// Writes the answer to a ping.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(PONG, out, |out| out.extend_from_slice(payload));
}

/// Writes the answer to a close.
pub fn write_close(out: &mut Vec<u8>) {
    write_frame(CLOSE, out, |_| {});
}

fn write_frame(opcode: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out);
    let length = out.len() - start - HEAD;
    let (head, used) = head(opcode, length);
    out[start..start + used].copy_from_slice(&head[..used]);
    out.copy_within(start + HEAD.., start + used);
    out.truncate(start + used + length);
}

fn head(opcode: u8, length: usize) -> ([u8; HEAD], usize) {
    let mut head = [0; HEAD];
    head[0] = FINAL | opcode;
    let used = match length {
        0..126 => {
            head[1] = length as u8;
            2
        }
        126..65_536 => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (head, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(payload: &[u8]) -> Vec<u8> {
        let (mut frame, used) = head(TEXT, payload.len());
        frame[1] |= MASKED;
        let mask = [1, 2, 3, 4];
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [&frame[..used], &mask, &payload.collect::<Vec<_>>()].concat()
    }

    #[test]
    fn answers_the_key_of_the_specification() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn reads_frames_of_all_lengths() {
        for length in [0, 5, 125, 126, 65_535, 65_536, MAX_PAYLOAD] {
            let text = "x".repeat(length);
            let frame = masked(text.as_bytes());
            for cut in (0..frame.len()).step_by(frame.len() / 16 + 1) {
                assert_eq!(read(&mut frame[..cut].to_vec()), Ok(None));
            }
            assert_eq!(read(&mut frame.clone()), Ok(Some((Message::Text(&text), frame.len()))));
        }
        assert_eq!(read(&mut masked(&vec![b'x'; MAX_PAYLOAD + 1])), Err(Malformed));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let not_masked = [FINAL | TEXT, 0];
        let not_final = [TEXT, MASKED, 0, 0, 0, 0];
        let binary = [FINAL | 2, MASKED, 0, 0, 0, 0];
        let not_text = [FINAL | TEXT, MASKED | 1, 0, 0, 0, 0, 0xff];
        let frames: [&[u8]; 4] = [&not_masked, &not_final, &binary, &not_text];
        for frame in frames {
            assert_eq!(read(&mut frame.to_vec()), Err(Malformed));
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut out = b"before".to_vec();
            write_text(&mut out, |out| out.resize(out.len() + length, b'x'));
            let (head, used) = head(TEXT, length);
            assert_eq!(out, [b"before", &head[..used], &vec![b'x'; length]].concat());
        }
    }
}
