//! Rules by which a text is no text worth learning from: repetition and shape, after Gopher (Rae et al. 2021, appendix A1.1),
//! with limits that law needs. How they were found is in `docs/corpus-rules.md`.

use crate::quality::is_format;
use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::collections::{HashMap, HashSet};

/// A rule's limit, or `false` for a rule that is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(pub Option<f64>);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(limit) => serializer.serialize_f64(limit),
            None => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Off(bool),
            Whole(i64),
            Limit(f64),
        }
        const EXPECTED: &str = "expected a number that is not negative, or false to switch the rule off";
        match Given::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Given::Off(false) => Ok(Self(None)),
            Given::Whole(limit) if limit >= 0 => Ok(Self(Some(limit as f64))),
            Given::Limit(limit) if limit.is_finite() && limit >= 0.0 => Ok(Self(Some(limit))),
            _ => Err(D::Error::custom(EXPECTED)),
        }
    }
}

/// The rules' limits. Shares are from 0 to 1; *words* are runs of characters without whitespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Fewest words.
    pub min_words: Limit,
    /// Least mean length of words, in characters.
    pub min_word_length: Limit,
    /// Greatest mean length of words, in characters.
    pub max_word_length: Limit,
    /// Least share of words with a letter in them.
    pub min_alphabetic_words: Limit,
    /// Greatest share of words that are remains of mark-up or damaged characters.
    pub max_format_words: Limit,
    /// Greatest share of lines that end with an ellipsis or dots.
    pub max_ellipsis_lines: Limit,
    /// Greatest share of characters in lines that stood before.
    pub max_repeated_lines: Limit,
    /// Greatest share of characters in paragraphs that stood before.
    pub max_repeated_paragraphs: Limit,
    /// Greatest share of characters in the commonest 4-gram of words.
    pub max_top_4_gram: Limit,
    /// Greatest share of characters in 10-grams of words that stood before.
    pub max_repeated_10_grams: Limit,
}

impl Default for Rules {
    fn default() -> Self {
        let limit = |limit| Limit(Some(limit));
        Self {
            min_words: limit(8.0),
            min_word_length: limit(2.5),
            max_word_length: limit(12.0),
            min_alphabetic_words: limit(0.4),
            max_format_words: limit(0.15),
            max_ellipsis_lines: limit(0.6),
            max_repeated_lines: limit(0.7),
            max_repeated_paragraphs: limit(0.7),
            max_top_4_gram: limit(0.35),
            max_repeated_10_grams: limit(0.7),
        }
    }
}

/// A rule that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    /// The rule.
    pub rule: &'static str,
    /// What was measured.
    pub value: f64,
    /// The limit.
    pub limit: f64,
}

/// Names of the rules, in the order in which [`Rules::check`] lists failures.
pub const NAMES: [&str; 10] = [
    "min_words",
    "min_word_length",
    "max_word_length",
    "min_alphabetic_words",
    "max_format_words",
    "max_ellipsis_lines",
    "max_repeated_lines",
    "max_repeated_paragraphs",
    "max_top_4_gram",
    "max_repeated_10_grams",
];

impl Rules {
    fn limits(&self) -> [Limit; NAMES.len()] {
        [
            self.min_words,
            self.min_word_length,
            self.max_word_length,
            self.min_alphabetic_words,
            self.max_format_words,
            self.max_ellipsis_lines,
            self.max_repeated_lines,
            self.max_repeated_paragraphs,
            self.max_top_4_gram,
            self.max_repeated_10_grams,
        ]
    }

    /// The rules that a text breaks.
    pub fn check(&self, text: &str) -> Vec<Failure> {
        let limits = self.limits().into_iter().zip(NAMES).zip(measure(text));
        limits
            .filter_map(|((limit, rule), value)| {
                let limit = limit.0?;
                let broken = if rule.starts_with("min_") { value < limit } else { value > limit };
                broken.then_some(Failure { rule, value, limit })
            })
            .collect()
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn hash(text: &str) -> u64 {
    use std::hash::BuildHasher;
    FixedState::default().hash_one(text)
}

/// What the rules look at, in the order of [`NAMES`].
pub fn measure(text: &str) -> [f64; NAMES.len()] {
    // (hash, characters) of words.
    let words: Vec<(u64, usize)> =
        text.split_whitespace().map(|word| (hash(word), word.chars().count())).collect();
    let characters: usize = words.iter().map(|(_, length)| length).sum();
    let alphabetic = text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let ellipses =
        lines().filter(|line| line.ends_with('…') || line.ends_with("...") || line.ends_with(". .")).count();
    [
        words.len() as f64,
        share(characters, words.len()),
        share(characters, words.len()),
        share(alphabetic, words.len()),
        share(text.split_whitespace().filter(|word| is_format(word)).count(), words.len()),
        share(ellipses, lines().count()),
        repeated(lines()),
        repeated(text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty())),
        share(top::<4>(&words), characters),
        share(repeated_grams::<10>(&words), characters),
    ]
}

/// Share of bytes in pieces that stood before.
fn repeated<'t>(pieces: impl Iterator<Item = &'t str>) -> f64 {
    let mut seen: HashSet<u64, FixedState> = HashSet::default();
    let (mut again, mut all) = (0, 0);
    for piece in pieces {
        all += piece.len();
        again += if seen.insert(hash(piece)) { 0 } else { piece.len() };
    }
    share(again, all)
}

fn gram(words: &[(u64, usize)]) -> (u64, usize) {
    words.iter().fold((0, 0), |(hash, length), (word, characters)| {
        ((hash ^ word).rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15), length + characters)
    })
}

/// Characters in all places of the commonest n-gram, if it stands more than once.
fn top<const N: usize>(words: &[(u64, usize)]) -> usize {
    let mut counts: HashMap<u64, (usize, usize), FixedState> = HashMap::default();
    for window in words.windows(N) {
        let (hash, length) = gram(window);
        let (count, _) = counts.entry(hash).or_insert((0, length));
        *count += 1;
    }
    counts
        .into_values()
        .filter(|(count, _)| *count > 1)
        .map(|(count, length)| count * length)
        .max()
        .unwrap_or(0)
}

/// Characters in n-grams that stood before, none counted twice.
fn repeated_grams<const N: usize>(words: &[(u64, usize)]) -> usize {
    let mut seen: HashSet<u64, FixedState> = HashSet::default();
    let (mut at, mut again) = (0, 0);
    while let Some(window) = words.get(at..at + N) {
        let (hash, length) = gram(window);
        if seen.insert(hash) {
            at += 1;
        } else {
            again += length;
            at += N;
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn broken(text: &str) -> Vec<&'static str> {
        Rules::default().check(text).into_iter().map(|failure| failure.rule).collect()
    }

    #[test]
    fn a_section_and_a_table_of_sections_pass() {
        let section = "§ 12. Lakes.\n\n(a) In general.—The Secretary may grant a licence to fish in a lake.\n\n\
                       (b) Exception.—Paragraph (a) does not apply to a lake that is frozen.";
        assert_eq!(broken(section), [] as [&str; 0]);
        let table: String =
            (1..40).map(|n| format!("Sec. {n}. Lakes{n} and the ponds{n} ......\n")).collect();
        assert_eq!(broken(&table), ["max_ellipsis_lines"], "dots alone tell against it");
        let table = table.replace(" ......", ", page 7");
        assert_eq!(broken(&table), [] as [&str; 0]);
    }

    #[test]
    fn garbage_breaks_the_rule_made_for_it() {
        assert_eq!(broken("Repealed."), ["min_words"]);
        assert!(broken(&"1.2 3.4 5.6 ".repeat(10)).contains(&"min_alphabetic_words"));
        assert!(broken(&"Cell phone ".repeat(100)).contains(&"max_top_4_gram"));
        let line = "This line of many words stands here again and again.\n";
        assert!(broken(&line.repeat(9)).contains(&"max_repeated_lines"));
        assert!(broken(&line.repeat(9)).contains(&"max_repeated_10_grams"));
        assert!(broken(&format!("{line}\n").repeat(9)).contains(&"max_repeated_paragraphs"));
        assert!(broken(&"abcdefghijklmnopqrstuvwxyz ".repeat(9)).contains(&"max_word_length"));
        assert!(
            broken(&"<us-gaap:Assets> 12 </us-gaap:Assets> and ".repeat(9)).contains(&"max_format_words")
        );
        assert!(broken("a b c d e f g h i j k l m").contains(&"min_word_length"));
    }

    #[test]
    fn limits_are_numbers_or_off() {
        let rules: Rules = serde_json::from_str(r#"{"min_words": 3, "max_top_4_gram": false}"#).unwrap();
        assert_eq!((rules.min_words, rules.max_top_4_gram), (Limit(Some(3.0)), Limit(None)));
        assert_eq!(rules.max_word_length, Rules::default().max_word_length);
        let back: Rules = serde_json::from_value(serde_json::to_value(&rules).unwrap()).unwrap();
        assert_eq!(back, rules);
        for wrong in
            [r#"{"min_words": true}"#, r#"{"min_words": -1}"#, r#"{"min_words": "a"}"#, r#"{"words": 1}"#]
        {
            assert!(serde_json::from_str::<Rules>(wrong).is_err(), "{wrong}");
        }
        let short = |rules: &Rules| rules.check("Sections two").iter().any(|f| f.rule == "min_words");
        assert!(short(&rules) && !short(&Rules { min_words: Limit(None), ..rules }));
    }

    proptest! {
        #[test]
        fn any_text_is_measured(text in any::<String>()) {
            prop_assert!(measure(&text).iter().all(|v| v.is_finite() && *v >= 0.0));
        }
    }
}
