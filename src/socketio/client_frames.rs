//! Reads the WebSocket frames of a client (RFC 6455, section 5) and puts the parts of a message together.

use std::io::Cursor;

use bytes::{Buf, BytesMut};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use crate::gateway::CloseReason;

/// What a client has sent, frame by frame. Idle it holds no memory of its own.
#[derive(Debug)]
pub struct ClientFrames {
    received: BytesMut,
    /// The message that is not complete yet, and whether it is text.
    fragments: Option<(bool, BytesMut)>,
    max_message: usize,
}

/// What is complete.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message. It may be no UTF-8.
    Text(BytesMut),
    /// A binary message.
    Binary,
    /// A close, a ping or a pong: the frame as it came.
    Control(BytesMut),
}

impl ClientFrames {
    /// Messages have at most so many bytes.
    pub fn new(max_message: usize) -> Self {
        Self { received: BytesMut::new(), fragments: None, max_message }
    }

    /// Takes bytes of the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next complete message or control frame.
    ///
    /// # Errors
    /// The bytes are no frames of a client, or more than a message may have.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, CloseReason> {
        while let Some((header, mut frame, payload)) = self.next_frame()? {
            let OpCode::Data(kind) = header.opcode else {
                return match header.is_final {
                    true => Ok(Some(Incoming::Control(frame))),
                    false => Err(CloseReason::Malformed),
                };
            };
            frame.advance(payload);
            let mask = header.mask.unwrap_or_default();
            frame.iter_mut().enumerate().for_each(|(place, byte)| *byte ^= mask[place % 4]);
            let (is_text, message) = match (kind, self.fragments.take()) {
                (Data::Text, None) => (true, frame),
                (Data::Binary, None) => (false, frame),
                (Data::Continue, Some((is_text, mut message))) => {
                    message.extend_from_slice(&frame);
                    (is_text, message)
                }
                _ => return Err(CloseReason::Malformed),
            };
            if message.len() > self.max_message {
                return Err(CloseReason::TooLarge);
            }
            match (header.is_final, is_text) {
                (false, _) => self.fragments = Some((is_text, message)),
                (true, true) => return Ok(Some(Incoming::Text(message))),
                (true, false) => return Ok(Some(Incoming::Binary)),
            }
        }
        Ok(None)
    }

    /// The next frame, and where its payload begins.
    fn next_frame(&mut self) -> Result<Option<(FrameHeader, BytesMut, usize)>, CloseReason> {
        let mut cursor = Cursor::new(&self.received);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::Malformed)?;
        let payload = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some((header, length)) = header else { return Ok(None) };
        if header.mask.is_none() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(CloseReason::Malformed);
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= self.max_message);
        let end = payload + length.ok_or(CloseReason::TooLarge)?;
        if self.received.len() < end {
            return Ok(None);
        }
        let frame = self.received.split_to(end);
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        Ok(Some((header, frame, payload)))
    }
}

/// Appends the frame of a client's text message, masked with zeros.
pub fn put_text_frame(text: &str, into: &mut BytesMut) {
    let header =
        FrameHeader { opcode: OpCode::Data(Data::Text), mask: Some([0; 4]), ..FrameHeader::default() };
    let mut head = Vec::with_capacity(14);
    // It writes to memory.
    let _infallible = header.format(text.len() as u64, &mut head);
    into.extend_from_slice(&head);
    into.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [first, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
    }

    fn all(bytes: &[u8], size: usize) -> Result<Vec<Incoming>, CloseReason> {
        let (mut frames, mut found) = (ClientFrames::new(100), Vec::new());
        for chunk in bytes.chunks(size) {
            frames.push(chunk);
            while let Some(incoming) = frames.next_incoming()? {
                found.push(incoming);
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_come_whole_however_they_were_cut() {
        let mask = [1, 2, 3, 4];
        let bytes = [
            frame(0x81, mask, b"one"),
            frame(0x01, mask, b"tw"),
            frame(0x89, [0; 4], b""),
            frame(0x80, mask, b"o"),
            frame(0x82, mask, b"\0"),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let found = all(&bytes, size).expect("all are frames");
            let text = |text: &str| Incoming::Text(text.into());
            let ping = Incoming::Control([0x89, 0x80, 0, 0, 0, 0][..].into());
            assert_eq!(found, [text("one"), ping, text("two"), Incoming::Binary]);
        }
    }

    #[test]
    fn what_is_no_frame_of_a_client_is_an_error() {
        let mask = [0; 4];
        for bytes in [
            vec![0x81, 1, b'3'],
            frame(0xc1, mask, b""),
            frame(0x83, mask, b""),
            frame(0x09, mask, b""),
            frame(0x80, mask, b""),
            [frame(0x01, mask, b""), frame(0x81, mask, b"")].concat(),
        ] {
            assert_eq!(all(&bytes, 1), Err(CloseReason::Malformed), "{bytes:?}");
        }
        let long = [frame(0x01, mask, &[b'x'; 60]), frame(0x80, mask, &[b'x'; 60])].concat();
        assert_eq!(all(&frame(0x81, mask, &[b'x'; 101]), 1), Err(CloseReason::TooLarge));
        assert_eq!(all(&long, 7), Err(CloseReason::TooLarge));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = BytesMut::new();
        put_text_frame("2probe", &mut bytes);
        put_text_frame(&"x".repeat(90), &mut bytes);
        let found = all(&bytes, 5).expect("both are frames");
        assert_eq!(found, [Incoming::Text("2probe".into()), Incoming::Text("x".repeat(90).as_str().into())]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, size in 1..20_usize) {
            let _ = all(&bytes, size);
        }
    }
}
