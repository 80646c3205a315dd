//! Rooms are logs: what a store promises of their order, their positions, and what they have lost.

use std::{collections::HashMap, time::Duration};

use jobcast::{
    Draft, Gap, HistoryOptions, JobId, Owner, Position, Room, Seq, Timestamp,
    internals::{Append, Content, FeedItem, LogPage, LogRange, Window},
};

use crate::subject::{Kind, Subject, history, job, owned, update, user};

/// What stands at a place of a log: a job, and which of its events; the last, where several are lost.
type Place = (Position, JobId, Seq);

fn by_user(id: &str, by: &str) -> Draft {
    Draft::update(job(id), "running", None, owned(by)).unwrap()
}

fn of_user(by: &str) -> Room {
    Room::User(user(by))
}

fn append(draft: Draft) -> Append {
    Append { draft, key: None }
}

fn places(page: &LogPage) -> Vec<Place> {
    let place = |content: &Content| match content {
        Content::Event(event) => (event.job().clone(), event.seq()),
        Content::Lost(gap) => (gap.job.clone(), gap.to),
    };
    let entries = page.entries.iter();
    entries.map(|entry| (entry.position, place(&entry.content).0, place(&entry.content).1)).collect()
}

fn lost(page: &LogPage) -> Vec<Gap> {
    let gap = |content: &Content| match content {
        Content::Lost(gap) => Some(gap.clone()),
        Content::Event(_) => None,
    };
    page.entries.iter().filter_map(|entry| gap(&entry.content)).collect()
}

impl Subject {
    async fn log(&self, room: &Room, after: Position, limit: usize) -> LogPage {
        self.store.log(room, after, limit).await.unwrap()
    }

    async fn whole_log(&self, room: &Room) -> LogPage {
        let page = self.log(room, Position::START, 100_000).await;
        assert!(page.is_last && page.entries.is_sorted_by(|a, b| a.position < b.position));
        page
    }

    async fn range(&self, room: &Room) -> LogRange {
        self.store.log_range(room).await.unwrap()
    }

    async fn cover(&self, rooms: &[Room]) {
        for room in rooms {
            self.store.cover(room).await.unwrap();
        }
    }

    /// What the feed brings of each room, until each has had so many events.
    async fn fed(&mut self, rooms: &[Room], events: usize) -> HashMap<Room, Vec<Place>> {
        let mut fed: HashMap<Room, Vec<Place>> =
            rooms.iter().map(|room| (room.clone(), Vec::new())).collect();
        while fed.values().any(|places| places.len() < events) {
            let item = tokio::time::timeout(Duration::from_secs(10), self.feed.recv()).await;
            let FeedItem::Event(arrival) = item.expect("the feed brings nothing").unwrap() else { continue };
            for (room, position) in arrival.positions.rooms(&arrival.event) {
                let Some(places) = fed.get_mut(&room) else { continue };
                // What was brought before may be brought again.
                if places.last().is_none_or(|last| position > last.0) {
                    places.push((position, arrival.event.job().clone(), arrival.event.seq()));
                }
            }
        }
        fed
    }
}

async fn log_and_feed_agree(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    let owner = Owner { user: Some(user("u")), tenant: Some("t".parse().unwrap()) };
    let shared = [of_user("u"), Room::Tenant("t".parse().unwrap()), Room::AllJobs];
    let jobs = ["a", "b", "c"];
    subject.cover(&shared).await;
    subject.cover(&jobs.map(|id| Room::Job(job(id)))).await;
    let mut accepted = Vec::new();
    for step in 0..30 {
        let id = jobs[step * step % 3];
        let draft = Draft::update(job(id), "running", None, owner.clone()).unwrap();
        let answer = subject.append(draft).await.unwrap();
        accepted.push((job(id), answer.seq, answer.timestamp));
    }
    let fed = subject.fed(&shared, 30).await;
    for room in &shared {
        let page = subject.whole_log(room).await;
        let logged = places(&page);
        assert_eq!(logged, fed[room], "{room}");
        for ((position, job, seq), (of, number, time)) in logged.iter().zip(&accepted) {
            assert_eq!((job, seq), (of, number), "{room}");
            assert!(position.number() > 0 && position.millis() >= time.millis(), "{position} {time}");
        }
        let range = subject.range(room).await;
        assert_eq!((range.end, page.end), (logged[29].0, logged[29].0));
        assert!(range.start < logged[0].0);
        assert_eq!(subject.store.count(room, Position::START, range.end).await.unwrap(), 30);
        assert_eq!(subject.store.count(room, logged[3].0, logged[9].0).await.unwrap(), 6);
        assert_eq!(subject.store.count(room, range.end, range.end).await.unwrap(), 0);
    }
    for id in jobs {
        let logged = places(&subject.whole_log(&Room::Job(job(id))).await);
        let of_job = accepted.iter().filter(|(of, ..)| of.as_str() == id);
        let expected: Vec<_> =
            of_job.map(|(job, seq, _)| (Position::of_seq(*seq), job.clone(), *seq)).collect();
        assert_eq!(logged, expected);
    }
}

async fn the_feed_brings_job_rooms_in_order(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    let rooms = ["a", "b"].map(|id| Room::Job(job(id)));
    subject.cover(&rooms).await;
    for _ in 0..20 {
        subject.append(update("a")).await.unwrap();
        subject.append(by_user("b", "u")).await.unwrap();
    }
    let fed = subject.fed(&rooms, 20).await;
    for room in rooms {
        assert_eq!(places(&subject.whole_log(&room).await), fed[&room]);
    }
}

async fn a_log_is_read_on_in_pages(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let drafts = (0..12).map(|number| append(by_user(["a", "b"][number % 2], "u"))).collect();
    assert!(subject.store.append(drafts, None).await.iter().all(Result::is_ok));
    for (room, events) in [(of_user("u"), 12), (Room::AllJobs, 12), (Room::Job(job("a")), 6)] {
        let whole = places(&subject.whole_log(&room).await);
        assert_eq!(whole.len(), events);
        let (mut read, mut after) = (Vec::new(), Position::START);
        for page in 1..=events / 3 {
            let found = subject.log(&room, after, 3).await;
            assert_eq!((found.is_last, found.end), (page == events / 3, whole[events - 1].0), "{room}");
            read.extend(places(&found));
            after = read.last().unwrap().0;
        }
        assert_eq!(read, whole);
        let rest = subject.log(&room, after, 3).await;
        assert!(rest.entries.is_empty() && rest.is_last && rest.end == after);
    }
}

async fn a_time_is_a_position(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    let mut times = Vec::new();
    for id in ["a", "b", "a", "b"] {
        times.push(subject.append(by_user(id, "u")).await.unwrap().timestamp);
        // Each at a time of its own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for room in [of_user("u"), Room::AllJobs] {
        let whole = places(&subject.whole_log(&room).await);
        for (number, time) in times.iter().enumerate() {
            let since = places(&subject.log(&room, Position::before(*time), 10).await);
            // A cluster's servers have clocks of their own.
            let exact = matches!(kind, Kind::Cluster) || since.len() == 4 - number;
            assert!(whole.ends_with(&since) && since.len() >= 4 - number && exact, "{since:?} of {whole:?}");
        }
        let later = subject.log(&room, Position::before(Timestamp::now()), 10).await;
        assert!(later.entries.is_empty() && later.end == whole[3].0);
    }
}

async fn what_history_has_lost_is_said_in_its_place(kind: Kind) {
    let mut subject = Subject::open(kind, history(2)).await;
    let rooms = [of_user("u"), Room::AllJobs];
    subject.cover(&rooms).await;
    let mut seqs = Vec::new();
    for id in ["a", "b", "a", "a", "b", "a"] {
        seqs.push(subject.append(by_user(id, "u")).await.unwrap().seq);
    }
    let fed = subject.fed(&rooms, 6).await;
    for room in &rooms {
        let page = subject.whole_log(room).await;
        assert_eq!(places(&page), fed[room]);
        let gap = |seq| Gap { job: job("a"), from: seq, to: seq };
        assert_eq!(lost(&page), [gap(seqs[0]), gap(seqs[2])]);
        assert_eq!(subject.store.count(room, Position::START, page.end).await.unwrap(), 4);
        assert_eq!(subject.store.count(room, page.entries[0].position, page.end).await.unwrap(), 4);
    }
}

async fn a_job_says_what_its_history_has_lost(kind: Kind) {
    let subject = Subject::open(kind, history(3)).await;
    let room = Room::Job(job("a"));
    let first = subject.append(update("a")).await.unwrap().seq;
    let complete = subject.whole_log(&room).await;
    assert_eq!(places(&complete), [(Position::of_seq(first), job("a"), first)]);
    assert_eq!(lost(&complete), []);
    for _ in 1..10 {
        subject.append(update("a")).await.unwrap();
    }
    let (oldest, newest) = (first + 7, first + 9);
    let gap = |from| Gap { job: job("a"), from, to: oldest - 1 };
    let place = |seq| (Position::of_seq(seq), job("a"), seq);

    let after = |seq| Position::of_seq(seq);
    let page = subject.log(&room, after(first + 1), 100).await;
    assert_eq!(lost(&page), [gap(first + 2)]);
    assert_eq!(places(&page), [oldest - 1, oldest, oldest + 1, newest].map(place));
    assert!(page.is_last && page.end == after(newest));
    let page = subject.log(&room, after(first + 1), 1).await;
    assert_eq!((lost(&page), page.is_last), (vec![gap(first + 2)], false));
    // All there ever was: it does not matter from where on exactly.
    let page = subject.log(&room, Position::START, 2).await;
    assert_eq!(places(&page), [oldest - 1, oldest].map(place));
    assert!(matches!(lost(&page)[..], [Gap { from, .. }] if from <= first), "{page:?}");

    for known in [oldest - 1, oldest, newest] {
        let page = subject.log(&room, after(known), 100).await;
        assert_eq!(places(&page), (known + 1..=newest).map(place).collect::<Vec<_>>());
        assert!(lost(&page).is_empty() && page.is_last && page.end == after(newest));
    }
    let beyond = subject.log(&room, after(newest + 5), 100).await;
    assert!(beyond.entries.is_empty() && beyond.is_last && beyond.end == after(newest));
}

async fn a_head_says_what_a_resume_finds(kind: Kind) {
    let subject = Subject::open(kind, history(3)).await;
    let first = subject.append(update("a")).await.unwrap().seq;
    for _ in 1..10 {
        subject.append(update("a")).await.unwrap();
    }
    let (oldest, newest) = (first + 7, first + 9);
    let known = [oldest - 2, oldest - 1, oldest, newest, newest + 1];
    for (since, holds) in known.into_iter().zip([false, true, true, true, false]) {
        let (entry, bounds) = subject.store.head(&job("a"), since).await.unwrap();
        let bounds = bounds.unwrap();
        assert_eq!(
            (bounds.first, bounds.oldest, bounds.newest, bounds.newer, bounds.holds),
            (
                first,
                oldest,
                newest,
                usize::try_from(newest.saturating_sub(since.max(oldest - 1))).unwrap(),
                holds
            )
        );
        assert_eq!(entry.unwrap().event().unwrap().seq(), newest);
    }
    let (entry, bounds) = subject.store.head(&job("unknown"), first).await.unwrap();
    assert!(entry.is_none() && bounds.is_none());
}

async fn empty_rooms_end_at_the_present(kind: Kind) {
    let before = Timestamp::now();
    let subject = Subject::open(kind, history(100)).await;
    let page = subject.log(&Room::Job(job("a")), Position::START, 10).await;
    assert!(page.entries.is_empty() && page.is_last && page.end == Position::START);
    let mut ends = Vec::new();
    for room in [of_user("u"), Room::AllJobs] {
        let range = subject.range(&room).await;
        assert!((before.millis()..=Timestamp::now().millis()).contains(&range.end.millis()), "{range:?}");
        assert!(range.start <= range.end);
        let page = subject.log(&room, range.end, 10).await;
        assert!(page.entries.is_empty() && page.is_last && page.end >= range.end);
        assert_eq!(subject.store.count(&room, Position::START, range.end).await.unwrap(), 0);
        ends.push((room, range.end));
    }
    let seq = subject.append(by_user("a", "u")).await.unwrap().seq;
    for (room, end) in ends {
        let page = subject.log(&room, end, 10).await;
        assert!(matches!(&places(&page)[..], [(at, _, number)] if *at > end && *number == seq), "{page:?}");
    }
}

async fn a_place_beyond_the_end_is_not_known(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    subject.append(by_user("a", "u")).await.unwrap();
    for room in [of_user("u"), Room::AllJobs] {
        let end = subject.range(&room).await.end;
        let beyond = Position::of_entry(end.millis() + 60_000, 7);
        let page = subject.log(&room, beyond, 10).await;
        assert!(page.entries.is_empty() && page.is_last && page.end == end, "{page:?}");
        assert_eq!(
            subject.store.count(&room, beyond, Position::of_entry(beyond.millis() + 1, 1)).await.unwrap(),
            0
        );
    }
}

async fn a_room_keeps_about_so_many_entries(kind: Kind) {
    const EVENTS: usize = 800;
    let options = HistoryOptions { room_entries: 50, ..history(1000) };
    let mut subject = Subject::open(kind, options).await;
    let rooms = [of_user("u"), Room::AllJobs];
    subject.cover(&rooms).await;
    for start in (0..EVENTS).step_by(20) {
        let drafts = (start..start + 20).map(|number| append(by_user(&format!("job-{}", number % 7), "u")));
        assert!(subject.store.append(drafts.collect(), None).await.iter().all(Result::is_ok));
    }
    let fed = subject.fed(&rooms, EVENTS).await;
    for (room, kept) in rooms.iter().zip([50, 500]) {
        let whole = places(&subject.whole_log(room).await);
        // Redis trims its streams by nodes of a hundred entries, and not at each of them.
        assert!((kept..kept + 250).contains(&whole.len()), "{room}: {}", whole.len());
        assert!(fed[room].ends_with(&whole));
        let LogRange { start, end } = subject.range(room).await;
        let dropped = fed[room][EVENTS - whole.len() - 1].0;
        assert!(
            start >= dropped && start < whole[0].0,
            "{start} is not between {dropped} and {}",
            whole[0].0
        );
        assert_eq!(end, fed[room][EVENTS - 1].0);
        assert_eq!(places(&subject.log(room, start, EVENTS).await), whole);
    }
}

async fn logs_expire(kind: Kind) {
    let options = HistoryOptions { retention: Duration::from_secs(1), ..history(100) };
    let mut subject = Subject::open(kind, options).await;
    let rooms = [of_user("u"), Room::AllJobs];
    subject.cover(&rooms).await;
    subject.append(by_user("a", "u")).await.unwrap();
    let fed = subject.fed(&rooms, 1).await;
    for room in &rooms {
        let gone = async {
            while !subject.log(room, Position::START, 10).await.entries.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the log expires");
        let range = subject.range(room).await;
        assert!(range.start >= fed[room][0].0 && range.end >= range.start, "{range:?}");
    }
    let seq = subject.append(by_user("a", "u")).await.unwrap().seq;
    for room in &rooms {
        let whole = places(&subject.whole_log(room).await);
        assert!(
            matches!(&whole[..], [(at, _, number)] if *at > fed[room][0].0 && *number == seq),
            "{whole:?}"
        );
    }
}

async fn a_users_log_begins_with_the_event_that_names_the_user(kind: Kind) {
    let mut subject = Subject::open(kind, history(100)).await;
    subject.cover(&[of_user("u"), Room::AllJobs]).await;
    let mut seqs = Vec::new();
    for draft in [update("a"), update("a"), by_user("a", "u"), update("a")] {
        seqs.push(subject.append(draft).await.unwrap().seq);
    }
    let all = subject.fed(&[Room::AllJobs], 4).await;
    assert_eq!(places(&subject.whole_log(&Room::AllJobs).await), all[&Room::AllJobs]);
    let logged: Vec<_> =
        places(&subject.whole_log(&of_user("u")).await).into_iter().map(|place| place.2).collect();
    assert_eq!(logged, seqs[2..]);
}

async fn a_repeated_call_is_logged_once(kind: Kind) {
    let subject = Subject::open(kind, history(100)).await;
    for _ in 0..3 {
        subject.append_keyed(by_user("a", "u"), Some("k")).await.unwrap();
    }
    for room in [of_user("u"), Room::AllJobs, Room::Job(job("a"))] {
        assert_eq!(subject.whole_log(&room).await.entries.len(), 1, "{room}");
    }
}

async fn publishers_at_once_make_one_row(kind: Kind) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 60;
    let mut subject = Subject::open(kind, history(1000)).await;
    let rooms = [of_user("u"), Room::AllJobs];
    subject.cover(&rooms).await;
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let store = subject.store.clone();
            tokio::spawn(async move {
                // Each has a job of its own, and all have one in common.
                let own = format!("job-{number}");
                for step in 0..EACH / 3 {
                    let ids = [own.as_str(), "common", own.as_str()];
                    let size = step % 3 + 1;
                    for batch in ids.chunks(size) {
                        let drafts = batch.iter().map(|id| append(by_user(id, "u"))).collect();
                        assert!(store.append(drafts, None).await.iter().all(Result::is_ok));
                    }
                }
            })
        })
        .collect();
    let fed = subject.fed(&rooms, PUBLISHERS * EACH).await;
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for room in &rooms {
        let (mut logged, mut after) = (Vec::new(), Position::START);
        loop {
            let page = subject.log(room, after, 37).await;
            logged.extend(places(&page));
            if page.is_last {
                break;
            }
            after = logged.last().unwrap().0;
        }
        assert_eq!(logged, fed[room], "{room}");
        for id in (0..PUBLISHERS).map(|number| format!("job-{number}")).chain(["common".to_owned()]) {
            let of_job = logged.iter().filter(|(_, job, _)| job.as_str() == id);
            let numbers: Vec<_> = of_job.map(|(.., seq)| *seq).collect();
            assert_eq!(numbers, subject.seqs(&id, Window::Newest(1000)).await, "{id}");
        }
    }
}

async fn positions_go_on_after_a_restart(kind: Kind) {
    if matches!(kind, Kind::Memory) {
        return;
    }
    let mut subject = Subject::open(kind, history(100)).await;
    for id in ["a", "b", "a"] {
        subject.append(by_user(id, "u")).await.unwrap();
    }
    let rooms = [of_user("u"), Room::AllJobs, Room::Job(job("a"))];
    let mut before = Vec::new();
    for room in &rooms {
        before.push(places(&subject.whole_log(room).await));
    }
    subject.reopen().await;
    subject.append(by_user("a", "u")).await.unwrap();
    for (room, before) in rooms.iter().zip(before) {
        let after = places(&subject.whole_log(room).await);
        assert!(
            after.len() == before.len() + 1 && after.starts_with(&before),
            "{after:?} follows on {before:?}"
        );
    }
}

conformance!(
    log_and_feed_agree,
    the_feed_brings_job_rooms_in_order,
    a_log_is_read_on_in_pages,
    a_time_is_a_position,
    what_history_has_lost_is_said_in_its_place,
    a_job_says_what_its_history_has_lost,
    a_head_says_what_a_resume_finds,
    empty_rooms_end_at_the_present,
    a_place_beyond_the_end_is_not_known,
    a_room_keeps_about_so_many_entries,
    logs_expire,
    a_users_log_begins_with_the_event_that_names_the_user,
    a_repeated_call_is_logged_once,
    publishers_at_once_make_one_row,
    positions_go_on_after_a_restart,
);
