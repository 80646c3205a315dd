//! What the steps of an event cost, one by one: `cargo bench --bench micro`.
//!
//! | group | measures |
//! |---|---|
//! | `parse` | a publisher's body becomes a draft; an event from the store or the feed becomes one again |
//! | `accept` | a draft becomes the event, with its bytes |
//! | `route` | events go from their publication through the memory store and the hub to a thousand watchers |
//! | `offer` | the same for rooms of several sizes: what one line has more than the other is what its sessions cost |

#![forbid(unsafe_code)]

mod audience;

use std::{error::Error, hint::black_box};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use jobcast::{Draft, EventKind, JobEvent, JobId, Owner, Publication, Timestamp, internals::Members};
use tokio::runtime::{self, Runtime};

use self::audience::Audience;

/// How many watchers there are in all, where they share a room or have one each.
const WATCHERS: u64 = 1000;

/// How many events are published together to one room, so that the publication itself weighs little.
const BURST: u64 = 16;

/// A progress of a job, as publishers send it: 60 bytes.
const PROGRESS: &str = r#"{"progress":42.5,"message":"rendering picture 425 of 1,000"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    accept(&mut criterion);
    route(&mut criterion)?;
    offer(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let update = update();
    for (name, kind, body) in
        [("progress", EventKind::Progress, PROGRESS), ("update of 4 kB", EventKind::Update, &update)]
    {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| draft(kind, black_box(body))));
    }
    for (name, draft) in drafts(&update) {
        let json = draft.accept(&Owner::default(), Timestamp::now(), 1).json().get().to_owned();
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function(format!("event of {name}"), |bencher| {
            bencher.iter_batched(
                || json.clone(),
                |json| JobEvent::parse(json).is_ok(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn accept(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accept");
    let (owner, at) = (Owner::default(), Timestamp::now());
    for (name, draft) in drafts(&update()) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&draft).accept(&owner, at, 1_764_000_000_001));
        });
    }
    group.finish();
}

fn route(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(WATCHERS));
    let runtime = current_thread()?;
    for (name, rooms) in [("to one room", 1), ("to a room each", WATCHERS)] {
        let audience = runtime.block_on(Audience::gather((0..WATCHERS).map(|number| job(number % rooms))))?;
        let events: Vec<_> = (0..rooms).map(|number| publication(job(number))).collect();
        group.bench_function(name, |bencher| {
            let publish =
                |events| runtime.block_on(audience.publish(events, WATCHERS)).expect("it is accepted");
            bencher.iter_batched(|| events.clone(), publish, BatchSize::SmallInput);
        });
        runtime.block_on(audience.dismiss())?;
    }
    group.finish();
    Ok(())
}

fn offer(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("offer");
    let runtime = current_thread()?;
    let events: Vec<_> = (0..BURST).map(|_| publication(job(0))).collect();
    for sessions in [1, 10, 100, 1000] {
        let audience = runtime.block_on(Audience::gather((0..sessions).map(|_| job(0))))?;
        group.throughput(Throughput::Elements(BURST * sessions));
        group.bench_function(BenchmarkId::from_parameter(sessions), |bencher| {
            let deliveries = BURST * sessions;
            let publish =
                |events| runtime.block_on(audience.publish(events, deliveries)).expect("it is accepted");
            bencher.iter_batched(|| events.clone(), publish, BatchSize::SmallInput);
        });
        runtime.block_on(audience.dismiss())?;
    }
    group.finish();
    Ok(())
}

fn current_thread() -> std::io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_time().build()
}

fn job(number: u64) -> JobId {
    format!("job-{number}").parse().expect("it is an identifier")
}

fn draft(kind: EventKind, body: &str) -> Draft {
    let members = Members::read(body.as_bytes()).expect("it is an object");
    Draft::read(kind, job(0), &members).expect("it is valid")
}

fn drafts(update: &str) -> [(&'static str, Draft); 2] {
    [("progress", draft(EventKind::Progress, PROGRESS)), ("update of 4 kB", draft(EventKind::Update, update))]
}

fn publication(job: JobId) -> Publication {
    let message = Some("rendering picture 425 of 1,000");
    (Draft::progress(job, 42.5, message, Owner::default()).expect("it is valid"), None)
}

/// An update whose data are rows of a table, 4 kB of them.
fn update() -> String {
    let row = r#"{"id": 123456789012345678901, "name": "a row", "done": true, "tags": ["a", "b"]}"#;
    format!(r#"{{"status": "running", "data": [{}]}}"#, vec![row; 4096 / row.len()].join(", "))
}
