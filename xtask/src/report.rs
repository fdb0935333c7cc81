//! Counting what passed, failed and was skipped, and the table at the end.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use crate::error::Result;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// One line of a virtual machine's console: `ok NAME`, `not ok NAME: why`, `skip NAME: why`.
    pub(crate) fn of_console_line(line: &str) -> Option<Self> {
        let starts = |word: &str| line.strip_prefix(word).is_some_and(|rest| !rest.trim().is_empty());
        if starts("not ok ") {
            Some(Self::FAILED)
        } else if starts("ok ") {
            Some(Self::PASSED)
        } else if starts("skip ") {
            Some(Self::SKIPPED)
        } else {
            None
        }
    }

    /// libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn of_libtest_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |what: &str| {
            let words = counts.split([';', '.']).map(str::trim);
            words.filter_map(|part| part.strip_suffix(what)).find_map(|number| number.trim().parse().ok())
        };
        Some(Self { passed: count(" passed")?, failed: count(" failed")?, skipped: count(" ignored")? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The steps of a test run, in order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<(String, Duration, Tally)>,
}

impl Report {
    /// Runs one step, says how it went; an error is one failure, and the next steps still run.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Tally>) -> bool {
        println!("\n== {name}");
        let start = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("not ok {name}: {}", error.chain());
            Tally::FAILED
        });
        self.steps.push((name.to_owned(), start.elapsed(), tally));
        tally.failed == 0
    }

    /// Counts a step that cannot run here.
    pub(crate) fn not_run(&mut self, name: &str, because: &str) {
        println!("\n== {name}\nnot run, because {because}");
        self.steps.push((name.to_owned(), Duration::ZERO, Tally::SKIPPED));
    }

    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (_, _, tally) in &self.steps {
            total += *tally;
        }
        total
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.steps.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let mut all = Duration::ZERO;
        for (name, time, tally) in &self.steps {
            all += *time;
            writeln!(f, "{name:width$}  {:7.1} s  {tally}", time.as_secs_f64())?;
        }
        writeln!(f, "{:width$}  {:7.1} s", "", all.as_secs_f64())?;
        write!(f, "{}", self.total())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::error::Error;

    fn check(found: Option<Tally>, expected: &Expect) {
        expected.assert_eq(&found.map_or_else(|| "nothing".to_owned(), |tally| tally.to_string()));
    }

    #[test]
    fn console_lines_count_by_their_first_words() {
        check(Tally::of_console_line("ok open is seen"), &expect!["1 passed, 0 failed, 0 skipped"]);
        check(Tally::of_console_line("not ok open is seen: no event"), &expect!["0 passed, 1 failed, 0 skipped"]);
        check(Tally::of_console_line("skip lsm: not in lsm="), &expect!["0 passed, 0 failed, 1 skipped"]);
        check(Tally::of_console_line("okay, booting"), &expect!["nothing"]);
        check(Tally::of_console_line("ok "), &expect!["nothing"]);
        check(Tally::of_console_line("[    0.1] ok x"), &expect!["nothing"]);
    }

    #[test]
    fn libtest_summaries_are_read_whether_good_or_bad() {
        check(
            Tally::of_libtest_line(
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            ),
            &expect!["12 passed, 0 failed, 1 skipped"],
        );
        check(
            Tally::of_libtest_line(
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s",
            ),
            &expect!["1 passed, 2 failed, 0 skipped"],
        );
        check(Tally::of_libtest_line("test a ... ok"), &expect!["nothing"]);
    }

    #[test]
    fn an_error_is_a_failure_and_a_thing_not_run_is_skipped() {
        let mut report = Report::default();
        assert!(report.step("good", || Ok(Tally { passed: 3, failed: 0, skipped: 1 })));
        assert!(!report.step("bad", || Err(Error::said("broken"))));
        report.not_run("absent", "there is no such device");
        expect!["3 passed, 1 failed, 2 skipped"].assert_eq(&report.total().to_string());
        assert!(report.to_string().ends_with("\n3 passed, 1 failed, 2 skipped"));
    }
}
