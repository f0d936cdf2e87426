//! Documents cut into segments: a length is drawn for each, and the cut is put at the best break near it.
//!
//! A document's sequence is `<|start|>`, its tokens, `<|end|>`. Segments follow each other through it and leave nothing out.

use crate::{
    breaks::{Break, Breaks},
    draw::Draw,
    row::StreamConfig,
    table::Tokens,
};

/// A span of one document's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of the document.
    pub(crate) document: u32,
    /// Where it begins; 0 is `<|start|>`.
    pub(crate) start: u32,
    /// How long it is.
    pub(crate) len: u32,
}

/// Lengths in tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    context: usize,
    shortest: usize,
    longest: usize,
    window: f64,
    /// A cut leaves at least so much on either side.
    tail: usize,
}

/// Smallest context: cuts need room.
pub(crate) const SMALLEST_CONTEXT: usize = 8;

impl Lengths {
    pub(crate) fn of(config: &StreamConfig) -> Self {
        let share = |share: f64| ((config.context as f64 * share).round() as usize).clamp(4, config.context);
        let shortest = share(config.segments.shortest);
        let longest = share(config.segments.longest).max(shortest);
        let tail = (shortest / 4).max(2);
        Self { context: config.context, shortest, longest, window: config.segments.window, tail }
    }

    /// Least length of a segment that is not a whole document.
    pub(crate) fn least(&self) -> usize {
        self.tail
    }
}

/// Cuts a document's sequence of `tokens.len() + 2`. A document without text has no segments.
pub(crate) fn cut(
    document: u32,
    tokens: Tokens<'_>,
    breaks: &Breaks,
    lengths: Lengths,
    draw: Draw,
    segments: &mut Vec<Segment>,
) {
    if tokens.is_empty() {
        return;
    }
    let end = tokens.len() + 2;
    let mut start = 0;
    for number in 0.. {
        let range = (lengths.longest - lengths.shortest + 1) as u64;
        let target = lengths.shortest + draw.below(number, range) as usize;
        let slack = (target as f64 * lengths.window) as usize;
        let most = (target + slack).min(lengths.context);
        let remaining = end - start;
        let len = if remaining <= most {
            remaining
        } else {
            // More than `most`, at least 5, is left; half of it is at least 2.
            let most = most.min(remaining - lengths.tail.min(remaining / 2));
            let least = target.saturating_sub(slack).max(lengths.tail).min(most);
            best(tokens, breaks, start, least, target.clamp(least, most), most)
        };
        segments.push(Segment { document, start: start as u32, len: len as u32 });
        start += len;
        if start >= end {
            return;
        }
    }
}

/// The length from `least` to `most` that ends at the best break; of equal ones that nearest to `target`, the shorter first.
fn best(
    tokens: Tokens<'_>,
    breaks: &Breaks,
    start: usize,
    least: usize,
    target: usize,
    most: usize,
) -> usize {
    let mut found = (Break::None, target);
    let far = (target - least).max(most - target);
    for away in 0..=far {
        let below = target.checked_sub(away).filter(|&len| len >= least);
        let above = (away > 0).then_some(target + away).filter(|&len| len <= most);
        for len in below.into_iter().chain(above) {
            // Place 0 of the sequence is `<|start|>`, so that place p is token p - 1.
            let quality = breaks.before(tokens, (start + len).saturating_sub(1));
            if quality > found.0 {
                found = (quality, len);
                if quality == Break::Heading {
                    return len;
                }
            }
        }
    }
    found.1
}
