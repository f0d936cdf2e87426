//! How far a text's texture is from that of good law: the quality score of KL3M.
//!
//! Sixteen metrics are measured; each has a range in which most sections of the US Code and the CFR lie (their 2nd to 98th
//! percentiles). [`Metrics::score`] adds up the weighted relative distances outside the ranges: 0 for a text like those, more
//! for one unlike them.
//!
//! *Tokens* are maximal runs of characters that are not whitespace; *words* are tokens with at least one letter or digit.
//! Ratios are of characters where nothing else is said; entropies are in bits. Ratios of nothing are 0.

use foldhash::fast::FixedState;
use std::collections::HashMap;

/// A metric's name, the ends of its range, and its weight in the score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Name.
    pub name: &'static str,
    /// Values below are out of range.
    pub low: f64,
    /// Values above are out of range.
    pub high: f64,
    /// Weight of the relative distance.
    pub weight: f64,
}

const fn range(name: &'static str, low: f64, high: f64, weight: f64) -> Range {
    Range { name, low, high, weight }
}

/// The metrics in the order of [`Metrics::values`], with KL3M's ranges and weights.
pub const RANGES: [Range; 16] = [
    // Whitespace.
    range("ratio_whitespace", 0.1212, 0.1938, 1.0),
    // Characters of lines that are not blank, by the number of such lines.
    range("average_line_length", 17.5, 245.0, 1.0),
    // Characters of paragraphs by their number; line ends inside count. A paragraph ends at a blank line, and at the end of a
    // line that ends a sentence or a clause: much law is printed without blank lines, or wrapped.
    range("average_paragraph_length", 35.0, 849.0, 1.0),
    range("ratio_alphanumeric", 0.5946, 0.8229, 1.0),
    // Letters by digits; by 1 where there is no digit.
    range("ratio_alpha_to_numeric", 1.83, 265.1, 0.1),
    range("ratio_non_ascii", 0.0, 0.0345, 2.0),
    range("ratio_capital", 0.0084, 0.2246, 1.0),
    // What is neither letter, digit, whitespace nor control character.
    range("ratio_punctuation", 0.0216, 0.2109, 1.0),
    // Characters of tokens by tokens.
    range("average_word_length", 4.50, 7.29, 1.5),
    // Different tokens by tokens.
    range("type_token_ratio", 0.388, 0.661, 1.5),
    // 1 - the one above.
    range("repetition_rate", 0.339, 0.612, 1.5),
    range("token_entropy", 3.38, 7.86, 0.5),
    range("char_entropy", 4.07, 5.02, 0.5),
    // The commonest token's share of tokens.
    range("max_token_frequency_ratio", 0.0403, 0.1538, 1.0),
    // Tokens that are remains of mark-up: `<tag…`, `</tag`, `&name;`, or with a control character or U+FFFD in them.
    range("ratio_format_tokens", 0.0, 0.0, 12.5),
    // Tokens in which a small letter is followed by two capitals or a capital and a small letter, as where a space between
    // words was lost (`theSecretary`), by tokens.
    range("ratio_nospace_bigrams", 0.0, 0.0, 3.0),
];

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// In the order of [`RANGES`].
    pub values: [f64; RANGES.len()],
}

impl Metrics {
    /// Names and values.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        RANGES.iter().zip(self.values).map(|(range, value)| (range.name, value))
    }

    /// The score: Σ weight · distance, the distance being (low − v) / low below the range and (v − high) / high above it,
    /// and v itself where the range is 0 alone. Lower is better.
    pub fn score(&self) -> f64 {
        RANGES.iter().zip(self.values).map(|(range, value)| range.weight * range.distance(value)).sum()
    }
}

impl Range {
    fn distance(&self, value: f64) -> f64 {
        if value < self.low {
            (self.low - value) / self.low
        } else if value > self.high {
            if self.high == 0.0 { value } else { (value - self.high) / self.high }
        } else {
            0.0
        }
    }
}

#[derive(Default)]
struct Characters {
    all: u64,
    whitespace: u64,
    letters: u64,
    digits: u64,
    capitals: u64,
    punctuation: u64,
    non_ascii: u64,
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Bits of a distribution.
fn entropy(counts: impl Iterator<Item = u64>, total: u64) -> f64 {
    // H = log2 N − (Σ n log2 n) / N, summed in order of counts so that the map's order does not show.
    let mut counts: Vec<u64> = counts.filter(|&n| n > 0).collect();
    counts.sort_unstable();
    let sum: f64 = counts.iter().map(|&n| n as f64 * (n as f64).log2()).sum();
    if total == 0 { 0.0 } else { ((total as f64).log2() - sum / total as f64).max(0.0) }
}

/// Measures a text.
pub fn measure(text: &str) -> Metrics {
    let (characters, char_entropy) = characters(text);
    let (mut lines, mut line_characters, mut paragraphs, mut paragraph_characters) = (0, 0, 0, 0);
    let mut inside = false;
    for line in text.lines() {
        let length = count(line);
        if line.trim_ascii().is_empty() {
            inside = false;
            continue;
        }
        lines += 1;
        line_characters += length;
        paragraph_characters += length + u64::from(inside);
        paragraphs += u64::from(!inside);
        inside = !ends_clause(line.trim_end());
    }
    let mut seen: HashMap<&str, u64, FixedState> =
        HashMap::with_capacity_and_hasher(text.len() / 24, FixedState::default());
    let (mut tokens, mut token_characters, mut format, mut nospace) = (0, 0, 0, 0);
    for token in text.split_whitespace() {
        tokens += 1;
        token_characters += count(token);
        *seen.entry(token).or_default() += 1;
        format += u64::from(is_format(token));
        nospace += u64::from(lost_space(token));
    }
    let types = ratio(seen.len() as u64, tokens);
    let commonest = seen.values().copied().max().unwrap_or(0);
    Metrics {
        values: [
            ratio(characters.whitespace, characters.all),
            ratio(line_characters, lines),
            ratio(paragraph_characters, paragraphs),
            ratio(characters.letters + characters.digits, characters.all),
            ratio(characters.letters, characters.digits.max(1)),
            ratio(characters.non_ascii, characters.all),
            ratio(characters.capitals, characters.all),
            ratio(characters.punctuation, characters.all),
            ratio(token_characters, tokens),
            types,
            if tokens == 0 { 0.0 } else { 1.0 - types },
            entropy(seen.values().copied(), tokens),
            char_entropy,
            ratio(commonest, tokens),
            ratio(format, tokens),
            ratio(nospace, tokens),
        ],
    }
}

fn ends_clause(line: &str) -> bool {
    line.trim_end_matches(['"', '\'', '”', '’', ')', ']', '*', '_']).ends_with(['.', ';', ':', '?', '!', '—'])
}

fn count(text: &str) -> u64 {
    // Bytes that begin a character.
    text.bytes().filter(|&b| b & 0xc0 != 0x80).count() as u64
}

fn characters(text: &str) -> (Characters, f64) {
    let mut ascii = [0u64; 128];
    let mut others: HashMap<char, u64, FixedState> = HashMap::default();
    for c in text.chars() {
        match ascii.get_mut(c as usize) {
            Some(count) => *count += 1,
            None => *others.entry(c).or_default() += 1,
        }
    }
    let mut sums = Characters::default();
    let of_ascii = (0u8..).zip(ascii).map(|(b, n)| (char::from(b), n));
    for (c, n) in of_ascii.chain(others.iter().map(|(&c, &n)| (c, n))) {
        sums.all += n;
        sums.non_ascii += if c.is_ascii() { 0 } else { n };
        if c.is_whitespace() {
            sums.whitespace += n;
        } else if c.is_alphabetic() {
            sums.letters += n;
            sums.capitals += if c.is_uppercase() { n } else { 0 };
        } else if c.is_numeric() {
            sums.digits += n;
        } else if !c.is_control() {
            sums.punctuation += n;
        }
    }
    let entropy = entropy(ascii.into_iter().chain(others.into_values()), sums.all);
    (sums, entropy)
}

pub(crate) fn is_format(token: &str) -> bool {
    let bytes = token.as_bytes();
    // `<` before a letter opens a tag; `<PAGE>` and the like are EDGAR's.
    let tag = memchr::memchr_iter(b'<', bytes).any(|at| {
        let rest = bytes.get(at + 1..).unwrap_or_default();
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        rest.first().is_some_and(u8::is_ascii_alphabetic)
    });
    tag || is_entity(bytes) || token.chars().any(|c| c.is_control() || c == '\u{fffd}')
}

/// `&name;` or `&#12;` somewhere in it.
fn is_entity(token: &[u8]) -> bool {
    memchr::memchr_iter(b'&', token).any(|at| {
        let rest = token.get(at + 1..).unwrap_or_default();
        let rest = rest.strip_prefix(b"#").unwrap_or(rest);
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric());
        end.is_some_and(|end| (2..=8).contains(&end) && rest.get(end) == Some(&b';'))
    })
}

fn lost_space(token: &str) -> bool {
    // `McCulloch`, `LaSalle`, `eBay` are names: three small letters have to come before.
    let mut small = 0;
    let mut characters = token.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_uppercase() && small >= 3 && characters.peek().is_some_and(|next| next.is_alphabetic()) {
            return true;
        }
        small = if c.is_lowercase() { small + 1 } else { 0 };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str, name: &str) -> f64 {
        measure(text).named().find(|(n, _)| *n == name).unwrap().1
    }

    #[test]
    fn metrics_are_those_counted_by_hand() {
        // 20 characters: 4 blanks, 1 line end; tokens `Sec.` `12.` `a` `a` `(b)` `é1`.
        let text = "Sec. 12. a a\n(b) é1x";
        let close = |name: &str, expected: f64| {
            let found = value(text, name);
            assert!((found - expected).abs() < 1e-12, "{name}: {found} is not {expected}");
        };
        close("ratio_whitespace", 5.0 / 20.0);
        close("average_line_length", 19.0 / 2.0);
        close("average_paragraph_length", 20.0);
        close("ratio_alphanumeric", 11.0 / 20.0);
        close("ratio_alpha_to_numeric", 8.0 / 3.0);
        close("ratio_non_ascii", 1.0 / 20.0);
        close("ratio_capital", 1.0 / 20.0);
        close("ratio_punctuation", 4.0 / 20.0);
        close("average_word_length", 15.0 / 6.0);
        close("type_token_ratio", 5.0 / 6.0);
        close("repetition_rate", 1.0 / 6.0);
        close("max_token_frequency_ratio", 2.0 / 6.0);
        // Four tokens once, one twice.
        close(
            "token_entropy",
            -(4.0 * (1.0f64 / 6.0) * (1.0f64 / 6.0).log2() + (1.0f64 / 3.0) * (1.0f64 / 3.0).log2()),
        );
        assert_eq!(value("ab ab\n\ncd", "average_paragraph_length"), 3.5);
        assert_eq!(value("ab\nab;\ncde.\n", "average_paragraph_length"), 5.0);
        assert_eq!(value("abab", "char_entropy"), 1.0);
    }

    #[test]
    fn remains_of_mark_up_and_lost_spaces_are_seen_and_law_is_not_taken_for_them() {
        for token in ["<PAGE>", "</td", "x<br", "&nbsp;", "&#160;", "a\u{fffd}b"] {
            assert!(is_format(token), "{token}");
        }
        for token in ["<", "<5%", "AT&T;", "R&D", "&", "§", "(a)(1)", "x<y".trim_end_matches('y')] {
            assert!(!is_format(token), "{token}");
        }
        for token in ["theSecretary", "subsectionThe", "amendedTO"] {
            assert!(lost_space(token), "{token}");
        }
        for token in ["McCulloch", "LaSalle", "USC", "Pub.L.", "thisA", "Sec.Exch"] {
            assert!(!lost_space(token), "{token}");
        }
    }

    #[test]
    fn only_what_is_out_of_range_costs() {
        let inside = Metrics { values: RANGES.map(|r| (r.low + r.high) / 2.0) };
        assert_eq!(inside.score(), 0.0);
        let mut out = inside.clone();
        out.values[0] = RANGES[0].high * 1.5;
        out.values[8] = RANGES[8].low * 0.5;
        out.values[14] = 0.1;
        assert!((out.score() - (0.5 + 0.75 + 1.25)).abs() < 1e-12);
    }

    #[test]
    fn names_are_different() {
        let mut names = RANGES.map(|r| r.name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    proptest! {
        #[test]
        fn any_text_has_finite_metrics_and_a_score(text in any::<String>()) {
            let metrics = measure(&text);
            prop_assert!(metrics.values.iter().all(|v| v.is_finite() && *v >= 0.0), "{metrics:?}");
            prop_assert!(metrics.score() >= 0.0);
        }
    }
}
