//! Frames and packets as servers send them, whole, cut and damaged.

use super::*;

fn event(names: &Names, job: u32, sent: u64, seq: u64) -> Vec<u8> {
    let id = names.job(job);
    format!(
        r#"42/jobs,["job:progress",{{"event":"job:progress","jobId":"{id}","status":"in_progress","progress":42,"message":"{sent:012} pad","userId":"u","timestamp":"2026-01-01T00:00:00.000Z","seq":{seq}}}]"#
    )
    .into_bytes()
}

/// A server's frame: like a client's, but bare.
fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut masked = Vec::new();
    put_frame(&mut masked, opcode, payload);
    let head = masked.len() - payload.len() - 4;
    let mut bare = masked[..head].to_vec();
    bare[1] &= 0x7f;
    bare.extend_from_slice(payload);
    bare
}

#[test]
fn a_delivery_is_read() {
    let names = Names::fresh();
    let expected = Delivery { job: 7, seq: 1_764_000_000_001, sent: 1_234_567, position: None };
    assert_eq!(packet(&event(&names, 7, 1_234_567, 1_764_000_000_001), &names), Packet::Delivery(expected));
}

#[test]
fn events_of_other_runs_are_nobodys() {
    let (ours, theirs) = (Names::fresh(), Names::fresh());
    assert_eq!(packet(&event(&theirs, 7, 1, 2), &ours), Packet::Other);
}

#[test]
fn packets_are_told_apart() {
    let names = Names::fresh();
    let told = |text: &'static str| packet(text.as_bytes(), &names);
    assert_eq!(told(r#"0{"sid":"x","pingInterval":25000}"#), Packet::Open);
    assert_eq!(told("1"), Packet::Closed);
    assert_eq!(told("2"), Packet::Ping);
    assert_eq!(told("6"), Packet::Other);
    assert_eq!(told(""), Packet::Other);
    assert_eq!(told(r#"40/jobs,{"sid":"x"}"#), Packet::Joined);
    assert_eq!(told("41/jobs,"), Packet::Refused);
    assert_eq!(told(r#"44/jobs,{"message":"no"}"#), Packet::Refused);
    assert_eq!(told(r#"43/jobs,1[{"success":true}]"#), Packet::Answer(br#"[{"success":true}]"#));
    let gap = r#"42/jobs,["job:gap",{"jobId":"b","from":5,"to":9}]"#;
    assert_eq!(told(gap), Packet::Gap { from: 5, to: 9 });
    assert_eq!(told(r#"42/jobs,["server:draining",{"reconnectAfter":5}]"#), Packet::Other);
}

#[test]
fn a_delivery_of_a_shared_room_has_its_place() {
    let names = Names::fresh();
    let mut text = event(&names, 7, 1_234_567, 99);
    text.pop();
    text.extend_from_slice(br#",{"user:u-x-00001":"1795892034735-12"}]"#);
    let position = Some(Position { millis: 1_795_892_034_735, number: 12 });
    assert_eq!(
        packet(&text, &names),
        Packet::Delivery(Delivery { job: 7, seq: 99, sent: 1_234_567, position })
    );
    let gap = br#"42/jobs,["job:gap",{"jobId":"b","from":5,"to":5},{"all-jobs":"1795892034735-1"}]"#;
    assert_eq!(packet(gap, &names), Packet::Gap { from: 5, to: 5 });
}

#[test]
fn a_subscription_is_a_success_or_not() {
    let plain = Subscribed { replaying: 0, position: None };
    assert_eq!(subscribed(br#"[{"success":true,"room":"job:b","latest":null}]"#), Some(plain));
    assert_eq!(subscribed(br#"[{"success":true,"latest":[{"seq":4}]}]"#), Some(plain));
    let resumed = Subscribed { replaying: 7, position: Some(Position { millis: 5, number: 0 }) };
    assert_eq!(
        subscribed(br#"[{"success":true,"latest":[],"position":"5-0","replaying":7}]"#),
        Some(resumed)
    );
    assert_eq!(subscribed(br#"[{"success":false,"error":{"code":"forbidden"}}]"#), None);
    assert_eq!(subscribed(b"[]"), None);
}

#[test]
fn answers_to_publishers_name_numbers() {
    let batch =
        br#"{"results":[{"jobId":"a","seq":5,"timestamp":"t"},{"jobId":"b","seq":6,"timestamp":"t"}]}"#;
    assert_eq!(numbers(batch).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(numbers(br#"{"error":"no"}"#).count(), 0);
}

#[test]
fn frames_are_found_wherever_the_network_cuts_them() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let wire = server_frame(0x1, &payload);
        for cut in (0..wire.len().min(20)).chain(wire.len().saturating_sub(5)..wire.len()) {
            assert_eq!(frame(&wire[..cut]), Ok(None), "{length} cut at {cut}");
        }
        let mut more = wire.clone();
        more.extend_from_slice(b"the next frame");
        assert_eq!(frame(&more), Ok(Some((Frame::Text(&payload), wire.len()))));
    }
}

#[test]
fn a_stream_of_frames_is_the_same_whatever_the_reads() {
    let frames: Vec<_> =
        (0..50).map(|n| server_frame(0x1, &vec![b'a'; fastrand::usize(..300) + n])).collect();
    let stream = frames.concat();
    for _ in 0..50 {
        let (mut read, mut kept, mut found) = (0, Vec::new(), Vec::new());
        while read < stream.len() {
            let until = (read + fastrand::usize(1..400)).min(stream.len());
            kept.extend_from_slice(&stream[read..until]);
            read = until;
            while let Some((Frame::Text(payload), length)) = frame(&kept).unwrap() {
                found.push(payload.len());
                kept.drain(..length);
            }
        }
        assert!(kept.is_empty());
        assert_eq!(
            found,
            frames.iter().map(|f| f.len() - if f.len() > 127 { 4 } else { 2 }).collect::<Vec<_>>()
        );
    }
}

#[test]
fn what_a_server_must_not_send_is_an_error() {
    assert!(frame(&[0x01, 0x00]).is_err(), "fragmented");
    assert!(frame(&[0xc1, 0x00]).is_err(), "compressed");
    assert!(frame(&[0x81, 0x80]).is_err(), "masked");
    assert_eq!(frame(&server_frame(0x9, b"hi")), Ok(Some((Frame::Ping(b"hi"), 4))));
    assert_eq!(frame(&server_frame(0x8, &[])), Ok(Some((Frame::Close, 2))));
}

#[test]
fn a_clients_frames_are_masked() {
    for length in [0, 5, 125, 126, 70_000] {
        let payload: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        let mut out = Vec::new();
        put_text(&mut out, &payload);
        assert_eq!(out[0], 0x81);
        assert_eq!(out[1] & 0x80, 0x80);
        let body = out.split_off(out.len() - length);
        let mask = &out[out.len() - 4..];
        let bare: Vec<u8> = body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(bare, payload);
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let names = Names::fresh();
    let sample = event(&names, 7, 1, 2);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = sample[..fastrand::usize(..=sample.len())].to_vec();
        for _ in 0..fastrand::usize(..4).min(bytes.len()) {
            let at = fastrand::usize(..bytes.len());
            bytes[at] = fastrand::u8(..);
        }
        let _ = (packet(&bytes, &names), frame(&bytes).is_ok(), subscribed(&bytes), numbers(&bytes).count());
    }
}
