//! Both modes, to the byte.

#![allow(clippy::unwrap_used)]

mod by_hand;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
};

use by_hand::{Publisher, Watcher};

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(mode: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_jobcast-limits"))
            .arg(mode)
            .env_remove("PORT")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("it listens").to_owned();
        Self { process, address }
    }

    fn watcher(&self, rooms: &[(&str, &str)]) -> Watcher {
        let mut watcher = Watcher::connect(&self.address);
        for (payload, room) in rooms {
            watcher.subscribe(payload, room);
        }
        watcher
    }

    fn publisher(&self) -> Publisher {
        Publisher::connect(&self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _may_have_ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// What a publisher is answered for one event.
#[derive(Debug)]
struct Answer {
    job: String,
    seq: u64,
    timestamp: String,
}

impl Answer {
    fn read(json: &serde_json::Value) -> Self {
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Self { job: text("jobId"), seq: json["seq"].as_u64().unwrap(), timestamp: text("timestamp") }
    }

    /// What watchers get of the event, with these fields between its status and its timestamp.
    fn packet(&self, fields: &str) -> String {
        let Answer { job, seq, timestamp } = self;
        format!(
            r#"42/jobs,["job:progress",{{"event":"job:progress","jobId":"{job}","status":"in_progress",{fields},"timestamp":"{timestamp}","seq":{seq}}}]"#
        )
    }
}

fn publish_one(publisher: &mut Publisher, job: &str, body: &str) -> Answer {
    Answer::read(&publisher.publish(&format!("/api/jobs/{job}/progress"), body))
}

fn publish_batch(publisher: &mut Publisher, events: &[String]) -> Vec<Answer> {
    let answer = publisher.publish("/api/events", &format!("[{}]", events.join(",")));
    answer["results"].as_array().unwrap().iter().map(Answer::read).collect()
}

fn whole(job: &str, fields: &str) -> String {
    format!(r#"{{"event":"job:progress","jobId":"{job}",{fields}}}"#)
}

/// Nothing more was sent to it: what comes next is the answer to a ping of its own.
fn has_all(mut watcher: Watcher) {
    watcher.0.get_mut().write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
    let mut pong = [0; 2];
    watcher.0.read_exact(&mut pong).unwrap();
    assert_eq!(pong, [0x8a, 0]);
}

fn in_both_modes(test: impl Fn(&Server)) {
    for mode in ["write", "coalesce"] {
        test(&Server::start(mode));
    }
}

const JOB: (&str, &str) = (r#"{"jobId":"j"}"#, "job:j");
const USER: (&str, &str) = (r#"{"userId":"u"}"#, "user:u");
const ALL_JOBS: (&str, &str) = ("{}", "all-jobs");
const OTHER_JOB: (&str, &str) = (r#"{"jobId":"other"}"#, "job:other");

#[test]
fn an_event_reaches_its_rooms() {
    in_both_modes(|server| {
        let mut of_job = server.watcher(&[JOB]);
        let mut of_user = server.watcher(&[USER]);
        let mut of_all = server.watcher(&[ALL_JOBS]);
        let of_other = server.watcher(&[OTHER_JOB]);
        let mut publisher = server.publisher();

        let first =
            publish_one(&mut publisher, "j", r#"{"progress":42.50,"message":"é \"x\"","userId":"u"}"#);
        let second = publish_one(&mut publisher, "j", r#"{ "progress" : 7 }"#);
        assert_eq!(second.seq, first.seq + 1);
        assert!(first.seq > 1_700_000_000_000);
        let first = first.packet(r#""progress":42.50,"message":"é \"x\"","userId":"u""#);
        let second = second.packet(r#""progress":7"#);
        for watcher in [&mut of_job, &mut of_all] {
            assert_eq!(watcher.next(), first);
            assert_eq!(watcher.next(), second);
        }
        assert_eq!(of_user.next(), first);
        for watcher in [of_job, of_user, of_all, of_other] {
            has_all(watcher);
        }
    });
}

#[test]
fn a_batch_reaches_everybody_in_order_and_once() {
    in_both_modes(|server| {
        let mut of_several = server.watcher(&[JOB, JOB, USER, ALL_JOBS]);
        let mut of_two_jobs = server.watcher(&[JOB, OTHER_JOB]);
        let mut of_one = server.watcher(&[JOB]);
        let mut publisher = server.publisher();

        let fields = |number: usize| match number % 4 {
            0 => format!(r#""progress":{},"userId":"u""#, number % 100),
            _ => format!(r#""progress":{},"message":"step {number}""#, number % 100),
        };
        let jobs = ["j", "other", "third"];
        let events: Vec<_> = (0..1000).map(|number| whole(jobs[number % 3], &fields(number))).collect();
        let answers = publish_batch(&mut publisher, &events);
        assert_eq!(answers.len(), 1000);
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.job, jobs[number % 3]);
            let packet = answer.packet(&fields(number));
            assert_eq!(of_several.next(), packet);
            if answer.job != "third" {
                assert_eq!(of_two_jobs.next(), packet);
            }
            if answer.job == "j" {
                assert_eq!(of_one.next(), packet);
            }
        }
        for watcher in [of_several, of_two_jobs, of_one] {
            has_all(watcher);
        }
    });
}

#[test]
fn one_that_does_not_read_gets_everything_later() {
    const ROUNDS: usize = 20;
    in_both_modes(|server| {
        let mut slow = server.watcher(&[JOB]);
        let mut publisher = server.publisher();
        // More than the kernel's buffers take.
        let fields = format!(r#""progress":1,"message":"{}""#, "x".repeat(1000));
        let events: Vec<_> = (0..1000).map(|_| whole("j", &fields)).collect();
        let answers: Vec<_> = (0..ROUNDS).flat_map(|_| publish_batch(&mut publisher, &events)).collect();
        for answer in &answers {
            assert_eq!(slow.next(), answer.packet(&fields));
        }
        has_all(slow);
    });
}

#[test]
fn publishes_may_come_back_to_back_and_watchers_may_go() {
    in_both_modes(|server| {
        let mut stays = server.watcher(&[JOB]);
        let mut publisher = server.publisher();
        for round in 0..10 {
            let goes = server.watcher(&[JOB]);
            for _ in 0..5 {
                publisher.send("/api/jobs/j/progress", &format!(r#"{{"progress":{round}}}"#));
            }
            drop(goes);
            for _ in 0..5 {
                let answer = Answer::read(&serde_json::from_str(&publisher.answer().1).unwrap());
                assert_eq!(stays.next(), answer.packet(&format!(r#""progress":{round}"#)));
            }
        }
        has_all(stays);
    });
}

#[test]
fn what_is_wrong_is_refused() {
    in_both_modes(|server| {
        let mut publisher = server.publisher();
        for (path, body, status) in [
            ("/api/jobs/j/progress", "{", "HTTP/1.1 422 Unprocessable Content"),
            ("/api/jobs/a%20b/progress", r#"{"progress":1}"#, "HTTP/1.1 422 Unprocessable Content"),
            ("/api/events", r#"[{"event":"job:progress"}]"#, "HTTP/1.1 422 Unprocessable Content"),
            ("/api/jobs/j/error", "{}", "HTTP/1.1 404 Not Found"),
        ] {
            publisher.send(path, body);
            assert_eq!(publisher.answer(), (status.to_owned(), String::new()), "{path} {body}");
        }
        publisher.0.get_mut().write_all(b"nonsense\r\n\r\n").unwrap();
        let mut rest = String::new();
        publisher.0.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{rest}");

        let mut watcher = server.watcher(&[]);
        watcher.send(r#"42/jobs,1["no:such:event"]"#);
        assert_eq!(watcher.0.read(&mut [0]).unwrap(), 0);
    });
}
