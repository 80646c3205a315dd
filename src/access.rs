//! Who may do what (contract, section 9): pure decisions over an identity, a room and the owner of a job.

mod pattern;
mod revocation;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    pattern::{InvalidPattern, Pattern, Patterns},
    revocation::{MAX_TOKEN_ID, Pass, Revocation, Revocations, Subject},
};
use crate::{
    error::{ApiError, ErrorCode},
    event::Owner,
    id::{JobId, TenantId, UserId},
    room::Room,
};

/// Who somebody is, as far as that decides what they may do. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Whoever there is, where nobody is asked (`auth.mode = "none"`), and an application's own code. May everything.
    Everybody,
    /// The holder of a token.
    Token(Arc<TokenGrant>),
    /// A publisher with an API key.
    Key(Arc<KeyGrant>),
}

/// What a token grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenGrant {
    /// The user (`sub`).
    pub user: Option<UserId>,
    /// The user's tenant (`tenantId`).
    pub tenant: Option<TenantId>,
    /// Jobs that it names (`jobs`).
    pub jobs: Patterns,
    /// Documents that it names (`documents`).
    pub documents: Patterns,
    /// Whether it has the scope `jobs:admin`.
    pub is_admin: bool,
    /// Whether it has the scope `jobs:publish`.
    pub publishes: bool,
}

/// What an API key grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key's name, for logs and metrics.
    pub name: String,
    /// The only jobs that it is for. `None` for all.
    pub jobs: Option<Patterns>,
    /// The only tenants that it is for. `None` for all.
    pub tenants: Option<Vec<TenantId>>,
}

/// Whose a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership<'a> {
    /// It has no event yet.
    Pending,
    /// It has events. The owner may name neither a user nor a tenant.
    Known(&'a Owner),
}

/// Who sees jobs whose events name no owner (`auth.ownerless_jobs`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnerlessJobs {
    /// Those alone who may everything, or whom a token or key names the job to.
    #[default]
    Deny,
    /// Everybody.
    Allow,
}

/// Whether somebody may watch a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// Whatever its owner is or becomes.
    Always,
    /// With the owner that it has now. That may change: a job that has none yet gets one, and a name is used again after a
    /// job's history has expired.
    WithThisOwner,
    /// Not.
    Never,
}

impl Identity {
    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        match self {
            Identity::Everybody => true,
            Identity::Token(token) => token.is_admin,
            Identity::Key(_) => false,
        }
    }

    /// Whether it may publish to every job, emit and broadcast, and so read everything that is published.
    pub fn publishes_everything(&self) -> bool {
        match self {
            Identity::Everybody => true,
            Identity::Token(token) => token.is_admin || token.publishes,
            Identity::Key(key) => key.jobs.is_none() && key.tenants.is_none(),
        }
    }

    /// The user that it stands for.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Identity::Token(token) => token.user.as_ref(),
            Identity::Everybody | Identity::Key(_) => None,
        }
    }

    /// Whether both stand for the same caller: a token in place of another one must have the same user and tenant.
    pub fn is_same_caller(&self, other: &Self) -> bool {
        match (self, other) {
            (Identity::Everybody, Identity::Everybody) => true,
            (Identity::Token(one), Identity::Token(two)) => one.user == two.user && one.tenant == two.tenant,
            (Identity::Key(one), Identity::Key(two)) => one.name == two.name,
            _ => false,
        }
    }

    /// Whether it may be in a room that several jobs share, and read the lists of its jobs. Not for a job's own room.
    fn may_share(&self, room: &Room) -> bool {
        if self.publishes_everything() {
            return true;
        }
        match (self, room) {
            (Identity::Token(token), Room::User(user)) => token.user.as_ref() == Some(user),
            (Identity::Token(token), Room::Tenant(tenant)) => token.tenant.as_ref() == Some(tenant),
            // A key for some jobs of a tenant may read those alone.
            (Identity::Key(key), Room::Tenant(tenant)) => key.jobs.is_none() && key.is_for_tenant(tenant),
            _ => false,
        }
    }

    /// Whether it may be in a room. Of a job's room this says whether there is a job's owner with whom it may.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is missing.
    pub fn check_room(&self, room: &Room) -> Result<(), ApiError> {
        match room {
            Room::Job(_) => Ok(()),
            shared if self.may_share(shared) => Ok(()),
            Room::User(_) => Err(forbidden(room, "its user alone may see it")),
            Room::Tenant(_) => Err(forbidden(room, "the members of its tenant alone may see it")),
            Room::AllJobs => Err(forbidden(room, "it needs the scope jobs:admin")),
        }
    }

    /// Whether it may watch a job and read its history.
    pub fn watching(&self, job: &JobId, ownership: Ownership<'_>, ownerless: OwnerlessJobs) -> Watching {
        if self.publishes_everything() || self.is_named(job) {
            return Watching::Always;
        }
        if let Identity::Key(key) = self
            && key.jobs.as_ref().is_some_and(|jobs| !jobs.matches(job.as_str()))
        {
            return Watching::Never;
        }
        match ownership {
            Ownership::Pending => Watching::WithThisOwner,
            Ownership::Known(owner) if owner.is_nobody() => match (self, ownerless) {
                (Identity::Token(_), OwnerlessJobs::Allow) => Watching::WithThisOwner,
                _ => Watching::Never,
            },
            Ownership::Known(owner) if self.owns(owner) => Watching::WithThisOwner,
            Ownership::Known(_) => Watching::Never,
        }
    }

    /// Whether a token names the job, or a key is for it and no tenant is asked for.
    fn is_named(&self, job: &JobId) -> bool {
        match self {
            Identity::Everybody => true,
            Identity::Token(token) => token.jobs.matches(job.as_str()),
            Identity::Key(key) => {
                key.tenants.is_none() && key.jobs.as_ref().is_none_or(|jobs| jobs.matches(job.as_str()))
            }
        }
    }

    /// Whether an owner who is somebody is this one.
    fn owns(&self, owner: &Owner) -> bool {
        let same = |mine: Option<&str>, owners: Option<&str>| mine.is_some() && mine == owners;
        match self {
            Identity::Everybody => true,
            Identity::Token(token) => {
                same(token.user.as_ref().map(UserId::as_str), owner.user.as_ref().map(UserId::as_str))
                    || same(
                        token.tenant.as_ref().map(TenantId::as_str),
                        owner.tenant.as_ref().map(TenantId::as_str),
                    )
            }
            Identity::Key(key) => owner.tenant.as_ref().is_some_and(|tenant| key.is_for_tenant(tenant)),
        }
    }

    /// Whether it may publish an event to a job that has an owner, and whose event names one.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is missing.
    pub fn check_publish(&self, job: &JobId, names: &Owner, has: Ownership<'_>) -> Result<(), ApiError> {
        let refused = |problem: String| Err(ApiError::new(ErrorCode::Forbidden, problem));
        let key = match self {
            _ if self.publishes_everything() => return Ok(()),
            Identity::Key(key) => key,
            _ => return self.check_publisher(),
        };
        if key.jobs.as_ref().is_some_and(|jobs| !jobs.matches(job.as_str())) {
            return refused(format!("the key {:?} is not for the job {job}", key.name));
        }
        let Some(tenants) = &key.tenants else { return Ok(()) };
        let tenant = match has {
            Ownership::Pending => names.tenant.as_ref(),
            Ownership::Known(owner) => owner.tenant.as_ref(),
        };
        match tenant {
            Some(tenant) if tenants.contains(tenant) => Ok(()),
            Some(tenant) => refused(format!("the key {:?} is not for the tenant {tenant}", key.name)),
            None => {
                let first = tenants.first().map_or("?", TenantId::as_str);
                refused(format!(
                    "the key {:?} is for jobs of its tenants alone: give the job's first event a tenantId, such as \
                     {first:?}",
                    key.name
                ))
            }
        }
    }

    /// Whether [`Identity::check_publish`] needs to know whose the job is.
    pub fn publishes_by_owner(&self) -> bool {
        matches!(self, Identity::Key(key) if key.tenants.is_some())
    }

    /// Whether it publishes at all.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is missing.
    pub fn check_publisher(&self) -> Result<(), ApiError> {
        match self {
            Identity::Key(_) => Ok(()),
            _ if self.publishes_everything() => Ok(()),
            _ => Err(ApiError::new(
                ErrorCode::Forbidden,
                "publishing needs an API key, or a token with the scope jobs:publish",
            )),
        }
    }

    /// Whether it may send notices: to an audience of users and tenants that no bounds of a key describe.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is missing.
    pub fn check_notify(&self) -> Result<(), ApiError> {
        self.check_publisher()?;
        match self.publishes_everything() {
            true => Ok(()),
            false => Err(ApiError::new(
                ErrorCode::Forbidden,
                "sending notices needs an API key that is not limited to some jobs or tenants",
            )),
        }
    }

    /// Whether it may do what is for administrators alone.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is missing.
    pub fn check_admin(&self) -> Result<(), ApiError> {
        match self.is_admin() {
            true => Ok(()),
            false => Err(ApiError::new(ErrorCode::Forbidden, "this needs a token with the scope jobs:admin")),
        }
    }

    /// Whether it may hand out a token with that grant, which is no more than it has itself.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] says what is too much.
    pub fn check_grant(&self, grant: &TokenGrant) -> Result<(), ApiError> {
        self.check_publisher()?;
        let Identity::Key(key) = self else { return Ok(()) };
        let refused = |problem: &str| {
            Err(ApiError::new(ErrorCode::Forbidden, format!("the key {:?} {problem}", key.name)))
        };
        if key.jobs.is_none() && key.tenants.is_none() {
            return Ok(());
        }
        if grant.user.is_some() {
            return refused(
                "is limited to some jobs or tenants, and a token with sub would show all of a user's",
            );
        }
        let tenant_fits =
            grant.tenant.as_ref().is_none_or(|tenant| key.jobs.is_none() && key.is_for_tenant(tenant));
        if !tenant_fits {
            return refused("may not read all jobs of that tenantId");
        }
        let covered = |pattern: &Pattern| {
            key.tenants.is_none() && key.jobs.as_ref().is_none_or(|jobs| jobs.covers(pattern))
        };
        match grant.jobs.iter().find(|pattern| !covered(pattern)) {
            Some(pattern) => refused(&format!("may not read all of the jobs {pattern}")),
            None => Ok(()),
        }
    }
}

impl KeyGrant {
    fn is_for_tenant(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

/// The error of a room that somebody may not be in.
pub fn forbidden(room: &Room, why: &str) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, format!("{room}: {why}"))
}
