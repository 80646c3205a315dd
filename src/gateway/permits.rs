//! What an identity may do here. Some of it depends on whose a job is, which the store knows.

use super::{Gateway, Publication, Published, hub::Admitted};
use crate::{
    access::{Identity, Ownership, Watching, forbidden},
    error::{ApiError, ErrorCode},
    event::{Draft, IdempotencyKey, Owner},
    id::{ClientId, JobId},
    position::Position,
    room::Room,
    store::Entry,
};

impl Gateway {
    /// As [`Gateway::publish`], on somebody's behalf, within what they may.
    ///
    /// # Errors
    /// As [`Gateway::publish`] and [`Gateway::publish_all_as`].
    pub async fn publish_as(
        &self,
        by: &Identity,
        draft: Draft,
        key: Option<IdempotencyKey>,
    ) -> Result<Published, ApiError> {
        let no_answer = || Err(ApiError::new(ErrorCode::Unavailable, "the store gave no answer"));
        self.publish_all_as(by, vec![(draft, key)]).await.pop().unwrap_or_else(no_answer)
    }

    /// As [`Gateway::publish_all`], on somebody's behalf: what they may not publish is refused with
    /// [`ErrorCode::Forbidden`], the rest is accepted. All of it is refused with [`ErrorCode::RateLimited`] or
    /// [`ErrorCode::TooLarge`] where it is more than they may publish in a second.
    pub async fn publish_all_as(
        &self,
        by: &Identity,
        publications: Vec<Publication>,
    ) -> Vec<Result<Published, ApiError>> {
        if let Err(error) = self.count_publishes(by, publications.len()) {
            return publications.iter().map(|_| Err(error.clone())).collect();
        }
        if by.publishes_everything() {
            return self.publish_all(publications).await;
        }
        let (mut refusals, mut allowed) = (Vec::new(), Vec::new());
        for (draft, key) in publications {
            let checked = self.check_publish(by, draft.job(), draft.owner()).await;
            if checked.is_ok() {
                allowed.push((draft, key));
            }
            refusals.push(checked.err());
        }
        let mut outcomes = self.publish_all(allowed).await.into_iter();
        let outcome = |refusal: Option<ApiError>| match refusal {
            Some(error) => Some(Err(error)),
            None => outcomes.next(),
        };
        refusals.into_iter().filter_map(outcome).collect()
    }

    /// Counts events, or other things that somebody publishes, against `limits.publishes_per_second`: all of them, or none.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] where they are too many at this time, and [`ErrorCode::TooLarge`] where they always are.
    pub fn count_publishes(&self, by: &Identity, count: usize) -> Result<(), ApiError> {
        let Some(rate) = &self.0.publish_rate else { return Ok(()) };
        rate.count(by, count).inspect_err(|_| self.0.metrics.count_limited("publishes_per_second"))
    }

    async fn check_publish(&self, by: &Identity, job: &JobId, names: &Owner) -> Result<(), ApiError> {
        let owner = match by.publishes_by_owner() {
            true => self.owner(job).await?,
            false => None,
        };
        by.check_publish(job, names, ownership(owner.as_ref()))
    }

    /// Whether somebody may read a job.
    pub(super) async fn check_job(&self, by: &Identity, job: &JobId) -> Result<Admitted, ApiError> {
        match by.watching(job, Ownership::Pending, self.0.options.ownerless_jobs) {
            Watching::Always => Ok(Admitted::Always),
            Watching::Never => Err(not_yours(job)),
            Watching::WithThisOwner => self.admit(by, job, self.owner(job).await?),
        }
    }

    /// Whether somebody may read a job that has such a newest event, or none yet.
    pub(super) fn admit(
        &self,
        by: &Identity,
        job: &JobId,
        newest: Option<(Position, Owner)>,
    ) -> Result<Admitted, ApiError> {
        match by.watching(job, ownership(newest.as_ref()), self.0.options.ownerless_jobs) {
            Watching::Always => Ok(Admitted::Always),
            Watching::WithThisOwner => Ok(Admitted::ByOwner(newest)),
            Watching::Never => Err(not_yours(job)),
        }
    }

    /// Whether somebody may be in a room, and know who else is.
    pub(super) async fn check_room(&self, by: &Identity, room: &Room) -> Result<Admitted, ApiError> {
        match room {
            Room::Job(job) => self.check_job(by, job).await,
            shared => by.check_room(shared).map(|()| Admitted::Always),
        }
    }

    /// Whose a job is, by its newest event; `None` for one that has none.
    async fn owner(&self, job: &JobId) -> Result<Option<(Position, Owner)>, ApiError> {
        Ok(self.job(job).await?.as_ref().map(owner_of))
    }

    /// Whether somebody may use a name for a record. Of the same identity the newest connection takes a record over.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] where another identity is connected by that name.
    pub async fn check_client_name(&self, by: &Identity, name: &ClientId) -> Result<(), ApiError> {
        let client = self.asked(self.0.store.client(name).await)?;
        match client {
            Some(client) if client.user_id.as_ref() != by.user() => Err(ApiError::new(
                ErrorCode::Forbidden,
                format!("clientId: another user is connected as {name}; choose another name"),
            )),
            _ => Ok(()),
        }
    }
}

fn ownership(newest: Option<&(Position, Owner)>) -> Ownership<'_> {
    newest.map_or(Ownership::Pending, |(_, owner)| Ownership::Known(owner))
}

/// The place of a job's newest entry, and the owner by it. What another program wrote names none.
pub fn owner_of(newest: &Entry) -> (Position, Owner) {
    match newest {
        Entry::Event(event) => (Position::of_seq(event.seq()), event.owner().clone()),
        Entry::Foreign(_) => (Position::START, Owner::default()),
    }
}

fn not_yours(job: &JobId) -> ApiError {
    let room = Room::Job(job.clone());
    forbidden(&room, "its owner alone may see it, or a token that names it in jobs")
}
