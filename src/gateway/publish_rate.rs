//! How many events a publisher may publish in a second (`limits.publishes_per_second`).

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

use crate::{
    access::Identity,
    error::{ApiError, ErrorCode},
    id::{TenantId, UserId},
};

/// With fewer publishers than this none is forgotten.
const MIN_SWEEP: usize = 1024;

/// Whose events are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Publisher {
    Key(String),
    User(UserId),
    /// Tokens without a user: those of one tenant together, and those without one.
    Tenant(Option<TenantId>),
}

impl Publisher {
    /// `None` for those who have no bound, and those who may not publish.
    fn of(identity: &Identity) -> Option<Self> {
        identity.check_publisher().ok()?;
        match identity {
            Identity::Everybody => None,
            Identity::Key(key) => Some(Self::Key(key.name.clone())),
            Identity::Token(token) => Some(match &token.user {
                Some(user) => Self::User(user.clone()),
                None => Self::Tenant(token.tenant.clone()),
            }),
        }
    }
}

impl fmt::Display for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "the key {name:?}"),
            Self::User(user) => write!(f, "the user {user}"),
            Self::Tenant(Some(tenant)) => write!(f, "the tokens without a user of the tenant {tenant}"),
            Self::Tenant(None) => f.write_str("the tokens without a user and a tenant"),
        }
    }
}

type Limiter<C> =
    RateLimiter<Publisher, HashMapStateStore<Publisher>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The rates of all publishers. It remembers those who have published within about a second.
#[derive(Debug)]
pub struct PublishRate<C: Clock = DefaultClock> {
    per_second: NonZeroU32,
    limiter: Limiter<C>,
    /// With so many publishers it forgets those whose second is over.
    sweep_at: AtomicUsize,
}

impl PublishRate {
    /// Lets so many events of a publisher pass in a second, and as many at once.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, DefaultClock::default())
    }
}

impl<C: Clock> PublishRate<C> {
    fn with_clock(per_second: u32, clock: C) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::hashmap_with_clock(Quota::per_second(per_second), clock);
        Self { per_second, limiter, sweep_at: AtomicUsize::new(MIN_SWEEP) }
    }

    /// Counts so many events of a publisher: all of them, or none.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] where they pass within a second, if nothing else is published meanwhile;
    /// [`ErrorCode::TooLarge`] where they never do.
    pub fn count(&self, by: &Identity, events: usize) -> Result<(), ApiError> {
        let counted = u32::try_from(events).map_or(Some(NonZeroU32::MAX), NonZeroU32::new);
        let (Some(publisher), Some(counted)) = (Publisher::of(by), counted) else { return Ok(()) };
        let outcome = self.limiter.check_key_n(&publisher, counted);
        self.sweep();
        let limit = self.per_second;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ApiError::new(
                ErrorCode::RateLimited,
                format!(
                    "{publisher} may publish {limit} events a second (limits.publishes_per_second); nothing of this was \
                     stored, repeat it in a second"
                ),
            )),
            Err(_) => Err(ApiError::new(
                ErrorCode::TooLarge,
                format!(
                    "{publisher} may publish {limit} events a second (limits.publishes_per_second), and these are \
                     {events}; send at most {limit} at once"
                ),
            )),
        }
    }

    /// Forgets those who have published nothing for a second, now and then.
    fn sweep(&self) {
        if self.limiter.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.limiter.retain_recent();
            self.sweep_at.store((self.limiter.len() * 2).max(MIN_SWEEP), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::access::{KeyGrant, TokenGrant};

    fn key(name: &str) -> Identity {
        Identity::Key(Arc::new(KeyGrant { name: name.to_owned(), jobs: None, tenants: None }))
    }

    fn token(user: Option<&str>, tenant: Option<&str>) -> Identity {
        Identity::Token(Arc::new(TokenGrant {
            user: user.map(|id| id.parse().unwrap()),
            tenant: tenant.map(|id| id.parse().unwrap()),
            publishes: true,
            ..TokenGrant::default()
        }))
    }

    fn rate(per_second: u32) -> (PublishRate<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (PublishRate::with_clock(per_second, clock.clone()), clock)
    }

    #[test]
    fn a_publisher_has_so_many_events_a_second() {
        let (rate, clock) = rate(10);
        let refused = |by: &Identity, events| rate.count(by, events).unwrap_err();
        let a = key("a");
        rate.count(&a, 10).unwrap();
        let error = refused(&a, 1);
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!(error.message.starts_with("the key \"a\" may publish 10 events a second"), "{error}");
        clock.advance(Duration::from_millis(500));
        // All or nothing.
        assert_eq!(refused(&a, 6).code, ErrorCode::RateLimited);
        rate.count(&a, 5).unwrap();
        clock.advance(Duration::from_secs(5));
        rate.count(&a, 10).unwrap();
        rate.count(&a, 0).unwrap();
    }

    #[test]
    fn more_than_a_second_holds_is_never_taken() {
        let (rate, _) = rate(10);
        for events in [11, usize::MAX] {
            let error = rate.count(&key("a"), events).unwrap_err();
            assert_eq!(error.code, ErrorCode::TooLarge);
            assert!(error.message.ends_with("send at most 10 at once"), "{error}");
        }
        rate.count(&key("a"), 10).unwrap();
    }

    #[test]
    fn keys_users_and_tenants_count_by_themselves_and_others_not_at_all() {
        let (rate, _) = rate(1);
        let publishers = [
            key("a"),
            key("b"),
            token(Some("a"), None),
            token(Some("b"), Some("t")),
            token(None, Some("t")),
            token(None, None),
        ];
        for by in &publishers {
            rate.count(by, 1).unwrap();
            assert_eq!(rate.count(by, 1).unwrap_err().code, ErrorCode::RateLimited, "{by:?}");
        }
        let reader = Identity::Token(Arc::default());
        for by in [Identity::Everybody, reader] {
            rate.count(&by, 1_000_000).unwrap();
        }
    }

    #[test]
    fn those_who_publish_no_more_are_forgotten() {
        let (rate, clock) = rate(1);
        for number in 0..10_000 {
            rate.count(&token(Some(&format!("u{number}")), None), 1).unwrap();
            clock.advance(Duration::from_millis(10));
        }
        assert!(rate.limiter.len() <= MIN_SWEEP);
    }
}
