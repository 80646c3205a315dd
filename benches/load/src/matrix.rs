//! Every load on every subject, round after round, and the report on it.

use std::path::Path;

use crate::cli::Matrix;
use crate::figure::{Figure, shown};
use crate::machine::Machine;
use crate::report::{Load, Report, Row};
use crate::scenario::{self, Knobs, Scenario};
use crate::stage::Stage;
use crate::subject::{Programs, Subject};
use crate::{Error, interrupt};

/// A load with its name and the subjects that it is put on.
struct Task {
    name: &'static str,
    scenario: Box<dyn Scenario>,
    subjects: Vec<Subject>,
}

/// Runs all that was asked for; whether nothing failed. The report is written after every run, so that an
/// interrupted one leaves what it had.
pub fn run(matrix: &Matrix, programs: &Programs, root: &Path) -> Result<bool, Error> {
    let tasks = tasks(matrix)?;
    let rounds = if matrix.quick { 1 } else { matrix.rounds };
    let out = matrix.out.clone().unwrap_or_else(|| root.join("benches/results"));
    let loads = tasks.iter().map(empty_load).collect();
    let mut report = Report { machine: Machine::this(programs, root), rounds, quick: matrix.quick, loads };
    for round in 0..rounds {
        for (task, load) in tasks.iter().enumerate() {
            for subject in turned(load.subjects.len(), round as usize) {
                interrupt::check()?;
                let Task { name, subjects, .. } = &tasks[task];
                eprint!("round {} of {rounds}, {name}, {}: ", round + 1, subjects[subject].name());
                let result = once(load, subjects[subject], programs, root, matrix.quick);
                note(&mut report.loads[task].subjects[subject], round, result, root)?;
                report.write(&out)?;
            }
        }
    }
    eprintln!("written: {}", out.join("results.md").display());
    Ok(!report.has_errors())
}

fn once(
    task: &Task,
    subject: Subject,
    programs: &Programs,
    root: &Path,
    quick: bool,
) -> Result<Vec<Figure>, Error> {
    let mut stage = Stage::start(programs, subject, task.scenario.nodes(), &crate::scratch(root))?;
    task.scenario.run(&mut stage, Knobs { quick, ..Knobs::default() })
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

fn tasks(matrix: &Matrix) -> Result<Vec<Task>, Error> {
    let all = scenario::all();
    if let Some(unknown) = matrix.scenarios.iter().find(|wanted| !all.iter().any(|(name, _)| name == wanted))
    {
        return Err(format!("there is no scenario “{unknown}”; `list` names them").into());
    }
    let wanted =
        |name: &str| matrix.scenarios.is_empty() || matrix.scenarios.iter().any(|wanted| wanted == name);
    let tasks = all.into_iter().filter(|(name, _)| wanted(name)).map(|(name, scenario)| {
        let subjects = matrix.subjects().iter().copied().filter(|subject| scenario.suits(*subject)).collect();
        Task { name, scenario, subjects }
    });
    Ok(tasks.filter(|task| !task.subjects.is_empty()).collect())
}

fn empty_load(task: &Task) -> Load {
    let subjects = task.subjects.iter().map(|subject| Row::new(subject.name())).collect();
    Load { name: task.name.to_owned(), about: task.scenario.about(), subjects }
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
        let mut row = Row::new("node".to_owned());
        note(&mut row, 1, Err("cannot start /some/where/target/x".into()), Path::new("/some/where")).unwrap();
        assert_eq!(row.errors, ["round 2: cannot start target/x"]);
    }
}
