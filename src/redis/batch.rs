//! Commands of many callers that share pipelines: what comes while pipelines are on their way goes out together in
//! the next. Nothing waits for a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::Semaphore;

/// How many commands one pipeline gathers.
const GATHERED: usize = 64;

/// What waits to be sent together, and the sending of it.
pub struct Batches<T, A, E> {
    gathering: Mutex<Option<Batch<T, A, E>>>,
    on_their_way: Arc<Semaphore>,
}

type Answers<A> = Arc<Mutex<Vec<Option<A>>>>;

/// Driven by whichever caller is polled, so that one who gives up takes nothing from the others.
type Sent<A, E> = Shared<BoxFuture<'static, Result<Answers<A>, E>>>;

struct Batch<T, A, E> {
    items: Arc<Mutex<Vec<T>>>,
    sent: Sent<A, E>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static, A: Send + 'static, E: Clone + Send + Sync + 'static> Batches<T, A, E> {
    /// Sends up to so many pipelines at a time.
    pub fn new(on_their_way: usize) -> Self {
        Self { gathering: Mutex::default(), on_their_way: Arc::new(Semaphore::new(on_their_way)) }
    }

    /// Sends items together with those of others, and answers with what became of them, in order. `send` is used by
    /// whoever comes first.
    pub async fn send<F>(
        &self,
        items: Vec<T>,
        send: impl FnOnce(Vec<T>) -> F + Send + 'static,
    ) -> Result<Vec<A>, E>
    where
        F: Future<Output = Result<Vec<A>, E>> + Send + 'static,
    {
        let count = items.len();
        let (sent, first) = {
            let mut gathering = lock(&self.gathering);
            let joined = match gathering.as_ref() {
                Some(batch) => batch.join(items),
                None => Err(items),
            };
            joined.unwrap_or_else(|items| (gathering.insert(self.batch(items, send)).sent.clone(), 0))
        };
        let answers = sent.await?;
        let mut answers = lock(&answers);
        Ok(answers.iter_mut().skip(first).take(count).filter_map(Option::take).collect())
    }

    fn batch<F>(&self, items: Vec<T>, send: impl FnOnce(Vec<T>) -> F + Send + 'static) -> Batch<T, A, E>
    where
        F: Future<Output = Result<Vec<A>, E>> + Send + 'static,
    {
        let items = Arc::new(Mutex::new(items));
        let (closing, on_their_way) = (items.clone(), self.on_their_way.clone());
        let sent = async move {
            // It is never closed.
            let _turn = on_their_way.acquire().await;
            // Whoever is about to send as well may join.
            tokio::task::yield_now().await;
            let items = std::mem::take(&mut *lock(&closing));
            let answers = send(items).await?;
            Ok(Arc::new(Mutex::new(answers.into_iter().map(Some).collect())))
        };
        Batch { items, sent: sent.boxed().shared() }
    }
}

impl<T, A, E> Batch<T, A, E> {
    /// Takes more items, unless it is full or has been sent and so is empty. Answers what to wait for, and the place of
    /// the first of them.
    fn join(&self, items: Vec<T>) -> Result<(Sent<A, E>, usize), Vec<T>> {
        let mut gathered = lock(&self.items);
        match gathered.len() {
            first @ 1..GATHERED => {
                gathered.extend(items);
                Ok((self.sent.clone(), first))
            }
            _ => Err(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    #[tokio::test]
    async fn what_waits_goes_together_and_each_gets_its_own() {
        let batches: Batches<u32, u32, ()> = Batches::new(1);
        let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let send = |sizes: Arc<Mutex<Vec<usize>>>| {
            move |items: Vec<u32>| async move {
                lock(&sizes).push(items.len());
                tokio::task::yield_now().await;
                Ok(items.into_iter().map(|item| item * 2).collect())
            }
        };
        let one = |item| batches.send(vec![item, item + 1], send(sizes.clone()));
        {
            // Who gives up takes nothing from the others.
            let given_up = one(1000);
            assert!(given_up.now_or_never().is_none());
        }
        let answers = join_all((0..100).map(one)).await;
        for (item, answer) in (0..).zip(answers) {
            assert_eq!(answer, Ok(vec![item * 2, item * 2 + 2]));
        }
        let sizes = lock(&sizes).clone();
        assert!(sizes.iter().all(|size| *size <= GATHERED + 1) && sizes.len() < 8, "{sizes:?}");
    }
}
