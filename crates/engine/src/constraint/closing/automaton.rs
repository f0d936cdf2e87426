//! The automaton of a grammar's lexemes, and the shortest ways to their ends.

use super::{FAR, tokens_of};
use llguidance::{
    derivre::{HashMap, NextByte, StateID},
    earley::{
        lexerspec::LexemeIdx,
        regexvec::{LexemeSet, RegexVec},
    },
    toktrie::TokEnv,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
    sync::Arc,
};

/// Automaton states that a search for the end of a lexeme may visit.
const MOST_VISITED: usize = 4096;

/// States from which such a search may try every token.
const MOST_TRIED: usize = 256;

/// The same for the ends of all lexemes of a grammar, before any text.
const FIRST_TRIES: usize = 16_384;

/// What the automaton may spend (about 100 ns each) on a step of a text, so that no pattern holds others up. Then it is given up.
const STEP_FUEL: u64 = 2_000_000;

/// The same on a grammar, before any text.
const FIRST_FUEL: u64 = 10_000_000;

/// The lexemes' automaton, grown as it is used, and the ends of lexemes found in it.
pub(super) struct Automaton {
    pub(super) states: RegexVec,
    env: TokEnv,
    /// One byte for each class of bytes that the lexemes tell apart; letters first.
    bytes: Vec<u8>,
    /// By state, in the fewest bytes.
    ends: HashMap<u32, Arc<Vec<End>>>,
    /// By state, in the fewest tokens.
    few: HashMap<u32, Arc<Vec<End>>>,
    /// States from which every token may still be tried, before a step or over all lexemes at first.
    tries: usize,
}

/// A way from a state to the end of a lexeme.
#[derive(Clone)]
pub(super) struct End {
    pub(super) lexeme: LexemeIdx,
    pub(super) text: Vec<u8>,
    /// Bytes or tokens of it.
    pub(super) cost: u32,
}

impl Automaton {
    pub(super) fn new(mut states: RegexVec, env: TokEnv) -> Self {
        states.set_fuel(FIRST_FUEL);
        let mut bytes = Vec::new();
        let mut classes = HashMap::default();
        for byte in (b'a'..=b'z').chain(b'0'..=b'9').chain(0..=255) {
            if classes.insert(states.alpha().map(byte), ()).is_none() {
                bytes.push(byte);
            }
        }
        Self { states, env, bytes, ends: HashMap::default(), few: HashMap::default(), tries: FIRST_TRIES }
    }

    /// Makes ready for another step.
    pub(super) fn refuel(&mut self) {
        self.states.set_fuel(STEP_FUEL);
        self.tries = MOST_TRIED;
    }

    /// The text of a lexeme that takes the fewest tokens.
    pub(super) fn shortest(&mut self, lexeme: LexemeIdx, mut only: LexemeSet) -> Option<End> {
        only.add(lexeme);
        let state = self.states.initial_state(&only);
        if state.is_dead() {
            return None;
        }
        self.few_ends(state)?.iter().find(|end| end.lexeme == lexeme).cloned()
    }

    /// The lexemes that end in a state.
    fn accepted(&self, state: StateID) -> &[LexemeIdx] {
        let info = self.states.state_desc(state);
        if info.greedy_accepting.is_some() {
            info.greedy_accepting.as_slice()
        } else {
            info.lazy_accepting.as_slice()
        }
    }

    /// The ways from `state` to the ends of the lexemes that are possible there, in the fewest bytes: breadth first over one
    /// byte of each class.
    pub(super) fn ends(&mut self, state: StateID) -> Option<Arc<Vec<End>>> {
        if let Some(known) = self.ends.get(&state.as_u32()) {
            return Some(known.clone());
        }
        let wanted = self.wanted(state);
        let mut ends: Vec<End> = Vec::new();
        // State, state before, byte between.
        let mut visited: Vec<(StateID, usize, u8)> = vec![(state, usize::MAX, 0)];
        let mut places: HashSet<u32> = HashSet::from([state.as_u32()]);
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            let (here, ..) = visited[at];
            let path = |mut at: usize| {
                let mut bytes = Vec::new();
                while let Some(&(_, before, byte)) = visited.get(at).filter(|v| v.1 != usize::MAX) {
                    bytes.push(byte);
                    at = before;
                }
                bytes.reverse();
                bytes
            };
            for &lexeme in self.accepted(here) {
                keep_cheaper(&mut ends, End::in_bytes(lexeme, path(at)));
            }
            if let Some(known) = self.ends.get(&here.as_u32()) {
                for end in known.iter() {
                    keep_cheaper(
                        &mut ends,
                        End::in_bytes(end.lexeme, [path(at).as_slice(), &end.text].concat()),
                    );
                }
                if ends.len() >= wanted {
                    break;
                }
                continue;
            }
            if ends.len() >= wanted || visited.len() > MOST_VISITED || self.states.has_error() {
                break;
            }
            for i in 0..self.bytes.len() {
                let byte = self.bytes[i];
                if here.has_lowest_match() {
                    break;
                }
                let next = self.states.transition(here, byte);
                if !next.is_dead() && places.insert(next.as_u32()) {
                    visited.push((next, at, byte));
                    queue.push_back(visited.len() - 1);
                }
            }
        }
        if ends.is_empty() || self.states.has_error() {
            return None;
        }
        // Every state on a way that was found has the rest of it as its own, when one lexeme alone is possible.
        if let ([end], 1) = (ends.as_slice(), wanted) {
            let mut at = state;
            for (done, &byte) in (1..).zip(&end.text) {
                at = self.states.transition(at, byte);
                let rest = end.text.get(done..).unwrap_or_default().to_vec();
                if self.wanted(at) == 1 {
                    let rest = End::in_bytes(end.lexeme, rest);
                    self.ends.entry(at.as_u32()).or_insert_with(|| Arc::new(vec![rest]));
                }
            }
        }
        let ends = Arc::new(ends);
        self.ends.insert(state.as_u32(), ends.clone());
        Some(ends)
    }

    /// Lexemes that are possible in a state.
    fn wanted(&self, state: StateID) -> usize {
        self.states.state_desc(state).possible.iter().count()
    }

    /// The same in the fewest tokens: over all tokens, from as many states as is affordable.
    pub(super) fn few_ends(&mut self, state: StateID) -> Option<Arc<Vec<End>>> {
        if let Some(known) = self.few.get(&state.as_u32()) {
            return Some(known.clone());
        }
        let env = self.env.clone();
        let trie = env.tok_trie();
        let count = |text: &[u8]| tokens_of(trie, text).map_or(text.len(), |tokens| tokens.len()) as u32;
        let mut ends = self.ends(state)?.as_ref().clone();
        ends.iter_mut().for_each(|end| end.cost = count(&end.text));
        let longest = trie.max_token_len().max(1);
        // State, the one before, token between, tokens so far.
        let mut visited: Vec<(StateID, usize, u32, u32)> = vec![(state, usize::MAX, 0, 0)];
        let mut places: HashMap<u32, u32> = HashMap::default();
        places.insert(state.as_u32(), 0);
        // Those that may lead to the fewest tokens first: tokens so far, and what the bytes that are left take at least.
        let mut queue = BinaryHeap::from([Reverse((0, 0))]);
        let mut tried = 0;
        while let Some(Reverse((hoped, at))) = queue.pop() {
            let (here, _, _, tokens) = visited[at];
            let dearest = if ends.len() < self.wanted(state) {
                FAR
            } else {
                ends.iter().map(|e| e.cost).max().unwrap_or(FAR)
            };
            if hoped >= dearest
                || tried >= MOST_TRIED
                || self.tries == 0
                || self.states.has_error()
                || self.is_forced(state, &ends)
            {
                break;
            }
            tried += 1;
            self.tries -= 1;
            let mut found: Vec<(StateID, u32)> = Vec::new();
            let mut waiting = vec![(trie.root(), here)];
            while let Some((node, from)) = waiting.pop() {
                for child in trie.node_children(node) {
                    let next = self.states.transition(from, child.byte());
                    if next.is_dead() {
                        continue;
                    }
                    if let Some(token) = child.token_id() {
                        found.push((next, token));
                    }
                    if !next.has_lowest_match() {
                        waiting.push((child, next));
                    }
                }
            }
            for (next, token) in found {
                let accepted = self.accepted(next).to_vec();
                for lexeme in accepted {
                    let known = ends.iter().find(|end| end.lexeme == lexeme).map_or(FAR, |end| end.cost);
                    if tokens + 1 < known {
                        let mut text = Vec::new();
                        let mut path = vec![token];
                        let mut back = at;
                        while let Some(&(_, before, token, _)) =
                            visited.get(back).filter(|v| v.1 != usize::MAX)
                        {
                            path.push(token);
                            back = before;
                        }
                        path.iter().rev().for_each(|&token| text.extend_from_slice(trie.token(token)));
                        keep_cheaper(&mut ends, End { lexeme, text, cost: tokens + 1 });
                    }
                }
                let known = places.get(&next.as_u32()).copied().unwrap_or(FAR);
                if next.has_lowest_match() || known <= tokens + 1 {
                    continue;
                }
                places.insert(next.as_u32(), tokens + 1);
                let Some(rest) = self.ends(next) else { continue };
                let bytes = rest.iter().map(|end| end.text.len()).min().unwrap_or(0);
                let hoped = tokens + 1 + bytes.div_ceil(longest) as u32;
                visited.push((next, at, token, tokens + 1));
                queue.push(Reverse((hoped, visited.len() - 1)));
            }
        }
        if self.states.has_error() {
            return None;
        }
        let ends = Arc::new(ends);
        self.few.insert(state.as_u32(), ends.clone());
        Some(ends)
    }

    /// Whether there is one way on alone, byte by byte: then its spelling in the fewest tokens is the best.
    fn is_forced(&mut self, state: StateID, ends: &[End]) -> bool {
        let [end] = ends else { return false };
        let mut at = state;
        for &byte in &end.text {
            if self.states.next_byte(at) != NextByte::ForcedByte(byte) {
                return false;
            }
            at = self.states.transition(at, byte);
        }
        true
    }
}

impl End {
    fn in_bytes(lexeme: LexemeIdx, text: Vec<u8>) -> Self {
        Self { lexeme, cost: text.len() as u32, text }
    }
}

fn keep_cheaper(ends: &mut Vec<End>, new: End) {
    match ends.iter_mut().find(|end| end.lexeme == new.lexeme) {
        Some(known) if known.cost <= new.cost => {}
        Some(known) => *known = new,
        None => ends.push(new),
    }
}
