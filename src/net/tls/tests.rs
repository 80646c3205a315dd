//! A stream with TLS, against a client of the library.

use std::{
    future::poll_fn,
    net::Shutdown,
    sync::mpsc,
    task::{Context, Waker},
    thread::JoinHandle,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use socket2::SockRef;
use tokio::net::TcpListener;

use super::*;
use crate::net::{
    certificate::{Tls, tests::make},
    stream::Stream,
};

type Client = StreamOwned<ClientConnection, std::net::TcpStream>;

/// A stream after its handshake, and the thread of its client.
async fn connected<T: Send + 'static>(
    work: impl FnOnce(Client) -> T + Send + 'static,
) -> (Stream, JoinHandle<T>) {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = make(folder.path(), "pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
    let thread = std::thread::spawn(move || {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let socket = std::net::TcpStream::connect(address).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        let mut client = StreamOwned::new(connection, socket);
        client.conn.complete_io(&mut client.sock).unwrap();
        work(client)
    });
    let (socket, _) = listener.accept().await.unwrap();
    SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
    let config = Tls::load(&cert, &key).unwrap().config();
    let stream = Stream::new(socket, Duration::from_secs(20)).with_tls(config).unwrap();
    stream.handshake().await.unwrap();
    (stream, thread)
}

fn is_readable(stream: &Stream) -> bool {
    stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_ready()
}

async fn read(stream: &Stream, into: &mut [u8]) -> usize {
    loop {
        poll_fn(|context| stream.poll_read_ready(context)).await.unwrap();
        match stream.try_read(into) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome.unwrap(),
        }
    }
}

#[tokio::test]
async fn what_the_socket_does_not_take_counts_as_not_written_and_comes_once() {
    let (begin, may_read) = mpsc::channel::<()>();
    let (stream, client) = connected(move |mut client| {
        may_read.recv().unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    })
    .await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let write = |from: usize| {
        let slices: Vec<_> = bytes[from..].chunks(777).take(MAX_SLICES + 9).map(IoSlice::new).collect();
        stream.try_write_vectored(&slices)
    };
    let mut written = 0;
    let full = loop {
        match write(written) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert!((1..=MAX_HELD).contains(&stream.held()), "{} are held", stream.held());
    begin.send(()).unwrap();
    while written < bytes.len() {
        match write(written) {
            Ok(count) => written += count,
            Err(_) => stream.writable().await.unwrap(),
        }
    }
    assert_eq!(stream.held(), 0);
    stream.end(Shutdown::Write);
    assert!(client.join().unwrap() == bytes, "the bytes that came are not those that were written");
}

#[tokio::test]
async fn what_is_decrypted_can_be_read_whatever_the_socket_has_and_so_can_the_end() {
    let (done, may_go) = mpsc::channel::<()>();
    let (stream, client) = connected(move |mut client| {
        client.write_all(b"hello").unwrap();
        client.conn.send_close_notify();
        client.conn.complete_io(&mut client.sock).unwrap();
        // The socket stays open.
        may_go.recv().unwrap();
    })
    .await;
    let (mut two, mut all) = ([0; 2], [0; 9]);
    assert_eq!(read(&stream, &mut two).await, 2);
    assert!(is_readable(&stream));
    assert_eq!(read(&stream, &mut all).await, 3);
    assert_eq!((&two, &all[..3]), (b"he", &b"llo"[..]));
    for _ in 0..2 {
        assert_eq!(read(&stream, &mut all).await, 0);
        assert!(is_readable(&stream));
    }
    done.send(()).unwrap();
    client.join().unwrap();
}

#[tokio::test]
async fn what_is_no_tls_is_an_error() {
    let (begin, may_write) = mpsc::channel::<()>();
    let (stream, client) = connected(move |mut client| {
        // What comes with the end of the handshake would be part of it.
        may_write.recv().unwrap();
        client.sock.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    })
    .await;
    begin.send(()).unwrap();
    client.join().unwrap();
    let error = loop {
        poll_fn(|context| stream.poll_read_ready(context)).await.unwrap();
        match stream.try_read(&mut [0; 9]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => break outcome.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}
