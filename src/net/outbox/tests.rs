//! Frames of two writers on one connection.

use std::net::SocketAddr;

use prometheus_client::metrics::family::Family;
use proptest::{prelude::*, test_runner::TestRunner};
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::*;
use crate::{budget::Budget, net::text_frame, tasks::Tasks};

const LIMITS: Limits = Limits { frames: 1000, bytes: 1 << 20 };

fn supervisor(budget: &Budget) -> Arc<Supervisor> {
    Supervisor::start(&Tasks::new(), budget, 1024, Family::default())
}

async fn connected_by(supervisor: &Arc<Supervisor>) -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
    let place = Place::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(), None);
    let outbox = Outbox::new(Stream::new(stream, Duration::from_secs(20)), supervisor.clone(), place);
    outbox.start_websocket();
    (Arc::new(outbox), peer)
}

async fn connected() -> (Arc<Outbox>, TcpStream) {
    connected_by(&supervisor(&Budget::new(1 << 30))).await
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
    outbox.write_frames(&[frame("first", 0), mark, frame("ping", 0)].concat()).unwrap();
    assert_eq!(texts(&mut peer, 3).await, ["first", "direct", "ping"]);
    assert_eq!(outbox.pending_bytes(), 0);
}

#[tokio::test]
async fn http_allows_no_direct_writes() {
    let (outbox, _peer) = connected().await;
    outbox.state().mode = Mode::Http;
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
                library.write_frames(&mark).unwrap();
                for frame in written {
                    library.write_frames(&frame).unwrap();
                    tokio::task::yield_now().await;
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

/// Frames that the socket does not take, whose peer reads nothing.
fn many_frames() -> Vec<Bytes> {
    (0..2000).map(|number| frame(&number.to_string(), 3000)).collect()
}

#[tokio::test]
async fn the_library_never_waits_and_what_waits_counts_against_the_budget_until_it_is_written() {
    let budget = Budget::new(1 << 30);
    let (outbox, mut peer) = connected_by(&supervisor(&budget)).await;
    let frames = many_frames();
    for frame in &frames {
        assert_eq!(outbox.write_frames(frame).unwrap(), frame.len());
    }
    assert!(outbox.pending_bytes() > 0 && budget.used() >= outbox.pending_bytes());
    let names: Vec<_> = (0..frames.len()).map(|number| number.to_string()).collect();
    assert_eq!(texts(&mut peer, frames.len()).await, names);
    while outbox.pending_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn nothing_follows_a_close_frame() {
    let (outbox, mut peer) = connected().await;
    let mark = frame("mark", 0);
    outbox.write_directly_after(mark.clone());
    outbox.write_frames(&[&mark[..], &frame("last", 0), &[0x88, 0]].concat()).unwrap();
    assert_eq!(outbox.push(&frame("late", 0), 1, LIMITS), Push::Closed);
    assert_eq!(texts(&mut peer, 1).await, ["last"]);
    assert_eq!(peer.read_u16().await.unwrap(), 0x8800);
}

#[tokio::test]
async fn what_waits_is_still_written_when_the_library_is_gone() {
    let (outbox, mut peer) = connected().await;
    let frames = many_frames();
    outbox.write_frames(&frames.concat()).unwrap();
    outbox.release();
    assert!(!outbox.is_open() && outbox.pending_bytes() > 0);
    assert_eq!(outbox.push(&frame("late", 0), 1, LIMITS), Push::Closed);
    assert_eq!(texts(&mut peer, frames.len()).await.len(), frames.len());
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "it ends");
}

#[tokio::test]
async fn events_go_on_without_a_mark_that_does_not_come() {
    let (outbox, mut peer) = connected().await;
    outbox.write_directly_after(frame("mark", 0));
    assert_eq!(outbox.push(&frame("direct", 0), 1, LIMITS), Push::Queued);
    outbox.flush();
    let soon = Instant::now();
    assert!(matches!(outbox.look_after(soon, 1), Some(Waiting::Bytes { all: 8, .. })));
    assert!(outbox.look_after(soon + MARK_PATIENCE * 2, 1).is_none());
    assert_eq!(texts(&mut peer, 1).await, ["direct"]);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut_and_so_is_what_lingers() {
    let (outbox, _peer) = connected().await;
    outbox.state().mode = Mode::Http;
    let bytes = [0; 64 * 1024];
    let all_taken = std::future::poll_fn(|context| {
        while outbox.poll_write(context, bytes.len(), |stream| stream.try_write(&bytes))?.is_ready() {}
        Poll::Ready(io::Result::Ok(()))
    });
    all_taken.await.unwrap();
    let start = Instant::now();
    assert!(matches!(outbox.look_after(start, 1), Some(Waiting::Bytes { shared: 0, .. })));
    outbox.reading.set_phase(Phase::Streaming);
    let window = start + RATE_WINDOW * 2;
    assert!(matches!(outbox.look_after(window, 1), Some(Waiting::Bytes { .. })), "a stream has longer");
    outbox.reading.set_phase(Phase::Answering);
    assert!(matches!(outbox.look_after(window, 1), Some(Waiting::Cut)));
    assert!(!outbox.is_open());

    let (outbox, _peer) = connected().await;
    outbox.write_frames(&many_frames().concat()).unwrap();
    outbox.release();
    assert!(matches!(outbox.look_after(start, 1), Some(Waiting::Bytes { .. })));
    assert!(matches!(outbox.look_after(start + LINGER * 2, 1), Some(Waiting::Cut)));
}

#[tokio::test]
async fn beyond_the_budget_the_greediest_is_cut_and_frames_that_are_shared_count_once() {
    let budget = Budget::new(8 << 20);
    let supervisor = supervisor(&budget);
    let (honest, mut honest_peer) = connected_by(&supervisor).await;
    let (greedy, _greedy_peer) = connected_by(&supervisor).await;
    let mut sharing = Vec::new();
    let shared = frame("shared", 1 << 20);
    for _ in 0..16 {
        let (outbox, peer) = connected_by(&supervisor).await;
        outbox.write_directly_after(frame("mark", 0));
        outbox.write_frames(&frame("mark", 0)).unwrap();
        (0..3).for_each(|_| {
            assert_eq!(outbox.push(&shared, 1, Limits { frames: 9, bytes: 1 << 30 }), Push::Queued)
        });
        outbox.flush();
        sharing.push((outbox, peer));
    }
    honest.write_frames(&frame("honest", 3 << 20)).unwrap();
    greedy.write_frames(&frame("greedy", 16 << 20)).unwrap();
    while greedy.is_open() {
        tokio::task::yield_now().await;
    }
    assert!(honest.is_open() && sharing.iter().all(|(outbox, _)| outbox.is_open()));
    let mut first = [0; 2];
    honest_peer.read_exact(&mut first).await.unwrap();
    assert_eq!(first, [0x81, 127]);
}
