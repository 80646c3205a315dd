//! What all runs together say: one number for each figure, in JSON for programs and in tables for people.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bars;
use crate::error::Error;
use crate::figure::shown;
use crate::machine::{Machine, Run};
use crate::rows::{Load, Row};

const JSON: &str = "results.json";
const MARKDOWN: &str = "results.md";

/// All that a report holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub loads: Vec<Load>,
}

impl Report {
    /// Takes what an earlier run left in a folder, as far as it belongs into this report: what is measured again
    /// replaces it row by row.
    pub fn take_over(&mut self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(JSON);
        let again = |what: String| format!("{}: {what}; --fresh begins anew", path.display());
        let json = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            json => json?,
        };
        let earlier: Self = serde_json::from_slice(&json).map_err(|error| again(error.to_string()))?;
        if !earlier.machine.is_like(&self.machine) {
            return Err(again("measured on another machine".to_owned()).into());
        }
        for Load { name, subjects, .. } in earlier.loads {
            subjects.into_iter().for_each(|row| self.put(&name, row));
        }
        Ok(())
    }

    /// Puts a row where it belongs; nowhere, if there is no such load or subject.
    pub fn put(&mut self, load: &str, row: Row) {
        let rows = self.loads.iter_mut().filter(|own| own.name == load).flat_map(|load| &mut load.subjects);
        rows.filter(|own| own.subject == row.subject).for_each(|own| own.clone_from(&row));
    }

    /// Writes `results.json` and `results.md` into a folder, with what has been measured by now.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let measured = self.measured();
        std::fs::create_dir_all(folder)?;
        let mut json = serde_json::to_string_pretty(&measured)?;
        json.push('\n');
        replace(folder, JSON, &json)?;
        replace(folder, MARKDOWN, &measured.markdown())
    }

    fn measured(&self) -> Self {
        let mut measured = self.clone();
        measured.loads.iter_mut().for_each(|load| load.subjects.retain(|row| !row.is_empty()));
        measured.loads.retain(|load| !load.subjects.is_empty());
        measured
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Results\n\n## Bars\n\n");
        bars::put(&mut text, &self.loads);
        self.put_preface(&mut text);
        self.loads.iter().for_each(|load| put_load(&mut text, load));
        text
    }

    fn put_preface(&self, text: &mut String) {
        let Machine { cpu, cores, memory_gib, kernel, versions } = &self.machine;
        let versions: Vec<_> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let _ = write!(
            text,
            "\n## Machine\n\n{cores} cores ({cpu}), {memory_gib} GiB, Linux {kernel}.\n\nVersions: {}.\n\n\
             Figures are medians of their rounds; of what must not happen (lost, …) the worst round counts. \
             Servers, Redis and the load generator share the cores. So compare what is counted in processor time \
             (CPU): it is read from the kernel, process by process. “watching thread %” and “publishing thread %” \
             tell how much of one core the generator's own two threads had.\n",
            versions.join(", ")
        );
    }
}

/// Never leaves half a file, whenever it is interrupted.
fn replace(folder: &Path, name: &str, content: &str) -> Result<(), Error> {
    let unfinished = folder.join(format!(".{name}.new"));
    std::fs::write(&unfinished, content)?;
    std::fs::rename(&unfinished, folder.join(name))?;
    Ok(())
}

fn put_load(text: &mut String, load: &Load) {
    let _ = write!(text, "\n## {}\n\n{}\n\n", load.name, load.about);
    let columns = columns(&load.subjects);
    let _ = writeln!(
        text,
        "| subject | {} |",
        if columns.is_empty() { "result".to_owned() } else { columns.join(" | ") }
    );
    let _ = writeln!(text, "|---{}|", "|--:".repeat(columns.len().max(1)));
    for row in &load.subjects {
        if !row.figures.is_empty() {
            let values = columns.iter().map(|name| row.value(name).map_or_else(|| "–".to_owned(), shown));
            let _ = writeln!(text, "| {} | {} |", row.subject, values.collect::<Vec<_>>().join(" | "));
        }
        for error in &row.errors {
            let blank = " |".repeat(columns.len().saturating_sub(1));
            let _ =
                writeln!(text, "| {} | **error**: {} |{blank}", row.subject, error.replace(['|', '\n'], " "));
        }
    }
    put_runs(text, &load.subjects);
}

/// Says when these rows were measured: they need not be of one run, nor have as many rounds.
fn put_runs(text: &mut String, rows: &[Row]) {
    let mut runs: Vec<((&Run, usize), Vec<&str>)> = Vec::new();
    for row in rows {
        let run = (&row.run, row.rounds());
        match runs.iter_mut().find(|(own, _)| *own == run) {
            Some((_, subjects)) => subjects.push(&row.subject),
            None => runs.push((run, vec![&row.subject])),
        }
    }
    let several = runs.len() > 1;
    for ((Run { date, revision, quick }, rounds), subjects) in runs {
        let revision = revision.as_deref().unwrap_or("unknown");
        let short = if *quick { "short " } else { "" };
        let rounds = format!("{rounds} {short}round{}", if rounds == 1 { "" } else { "s" });
        let whose = if several { format!(" ({})", subjects.join(", ")) } else { String::new() };
        let _ = write!(text, "\nMeasured on {date} at revision {revision}, {rounds}{whose}.\n");
    }
}

/// The figures of all rows, each behind what precedes it in its own row.
fn columns(rows: &[Row]) -> Vec<&str> {
    let mut ordered: Vec<&str> = Vec::new();
    for row in rows {
        let mut place = 0;
        for figure in &row.figures {
            match ordered.iter().position(|name| *name == figure.name) {
                Some(at) => place = at + 1,
                None => {
                    ordered.insert(place, &figure.name);
                    place += 1;
                }
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure, fault, figure};

    fn run(date: &str) -> Run {
        Run { date: date.to_owned(), revision: Some("abc".to_owned()), quick: false }
    }

    fn report(loads: Vec<Load>) -> Report {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24,
            kernel: "6.1".to_owned(),
            versions: vec![("node".to_owned(), "20".to_owned())],
        };
        Report { machine, loads }
    }

    fn row(subject: &str, rounds: &[&[Figure]]) -> Row {
        let mut row = Row::new(subject.to_owned(), run("Monday"));
        rounds.iter().for_each(|figures| row.add(figures.to_vec()));
        row
    }

    fn load(subjects: Vec<Row>) -> Load {
        Load { name: "fanout".to_owned(), about: "Many watch.".to_owned(), subjects }
    }

    #[test]
    fn rounds_are_merged_and_losses_never_hidden() {
        let round = |rate, lost| vec![figure("events/s", rate), fault("lost", lost)];
        let row = row("node", &[&round(3.0, 0), &round(1.0, 7), &round(2.0, 0)]);
        assert_eq!((row.value("events/s"), row.value("lost")), (Some(2.0), Some(7.0)));
        assert_eq!(row.figures[0].rounds, [3.0, 1.0, 2.0]);
    }

    #[test]
    fn a_table_has_the_columns_of_all_its_rows() {
        let with_redis = row("nestjs", &[&[figure("CPU", 5.0), figure("Redis", 1.0), fault("lost", 0)]]);
        let without = row("node", &[&[figure("CPU", 2.5), fault("lost", 0), fault("cut off", 3)]]);
        let text = report(vec![load(vec![without, with_redis])]).markdown();
        let table = "| subject | CPU | Redis | lost | cut off |\n|---|--:|--:|--:|--:|\n\
                     | node | 2.50 | – | 0 | 3 |\n| nestjs | 5 | 1 | 0 | – |\n\n\
                     Measured on Monday at revision abc, 1 round.\n";
        assert!(text.ends_with(table), "{text}");
        assert!(text.starts_with("# Results\n\n## Bars\n\n| what |"), "{text}");
    }

    #[test]
    fn an_error_is_a_line_of_the_table() {
        let mut failed = Row::new("bun".to_owned(), run("Tuesday"));
        failed.errors.push("round 1: no | answer\nat all".to_owned());
        let fine = row("node", &[&[figure("CPU", 2.5), fault("lost", 0)]]);
        let text = report(vec![load(vec![fine, failed])]).markdown();
        let end = "| bun | **error**: round 1: no   answer at all | |\n\n\
                   Measured on Monday at revision abc, 1 round (node).\n\n\
                   Measured on Tuesday at revision abc, 0 rounds (bun).\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn what_is_not_measured_again_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep");
        let blank = |subject: &str| Row::new(subject.to_owned(), run("Tuesday"));
        let plan = || report(vec![load(vec![blank("node"), blank("bun"), blank("nestjs")])]);

        let mut first = plan();
        first.take_over(&path).unwrap();
        first.put("fanout", row("node", &[&[figure("CPU", 2.5)]]));
        first.put("fanout", row("nestjs", &[&[figure("CPU", 9.0)]]));
        first.put("gone", row("node", &[&[figure("CPU", 1.0)]]));
        first.write(&path).unwrap();

        let mut second = plan();
        second.take_over(&path).unwrap();
        let mut again = blank("nestjs");
        again.add(vec![figure("CPU", 8.0)]);
        second.put("fanout", again);
        second.write(&path).unwrap();

        let read: Report = serde_json::from_slice(&std::fs::read(path.join(JSON)).unwrap()).unwrap();
        let rows: Vec<_> = read.loads[0]
            .subjects
            .iter()
            .map(|row| (row.subject.as_str(), row.value("CPU"), row.run.date.as_str()))
            .collect();
        assert_eq!(rows, [("node", Some(2.5), "Monday"), ("nestjs", Some(8.0), "Tuesday")]);
        assert_eq!((read.loads.len(), path.join(MARKDOWN).exists()), (1, true));
    }

    #[test]
    fn another_machine_or_a_broken_file_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut elsewhere = report(Vec::new());
        elsewhere.machine.cores = 64;
        elsewhere.write(folder.path()).unwrap();
        let refused = |error: Error| error.to_string().contains("--fresh");
        assert!(report(Vec::new()).take_over(folder.path()).is_err_and(refused));
        std::fs::write(folder.path().join(JSON), "{").unwrap();
        assert!(report(Vec::new()).take_over(folder.path()).is_err_and(refused));
    }
}
