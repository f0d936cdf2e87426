//! Where a text may be cut: headings before paragraphs before sentences before spaces.
//!
//! A cut is put before a token; how good the place is follows from the bytes on both sides of it, whatever the vocabulary
//! does with whitespace. A cut never parts whitespace from the whitespace before it.

use crate::table::Tokens;
use blackletter_tokenizer::Tokenizer;

/// How good a place is for a cut; the greater the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    /// Within a word, or within whitespace.
    #[default]
    None,
    /// Between words.
    Space,
    /// Between sentences, or between the items of a list.
    Sentence,
    /// Between paragraphs.
    Paragraph,
    /// Before a heading.
    Heading,
}

/// Token begins with whitespace.
const STARTS_WHITE: u8 = 1;
/// Token ends with whitespace.
const ENDS_WHITE: u8 = 2;
/// Token is nothing but whitespace.
const ALL_WHITE: u8 = 4;
/// Token may end a sentence.
const MAY_END: u8 = 8;
/// Token is a line feed; two bits count up to three of them.
const LINE: u8 = 16;

/// Bytes that are looked at before a cut.
const BEFORE: usize = 24;
/// Bytes that are looked at after it: a heading is shorter.
const AFTER: usize = 120;
/// Tokens that are looked at on either side, so that hostile texts cost no more than others.
const REACH: usize = 160;

/// Words before a point that ends no sentence.
const ABBREVIATIONS: [&str; 34] = [
    "sec", "secs", "stat", "pub", "inc", "corp", "ltd", "llc", "art", "arts", "cir", "rev", "fed", "reg",
    "supp", "app", "dept", "div", "ann", "amend", "const", "cong", "sess", "subd", "subpar", "para", "cl",
    "ch", "mrs", "gen", "hon", "etc", "seq", "viz",
];

/// Beginnings of headings, of those that are not in Markdown.
const HEADINGS: [&str; 20] = [
    "§",
    "Sec. ",
    "SEC. ",
    "Section ",
    "SECTION ",
    "Article ",
    "ARTICLE ",
    "Part ",
    "PART ",
    "Chapter ",
    "CHAPTER ",
    "Title ",
    "TITLE ",
    "Subpart ",
    "SUBPART ",
    "Exhibit ",
    "Schedule ",
    "Appendix ",
    "Annex ",
    "Subchapter ",
];

/// What each token of a vocabulary means for cuts.
pub struct Breaks {
    flags: Vec<u8>,
    /// Bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where each token's bytes begin, and where the last one's end.
    starts: Vec<u32>,
}

impl Breaks {
    /// Looks at a vocabulary.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self::of((0..tokenizer.vocab_size() as u32).map(|id| {
            // A special token is no text.
            if tokenizer.is_special(id) { Vec::new() } else { tokenizer.token_bytes(id) }
        }))
    }

    pub(crate) fn of(tokens: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut breaks = Self { flags: Vec::new(), bytes: Vec::new(), starts: vec![0] };
        for token in tokens {
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            let white = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
            let all = !token.is_empty() && token.iter().all(u8::is_ascii_whitespace);
            let end = token.last().is_some_and(|&last| b".!?;:\"')]".contains(&last) || !last.is_ascii());
            let lines = token.iter().filter(|&&byte| byte == b'\n').count().min(3) as u8;
            breaks.flags.push(
                flag(white(token.first()), STARTS_WHITE)
                    | flag(white(token.last()), ENDS_WHITE)
                    | flag(all, ALL_WHITE)
                    | flag(end, MAY_END)
                    | (lines * LINE),
            );
            breaks.bytes.extend(&token);
            breaks.starts.push(breaks.bytes.len() as u32);
        }
        breaks
    }

    fn flags(&self, id: Option<u32>) -> u8 {
        id.and_then(|id| self.flags.get(id as usize)).copied().unwrap_or(0)
    }

    fn token(&self, id: Option<u32>) -> &[u8] {
        let span =
            id.map(|id| id as usize).and_then(|id| Some(*self.starts.get(id)?..*self.starts.get(id + 1)?));
        span.and_then(|span| self.bytes.get(span.start as usize..span.end as usize)).unwrap_or_default()
    }

    /// How good it is to cut `tokens` before number `at`.
    pub fn before(&self, tokens: Tokens<'_>, at: usize) -> Break {
        let Some(previous) = at.checked_sub(1) else { return Break::None };
        let (left, right) = (self.flags(tokens.get(previous)), self.flags(tokens.get(at)));
        if right & ALL_WHITE != 0 || (left & ENDS_WHITE == 0 && right & STARTS_WHITE == 0) {
            return Break::None;
        }
        // The common case in a few steps: words with whitespace tokens between them, and no end of a sentence.
        let (mut lines, mut place) = (right / LINE, previous);
        let mut flags = left;
        while flags & ALL_WHITE != 0 && place > 0 && at - place < REACH {
            lines = (lines + flags / LINE).min(3);
            place -= 1;
            flags = self.flags(tokens.get(place));
        }
        if lines < 2 && flags & (MAY_END | ENDS_WHITE) == 0 {
            return Break::Space;
        }
        let before = self.bytes_before(tokens, at);
        let after = self.bytes_after(tokens, at);
        let leading = after.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let (gap, text) = after.split_at(leading);
        let words = before.trim_ascii_end();
        let gap = before.get(words.len()..).unwrap_or_default().iter().chain(gap);
        let lines = gap.filter(|&&byte| byte == b'\n').count();
        if lines >= 2 {
            return if is_heading(text) { Break::Heading } else { Break::Paragraph };
        }
        if ends_sentence(words, lines > 0) && begins_sentence(text) { Break::Sentence } else { Break::Space }
    }

    /// Some bytes before a place, whole words and the whitespace after them.
    fn bytes_before(&self, tokens: Tokens<'_>, at: usize) -> Vec<u8> {
        let mut from = at;
        let mut words = 0;
        while from > 0 && words < BEFORE && at - from < REACH {
            from -= 1;
            if self.flags(tokens.get(from)) & ALL_WHITE == 0 {
                words += self.token(tokens.get(from)).len();
            }
        }
        (from..at).flat_map(|place| self.token(tokens.get(place))).copied().collect()
    }

    fn bytes_after(&self, tokens: Tokens<'_>, at: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(AFTER + 16);
        for place in at..tokens.len().min(at + REACH) {
            bytes.extend_from_slice(self.token(tokens.get(place)));
            if bytes.len() >= AFTER {
                break;
            }
        }
        bytes
    }
}

/// Whether a paragraph that begins so is a heading: in Markdown, or named as such, or a short line in capitals.
fn is_heading(text: &[u8]) -> bool {
    if text.first() == Some(&b'#') {
        return true;
    }
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if line.len() >= AFTER {
        return false;
    }
    let Ok(line) = std::str::from_utf8(line) else { return false };
    if HEADINGS.iter().any(|start| line.starts_with(start)) {
        return true;
    }
    let letters = line.chars().filter(|c| c.is_alphabetic()).count();
    letters >= 4 && !line.chars().any(char::is_lowercase)
}

/// Whether what stands before the whitespace ends a sentence; a line that ends in `;` or `:` ends an item of a list.
fn ends_sentence(words: &[u8], line: bool) -> bool {
    let mut words = words;
    while let Some(rest) = [&b"\""[..], b"'", b")", b"]", "”".as_bytes(), "’".as_bytes()]
        .iter()
        .find_map(|c| words.strip_suffix(*c))
    {
        words = rest;
    }
    let Some((&last, rest)) = words.split_last() else { return false };
    match last {
        b'!' | b'?' => true,
        b';' | b':' => line,
        b'.' => {
            let word = rest.rsplit(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
            let short = word.len() < 2 && word.iter().all(u8::is_ascii_alphabetic) && !word.is_empty();
            let known =
                std::str::from_utf8(word).is_ok_and(|w| ABBREVIATIONS.contains(&w.to_lowercase().as_str()));
            !short && !known
        }
        _ => false,
    }
}

fn begins_sentence(text: &[u8]) -> bool {
    match text.first() {
        Some(first) if first.is_ascii() => !first.is_ascii_lowercase() && !b",;:.)".contains(first),
        // “, §, and letters beyond ASCII.
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of all bytes, and some longer tokens as GPT-2's kind has them.
    fn breaks() -> Breaks {
        let long = [" The", "\n\n", "  ", "end."];
        Breaks::of((0..=255u8).map(|b| vec![b]).chain(long.map(|t| t.as_bytes().to_vec())))
    }

    fn ids(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// What it is to cut at `|`.
    fn at(text: &str) -> Break {
        let cut = text.find('|').unwrap();
        let ids = ids(&text.replacen('|', "", 1));
        breaks().before(Tokens::U32(&ids), cut)
    }

    #[test]
    fn places_are_told_apart_by_what_stands_around_them() {
        let cases = [
            ("wo|rd", Break::None),
            ("a |b", Break::Space),
            ("a| b", Break::None),
            ("a\n|\nb", Break::None),
            ("The end. |The start", Break::Sentence),
            ("The end.\n|The start", Break::Sentence),
            ("He said “no.” |Then", Break::Sentence),
            ("see sec. |5 of", Break::Space),
            ("42 U.S.C. |1983", Break::Space),
            ("the end. |of", Break::Space),
            ("one;\n|(b) two", Break::Sentence),
            ("one; |(b) two", Break::Space),
            ("One.\n\n|Two is long enough", Break::Paragraph),
            ("One.\n \n|Two", Break::Paragraph),
            ("One.\n\n|## Two", Break::Heading),
            ("One.\n\n|Section 2. Two\nx", Break::Heading),
            ("One.\n\n|§ 2. Two", Break::Heading),
            ("One.\n\n|GOVERNING LAW\n\nx", Break::Heading),
            ("One.\n\n|GOVERNING Law\n\nx", Break::Paragraph),
        ];
        for (text, expected) in cases {
            assert_eq!(at(text), expected, "{text:?}");
        }
    }

    #[test]
    fn tokens_that_begin_with_a_space_are_cut_before_it() {
        let breaks = breaks();
        let sentence = [ids("It is the "), vec![259, 256], ids(" law")].concat();
        assert_eq!(breaks.before(Tokens::U32(&sentence), 11), Break::Sentence);
        let paragraphs = [ids("a"), vec![257], ids("b")].concat();
        assert_eq!(breaks.before(Tokens::U32(&paragraphs), 2), Break::Paragraph);
        assert_eq!(breaks.before(Tokens::U32(&paragraphs), 1), Break::None);
    }

    #[test]
    fn ids_outside_the_vocabulary_and_the_ends_are_no_breaks() {
        let breaks = breaks();
        assert_eq!(breaks.before(Tokens::U32(&[9999, 9999]), 1), Break::None);
        assert_eq!(breaks.before(Tokens::U16(&[32]), 0), Break::None);
        assert_eq!(breaks.before(Tokens::U16(&[]), 5), Break::None);
    }
}
