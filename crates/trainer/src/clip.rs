//! How far a gradient may reach: a fixed norm, or a percentile of the norms before it.

use crate::config::ClipConfig;

impl ClipConfig {
    /// The norm that a gradient is scaled down to, given the norms of past steps (unclipped); infinite when nothing limits it.
    ///
    /// A percentile counts once a tenth of `history` is there (16 norms at least), so that the first steps do not set it.
    pub fn threshold(&self, past: &[f64]) -> f64 {
        let fixed = if self.norm > 0.0 { self.norm } else { f64::INFINITY };
        if self.percentile <= 0.0 || past.len() < (self.history / 10).max(16).min(self.history) {
            return fixed;
        }
        let mut sorted = past.to_vec();
        sorted.sort_by(f64::total_cmp);
        let place = self.percentile / 100.0 * (sorted.len() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::INFINITY);
        let percentile = at(below) + (at(above) - at(below)) * (place - place.floor());
        fixed.min(percentile)
    }

    /// Puts a norm into the history.
    pub fn remember(&self, past: &mut Vec<f64>, norm: f64) {
        if self.percentile > 0.0 {
            past.push(norm);
            let extra = past.len().saturating_sub(self.history);
            past.drain(..extra);
        }
    }
}

/// What gradients of `norm` are multiplied with: as torch's `clip_grad_norm_`.
pub fn scale(norm: f64, threshold: f64) -> f32 {
    (threshold / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_of_past_norms_limits_once_there_are_enough() {
        let clip = ClipConfig { norm: 50.0, percentile: 90.0, history: 101 };
        let mut past = Vec::new();
        for norm in 0..15 {
            clip.remember(&mut past, f64::from(norm));
        }
        assert_eq!(clip.threshold(&past), 50.0);
        for norm in 15..201 {
            clip.remember(&mut past, f64::from(norm));
        }
        // The last 101 norms are 100 to 200: their 90th percentile is beyond the fixed norm.
        assert_eq!((past.len(), clip.threshold(&past)), (101, 50.0));
        assert_eq!(ClipConfig { norm: 0.0, ..clip }.threshold(&past), 190.0);
    }

    #[test]
    fn nothing_set_is_no_limit() {
        let clip = ClipConfig { norm: 0.0, percentile: 0.0, history: 10 };
        let mut past = Vec::new();
        clip.remember(&mut past, 3.0);
        assert!(past.is_empty() && clip.threshold(&past).is_infinite());
        assert_eq!(scale(1e9, f64::INFINITY), 1.0);
        assert_eq!(scale(0.5, 1.0), 1.0);
        assert!((scale(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
