//! The learning rate of each step.

use crate::config::{Schedule, ScheduleKind};
use std::f64::consts::PI;

impl Schedule {
    /// The rate of a step, counted from 1 to `steps`.
    ///
    /// Warm-up is linear: step 1 of `warmup` has `peak / warmup`. Trapezoidal falls in a line from `peak` to `end`; `wsd` as
    /// `end + (peak - end) (1 - sqrt(t))` (Hägele et al. 2024); cosine as half a cosine over all steps after the warm-up.
    pub fn rate(&self, step: u64) -> f64 {
        let Self { steps, kind, peak, end, warmup, cooldown } = *self;
        if step <= warmup {
            return peak * step as f64 / warmup.max(1) as f64;
        }
        let falls = match kind {
            ScheduleKind::Cosine => steps.saturating_sub(warmup),
            ScheduleKind::Trapezoidal | ScheduleKind::Wsd => cooldown,
        };
        let begins = steps.saturating_sub(falls);
        if step <= begins || falls == 0 {
            return peak;
        }
        let t = ((step - begins) as f64 / falls as f64).min(1.0);
        let left = match kind {
            ScheduleKind::Trapezoidal => 1.0 - t,
            ScheduleKind::Wsd => 1.0 - t.sqrt(),
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * t).cos()),
        };
        end + (peak - end) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { steps: 100, kind, peak: 1.0, end: 0.1, warmup: 10, cooldown: 40 }
    }

    #[test]
    fn trapezoidal_rises_stays_and_falls_in_lines() {
        let s = schedule(ScheduleKind::Trapezoidal);
        let rates: Vec<f64> = [1, 5, 10, 11, 60, 80, 100].map(|step| s.rate(step)).to_vec();
        for (rate, expected) in rates.iter().zip([0.1, 0.5, 1.0, 1.0, 1.0, 0.55, 0.1]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn wsd_falls_as_one_minus_square_root() {
        let s = schedule(ScheduleKind::Wsd);
        assert_eq!(s.rate(60), 1.0);
        assert!((s.rate(70) - 0.55).abs() < 1e-12);
        assert!((s.rate(100) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn cosine_falls_from_the_end_of_the_warm_up() {
        let s = schedule(ScheduleKind::Cosine);
        assert!((s.rate(55) - 0.55).abs() < 1e-12);
        assert!((s.rate(100) - 0.1).abs() < 1e-12);
        assert!(s.rate(20) > s.rate(30));
    }

    #[test]
    fn no_warm_up_and_no_cool_down_is_a_constant_rate() {
        let s = Schedule { warmup: 0, cooldown: 0, ..schedule(ScheduleKind::Trapezoidal) };
        assert!([1, 50, 100].iter().all(|&step| s.rate(step) == 1.0));
    }
}
