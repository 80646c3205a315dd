//! What shows only from within: what is left on disk, and what a failed commit takes along.

use super::*;
use crate::{
    event::{Draft, Owner},
    store::{AppendError, feed},
};

fn draft(job: &str) -> Draft {
    let owner = Owner { user: Some("u".parse().unwrap()), tenant: None };
    Draft::update(job.parse().unwrap(), "s", None, owner).unwrap()
}

async fn fill(store: &Embedded, jobs: usize) {
    for start in (0..jobs).step_by(1000) {
        let append = |number: usize| Append {
            draft: draft(&format!("job-{number}")),
            key: Some(format!("key-{number}").parse().unwrap()),
        };
        let outcomes = store.append((start..start + 1000).map(append).collect(), None).await;
        assert!(outcomes.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn all_that_has_expired_is_removed_by_one_sweep() {
    const JOBS: usize = 6000;
    let folder = tempfile::tempdir().unwrap();
    for path in [None, Some(folder.path())] {
        let (sender, mut feed) = feed::waiting();
        let tasks = Tasks::new();
        tasks.spawn("drain", async move { while feed.recv().await.is_some() {} });
        let retention = Duration::from_secs(60);
        let history = HistoryOptions { retention, room_entries: JOBS, ..HistoryOptions::default() };
        let store = Embedded::open(path, history, sender, &tasks).unwrap();
        fill(&store, JOBS).await;
        let kept = || store.kv.scan(vec![0]..vec![255], kv::Order::Ascending, usize::MAX).unwrap().len();
        // An event, a job, a key, two entries, a membership, and when to look at job and key; and of two rooms.
        assert_eq!(kept(), 8 * JOBS + 2 * 2);
        let later = Timestamp::now().after(Duration::from_secs(61));
        store.writing.sweep(later).await.unwrap();
        // The keys live longer.
        assert_eq!(kept(), 2 * JOBS);
        store.writing.sweep(later.after(Duration::from_secs(600))).await.unwrap();
        assert_eq!(kept(), 0);
        drop(store);
        assert!(tasks.stop(Duration::from_secs(10)).await);
    }
}

#[tokio::test]
async fn what_goes_on_is_not_removed() {
    let (sender, _feed) = feed::waiting();
    let history = HistoryOptions { retention: Duration::from_secs(60), ..HistoryOptions::default() };
    let store = Embedded::open(None, history, sender, &Tasks::new()).unwrap();
    let start = Timestamp::now();
    let append = async |job| store.append(vec![Append { draft: draft(job), key: None }], None).await;
    append("old").await[0].as_ref().unwrap();
    append("young").await[0].as_ref().unwrap();
    let Writing::Direct(writer) = &store.writing else { panic!("it is in memory") };
    // By the writer's clock half a retention goes by.
    writer.sweep(start.after(Duration::from_secs(40)));
    append("young").await[0].as_ref().unwrap();
    writer.sweep(start.after(Duration::from_secs(70)));
    let user = Room::User("u".parse().unwrap());
    let jobs = [("old", 0), ("young", 2)];
    for (job, events) in jobs {
        let kept = store.history(&job.parse().unwrap(), Window::Newest(9)).await.unwrap();
        assert_eq!(kept.len(), events, "{job}");
    }
    for room in [user, Room::AllJobs] {
        assert_eq!(store.log(&room, Position::START, 9).await.unwrap().entries.len(), 1);
        assert_eq!(store.active(&room, start, 9).await.unwrap(), ["young".parse().unwrap()]);
    }
    writer.sweep(start.after(Duration::from_secs(170)));
    assert_eq!(store.kv.scan(vec![0]..vec![255], kv::Order::Ascending, 99).unwrap(), []);
}

#[tokio::test]
async fn what_was_decided_on_a_failed_commit_fails_with_it() {
    let (sender, mut feed) = feed::waiting();
    let store = Embedded::open(None, HistoryOptions::default(), sender, &Tasks::new()).unwrap();
    let Writing::Direct(writer) = &store.writing else { panic!("it is in memory") };
    let append = async |draft| store.append(vec![Append { draft, key: None }], None).await.pop().unwrap();
    let completed = || Draft::completed("a".parse().unwrap(), None, Owner::default()).unwrap();
    let first = append(draft("a")).await.unwrap().seq;

    let error = StoreError("the disk is full".to_owned());
    {
        let mut committer = writer.committer.lock().unwrap();
        let fault = kv::Fault::passing(error.clone(), 0);
        committer.outage = Some(outage::Outage::begin(fault, &committer.refusing));
    }
    // The second is refused where the first counts.
    for _ in 0..2 {
        assert_eq!(append(completed()).await, Err(error.clone().into()));
    }
    drop(writer.recover(&mut writer.decider.lock().unwrap()));
    assert_eq!(append(completed()).await.unwrap().seq, first + 1);
    let log = store.log(&Room::AllJobs, Position::START, 9).await.unwrap();
    assert!(log.entries.len() == 2 && log.entries[0].position < log.entries[1].position);
    let mut items = Vec::new();
    feed.recv_many(&mut items, 9).await;
    assert!(matches!(
        items[..],
        [FeedItem::Event(_), FeedItem::Interrupted(_), FeedItem::Restored(_), FeedItem::Event(_)]
    ));
}

#[tokio::test]
async fn so_many_jobs_are_kept_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    for path in [None, Some(folder.path())] {
        let retention = Duration::from_secs(3600);
        let history = HistoryOptions { retention, max_jobs: Some(2), ..HistoryOptions::default() };
        let open = || {
            let (sender, mut feed) = feed::waiting();
            let tasks = Tasks::new();
            tasks.spawn("drain", async move { while feed.recv().await.is_some() {} });
            (Embedded::open(path, history, sender, &tasks).unwrap(), tasks)
        };
        let (mut store, mut tasks) = open();
        // Of one call as well, and a job that goes on counts once.
        let appends = ["a", "a", "b", "c", "b"].map(|job| Append { draft: draft(job), key: None }).to_vec();
        let refused = || Err(AppendError::TooManyJobs(2));
        let outcomes = store.append(appends, None).await;
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false, true]);
        assert_eq!(outcomes[3], refused());
        if path.is_some() {
            drop(store);
            assert!(tasks.stop(Duration::from_secs(10)).await);
            (store, tasks) = open();
        }
        let append =
            async |job| store.append(vec![Append { draft: draft(job), key: None }], None).await.pop();
        assert_eq!(append("c").await, Some(refused()));
        assert!(append("a").await.unwrap().is_ok());
        // Both have expired then.
        store.writing.sweep(Timestamp::now().after(retention + Duration::from_secs(1))).await.unwrap();
        assert_eq!(store.index.lock().unwrap().jobs(), 0);
        assert!(append("c").await.unwrap().is_ok());
        assert!(append("d").await.unwrap().is_ok());
        assert_eq!(append("e").await, Some(refused()));
        drop(store);
        assert!(tasks.stop(Duration::from_secs(10)).await);
    }
}

#[tokio::test]
async fn jobs_that_were_not_committed_do_not_count() {
    let (sender, _feed) = feed::waiting();
    let history = HistoryOptions { max_jobs: Some(1), ..HistoryOptions::default() };
    let store = Embedded::open(None, history, sender, &Tasks::new()).unwrap();
    let Writing::Direct(writer) = &store.writing else { panic!("it is in memory") };
    let append = async |job| store.append(vec![Append { draft: draft(job), key: None }], None).await.pop();
    let error = StoreError("the disk is full".to_owned());
    {
        let mut committer = writer.committer.lock().unwrap();
        let fault = kv::Fault::passing(error.clone(), 0);
        committer.outage = Some(outage::Outage::begin(fault, &committer.refusing));
    }
    for job in ["a", "b"] {
        assert_eq!(append(job).await, Some(Err(error.clone().into())));
    }
    drop(writer.recover(&mut writer.decider.lock().unwrap()));
    assert!(append("c").await.unwrap().is_ok());
    assert_eq!(append("d").await, Some(Err(AppendError::TooManyJobs(1))));
}
