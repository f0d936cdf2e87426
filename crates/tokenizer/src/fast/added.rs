//! Finding added tokens in text: leftmost first, the longest of those that begin at the same place.
//!
//! A tokenizer of the kl3m family has hundreds of tokens that are runs of one character up to 555 long. Those are looked
//! up by length; the rest, short and few, are walked in a trie over the classes of bytes that occur in them.

/// Longer tokens than this are left to the general path, which bounds what a position of text can cost.
const LONGEST: usize = 128;
const LONGEST_RUN: usize = 4096;

/// A token found in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: u32,
    pub(crate) special: bool,
}

#[derive(Clone, Copy)]
struct Token {
    id: u32,
    special: bool,
}

/// A set of added tokens.
pub(crate) struct AddedTokens {
    /// Whether any token begins with the byte.
    begins: [bool; 256],
    /// For each byte, for each length of a run of it: the longest token that fits, and its length.
    runs: Vec<Vec<Option<(usize, Token)>>>,
    /// Byte → column of the trie; column 0 leads nowhere.
    columns: [u8; 256],
    width: usize,
    /// Next node, `[nodes, width]`; 0 is the root, to which nothing leads back.
    next: Vec<u32>,
    ends: Vec<Option<Token>>,
}

impl AddedTokens {
    /// `None` when the tokens are of a kind that the general path must match. Tokens are (content, id, special).
    pub(crate) fn new<'t>(tokens: impl Iterator<Item = (&'t str, u32, bool)> + Clone) -> Option<Self> {
        let mut set = Self {
            begins: [false; 256],
            runs: vec![Vec::new(); 256],
            columns: [0; 256],
            width: 1,
            next: Vec::new(),
            ends: Vec::new(),
        };
        let run_of = |content: &str| {
            let bytes = content.as_bytes();
            bytes.first().filter(|first| bytes.iter().all(|b| b == *first)).copied()
        };
        for (content, _, _) in tokens.clone() {
            let run = run_of(content).is_some();
            if content.is_empty() || content.len() > if run { LONGEST_RUN } else { LONGEST } {
                return None;
            }
            for &byte in content.as_bytes().iter().filter(|_| !run) {
                let column = &mut set.columns[byte as usize];
                if *column == 0 {
                    // UTF-8 never has all 256 byte values, so a column is always left.
                    *column = u8::try_from(set.width).ok()?;
                    set.width += 1;
                }
            }
        }
        set.add_node();
        for (content, id, special) in tokens {
            let token = Token { id, special };
            let first = *content.as_bytes().first()?;
            set.begins[first as usize] = true;
            if run_of(content).is_some() {
                let run = &mut set.runs[first as usize];
                if run.len() <= content.len() {
                    run.resize(content.len() + 1, None);
                }
                run[content.len()] = Some((content.len(), token));
            } else {
                set.insert(content, token);
            }
        }
        for run in &mut set.runs {
            for length in 1..run.len() {
                run[length] = run[length].or(run[length - 1]);
            }
        }
        Some(set)
    }

    fn add_node(&mut self) -> u32 {
        self.next.resize(self.next.len() + self.width, 0);
        self.ends.push(None);
        self.ends.len() as u32 - 1
    }

    fn insert(&mut self, content: &str, token: Token) {
        let mut node = 0;
        for &byte in content.as_bytes() {
            let slot = node as usize * self.width + self.columns[byte as usize] as usize;
            if self.next[slot] == 0 {
                let added = self.add_node();
                self.next[slot] = added;
            }
            node = self.next[slot];
        }
        self.ends[node as usize] = Some(token);
    }

    /// The first token at or after `from`.
    pub(crate) fn find(&self, text: &[u8], from: usize) -> Option<Found> {
        let mut start = from;
        loop {
            start += text.get(start..)?.iter().position(|&b| self.begins[b as usize])?;
            if let Some((len, token)) = self.at(text.get(start..)?) {
                return Some(Found { start, end: start + len, id: token.id, special: token.special });
            }
            start += 1;
        }
    }

    /// The longest token that `text` begins with.
    #[inline]
    fn at(&self, text: &[u8]) -> Option<(usize, Token)> {
        let first = *text.first()?;
        let run = &self.runs[first as usize];
        let mut best = None;
        if !run.is_empty() {
            let length = text.iter().take(run.len() - 1).take_while(|&&b| b == first).count();
            best = run[length];
        }
        let (mut node, mut depth) = (0, 0);
        for &byte in text {
            node = self.next[node as usize * self.width + self.columns[byte as usize] as usize];
            if node == 0 {
                break;
            }
            depth += 1;
            if let Some(token) = self.ends[node as usize]
                && best.is_none_or(|(len, _)| len < depth)
            {
                best = Some((depth, token));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(tokens: &[&str], text: &str) -> Vec<String> {
        let set = AddedTokens::new((0..).zip(tokens).map(|(id, &t)| (t, id, false))).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while let Some(hit) = set.find(text.as_bytes(), at) {
            assert_eq!(tokens[hit.id as usize], &text[hit.start..hit.end]);
            found.push(text[hit.start..hit.end].to_string());
            at = hit.end;
        }
        found
    }

    #[test]
    fn the_longest_of_the_leftmost_wins() {
        assert_eq!(
            found(&["ab", "abcd", "bcde", " ", "   ", " id="], "abcde abce    id= x"),
            ["abcd", " ", "ab", "   ", " id=", " "]
        );
    }

    #[test]
    fn a_prefix_that_comes_to_nothing_gives_way_to_what_begins_inside_it() {
        assert_eq!(found(&["1776", "76", "7"], "1777 176"), ["7", "7", "7", "76"]);
    }

    #[test]
    fn tokens_too_long_to_bound_are_refused() {
        assert!(AddedTokens::new([("", 0, false)].into_iter()).is_none());
        assert!(AddedTokens::new([("ab".repeat(LONGEST).as_str(), 0, false)].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn tokens_found_are_those_of_a_plain_search(
            tokens in proptest::collection::btree_set("[ab §]{1,4}|a{1,9}", 1..12),
            text in "[ab §]{0,60}",
        ) {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let (mut rest, mut expected) = (text.as_str(), Vec::new());
            while let Some(first) = rest.chars().next() {
                match tokens.iter().filter(|t| rest.starts_with(**t)).max_by_key(|t| t.len()) {
                    Some(token) => {
                        expected.push(token.to_string());
                        rest = &rest[token.len()..];
                    }
                    None => rest = &rest[first.len_utf8()..],
                }
            }
            prop_assert_eq!(found(&tokens, &text), expected);
        }
    }
}
