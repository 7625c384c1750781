//! From results to a status: a status turns only after so many results in a row, so that one lost packet does not
//! empty an answer.

use super::Thresholds;
use crate::catalog::Status;

/// ```text
/// passing or warning ── success_before_passing in a row ──> the latest of them
/// critical ──┬─ failures_before_critical in a row ──> critical
///            └─ failures_before_warning in a row ──> warning
/// ```
/// Each kind of result ends the other's row. Both rows begin full, so the first result counts at once.
#[derive(Clone, Debug)]
pub struct Verdict {
    thresholds: Thresholds,
    successes: u32,
    failures: u32,
}

impl Verdict {
    pub fn new(thresholds: Thresholds) -> Self {
        Verdict {
            thresholds,
            successes: thresholds.success_before_passing,
            failures: thresholds.failures_before_critical,
        }
    }

    /// Takes one result; gives the status that it makes, or `None` where the status stays.
    pub fn record(&mut self, result: Status) -> Option<Status> {
        if result != Status::Critical {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            return (self.successes >= self.thresholds.success_before_passing).then_some(result);
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.thresholds.failures_before_critical {
            Some(Status::Critical)
        } else if self.failures >= self.thresholds.failures_before_warning {
            Some(Status::Warning)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thresholds (passing, warning, critical), results, and the status after each; `.` where it stays.
    #[test]
    fn thresholds_count_results_in_a_row() {
        let table = [
            ((0, 0, 0), "pcwpc", "pcwpc"),
            ((3, 0, 0), "pcpppcp", "pc..pc."),
            ((2, 0, 0), "cpwcww", "c.wc.w"),
            ((0, 3, 3), "pccpccc", "p..p..c"),
            ((0, 1, 3), "pcccp", "pwwcp"),
            ((0, 2, 3), "pcccc", "p.wcc"),
            ((0, 0, 2), "cc", "cc"),
            ((3, 2, 2), "c", "c"),
        ];
        for ((passing, warning, critical), results, expected) in table {
            let mut verdict = Verdict::new(Thresholds {
                success_before_passing: passing,
                failures_before_warning: warning,
                failures_before_critical: critical,
            });
            let told = results.chars().map(|result| {
                let result = match result {
                    'p' => Status::Passing,
                    'w' => Status::Warning,
                    _ => Status::Critical,
                };
                verdict.record(result).map_or('.', |status| status.as_str().chars().next().unwrap_or('?'))
            });
            assert_eq!(told.collect::<String>(), expected, "{results} at {passing}/{warning}/{critical}");
        }
    }
}
