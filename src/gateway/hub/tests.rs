//! The hub under a model: a store with histories that rotate and logs that may lose their tail, a feed that comes over one
//! or two connections and is cut now and then, sessions that come, go, leave, come back and fill up, and catch-ups and fills
//! whose reading and handing over lie apart. Whatever happens, every session gets each event of its rooms' logs once and in
//! order, or a gap in its place where history has rotated past it.
//!
//! Every run has a seed of its own, which it prints. `SEED=n` repeats one, `CASES=n` runs so many for each property.

mod model;
mod store;

use std::sync::Arc;

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use self::model::Model;
use crate::access::{Identity, OwnerlessJobs, TokenGrant};

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, usize),
    Receive(usize, usize),
    Connect(usize),
    /// As a user, another one, or of a tenant.
    ConnectAs(usize, usize),
    BeginJoin(usize, usize),
    Join(usize, Option<u64>),
    Leave(usize, usize),
    Places(usize, usize),
    CatchUp(usize),
    Fill(usize),
    Disconnect(usize),
    Toggle(usize),
    Lose(usize),
    Flush,
}

fn steps(cuts: u32, losses: u32, flushes: u32) -> impl Strategy<Value = Vec<Step>> {
    let n = || 0usize..64;
    let kinds: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (12, (0usize..3, n()).prop_map(|(job, copies)| Step::Publish(job, copies)).boxed()),
        (12, (n(), n()).prop_map(|(line, many)| Step::Receive(line, many)).boxed()),
        (2, (0usize..9).prop_map(Step::Connect).boxed()),
        (2, (0usize..9, 0usize..3).prop_map(|(places, who)| Step::ConnectAs(places, who)).boxed()),
        (6, (n(), n()).prop_map(|(watcher, room)| Step::BeginJoin(watcher, room)).boxed()),
        (8, (n(), prop::option::of(0u64..9)).prop_map(|(which, since)| Step::Join(which, since)).boxed()),
        (1, (n(), n()).prop_map(|(watcher, room)| Step::Leave(watcher, room)).boxed()),
        (4, (n(), 0usize..6).prop_map(|(watcher, places)| Step::Places(watcher, places)).boxed()),
        (8, n().prop_map(Step::CatchUp).boxed()),
        (6, n().prop_map(Step::Fill).boxed()),
        (1, n().prop_map(Step::Disconnect).boxed()),
        (cuts, n().prop_map(Step::Toggle).boxed()),
        (losses, (0usize..4).prop_map(Step::Lose).boxed()),
        (flushes, Just(Step::Flush).boxed()),
    ];
    let step = proptest::strategy::Union::new_weighted(
        kinds.into_iter().filter(|(weight, _)| *weight > 0).collect(),
    );
    prop::collection::vec(step, 1..120)
}

fn identity(who: usize) -> Identity {
    let token = match who % 3 {
        0 => TokenGrant { user: Some("u".parse().unwrap()), ..TokenGrant::default() },
        1 => TokenGrant { user: Some("v".parse().unwrap()), ..TokenGrant::default() },
        _ => TokenGrant { tenant: Some("t".parse().unwrap()), ..TokenGrant::default() },
    };
    Identity::Token(Arc::new(token))
}

fn run(lines: usize, steps: &[Step]) {
    // Whatever comes first decides.
    let ownerless = match steps.first() {
        Some(Step::Publish(_, copies)) if copies % 2 == 1 => OwnerlessJobs::Allow,
        _ => OwnerlessJobs::Deny,
    };
    let mut model = Model::new(lines, ownerless);
    for step in steps {
        match *step {
            Step::Publish(job, copies) => model.publish(job, copies),
            Step::Receive(line, many) => model.receive(line, many),
            Step::Connect(places) => model.connect(places, Identity::Everybody),
            Step::ConnectAs(places, who) => model.connect(places, identity(who)),
            Step::BeginJoin(watcher, room) => model.begin_join(watcher, room),
            Step::Join(which, since) => model.advance_join(which, since),
            Step::Leave(watcher, room) => model.leave(watcher, room),
            Step::Places(watcher, places) => {
                if let Some(watcher) = watcher.checked_rem(model.watchers.len()) {
                    *model.watchers[watcher].outbox.places.lock().unwrap() += places;
                }
            }
            Step::CatchUp(which) => model.advance_catch_up(which),
            Step::Fill(which) => model.advance_fill(which),
            Step::Disconnect(which) => {
                let busy = |which: usize| model.joining.iter().any(|joining| joining.watcher >= which);
                if let Some(which) = which.checked_rem(model.watchers.len()).filter(|which| !busy(*which)) {
                    let watcher = model.watchers.remove(which);
                    model.hub.disconnect(watcher.key);
                }
            }
            Step::Toggle(line) => model.toggle(line),
            Step::Lose(count) => {
                // A store loses its tail only where it was gone, and nobody reads a room to join it meanwhile.
                if model.joining.is_empty() && model.lines.iter().all(|line| line.is_cut) {
                    model.store.lose(count);
                }
            }
            Step::Flush => {
                if model.joining.is_empty() {
                    model.flush();
                }
            }
        }
        model.note_put_out();
    }
    model.settle();
    if !steps.iter().any(|step| matches!(step, Step::Flush)) {
        model.check();
    }
    for watcher in std::mem::take(&mut model.watchers) {
        model.hub.disconnect(watcher.key);
    }
    assert!(model.hub.sessions.is_empty() && model.hub.rooms.is_empty());
}

/// Runs a property with a seed of its own, which is printed.
fn property(name: &str, cases: u32, strategy: impl Strategy<Value = Vec<Step>>, test: impl Fn(&[Step])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = number("CASES").map_or(cases, |cases| u32::try_from(cases).unwrap_or(u32::MAX));
    println!("{name}: SEED={seed} CASES={cases}");
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |steps| {
        test(&steps);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{name} with SEED={seed}: {failure:?}"));
}

#[test]
fn everybody_gets_everything_over_one_connection() {
    property("one connection", 2000, steps(0, 0, 0), |steps| run(1, steps));
}

#[test]
fn everybody_gets_everything_room_by_room() {
    property("room by room", 2000, steps(0, 0, 0), |steps| run(2, steps));
}

#[test]
fn interruptions_are_made_good() {
    property("interruptions", 2000, steps(5, 0, 0), |steps| run(1, steps));
    property("interruptions, room by room", 2000, steps(5, 0, 0), |steps| run(2, steps));
}

#[test]
fn a_lost_tail_costs_nothing_else() {
    property("lost tails", 2000, steps(6, 4, 0), |steps| run(1, steps));
    property("lost tails, room by room", 2000, steps(6, 4, 0), |steps| run(2, steps));
}

#[test]
fn a_log_that_began_anew_is_followed() {
    property("flushes", 2000, steps(3, 2, 2), |steps| run(1, steps));
}

/// What properties have found, as the smallest case of each.
mod found {
    use super::{Step::*, run};

    #[test]
    fn memory_has_no_hole_where_a_first_join_moves_the_edge() {
        let early = [Connect(0), Publish(0, 0), BeginJoin(0, 3), Publish(0, 0), Receive(0, 0), Publish(0, 0)];
        let late = [Publish(0, 0), Join(0, Some(1)), Publish(0, 0), Join(0, None), Publish(0, 0)];
        run(1, &[&early[..], &late[..]].concat());
    }

    #[test]
    fn what_came_while_a_second_room_was_joined_comes_once() {
        let first =
            [Connect(1), BeginJoin(0, 3), Join(0, None), Join(0, None), Publish(0, 0), BeginJoin(0, 5)];
        let second = [Join(0, None), Publish(0, 0), Receive(0, 3), Join(0, None)];
        run(1, &[&first[..], &second[..]].concat());
    }

    #[test]
    fn a_room_that_is_not_whole_comes_before_one_that_was_joined_later() {
        let cut = [
            Connect(9),
            BeginJoin(0, 3),
            Join(0, None),
            Join(0, None),
            Toggle(0),
            Publish(0, 0),
            Publish(0, 0),
        ];
        let back = [Toggle(0), BeginJoin(0, 5), Publish(0, 0), Join(0, None), Join(0, None), Publish(0, 0)];
        run(1, &[&cut[..], &back[..]].concat());
    }

    #[test]
    fn a_cursor_at_the_edge_keeps_its_turn_until_its_room_is_whole() {
        let cut =
            [Publish(0, 0), Connect(0), BeginJoin(0, 24), Join(0, None), Publish(0, 0), Toggle(0), Toggle(0)];
        let join =
            [Join(0, None), BeginJoin(0, 5), Publish(0, 0), Publish(0, 0), Publish(0, 0), Join(0, None)];
        run(1, &[&cut[..], &join[..], &[Publish(0, 0)]].concat());
    }

    #[test]
    fn rooms_wait_in_the_order_in_which_they_were_joined() {
        let join = [
            Connect(5),
            BeginJoin(0, 5),
            Join(0, None),
            Join(0, None),
            Publish(1, 0),
            Publish(1, 0),
            Receive(0, 0),
        ];
        let cut = [
            Toggle(0),
            Toggle(0),
            Publish(1, 0),
            BeginJoin(0, 1),
            Join(0, None),
            Join(0, None),
            Publish(1, 0),
        ];
        run(1, &[&join[..], &cut[..]].concat());
    }

    #[test]
    fn leaving_a_room_frees_what_waits_for_it() {
        let join =
            [Connect(0), BeginJoin(0, 29), Toggle(0), Toggle(0), Receive(0, 1), Join(0, None), Join(0, None)];
        let wait = [BeginJoin(0, 55), Join(0, None), Publish(1, 0), Join(0, None), Receive(0, 0), CatchUp(0)];
        run(1, &[&join[..], &wait[..], &[Leave(0, 47)]].concat());
    }

    #[test]
    fn what_one_room_skips_another_one_still_brings() {
        let join = [
            Publish(2, 0),
            Connect(9),
            BeginJoin(0, 2),
            Join(0, None),
            Join(0, None),
            Publish(2, 0),
            Receive(0, 0),
        ];
        let skip = [
            Publish(2, 0),
            Publish(2, 0),
            BeginJoin(0, 4),
            Join(0, Some(1)),
            Join(0, None),
            CatchUp(0),
            CatchUp(0),
        ];
        run(2, &[&join[..], &skip[..]].concat());
    }

    #[test]
    fn a_room_that_was_left_has_brought_what_it_brought() {
        let join = [
            Connect(9),
            BeginJoin(0, 5),
            Join(0, None),
            Join(0, None),
            BeginJoin(0, 4),
            Join(0, None),
            Join(0, None),
        ];
        let leave = [Publish(2, 0), Receive(0, 3), Leave(0, 4), Receive(1, 3)];
        run(2, &[&join[..], &leave[..]].concat());
    }

    #[test]
    fn a_time_is_a_place_between_entries() {
        let first = [Connect(9), Connect(9), BeginJoin(0, 3), Join(0, None), Join(0, None), Publish(2, 0)];
        let second =
            [BeginJoin(1, 3), Join(0, None), Join(0, None), Publish(0, 0), Receive(0, 3), Publish(0, 0)];
        run(1, &[&first[..], &second[..]].concat());
    }

    #[test]
    fn a_room_says_nothing_of_events_that_it_does_not_have() {
        let joined = [
            Publish(1, 0),
            Connect(2),
            Publish(0, 0),
            BeginJoin(0, 21),
            Publish(1, 0),
            Publish(0, 0),
            Join(0, None),
            Publish(0, 0),
            Receive(29, 2),
            Toggle(30),
            Receive(13, 14),
            Publish(1, 0),
            Publish(0, 0),
            Receive(19, 3),
            Receive(5, 1),
        ];
        let lost = [
            Join(0, None),
            Publish(0, 0),
            BeginJoin(0, 31),
            Toggle(1),
            Join(0, None),
            Join(0, None),
            Lose(2),
            Publish(1, 0),
            Toggle(29),
            Toggle(13),
            Publish(0, 0),
            Publish(1, 0),
        ];
        run(2, &[&joined[..], &lost[..]].concat());
    }

    #[test]
    fn what_a_store_has_lost_is_not_remembered_either() {
        let joined = [
            Connect(0),
            Places(0, 1),
            BeginJoin(0, 5),
            Publish(0, 0),
            Join(0, None),
            Connect(0),
            Join(0, None),
            BeginJoin(1, 0),
            Join(0, None),
            Join(0, None),
            Publish(0, 0),
            Receive(0, 1),
        ];
        let lost = [Toggle(0), Lose(1), Toggle(0), BeginJoin(0, 0), Join(0, None), Join(0, None)];
        run(1, &[&joined[..], &lost[..]].concat());
    }

    #[test]
    fn a_name_that_is_used_again_is_not_the_old_owners() {
        let join = [
            Flush,
            Flush,
            Publish(0, 0),
            ConnectAs(0, 0),
            Publish(1, 0),
            Publish(1, 0),
            Toggle(0),
            BeginJoin(0, 37),
            Toggle(0),
            Publish(1, 0),
        ];
        run(1, &[&join[..], &[Join(0, None), Join(0, None), Flush, Publish(1, 0)]].concat());
    }
}
