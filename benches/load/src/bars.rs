//! The bars that Jobcast is held to: what is asked of it, relative to what was measured beside it.

use std::fmt::Write;

use crate::figure::shown;
use crate::rows::{Load, Row};

/// A load and the figure in it that tells what one of something costs.
type Cost = (&'static str, &'static str);

const FANOUT: Cost = ("fanout-1000", "server CPU s/M deliveries");
const PACED: Cost = ("fanout-1000-paced", "server CPU s/M deliveries");
const ROOMS: Cost = ("rooms-1000", "sum CPU s/M events");
const STORM: Cost = ("storm", "sum CPU µs/client");
const PUBLISH: Cost = ("publish-single", "sum CPU s/M events");
/// What a user would write instead.
const OPPONENTS: [&str; 3] = ["nestjs", "node", "bun"];
/// What must not happen to a delivery.
const FAULTS: [&str; 3] = ["lost", "duplicated", "reordered"];

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    Below(f64),
}

use Bound::{AtMost, Below};

/// One bar.
#[derive(Debug, PartialEq)]
struct Bar {
    about: String,
    asked: String,
    /// What was measured and whether it is enough; `None` where it was not measured, or not all of it.
    outcome: Option<(String, bool)>,
}

/// Appends the table of all bars.
pub fn put(text: &mut String, loads: &[Load]) {
    text.push_str("| what | measured | bar | verdict |\n|---|--:|--:|---|\n");
    for Bar { about, asked, outcome } in bars(&Results(loads)) {
        let (measured, verdict) = match outcome {
            Some((measured, true)) => (measured, "met"),
            Some((measured, false)) => (measured, "not met"),
            None => ("–".to_owned(), "not measured"),
        };
        let _ = writeln!(text, "| {about} | {measured} | {asked} | {verdict} |");
    }
}

fn bars(results: &Results<'_>) -> Vec<Bar> {
    let (eighth, tenth_more) = (AtMost(1.0 / 8.0), AtMost(1.1));
    vec![
        results.ratio("fan-out to 1,000 at full speed: CPU", FANOUT, "jobcast", "nestjs", eighth),
        results.ratio(
            "fan-out to 1,000 at full speed: CPU",
            FANOUT,
            "jobcast",
            "limit-coalesce",
            AtMost(2.0),
        ),
        results.value("fan-out to 1,000 at full speed: p99", (FANOUT.0, "p99 ms"), Below(60.0), "ms"),
        results.ratio("fan-out to 1,000, 20 events/s: CPU", PACED, "jobcast", "bun", Below(1.0)),
        results.ratio("fan-out to 1,000, 20 events/s: CPU", PACED, "jobcast", "limit-write", AtMost(2.0)),
        results.not_above_any("fan-out to 1,000, 20 events/s: p99", (PACED.0, "p99 ms")),
        results.ratio("1,000 rooms: CPU with Redis", ROOMS, "jobcast-redis", "nestjs", eighth),
        results.ratio("1,000 rooms: CPU", ROOMS, "jobcast", "limit-write", AtMost(3.5)),
        results.value("idle, all in one room", ("idle-shared", "RSS KiB/watcher"), AtMost(18.0), "KiB"),
        results.value("idle, each in its own room", ("idle", "RSS KiB/watcher"), AtMost(18.0), "KiB"),
        results.ratio("storm: CPU with Redis", STORM, "jobcast-redis", "nestjs", eighth),
        results.ratio("storm: CPU with Redis", STORM, "jobcast", "nestjs", eighth),
        results.ratio("publishing with a key: CPU", PUBLISH, "jobcast-key", "jobcast", tenth_more),
        results.ratio("publishing with a token: CPU", PUBLISH, "jobcast-token", "jobcast", tenth_more),
        results.ratio("subscribing with a key: CPU", STORM, "jobcast-key", "jobcast", tenth_more),
        results.ratio("subscribing with a token: CPU", STORM, "jobcast-token", "jobcast", tenth_more),
        results.flawless(),
        results.all_delivered("return: all delivered", "return"),
        results.worst("return: replay p99", ("return", "replay p99 ms"), Below(1_000.0), "ms"),
        results.worst(
            "return of all at once: all served",
            ("return-all", "all served s"),
            Below(f64::INFINITY),
            "s",
        ),
    ]
}

/// What was measured, to look things up in.
struct Results<'a>(&'a [Load]);

impl<'a> Results<'a> {
    fn rows(&self, load: &str) -> impl Iterator<Item = &'a Row> {
        self.0.iter().filter(move |own| own.name == load).flat_map(|load| &load.subjects)
    }

    fn row(&self, load: &str, subject: &str) -> Option<&'a Row> {
        self.rows(load).find(|row| row.subject == subject)
    }

    fn jobcasts(&self, load: &str) -> Vec<&'a Row> {
        self.rows(load).filter(|row| is_jobcast(row)).collect()
    }

    /// How much of one subject's cost another one has.
    fn ratio(&self, about: &str, (load, figure): Cost, of: &str, to: &str, bound: Bound) -> Bar {
        let rows = self.row(load, of).zip(self.row(load, to));
        let outcome = rows.and_then(|(of, to)| {
            let ratio = of.value(figure)? / to.value(figure).filter(|value| *value > 0.0)?;
            Some((format!("{}{}", fraction(ratio), mixed(&[of, to])), bound.holds(ratio)))
        });
        Bar { about: format!("{about}, {of} / {to}"), asked: bound.asked(fraction), outcome }
    }

    /// A figure of Jobcast with its embedded store.
    fn value(&self, about: &str, (load, figure): Cost, bound: Bound, unit: &str) -> Bar {
        let value = self.row(load, "jobcast").and_then(|row| row.value(figure));
        let outcome = value.map(|value| (with(value, unit), bound.holds(value)));
        Bar { about: format!("{about}, jobcast"), asked: bound.asked(|value| with(value, unit)), outcome }
    }

    /// A figure that is not worse than that of the best opponent.
    fn not_above_any(&self, about: &str, (load, figure): Cost) -> Bar {
        let opponents: Option<Vec<_>> = OPPONENTS.iter().map(|name| self.row(load, name)).collect();
        let outcome = opponents.zip(self.row(load, "jobcast")).and_then(|(opponents, jobcast)| {
            let value = |row: &Row| row.value(figure);
            let own = value(jobcast)?;
            let others = opponents.iter().map(|row| value(row)).collect::<Option<Vec<_>>>()?;
            let best = others.into_iter().fold(f64::INFINITY, f64::min);
            let mixed = mixed(&[&[jobcast], opponents.as_slice()].concat());
            Some((format!("{}, the best {}{mixed}", with(own, "ms"), with(best, "ms")), own <= best))
        });
        let asked = format!("not above the best of {}", OPPONENTS.join(", "));
        Bar { about: format!("{about}, jobcast"), asked, outcome }
    }

    /// A figure of Jobcast on whatever store it was measured with: the worst of them.
    fn worst(&self, about: &str, (load, figure): Cost, bound: Bound, unit: &str) -> Bar {
        let rows = self.jobcasts(load);
        let failed: usize = rows.iter().map(|row| row.errors.len()).sum();
        let outcome = match rows.iter().filter_map(|row| row.value(figure)).reduce(f64::max) {
            _ if failed > 0 => Some((format!("{failed} runs failed"), false)),
            value => value.map(|value| (with(value, unit), bound.holds(value))),
        };
        let asked = match bound {
            Below(f64::INFINITY) => "all".to_owned(),
            bound => bound.asked(|value| with(value, unit)),
        };
        Bar { about: format!("{about}, Jobcast on any store"), asked, outcome }
    }

    fn flawless(&self) -> Bar {
        let rows = self.0.iter().flat_map(|load| &load.subjects).filter(|row| is_jobcast(row)).collect();
        let about = "lost, duplicated, reordered: all loads, Jobcast on any store".to_owned();
        Bar { about, asked: "0".to_owned(), outcome: faults(rows) }
    }

    fn all_delivered(&self, about: &str, load: &str) -> Bar {
        let about = format!("{about}, Jobcast on any store");
        Bar { about, asked: "0 lost, duplicated, reordered".to_owned(), outcome: faults(self.jobcasts(load)) }
    }
}

/// How much happened that must not, in these runs; a run that failed proves nothing and counts against it.
fn faults(rows: Vec<&Row>) -> Option<(String, bool)> {
    let counted = rows.iter().filter(|row| FAULTS.iter().any(|fault| row.value(fault).is_some())).count();
    let failed: usize = rows.iter().map(|row| row.errors.len()).sum();
    if counted + failed == 0 {
        return None;
    }
    let sums = FAULTS
        .map(|fault| rows.iter().filter_map(|row| row.value(fault)).fold(0.0, |sum, count| sum + count));
    let shown = sums.map(shown).join(", ");
    let failures = if failed > 0 { format!("; {failed} runs failed") } else { String::new() };
    Some((format!("{shown}{failures}"), failed == 0 && sums.iter().all(|sum| *sum == 0.0)))
}

fn is_jobcast(row: &Row) -> bool {
    row.subject.starts_with("jobcast")
}

/// A warning where figures are compared that were not measured together.
fn mixed(rows: &[&Row]) -> &'static str {
    if rows.windows(2).all(|pair| pair[0].run == pair[1].run) { "" } else { " (of different runs)" }
}

fn with(value: f64, unit: &str) -> String {
    format!("{} {unit}", shown(value))
}

/// A share as people say it: below one as a part of it.
fn fraction(ratio: f64) -> String {
    let short = |value: f64| {
        let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if ratio > 0.0 && ratio < 1.0 { format!("1/{}", short(1.0 / ratio)) } else { short(ratio) }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtMost(bound) => value <= bound,
            Below(bound) => value < bound,
        }
    }

    fn asked(self, show: impl Fn(f64) -> String) -> String {
        match self {
            AtMost(bound) => format!("at most {}", show(bound)),
            Below(bound) => format!("below {}", show(bound)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure, fault, figure};
    use crate::machine::Run;

    fn run(date: &str) -> Run {
        Run { date: date.to_owned(), revision: None, quick: false }
    }

    fn row(subject: &str, figures: &[Figure]) -> Row {
        let mut row = Row::new(subject.to_owned(), run("today"));
        row.add(figures.to_vec());
        row
    }

    fn load(name: &str, subjects: Vec<Row>) -> Load {
        Load { name: name.to_owned(), about: String::new(), subjects }
    }

    fn fanout(rows: &[(&str, f64, f64)]) -> Load {
        let rows = rows.iter().map(|(subject, cpu, p99)| {
            row(subject, &[figure(FANOUT.1, *cpu), figure("p99 ms", *p99), fault("lost", 0)])
        });
        load(FANOUT.0, rows.collect())
    }

    /// The outcome of the bar whose name has these words.
    fn outcome(loads: &[Load], words: &str) -> Option<(String, bool)> {
        let mut found = bars(&Results(loads)).into_iter().filter(|bar| bar.about.contains(words));
        let bar = found.next().unwrap_or_else(|| panic!("no bar “{words}”"));
        assert!(found.next().is_none(), "two bars “{words}”");
        bar.outcome
    }

    fn met(text: &str) -> Option<(String, bool)> {
        Some((text.to_owned(), true))
    }

    fn not_met(text: &str) -> Option<(String, bool)> {
        Some((text.to_owned(), false))
    }

    #[test]
    fn ratios_are_held_to_their_bars() {
        let loads =
            [fanout(&[("jobcast", 0.5, 30.0), ("nestjs", 8.65, 700.0), ("limit-coalesce", 0.2, 9.0)])];
        assert_eq!(outcome(&loads, "full speed: CPU, jobcast / nestjs"), met("1/17.3"));
        assert_eq!(outcome(&loads, "full speed: CPU, jobcast / limit-coalesce"), not_met("2.5"));
        assert_eq!(outcome(&loads, "full speed: p99"), met("30 ms"));
        let at_the_bar = [fanout(&[("jobcast", 1.0, 60.0), ("nestjs", 8.0, 1.0)])];
        assert_eq!(outcome(&at_the_bar, "full speed: CPU, jobcast / nestjs"), met("1/8"));
        assert_eq!(outcome(&at_the_bar, "full speed: p99"), not_met("60 ms"));
    }

    #[test]
    fn what_is_missing_is_not_measured() {
        let mut text = String::new();
        put(&mut text, &[]);
        assert_eq!(text.matches("| – | ").count(), bars(&Results(&[])).len(), "{text}");
        assert_eq!(text.matches(" | not measured |\n").count(), bars(&Results(&[])).len(), "{text}");
        let alone = [fanout(&[("jobcast", 0.5, 30.0)])];
        assert_eq!(outcome(&alone, "full speed: CPU, jobcast / nestjs"), None);
        let idle = [fanout(&[("jobcast", 0.5, 30.0), ("nestjs", 0.0, 1.0)])];
        assert_eq!(outcome(&idle, "full speed: CPU, jobcast / nestjs"), None);
    }

    #[test]
    fn no_opponent_may_be_sooner_and_all_must_be_there() {
        let paced = |rows: &[(&str, f64)]| {
            load(PACED.0, rows.iter().map(|(name, p99)| row(name, &[figure("p99 ms", *p99)])).collect())
        };
        let all = |own| paced(&[("jobcast", own), ("nestjs", 40.0), ("node", 25.0), ("bun", 12.0)]);
        assert_eq!(outcome(&[all(12.0)], "events/s: p99"), met("12 ms, the best 12 ms"));
        assert_eq!(outcome(&[all(13.0)], "events/s: p99"), not_met("13 ms, the best 12 ms"));
        assert_eq!(outcome(&[paced(&[("jobcast", 1.0), ("bun", 12.0)])], "events/s: p99"), None);
    }

    #[test]
    fn faults_of_all_of_jobcast_and_of_nobody_else_count() {
        let faulty = |name: &str, lost, late| row(name, &[fault("lost", lost), fault("reordered", late)]);
        let fine = || load("fanout-1000", vec![faulty("jobcast", 0, 0), faulty("bun", 9, 0)]);
        assert_eq!(outcome(&[fine()], "all loads"), met("0, 0, 0"));
        let loads = [fine(), load("rooms-1000", vec![faulty("jobcast-redis", 0, 2)])];
        assert_eq!(outcome(&loads, "all loads"), not_met("0, 0, 2"));
        let mut failed = faulty("jobcast-memory", 0, 0);
        failed.errors.push("round 1: no".to_owned());
        assert_eq!(
            outcome(&[fine(), load("storm", vec![failed])], "all loads"),
            not_met("0, 0, 0; 1 runs failed")
        );
    }

    #[test]
    fn returns_are_judged_by_the_worst_store() {
        let back = |name: &str, p99| row(name, &[figure("replay p99 ms", p99), fault("lost", 0)]);
        let loads = |worse| [load("return", vec![back("jobcast", 60.0), back("jobcast-redis", worse)])];
        assert_eq!(outcome(&loads(999.0), "replay p99"), met("999 ms"));
        assert_eq!(outcome(&loads(1_000.0), "replay p99"), not_met("1,000 ms"));
        assert_eq!(outcome(&loads(1_000.0), "return: all delivered"), met("0, 0, 0"));
        let mut all = row("jobcast", &[figure("all served s", 6.9)]);
        assert_eq!(outcome(&[load("return-all", vec![all.clone()])], "all at once"), met("6.90 s"));
        all.errors.push("round 2: 17,000 are back".to_owned());
        assert_eq!(outcome(&[load("return-all", vec![all])], "all at once"), not_met("1 runs failed"));
    }

    #[test]
    fn figures_of_different_runs_are_marked() {
        let mut mixed = fanout(&[("jobcast", 1.0, 30.0), ("nestjs", 10.0, 1.0)]);
        mixed.subjects[1].run = run("yesterday");
        let outcome = outcome(&[mixed], "full speed: CPU, jobcast / nestjs");
        assert_eq!(outcome, met("1/10 (of different runs)"));
    }

    #[test]
    fn shares_are_said_as_people_do() {
        let cases =
            [(0.125, "1/8"), (0.0578, "1/17.3"), (0.4, "1/2.5"), (1.0, "1"), (1.349, "1.35"), (12.0, "12")];
        for (ratio, text) in cases {
            assert_eq!(fraction(ratio), text);
        }
    }
}
