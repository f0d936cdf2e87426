//! Bad words, told by a list: works without a network.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A list of bad words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lexicon(BTreeSet<String>);

/// What a list finds in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Words of the text.
    pub words: u64,
    /// Words that are on the list.
    pub bad: u64,
    /// Which, in their order.
    pub list: Vec<String>,
}

impl Default for Lexicon {
    fn default() -> Self {
        Self::parse(include_str!("lexicon.txt"))
    }
}

impl Lexicon {
    /// Reads a list: a word a line; lines that begin with `#` are remarks.
    pub fn parse(text: &str) -> Self {
        let words = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(words.map(str::to_lowercase).collect())
    }

    /// Looks at every word of a text, whatever its case.
    pub fn words(&self, text: &str) -> Words {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
        let mut found = Words::default();
        for word in words {
            found.words += 1;
            let word = word.trim_matches('\'').to_lowercase();
            if self.0.contains(&word) {
                found.bad += 1;
                found.list.push(word);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_count_in_any_case_and_parts_of_words_do_not() {
        let found = Lexicon::default().words("DAMN the assessor's class; 'Idiot', he didn't say.");
        assert_eq!((found.words, found.bad), (8, 2));
        assert_eq!(found.list, ["damn", "idiot"]);
        assert_eq!(Lexicon::parse("# x\nlake\n").words("the LAKE").bad, 1);
    }
}
