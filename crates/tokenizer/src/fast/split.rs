//! The GPT-2 pre-tokenizer by hand.
//!
//! A piece is what this expression matches, from left to right:
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//! Walking the characters by class gives the same pieces many times faster than a backtracking engine.

use crate::TokenizerError;
use std::sync::atomic::{AtomicU8, Ordering};
use tokenizers::utils::SysRegex;

/// What the expression tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

/// Which character is of which class, in the words of the very engine that `tokenizers` uses: Unicode versions differ in
/// what is a letter, and ids must not.
pub(crate) struct Splitter {
    letter: SysRegex,
    number: SysRegex,
    space: SysRegex,
    ascii: [Class; 128],
    /// One byte for each character there is (1.1 MB), 0 until somebody asks.
    others: Box<[AtomicU8]>,
}

impl Splitter {
    pub(crate) fn new() -> Result<Self, TokenizerError> {
        let regex = |expression| SysRegex::new(expression).map_err(|e| TokenizerError::Format(e.to_string()));
        let mut splitter = Self {
            letter: regex(r"\p{L}")?,
            number: regex(r"\p{N}")?,
            space: regex(r"\s")?,
            ascii: [Class::Other; 128],
            others: std::iter::repeat_with(|| AtomicU8::new(0)).take(char::MAX as usize + 1).collect(),
        };
        splitter.ascii = std::array::from_fn(|b| splitter.ask(char::from(b as u8)));
        Ok(splitter)
    }

    fn ask(&self, c: char) -> Class {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        let is = |regex: &SysRegex| regex.find_iter(text).next().is_some();
        if is(&self.space) {
            Class::Space
        } else if is(&self.letter) {
            Class::Letter
        } else if is(&self.number) {
            Class::Number
        } else {
            Class::Other
        }
    }

    #[cold]
    fn class_beyond_ascii(&self, c: char) -> Class {
        let slot = self.others.get(c as usize);
        match slot.map_or(0, |s| s.load(Ordering::Relaxed)) {
            1 => Class::Space,
            2 => Class::Letter,
            3 => Class::Number,
            4 => Class::Other,
            _ => {
                let class = self.ask(c);
                if let Some(slot) = slot {
                    slot.store(class as u8 + 1, Ordering::Relaxed);
                }
                class
            }
        }
    }

    /// Class and bytes of the character at `at`, if there is one.
    #[inline]
    fn at(&self, text: &str, at: usize) -> Option<(Class, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if let Some(class) = self.ascii.get(byte as usize) {
            return Some((*class, 1));
        }
        let c = text.get(at..)?.chars().next()?;
        Some((self.class_beyond_ascii(c), c.len_utf8()))
    }

    /// Where a run of `class` that begins at `from` ends.
    #[inline]
    fn run(&self, text: &str, from: usize, class: Class) -> usize {
        let mut end = from;
        while let Some((found, len)) = self.at(text, end) {
            if found != class {
                break;
            }
            end += len;
        }
        end
    }

    /// Where the piece that begins at `start` ends; `start` is a character boundary before the end of `text`.
    #[inline]
    pub(crate) fn piece_end(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let Some((first, len)) = self.at(text, start) else { return text.len() };
        if bytes.get(start) == Some(&b'\'') {
            let contraction = match (bytes.get(start + 1), bytes.get(start + 2)) {
                (Some(b's' | b't' | b'm' | b'd'), _) => 2,
                (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => 3,
                _ => 0,
            };
            if contraction > 0 {
                return start + contraction;
            }
        }
        if first != Class::Space {
            return self.run(text, start + len, first);
        }
        // One plain space belongs to the word that follows it.
        if bytes.get(start) == Some(&b' ')
            && let Some((next, next_len)) = self.at(text, start + 1)
            && next != Class::Space
        {
            return self.run(text, start + 1 + next_len, next);
        }
        // A run of white space leaves its last character to what follows, unless nothing follows or it is the only one.
        let (mut end, mut last) = (start + len, start);
        while let Some((Class::Space, len)) = self.at(text, end) {
            last = end;
            end += len;
        }
        if end == text.len() || last == start { end } else { last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPRESSION: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    fn pieces<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let (mut at, mut pieces) = (0, Vec::new());
        while at < text.len() {
            let end = splitter.piece_end(text, at);
            pieces.push(&text[at..end]);
            at = end;
        }
        pieces
    }

    fn expected(text: &str) -> Vec<&str> {
        SysRegex::new(EXPRESSION).unwrap().find_iter(text).map(|(a, b)| &text[a..b]).collect()
    }

    #[test]
    fn pieces_are_those_of_the_expression_on_awkward_text() {
        let splitter = Splitter::new().unwrap();
        for text in [
            "",
            "'",
            "''s",
            "don't 'sunk we'll we'l 'rend",
            "a  b   ",
            " \u{a0}x\u{2003}\u{2003}y\t\tz",
            "§ 12(a)(1)\r\n\r\n  ½ ⅷ٣",
            "e\u{301}\u{200d}👩‍👩‍👧 \0\u{85}\u{180e}\u{feff}",
        ] {
            assert_eq!(pieces(&splitter, text), expected(text), "{text:?}");
        }
    }

    #[test]
    fn every_character_is_classed_as_the_expression_classes_it() {
        let splitter = Splitter::new().unwrap();
        // Each character between two letters: the pieces betray its class.
        let text: String = ('\0'..=char::MAX).flat_map(|c| ['a', c, '1', c, c, '.']).collect();
        assert!(pieces(&splitter, &text) == expected(&text));
    }

    proptest! {
        #[test]
        fn pieces_are_those_of_the_expression(text in "([a-z'’ \t\r\n\u{a0}.,§0-9é½字]|'s|'ll|'ve|\\PC){0,60}") {
            prop_assert_eq!(pieces(&Splitter::new().unwrap(), &text), expected(&text));
        }
    }
}
