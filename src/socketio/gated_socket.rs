//! The stream that socketioxide gets in place of a client's WebSocket. It brings the packets that pass the gate.

use std::{
    borrow::Cow,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    admission::Slot,
    client_frames::{ClientFrames, Incoming, put_text_frame},
    gate::{Closing, Gate},
};
use crate::{gateway::CloseReason, net::text_frame};

/// How many bytes are read at once.
const READ: usize = 2048;

/// A client's WebSocket whose incoming packets are judged by a [`Gate`].
pub struct GatedSocket<S> {
    stream: S,
    frames: ClientFrames,
    gate: Gate,
    /// Frames that passed, for socketioxide.
    passed: BytesMut,
    /// What socketioxide is expected to write next, and the client has got already.
    written_before: Bytes,
    /// Until the first message has come.
    slot: Option<Slot>,
    closing: Closing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> GatedSocket<S> {
    pub fn new(stream: S, gate: Gate, max_message: usize, slot: Option<Slot>, closing: Closing) -> Self {
        Self {
            stream,
            frames: ClientFrames::new(max_message),
            gate,
            passed: BytesMut::new(),
            written_before: Bytes::new(),
            slot,
            closing,
        }
    }

    /// Waits for the first message of a client that asks for an upgrade. Says whether it is this one.
    pub async fn expect(&mut self, packet: &[u8]) -> bool {
        loop {
            match self.frames.next_incoming() {
                Ok(Some(Incoming::Text(text))) => return text == packet,
                Ok(Some(Incoming::Control(_))) => {}
                Ok(Some(Incoming::Binary)) | Err(_) => return false,
                Ok(None) => {
                    let mut chunk = [0; 256];
                    match self.stream.read(&mut chunk).await {
                        Ok(count @ 1..) => self.frames.push(&chunk[..count]),
                        Ok(0) | Err(_) => return false,
                    }
                }
            }
        }
    }

    /// Writes a packet past socketioxide. Says whether that succeeded.
    pub async fn say(&mut self, packet: &[u8]) -> bool {
        self.stream.write_all(&text_frame(&[packet])).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Has socketioxide read packets that the client has sent already, and keeps from the client what it answers.
    pub fn replay(&mut self, packets: &[&str], answer: &[u8]) {
        packets.iter().for_each(|packet| put_text_frame(packet, &mut self.passed));
        self.written_before = text_frame(&[answer]);
    }

    /// Moves all that is complete through the gate.
    fn judge(&mut self) -> Result<(), CloseReason> {
        while let Some(incoming) = self.frames.next_incoming()? {
            match incoming {
                Incoming::Text(text) => {
                    if let Some(slot) = self.slot.take() {
                        slot.follow_up();
                    }
                    let text = std::str::from_utf8(&text).map_err(|_| CloseReason::Malformed)?;
                    if let Some(packet) = self.gate.text(text)? {
                        put_text_frame(&Cow::into_owned(packet), &mut self.passed);
                    }
                }
                Incoming::Binary => self.gate.binary()?,
                Incoming::Control(frame) => {
                    if self.gate.count()? {
                        self.passed.extend_from_slice(&frame);
                    }
                }
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GatedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed.is_empty() {
            let mut chunk = [0; READ];
            let mut read = ReadBuf::new(&mut chunk);
            // What came with the last message of a probe waits here already.
            if let Err(reason) = this.judge() {
                this.closing.close(reason);
                return Poll::Ready(Err(ErrorKind::InvalidData.into()));
            }
            if !this.passed.is_empty() {
                break;
            }
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.frames.push(read.filled());
        }
        let count = this.passed.len().min(buffer.remaining());
        buffer.put_slice(&this.passed[..count]);
        this.passed.advance(count);
        if this.passed.is_empty() {
            this.passed = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GatedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.written_before.is_empty() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        let count = self.written_before.len().min(bytes.len());
        if self.written_before[..count] != bytes[..count] {
            tracing::error!("socketioxide answers a probe otherwise than it did when this was written");
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        }
        self.written_before.advance(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
