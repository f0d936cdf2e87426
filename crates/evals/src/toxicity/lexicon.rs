//! Bad words, told by a list: works without a network.

use crate::{EvalError, data::DataFile};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path};

/// A list of bad words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lexicon {
    words: BTreeSet<String>,
    /// The file that it is from; none for the built-in list.
    pub file: Option<DataFile>,
}

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
        let words = entries(include_str!("lexicon.txt")).map(|(_, word)| word.to_lowercase()).collect();
        Self { words, file: None }
    }
}

/// The words of a list, with their lines.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Whether a character is part of words.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '\''
}

impl Lexicon {
    /// Reads a list, which stands at `path`: a word a line; lines that begin with `#` are remarks.
    ///
    /// # Errors
    /// When a line is no single word, which could never be found, or there is none.
    pub fn parse(path: &Path, text: &str) -> Result<Self, EvalError> {
        let mut words = BTreeSet::new();
        for (line, entry) in entries(text) {
            if !entry.chars().all(in_word) || entry.trim_matches('\'') != entry {
                let reason = format!(
                    "{entry:?} is no single word of letters and digits, and would never be found: words are compared one by one"
                );
                return Err(EvalError::Line { path: path.into(), line, reason });
            }
            words.insert(entry.to_lowercase());
        }
        if words.is_empty() {
            return Err(EvalError::Nothing(format!("{} has no word", path.display())));
        }
        Ok(Self { words, file: Some(DataFile::of(path, text.as_bytes())) })
    }

    /// Looks at every word of a text, whatever its case.
    pub fn words(&self, text: &str) -> Words {
        let words = text.split(|c: char| !in_word(c)).filter(|word| !word.is_empty());
        let mut found = Words::default();
        for word in words {
            found.words += 1;
            let word = word.trim_matches('\'').to_lowercase();
            if self.words.contains(&word) {
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
        let own = Lexicon::parse(Path::new("a/own.txt"), "# x y\nlake\nDON'T\n").unwrap();
        assert_eq!(own.words("the LAKE, don't").list, ["lake", "don't"]);
        assert_eq!(own.file.map(|file| (file.name, file.bytes)), Some(("own.txt".into(), 17)));
    }

    #[test]
    fn what_could_never_be_found_is_refused_by_its_line() {
        let parse = |text: &str| Lexicon::parse(Path::new("own.txt"), text).map_err(|e| e.to_string());
        for wrong in ["two words", "half-wit", "'tis", "f**k"] {
            let error = parse(&format!("# mine\nlake\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("own.txt, line 3: ") && error.contains(wrong), "{error}");
        }
        assert!(parse("# mine\n\n").unwrap_err().contains("own.txt has no word"));
        // The built-in list keeps to it.
        parse(include_str!("lexicon.txt")).unwrap();
    }
}
