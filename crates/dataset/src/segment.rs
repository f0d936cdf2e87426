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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{draw::Purpose, row::Segments};

    /// Cuts a text whose tokens are its bytes.
    fn cuts(text: &str, context: usize, seed: u64) -> Vec<String> {
        let breaks = Breaks::of((0..=255u8).map(|byte| vec![byte]));
        let ids: Vec<u32> = text.bytes().map(u32::from).collect();
        let segments = Segments { shortest: 0.5, longest: 0.8, window: 0.25 };
        let lengths = Lengths::of(&StreamConfig { context, segments, ..StreamConfig::default() });
        let mut found = Vec::new();
        let draw = Draw::new(seed, Purpose::Length, 0).of(0);
        cut(0, Tokens::U32(&ids), &breaks, lengths, draw, &mut found);
        let bytes = |segment: &Segment| {
            let (from, to) = (segment.start as usize, (segment.start + segment.len) as usize);
            text.get(from.saturating_sub(1)..(to - 1).min(text.len())).unwrap().to_owned()
        };
        assert!(found.iter().all(|segment| segment.len as usize <= context));
        found.iter().map(bytes).collect()
    }

    #[test]
    fn cuts_are_put_at_the_best_break_near_the_length_that_was_drawn() {
        // The window is 30 bytes wide at least: a heading is never far, nor is a sentence.
        let headed = "## H\n\nIt is. We are.\n\n".repeat(20);
        let sentences = "It is one. We are many. ".repeat(20);
        for seed in 0..20 {
            for (text, start) in [(&headed, "## H"), (&sentences, "")] {
                let segments = cuts(text, 120, seed);
                assert_eq!(&segments.concat(), text);
                let begins = |segment: &String| match start {
                    "" => segment.starts_with("It is") || segment.starts_with("We are"),
                    start => segment.starts_with(start),
                };
                assert!(segments.len() > 4 && segments.iter().all(begins), "{segments:?}");
            }
        }
        let text = headed;
        let differ: std::collections::BTreeSet<Vec<String>> =
            (0..20).map(|seed| cuts(&text, 120, seed)).collect();
        assert!(differ.len() > 2, "lengths are drawn anew");
    }

    #[test]
    fn what_fits_is_left_whole_and_text_without_breaks_is_cut_all_the_same() {
        assert_eq!(cuts("Short.", 64, 1), ["Short."]);
        assert!(cuts("", 64, 1).is_empty());
        let endless = "x".repeat(1000);
        let segments = cuts(&endless, 64, 1);
        assert!(segments.len() > 15 && segments.concat() == endless);
    }
}
