//! Seeded draws: numbers that depend on what they are drawn for, and on nothing that was drawn before.
//!
//! The mixing function is SplitMix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
//! It is written here because streams of training rows must stay the same when a crate of random numbers changes.

/// What a number is drawn for; different purposes never share numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Length = 1,
    Order,
    Weight,
    Kind,
    Padding,
    Examples,
    ExampleOrder,
}

/// Numbers for one purpose in one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draw {
    pub(crate) fn new(seed: u64, purpose: Purpose, epoch: u64) -> Self {
        let state = mix(seed.wrapping_add(STEP));
        let state = mix(state ^ (purpose as u64).wrapping_mul(STEP));
        Self(mix(state ^ epoch.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// The numbers that belong to one thing, a document say.
    pub(crate) fn of(self, thing: u64) -> Self {
        Self(mix(self.0 ^ thing.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// The number at a place.
    pub(crate) fn bits(self, place: u64) -> u64 {
        mix(self.0.wrapping_add(place.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// A number from 0 up to and without 1.
    pub(crate) fn unit(self, place: u64) -> f64 {
        (self.bits(place) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `end`; 0 when `end` is 0.
    pub(crate) fn below(self, place: u64, end: u64) -> u64 {
        // The high half of a product: the bias is below end / 2^64.
        ((u128::from(self.bits(place)) * u128::from(end)) >> 64) as u64
    }

    /// Puts things in an order of its own (Fisher and Yates).
    pub(crate) fn shuffle<T>(self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = self.below(last as u64, last as u64 + 1) as usize;
            things.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_do_not_follow_each_other() {
        let draw = Draw::new(7, Purpose::Order, 3);
        let mut counts = [0u32; 10];
        (0..10_000).for_each(|place| counts[draw.below(place, 10) as usize] += 1);
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
        let mean = (0..10_000).map(|place| draw.unit(place)).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let other = [
            Draw::new(8, Purpose::Order, 3),
            Draw::new(7, Purpose::Kind, 3),
            Draw::new(7, Purpose::Order, 4),
            draw.of(0),
        ];
        assert!(other.iter().all(|other| other.bits(0) != draw.bits(0)));
        assert_eq!(draw.below(0, 0), 0);
    }

    #[test]
    fn draws_stay_what_they_were() {
        // Changing these numbers changes every stream of rows and every run that would be resumed.
        let draw = Draw::new(1, Purpose::Length, 0);
        assert_eq!([draw.bits(0), draw.of(5).bits(1)], FIXED);
        let mut order: Vec<u32> = (0..8).collect();
        draw.shuffle(&mut order);
        assert_eq!(order, FIXED_ORDER);
    }

    // Computed by the same formulas in Python.
    const FIXED: [u64; 2] = [10_865_485_037_995_268_281, 9_539_391_910_013_544_833];
    const FIXED_ORDER: [u32; 8] = [6, 1, 3, 7, 0, 2, 4, 5];
}
