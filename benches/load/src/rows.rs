//! What was measured: a row for each subject that a load was put on, with its figures of all rounds.

use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Merge, merged};
use crate::machine::Run;

/// One load on all of its subjects.
#[derive(Clone, Serialize, Deserialize)]
pub struct Load {
    pub name: String,
    pub about: String,
    pub subjects: Vec<Row>,
}

/// One load on one subject.
#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub subject: String,
    pub run: Run,
    pub figures: Vec<Merged>,
    /// What went wrong, by round.
    pub errors: Vec<String>,
}

/// One figure of all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Merged {
    pub name: String,
    pub merge: Merge,
    /// The median, or the largest.
    pub value: f64,
    pub rounds: Vec<f64>,
}

impl Row {
    /// A subject that has not run yet.
    pub fn new(subject: String, run: Run) -> Self {
        Self { subject, run, figures: Vec::new(), errors: Vec::new() }
    }

    /// Whether it has not run yet.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty() && self.errors.is_empty()
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

    /// How many rounds succeeded.
    pub fn rounds(&self) -> usize {
        self.figures.iter().map(|figure| figure.rounds.len()).max().unwrap_or(0)
    }

    /// What all rounds say of this figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}
