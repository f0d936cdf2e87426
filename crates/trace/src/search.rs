//! Finding spans.

use crate::{DocumentRecord, Index, TraceError};
use blackletter_tokenizer::SpecialTokens;
use serde::Serialize;
use std::cmp::Ordering;

/// Places of a span that are looked at for its documents, of as many as there may be.
const PLACES: usize = 4096;

/// Which spans are told, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanOptions {
    /// Fewest tokens of a span.
    pub min_tokens: usize,
    /// Most documents that are named for a span.
    pub documents: usize,
}

impl Default for SpanOptions {
    fn default() -> Self {
        Self { min_tokens: 16, documents: 3 }
    }
}

/// A span of a text that stands in the training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its first token in the text, from 0.
    pub token: usize,
    /// Tokens.
    pub tokens: usize,
    /// Its first byte in the text.
    pub byte: usize,
    /// The text of it.
    pub text: String,
    /// How often it stands in the training data.
    pub occurrences: u64,
    /// Documents that it stands in, the first ones in the order of the corpus.
    pub documents: Vec<Match>,
}

/// A document that a span stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// The document.
    #[serde(flatten)]
    pub document: DocumentRecord,
    /// Where the span begins in the document's text, in bytes.
    pub offset: u64,
}

/// What was found of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens that are in some span.
    pub covered: usize,
    /// Maximal spans, in the order of the text.
    pub spans: Vec<Span>,
}

/// A run of tokens that occurs: where it begins, how long it is, and the ranks of its occurrences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub from: usize,
    pub len: usize,
    pub ranks: std::ops::Range<usize>,
}

impl Index {
    /// The spans of a text.
    ///
    /// # Errors
    /// When the text cannot be encoded, or the index is damaged.
    pub fn trace(&self, text: &str, options: SpanOptions) -> Result<Found, TraceError> {
        self.trace_ids(&self.tokenizer().encode(text, SpecialTokens::AsText)?, options)
    }

    /// The spans of a text in tokens of the index' tokenizer.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn trace_ids(&self, ids: &[u32], options: SpanOptions) -> Result<Found, TraceError> {
        let lengths = self.tokenizer().byte_lengths(ids);
        let (mut spans, mut covered, mut end) = (Vec::new(), 0, 0);
        for run in self.runs(ids, options.min_tokens.max(1)) {
            covered += (run.from + run.len).saturating_sub(end.max(run.from));
            end = end.max(run.from + run.len);
            spans.push(Span {
                token: run.from,
                tokens: run.len,
                byte: lengths.iter().take(run.from).sum(),
                text: self
                    .tokenizer()
                    .decode(ids.get(run.from..run.from + run.len).unwrap_or_default(), true),
                occurrences: run.ranks.len() as u64,
                documents: self.documents_of(&run, options.documents)?,
            });
        }
        Ok(Found { tokens: ids.len(), covered, spans })
    }

    /// How many tokens from the front of `ids` occur together, and how often.
    pub fn longest_prefix(&self, ids: &[u32]) -> (usize, u64) {
        let run = self.longest(ids, 0);
        (run.len, if run.len == 0 { 0 } else { run.ranks.len() as u64 })
    }

    /// Maximal runs of at least `min` tokens that occur, in the order of the text.
    pub(crate) fn runs(&self, ids: &[u32], min: usize) -> Vec<Run> {
        let (mut runs, mut end) = (Vec::new(), 0);
        for from in 0..ids.len() {
            let run = self.longest(ids, from);
            // What ends where the one before does lies within it.
            if from + run.len > end {
                end = from + run.len;
                if run.len >= min {
                    runs.push(run);
                }
            }
        }
        runs
    }

    /// The longest run from `from` on.
    fn longest(&self, ids: &[u32], from: usize) -> Run {
        let wanted = ids.get(from..).unwrap_or_default();
        let at = self.rank(|place| self.compare(place, wanted) == Ordering::Less);
        let common = |rank: Option<usize>| match rank {
            Some(rank) if rank < self.len() => self.common(self.suffix(rank), wanted),
            _ => 0,
        };
        // What shares most with the wanted stands beside the place where it would stand.
        let len = common(at.checked_sub(1)).max(common(Some(at)));
        let prefix = wanted.get(..len).unwrap_or_default();
        let low = self.rank(|place| self.compare(place, prefix) == Ordering::Less);
        let high = self.rank(|place| self.compare(place, prefix) != Ordering::Greater);
        Run { from, len, ranks: low..high }
    }

    /// The first rank whose place is not `before`.
    fn rank(&self, before: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(self.suffix(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// How what follows a place compares with `wanted`; equal when it begins with it.
    fn compare(&self, place: usize, wanted: &[u32]) -> Ordering {
        for (at, &id) in (place..self.len()).zip(wanted) {
            match self.token(at).cmp(&id) {
                Ordering::Equal => {}
                other => return other,
            }
        }
        if self.len().saturating_sub(place) < wanted.len() { Ordering::Less } else { Ordering::Equal }
    }

    /// How many tokens from a place on are those of `wanted`.
    fn common(&self, place: usize, wanted: &[u32]) -> usize {
        (place..self.len()).zip(wanted).take_while(|(at, id)| self.token(*at) == **id).count()
    }

    fn documents_of(&self, run: &Run, most: usize) -> Result<Vec<Match>, TraceError> {
        let mut places: Vec<usize> = run.ranks.clone().take(PLACES).map(|rank| self.suffix(rank)).collect();
        places.sort_unstable();
        let mut matches: Vec<Match> = Vec::new();
        let mut last = None;
        for place in places {
            if matches.len() >= most {
                break;
            }
            let (number, start) = self.document_at(place);
            if last == Some(number) {
                continue;
            }
            last = Some(number);
            let before: Vec<u32> = (start..place).map(|at| self.token(at)).collect();
            let offset = self.tokenizer().byte_lengths(&before).iter().sum::<usize>() as u64;
            matches.push(Match { document: self.document(number)?, offset });
        }
        Ok(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        files::write,
        index::{DOCUMENTS, FILE_NAME, Manifest, OFFSETS, STARTS, SUFFIXES, TOKENIZER, TOKENS, VERSION},
    };
    use blackletter_provenance::hash;
    use proptest::prelude::*;
    use std::fs;
    use tempfile::TempDir;

    /// Four tokens: `a`, `b`, `c`, `d`.
    const TOKENIZER_JSON: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,
        "decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
        "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
        "fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"c":2,"d":3},"merges":[]}}"#;

    fn index(documents: &[Vec<u16>]) -> (TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        for document in documents {
            starts.push(ids.len() as u64);
            ids.extend(document);
            ids.push(4);
        }
        write(&at(TOKENS), ids.iter().copied()).unwrap();
        let mut suffixes: Vec<u32> = (0..ids.len() as u32).collect();
        suffixes.sort_by(|&a, &b| ids[a as usize..].cmp(&ids[b as usize..]));
        write(&at(SUFFIXES), suffixes).unwrap();
        write(&at(STARTS), starts).unwrap();
        let (mut lines, mut offsets) = (String::new(), Vec::new());
        for number in 0..documents.len() {
            offsets.push(lines.len() as u64);
            let record = DocumentRecord {
                id: format!("doc{number}"),
                dataset: "d".into(),
                title: None,
                license: "CC0-1.0".into(),
                license_basis: None,
                url: None,
            };
            lines.push_str(&(serde_json::to_string(&record).unwrap() + "\n"));
        }
        write(&at(OFFSETS), offsets).unwrap();
        fs::write(at(DOCUMENTS), &lines).unwrap();
        fs::write(at(TOKENIZER), TOKENIZER_JSON).unwrap();
        let manifest = Manifest {
            version: VERSION,
            corpus: String::new(),
            tokenizer: hash::hex(TOKENIZER_JSON.as_bytes()),
            vocabulary: 4,
            wide: false,
            tokens: ids.len() as u64,
            documents: documents.len() as u64,
            document_bytes: lines.len() as u64,
        };
        fs::write(at(FILE_NAME), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let index = Index::open(dir.path()).unwrap();
        (dir, index)
    }

    fn ids(text: &str) -> Vec<u16> {
        text.bytes().map(|b| u16::from(b - b'a')).collect()
    }

    #[test]
    fn spans_are_the_longest_there_are_with_their_documents_and_places() {
        let (_dir, index) = index(&[ids("abcabd"), ids("dabcc"), ids("abc")]);
        let found = index.trace("ccabcad", SpanOptions { min_tokens: 3, documents: 9 }).unwrap();
        let shown: Vec<(usize, &str, u64)> =
            found.spans.iter().map(|s| (s.byte, s.text.as_str(), s.occurrences)).collect();
        // `cab` in the first; `abca` in the first, and no longer one.
        assert_eq!(shown, [(1, "cab", 1), (2, "abca", 1)]);
        assert_eq!((found.tokens, found.covered), (7, 5));
        let found = index.trace("abc", SpanOptions { min_tokens: 1, documents: 9 }).unwrap();
        let documents: Vec<(&str, u64)> =
            found.spans[0].documents.iter().map(|m| (m.document.id.as_str(), m.offset)).collect();
        assert_eq!(documents, [("doc0", 0), ("doc1", 1), ("doc2", 0)]);
        assert_eq!(found.spans[0].occurrences, 3);
        // Documents do not run into each other: `bdda` would.
        assert_eq!(index.longest_prefix(&[1, 3, 3, 0]), (2, 1));
        assert_eq!(index.longest_prefix(&[3, 3]), (1, 2));
    }

    proptest! {
        #[test]
        fn spans_are_those_of_looking_everywhere(
            documents in prop::collection::vec(prop::collection::vec(0u16..4, 0..30), 1..5),
            text in prop::collection::vec(0u32..4, 0..20),
            min in 1usize..5,
        ) {
            let (_dir, index) = index(&documents);
            let occurs = |run: &[u32]| -> u64 {
                let hits = |d: &Vec<u16>| d.windows(run.len()).filter(|w| w.iter().zip(run).all(|(a, b)| u32::from(*a) == *b)).count();
                documents.iter().map(|d| hits(d) as u64).sum()
            };
            let mut expected = Vec::new();
            let mut end = 0;
            for from in 0..text.len() {
                let to = (from + 1..=text.len()).rev().find(|&to| occurs(&text[from..to]) > 0).unwrap_or(from);
                if to > end {
                    end = to;
                    if to - from >= min {
                        expected.push((from, to - from, occurs(&text[from..to])));
                    }
                }
            }
            let found: Vec<_> = index.runs(&text, min).into_iter().map(|r| (r.from, r.len, r.ranks.len() as u64)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
