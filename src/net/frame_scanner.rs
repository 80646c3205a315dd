//! Finds frame boundaries in the bytes that the WebSocket library writes. Other frames may be written only there (RFC
//! 6455, section 5.4).

/// The opcode of a close frame. No frame may follow it.
const CLOSE: u8 = 8;

/// Tracks where in a frame the WebSocket library is.
#[derive(Debug, Default)]
pub struct FrameScanner {
    /// The bytes of the current frame that are still to come.
    remaining: usize,
    /// Whether the last frame is a close frame.
    close_seen: bool,
}

/// The bytes do not begin with the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFrame;

impl FrameScanner {
    /// Whether another frame may be written now.
    pub fn is_between_frames(&self) -> bool {
        self.remaining == 0 && !self.close_seen
    }

    /// How many of the offered bytes belong to the current frame, or to the next one.
    ///
    /// # Errors
    /// [`NotAFrame`] if they do not begin with the head of a frame.
    pub fn next_chunk(&mut self, offered: &[u8]) -> Result<usize, NotAFrame> {
        if self.remaining == 0 {
            self.remaining = frame_len(offered).ok_or(NotAFrame)?;
            self.close_seen |= offered[0] & 0x0f == CLOSE;
        }
        Ok(self.remaining.min(offered.len()))
    }

    /// Notes that `written` bytes of the chunk have been written.
    pub fn advance(&mut self, written: usize) {
        self.remaining = self.remaining.saturating_sub(written);
    }
}

/// The length of a server's frame including its head. `None` if the head is incomplete.
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
    use crate::net::text_frame;
    use proptest::prelude::*;

    /// Writes all bytes in pieces, and returns the offsets at which another frame might have been written.
    fn written(bytes: &[u8], pieces: &mut impl Iterator<Item = usize>) -> Vec<usize> {
        let (mut scanner, mut boundaries, mut total) = (FrameScanner::default(), Vec::new(), 0);
        while total < bytes.len() {
            let chunk = scanner.next_chunk(&bytes[total..]).unwrap();
            let count = pieces.next().unwrap_or(usize::MAX).clamp(1, chunk);
            scanner.advance(count);
            total += count;
            if scanner.is_between_frames() {
                boundaries.push(total);
            }
        }
        boundaries
    }

    #[test]
    fn nothing_goes_after_a_close_frame() {
        let both = [text_frame(&[b"2"]).as_ref(), &[0x88, 0]].concat();
        assert_eq!(written(&both, &mut std::iter::empty()), [3]);
    }

    #[test]
    fn bytes_without_a_head_are_an_error() {
        let mut scanner = FrameScanner::default();
        assert_eq!(scanner.next_chunk(&[0x81]), Err(NotAFrame));
        assert_eq!(scanner.next_chunk(&[0x81, 126, 0]), Err(NotAFrame));
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            lengths in prop::collection::vec(prop_oneof![0usize..300, 65_500..65_600usize], 1..8),
            pieces in prop::collection::vec(1usize..70_000, 0..40),
        ) {
            let frames: Vec<_> = lengths.iter().map(|length| text_frame(&[&vec![b'x'; *length]])).collect();
            let mut ends = Vec::new();
            for frame in &frames {
                ends.push(ends.last().unwrap_or(&0) + frame.len());
            }
            prop_assert_eq!(written(&frames.concat(), &mut pieces.into_iter()), ends);
        }
    }
}
