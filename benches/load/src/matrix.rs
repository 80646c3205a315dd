//! Every load on every subject, round after round, and the report on it.

use std::path::Path;

use crate::cli::Matrix;
use crate::error::Error;
use crate::figure::{Figure, shown};
use crate::interrupt;
use crate::loads::{self, Entry};
use crate::machine::{Machine, Run};
use crate::report::Report;
use crate::rows::{Load, Row};
use crate::scenario::{Knobs, Scenario};
use crate::stage::{Stage, scratch};
use crate::subject::{Programs, Subject};

/// A load with the subjects that it is put on, and what they yield in this run.
struct Task {
    name: &'static str,
    scenario: Box<dyn Scenario>,
    rows: Vec<(Subject, Row)>,
}

/// Runs all that was asked for; whether nothing failed. The report is written after every run, so that an
/// interrupted one leaves what it had.
pub fn run(matrix: &Matrix, programs: &Programs, root: &Path) -> Result<bool, Error> {
    let rounds = if matrix.quick { 1 } else { matrix.rounds };
    let run = Run::now(root, matrix.quick);
    let out = matrix.out.clone().unwrap_or_else(|| root.join("benches/results"));
    let mut tasks = tasks(matrix, &run)?;
    let mut report = Report { machine: Machine::this(programs), loads: blank(&run) };
    if !matrix.fresh {
        report.take_over(&out)?;
    }
    for round in 0..rounds {
        for Task { name, scenario, rows } in &mut tasks {
            for at in turned(rows.len(), round as usize) {
                interrupt::check()?;
                let (subject, row) = &mut rows[at];
                eprint!("round {} of {rounds}, {name}, {}: ", round + 1, row.subject);
                let result = once(scenario.as_ref(), *subject, programs, root, matrix.quick);
                note(row, round, result, root)?;
                report.put(name, row.clone());
                report.write(&out)?;
            }
        }
    }
    eprintln!("written: {}", out.join("results.md").display());
    Ok(tasks.iter().flat_map(|task| &task.rows).all(|(_, row)| row.errors.is_empty()))
}

fn once(
    scenario: &dyn Scenario,
    subject: Subject,
    programs: &Programs,
    root: &Path,
    quick: bool,
) -> Result<Vec<Figure>, Error> {
    let mut stage = Stage::start(programs, subject, scenario.nodes(), &scratch(root))?;
    scenario.run(&mut stage, Knobs { quick, ..Knobs::default() })
}

/// Adds a run's result to its row; an interruption is no result.
fn note(row: &mut Row, round: u32, result: Result<Vec<Figure>, Error>, root: &Path) -> Result<(), Error> {
    match result {
        Ok(figures) => {
            let short =
                figures.iter().take(3).map(|figure| format!("{} {}", shown(figure.value), figure.name));
            eprintln!("{}", short.collect::<Vec<_>>().join(", "));
            row.add(figures);
        }
        Err(error) => {
            interrupt::check()?;
            // Reports are shared; where this repository lies on the disk is nobody's business.
            let error = error.to_string().replace(&format!("{}/", root.display()), "");
            eprintln!("error: {error}");
            row.errors.push(format!("round {}: {error}", round + 1));
        }
    }
    Ok(())
}

fn tasks(matrix: &Matrix, run: &Run) -> Result<Vec<Task>, Error> {
    let all = loads::all();
    if let Some(unknown) = matrix.scenarios.iter().find(|wanted| !all.iter().any(|own| own.name == *wanted)) {
        return Err(format!("there is no scenario “{unknown}”; `list` names them").into());
    }
    let wanted =
        |name: &str| matrix.scenarios.is_empty() || matrix.scenarios.iter().any(|wanted| wanted == name);
    let tasks =
        all.into_iter().filter(|entry| wanted(entry.name)).map(|Entry { name, scenario, subjects }| {
            let subjects = matrix.subjects().iter().filter(|subject| subjects.contains(subject));
            let rows = subjects.map(|subject| (*subject, Row::new(subject.name(), run.clone())));
            Task { name, scenario, rows: rows.collect() }
        });
    Ok(tasks.collect())
}

/// Every load with a row for each of its subjects, in the order of the report.
fn blank(run: &Run) -> Vec<Load> {
    let load = |Entry { name, scenario, subjects }: Entry| {
        let subjects = subjects.iter().map(|subject| Row::new(subject.name(), run.clone())).collect();
        Load { name: name.to_owned(), about: scenario.about(), subjects }
    };
    loads::all().into_iter().map(load).collect()
}

/// All of them, each round beginning with another one, so that none always follows the same.
fn turned(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_in_another_order() {
        let order = |round| turned(3, round).collect::<Vec<_>>();
        assert_eq!(
            (order(0), order(1), order(2), order(3)),
            (vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1], vec![0, 1, 2])
        );
        assert_eq!(turned(0, 1).count(), 0);
    }

    #[test]
    fn errors_do_not_tell_where_the_repository_is() {
        let run = Run::now(Path::new("/some/where"), true);
        let mut row = Row::new("node".to_owned(), run);
        note(&mut row, 1, Err("cannot start /some/where/target/x".into()), Path::new("/some/where")).unwrap();
        assert_eq!(row.errors, ["round 2: cannot start target/x"]);
    }
}
