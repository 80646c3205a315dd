//! What all runs together say: one number for each figure, in JSON for programs and in tables for people.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::figure::{Figure, Merge, merged, shown};
use crate::machine::Machine;

/// All that a report holds.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: u32,
    /// Whether these were short runs, which measure little.
    pub quick: bool,
    pub loads: Vec<Load>,
}

/// One load on all of its subjects.
#[derive(Serialize)]
pub struct Load {
    pub name: String,
    pub about: String,
    pub subjects: Vec<Row>,
}

/// One load on one subject.
#[derive(Serialize)]
pub struct Row {
    pub subject: String,
    pub figures: Vec<Merged>,
    /// What went wrong, by round.
    pub errors: Vec<String>,
}

/// One figure of all rounds.
#[derive(Serialize, Debug, PartialEq)]
pub struct Merged {
    pub name: String,
    pub merge: Merge,
    /// The median, or the largest.
    pub value: f64,
    pub rounds: Vec<f64>,
}

impl Row {
    /// A subject that has not run yet.
    pub fn new(subject: String) -> Self {
        Self { subject, figures: Vec::new(), errors: Vec::new() }
    }

    /// Adds what one round measured.
    pub fn add(&mut self, figures: Vec<Figure>) {
        for Figure { name, value, merge } in figures {
            let known = self.figures.iter().position(|figure| figure.name == name);
            let at = known.unwrap_or_else(|| {
                self.figures.push(Merged { name, merge, value: 0.0, rounds: Vec::new() });
                self.figures.len() - 1
            });
            let figure = &mut self.figures[at];
            figure.rounds.push(value);
            figure.value = merged(&figure.rounds, merge);
        }
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Report {
    /// Whether any run failed.
    pub fn has_errors(&self) -> bool {
        self.loads.iter().flat_map(|load| &load.subjects).any(|row| !row.errors.is_empty())
    }

    /// Writes `results.json` and `results.md` into a folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder)?;
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        std::fs::write(folder.join("results.json"), json)?;
        std::fs::write(folder.join("results.md"), self.markdown())?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Results\n\n");
        self.put_preface(&mut text);
        self.loads.iter().for_each(|load| put_load(&mut text, load));
        text
    }

    fn put_preface(&self, text: &mut String) {
        let Machine { date, cpu, cores, memory_gib, kernel, revision, versions } = &self.machine;
        let revision = revision.as_deref().unwrap_or("unknown");
        let versions: Vec<_> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let rounds = match self.rounds {
            1 => "One round".to_owned(),
            rounds => {
                format!("Medians of {rounds} rounds; of what must not happen (lost, …) the worst round")
            }
        };
        let quick =
            if self.quick { " of short runs, which show that it works and measure little" } else { "" };
        let _ = write!(
            text,
            "{rounds}{quick}. Measured on {date} at revision {revision}, on {cores} cores ({cpu}), {memory_gib} GiB, \
             Linux {kernel}.\n\nVersions: {}.\n\n\
             Servers, Redis and the load generator share the cores. So compare what is counted in processor time \
             (CPU): it is read from the kernel, process by process. “watching thread %” and “publishing thread %” \
             tell how much of one core the generator's own two threads had.\n",
            versions.join(", ")
        );
    }
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
    use crate::figure::{fault, figure};

    fn report(loads: Vec<Load>) -> Report {
        let machine = Machine {
            date: "2026-01-01 00:00 UTC".to_owned(),
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24,
            kernel: "6.1".to_owned(),
            revision: None,
            versions: vec![("node".to_owned(), "20".to_owned())],
        };
        Report { machine, rounds: 3, quick: false, loads }
    }

    fn row(subject: &str, rounds: &[&[Figure]]) -> Row {
        let mut row = Row::new(subject.to_owned());
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
                     | node | 2.50 | – | 0 | 3 |\n| nestjs | 5 | 1 | 0 | – |\n";
        assert!(text.ends_with(table), "{text}");
    }

    #[test]
    fn an_error_is_a_line_of_the_table() {
        let mut failed = Row::new("bun".to_owned());
        failed.errors.push("round 1: no | answer\nat all".to_owned());
        let fine = row("node", &[&[figure("CPU", 2.5), fault("lost", 0)]]);
        let report = report(vec![load(vec![fine, failed])]);
        assert!(report.has_errors());
        assert!(report.markdown().ends_with("| bun | **error**: round 1: no   answer at all | |\n"));
    }

    #[test]
    fn both_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        report(vec![load(vec![row("node", &[&[figure("CPU", 2.5)]])])])
            .write(&folder.path().join("deep"))
            .unwrap();
        let json = std::fs::read(folder.path().join("deep/results.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["loads"][0]["subjects"][0]["figures"][0]["value"], 2.5);
        assert!(folder.path().join("deep/results.md").exists());
    }
}
