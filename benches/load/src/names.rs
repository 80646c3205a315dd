//! The names of a run's jobs and users: of one length, never met before, and cheap to tell from others.

use crate::digits::decimal;

/// How long the part is that tells runs apart, with its dash.
const TAG: usize = 7;
const DIGITS: usize = 5;

/// Names jobs and users of one run by their index.
#[derive(Clone)]
pub struct Names {
    tag: [u8; TAG],
}

impl Names {
    /// Names that no earlier run has used, so that nothing is known of these jobs anywhere.
    pub fn fresh() -> Self {
        let mut tag = [b'-'; TAG];
        tag[..TAG - 1].fill_with(|| fastrand::lowercase() as u8);
        Self { tag }
    }

    /// The id of the job with this index.
    pub fn job(&self, index: u32) -> String {
        format!("{}{index:0DIGITS$}", String::from_utf8_lossy(&self.tag))
    }

    /// The id of the user with this index.
    pub fn user(&self, index: u32) -> String {
        format!("u-{}", self.job(index))
    }

    /// The index of the job whose id `text` begins with, and what follows it.
    pub fn strip_job<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let (digits, rest) = text.strip_prefix(&self.tag)?.split_at_checked(DIGITS)?;
        Some((u32::try_from(decimal(digits)?).ok()?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_by_its_name() {
        let names = Names::fresh();
        for index in [0, 7, 999, 18_999] {
            let text = format!("{}\",…", names.job(index));
            assert_eq!(names.strip_job(text.as_bytes()), Some((index, "\",…".as_bytes())));
        }
    }

    #[test]
    fn jobs_of_other_runs_are_strangers() {
        let (ours, theirs) = (Names { tag: *b"aaaaaa-" }, Names { tag: *b"aaaaab-" });
        assert_eq!(ours.strip_job(theirs.job(3).as_bytes()), None);
        assert_eq!(ours.strip_job(b"aaaaaa-12"), None);
        assert_eq!(ours.strip_job(b"aaaaaa-12x45\""), None);
    }
}
