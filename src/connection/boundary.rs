//! Where one WebSocket frame ends and the next begins, in what a library writes to a connection: only there may
//! somebody else write (RFC 6455, section 5.4: the frames of two senders must not mix).

/// How the answer begins after which a connection is a WebSocket.
const SWITCHING: &[u8] = b"HTTP/1.1 101";

/// What ends the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The opcode with which a sender says that nothing more comes.
const CLOSE: u8 = 8;

/// Follows what a library writes.
#[derive(Debug, Default)]
pub struct Boundary {
    phase: Phase,
    /// How many bytes are still missing of the frame (or the head) that was begun.
    left: usize,
    /// Whether what was begun last is a close frame.
    closing: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Http,
    /// The answer that makes a WebSocket of it is on its way.
    Switching,
    Frames,
}

/// What is written is not what was expected of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected;

impl Boundary {
    /// Says that the library is about to write the answer that makes a WebSocket of the connection.
    pub fn switch(&mut self) {
        if self.phase == Phase::Http {
            self.phase = Phase::Switching;
        }
    }

    /// Whether the library speaks HTTP, and nothing else is about to begin.
    pub fn is_of_http(&self) -> bool {
        self.phase == Phase::Http
    }

    /// Whether the library writes frames by now.
    pub fn has_frames(&self) -> bool {
        self.phase == Phase::Frames
    }

    /// Whether a frame may be written by somebody else now.
    pub fn is_clear(&self) -> bool {
        self.has_frames() && self.left == 0 && !self.closing
    }

    /// How many of the bytes that the library wants to write now belong together: all of them as long as it speaks
    /// HTTP, otherwise what is left of a frame, or the next one.
    ///
    /// # Errors
    /// [`Unexpected`] where they do not begin with the head of a frame.
    pub fn unit(&mut self, offered: &[u8]) -> Result<usize, Unexpected> {
        if self.left == 0 {
            match self.phase {
                Phase::Http => return Ok(offered.len()),
                Phase::Switching => match find(offered, SWITCHING) {
                    Some(0) => {
                        self.left = find(offered, HEAD_END).ok_or(Unexpected)? + HEAD_END.len();
                        self.phase = Phase::Frames;
                    }
                    // What answered an earlier request goes first.
                    Some(before) => return Ok(before),
                    None => return Ok(offered.len()),
                },
                Phase::Frames => {
                    self.left = frame_len(offered).ok_or(Unexpected)?;
                    self.closing |= offered[0] & 0x0f == CLOSE;
                }
            }
        }
        Ok(self.left.min(offered.len()))
    }

    /// Notes that so many bytes of the unit have been written.
    pub fn advance(&mut self, written: usize) {
        self.left = self.left.saturating_sub(written);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The length of a server's frame, its head included; `None` for less than a head.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let length = *bytes.get(1)? & 0x7f;
    let long = |count: usize| {
        let bytes = bytes.get(2..2 + count)?;
        let length = bytes.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
        usize::try_from(length).ok()?.checked_add(2 + count)
    };
    match length {
        126 => long(2),
        127 => long(8),
        short => Some(2 + usize::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::text_frame;
    use proptest::prelude::*;

    fn written(chunks: &[&[u8]], sizes: &mut impl Iterator<Item = usize>) -> Vec<usize> {
        let mut boundary = Boundary::default();
        boundary.switch();
        let (mut clear, mut total) = (Vec::new(), 0);
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let unit = boundary.unit(rest).unwrap();
                let count = sizes.next().unwrap_or(usize::MAX).clamp(1, unit);
                boundary.advance(count);
                rest = &rest[count..];
                total += count;
                if boundary.is_clear() {
                    clear.push(total);
                }
            }
        }
        clear
    }

    #[test]
    fn a_head_comes_before_frames_and_answers_before_the_head() {
        let before = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\r\n\r\n".as_slice();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n".as_slice();
        let both = [before, head].concat();
        let ends = written(&[&both, &text_frame(&[b"2"])], &mut std::iter::empty());
        assert_eq!(ends, [both.len(), both.len() + 3]);
    }

    #[test]
    fn nothing_goes_after_a_close_frame() {
        let head = b"HTTP/1.1 101 x\r\n\r\n".as_slice();
        assert_eq!(written(&[head, &[0x88, 0]], &mut std::iter::empty()), [head.len()]);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut boundary = Boundary { phase: Phase::Frames, ..Boundary::default() };
        assert_eq!(boundary.unit(&[0x81]), Err(Unexpected));
        assert_eq!(boundary.unit(&[0x81, 126, 0]), Err(Unexpected));
    }

    proptest! {
        #[test]
        fn clear_is_where_frames_end_however_they_are_cut(
            lengths in prop::collection::vec(prop_oneof![0usize..300, 65_500..65_600usize], 1..8),
            sizes in prop::collection::vec(1usize..70_000, 0..40),
        ) {
            let head = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
            let frames: Vec<_> = lengths.iter().map(|length| text_frame(&[&vec![b'x'; *length]])).collect();
            let mut ends = vec![head.len()];
            for frame in &frames {
                ends.push(ends[ends.len() - 1] + frame.len());
            }
            let all = frames.concat();
            prop_assert_eq!(written(&[&head, &all], &mut sizes.into_iter()), ends);
        }
    }
}
