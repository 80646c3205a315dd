//! Where one WebSocket frame ends and the next begins, in what a library writes to a connection: only there may
//! somebody else write (RFC 6455, section 5.4: the frames of two senders must not mix).

/// The opcode with which a sender says that nothing more comes.
const CLOSE: u8 = 8;

/// Follows what a library writes to a WebSocket.
#[derive(Debug, Default)]
pub struct Boundary {
    /// How many bytes are still missing of the frame that was begun.
    left: usize,
    /// Whether what was begun last is a close frame.
    closing: bool,
}

/// What a library wrote is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoFrame;

impl Boundary {
    /// Whether a frame may be written by somebody else now.
    pub fn is_clear(&self) -> bool {
        self.left == 0 && !self.closing
    }

    /// How many of the bytes that the library wants to write now belong together: what is left of a frame, or the next
    /// one.
    ///
    /// # Errors
    /// [`NoFrame`] where they do not begin with the head of a frame.
    pub fn unit(&mut self, offered: &[u8]) -> Result<usize, NoFrame> {
        if self.left == 0 {
            self.left = frame_len(offered).ok_or(NoFrame)?;
            self.closing |= offered[0] & 0x0f == CLOSE;
        }
        Ok(self.left.min(offered.len()))
    }

    /// Notes that so many bytes of the unit have been written.
    pub fn advance(&mut self, written: usize) {
        self.left = self.left.saturating_sub(written);
    }
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

    /// Writes all of the bytes in pieces, and answers after how many somebody else might have written.
    fn written(bytes: &[u8], pieces: &mut impl Iterator<Item = usize>) -> Vec<usize> {
        let (mut boundary, mut clear, mut total) = (Boundary::default(), Vec::new(), 0);
        while total < bytes.len() {
            let unit = boundary.unit(&bytes[total..]).unwrap();
            let count = pieces.next().unwrap_or(usize::MAX).clamp(1, unit);
            boundary.advance(count);
            total += count;
            if boundary.is_clear() {
                clear.push(total);
            }
        }
        clear
    }

    #[test]
    fn nothing_goes_after_a_close_frame() {
        let both = [text_frame(&[b"2"]).as_ref(), &[0x88, 0]].concat();
        assert_eq!(written(&both, &mut std::iter::empty()), [3]);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut boundary = Boundary::default();
        assert_eq!(boundary.unit(&[0x81]), Err(NoFrame));
        assert_eq!(boundary.unit(&[0x81, 126, 0]), Err(NoFrame));
    }

    proptest! {
        #[test]
        fn clear_is_where_frames_end_however_they_are_cut(
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
