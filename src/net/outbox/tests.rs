//! Frames of two writers on one connection.

use std::{future::poll_fn, net::SocketAddr};

use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;
use crate::net::text_frame;

const LIMITS: Limits = Limits { frames: 1000, bytes: 1 << 20 };

async fn connected() -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
    let outbox = Arc::new(Outbox::new(stream, Tasks::new()));
    outbox.start_websocket();
    (outbox, peer)
}

/// Writes as a library does: offers everything, and goes on from where a write stopped.
async fn write_all(outbox: &Arc<Outbox>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = poll_fn(|context| outbox.poll_write_frames(context, bytes)).await.unwrap();
        bytes = &bytes[count..];
    }
}

/// The texts of the next `count` frames.
async fn texts(peer: &mut TcpStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        assert_eq!(peer.read_u8().await.unwrap(), 0x81, "a frame begins after {texts:?}");
        let length = match peer.read_u8().await.unwrap() {
            126 => peer.read_u16().await.unwrap().into(),
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        peer.read_exact(&mut text).await.unwrap();
        texts.push(String::from_utf8(text).unwrap().trim_end_matches('x').to_owned());
    }
    texts
}

fn frame(name: &str, padding: usize) -> Bytes {
    text_frame(&[name.as_bytes(), "x".repeat(padding).as_bytes()])
}

#[tokio::test]
async fn the_mark_is_not_sent_and_what_came_before_it_goes_first() {
    let (outbox, mut peer) = connected().await;
    let mark = frame("mark", 0);
    assert!(outbox.write_directly_after(mark.clone()));
    assert_eq!(outbox.push(&frame("direct", 0), 1, LIMITS), Push::Queued);
    outbox.flush();
    write_all(&outbox, &[frame("first", 0), mark, frame("ping", 0)].concat()).await;
    assert_eq!(texts(&mut peer, 3).await, ["first", "direct", "ping"]);
    assert_eq!(outbox.pending_bytes(), 0);
}

#[tokio::test]
async fn http_allows_no_direct_writes() {
    let (outbox, _peer) = connected().await;
    outbox.state().direct = DirectWrites::Unavailable;
    assert!(!outbox.write_directly_after(frame("mark", 0)));
}

#[tokio::test]
async fn the_queue_is_bounded_in_frames_and_bytes() {
    let (outbox, _peer) = connected().await;
    let few = Limits { frames: 3, bytes: 100 };
    assert_eq!(outbox.push(&frame("large", 200), 1, few), Push::Queued, "nothing else waits");
    assert_eq!(outbox.push(&frame("more", 0), 1, few), Push::Full);
    let (outbox, _peer) = connected().await;
    let two = [frame("a", 0), frame("b", 0)].concat().into();
    assert_eq!(outbox.push(&two, 2, few), Push::Queued);
    assert_eq!(outbox.push(&two, 2, few), Push::Full);
    assert_eq!(outbox.push(&frame("c", 0), 1, few), Push::Queued);
    outbox.abort();
    assert_eq!(outbox.push(&frame("d", 0), 1, LIMITS), Push::Closed);
}

/// A random interleaving of two writers, with the lengths of their frames. `true` is a direct write.
fn turns() -> impl Strategy<Value = Vec<(bool, usize)>> {
    prop::collection::vec((any::<bool>(), prop_oneof![0usize..100, 3000..9000usize]), 1..60)
}

#[test]
fn frames_of_two_writers_never_mix_and_keep_their_order() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
    let outcome = runner.run(&turns(), |turns| {
        runtime.block_on(async {
            let (outbox, mut peer) = connected().await;
            let mark = frame("mark", 0);
            outbox.write_directly_after(mark.clone());
            let named = |own| turns.iter().enumerate().filter(move |(_, (direct, _))| *direct == own);
            let names = |own| named(own).map(|(place, _)| place.to_string()).collect::<Vec<_>>();
            let frames = |own| named(own).map(|(place, (_, length))| frame(&place.to_string(), *length));
            let (library, fan_out) = (outbox.clone(), outbox.clone());
            let (written, direct): (Vec<_>, Vec<_>) = (frames(false).collect(), frames(true).collect());
            let library = tokio::spawn(async move {
                write_all(&library, &mark).await;
                for frame in written {
                    write_all(&library, &frame).await;
                }
            });
            let fan_out = tokio::spawn(async move {
                for frame in direct {
                    assert_eq!(fan_out.push(&frame, 1, LIMITS), Push::Queued);
                    fan_out.flush();
                    tokio::task::yield_now().await;
                }
            });
            let got = texts(&mut peer, turns.len()).await;
            library.await.unwrap();
            fan_out.await.unwrap();
            let of = |own: bool| {
                let is_own = |text: &&String| turns[text.parse::<usize>().unwrap()].0 == own;
                got.iter().filter(is_own).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(of(true), names(true));
            prop_assert_eq!(of(false), names(false));
            Ok(())
        })
    });
    outcome.unwrap();
}
