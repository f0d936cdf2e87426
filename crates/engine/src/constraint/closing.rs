//! The shortest way from any point of a text to its lawful end.
//!
//! `llguidance` tells which tokens may come next, not how far the end is. So the same compiled grammar is followed a second
//! time: an Earley parser over lexemes (Earley 1970) whose rows also carry, for every symbol that may end there, how many tokens
//! the rest of the text takes at least. The costs of symbols are the least fixed point of the rules (Knuth 1977), the costs of
//! lexemes are shortest paths in their automaton, token by token. A token that spans two lexemes can make a text shorter
//! still: the text that is found is spelled with the fewest tokens in the end.
//!
//! What the follower does not know (lazy lexemes with hidden ends, parameters, limits within a grammar) makes it give up,
//! never guess: then nothing is held in reserve.

use llguidance::{
    api::ParserLimits,
    derivre::{HashMap, NextByte, StateID},
    earley::{
        CGrammar,
        lexerspec::{LexemeIdx, LexerSpec},
        regexvec::{LexemeSet, RegexVec},
    },
    toktrie::{TokEnv, TokTrie},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// More than any text has tokens, and small enough to add up.
const FAR: u32 = u32::MAX / 4;

/// Automaton states that a search for the end of a lexeme may visit.
const MOST_VISITED: usize = 4096;

/// States from which such a search may try every token.
const MOST_TRIED: usize = 256;

/// What is known of a grammar before any text.
pub struct Tables {
    /// By the index that the grammar gives them.
    symbols: HashMap<usize, Symbol>,
    start: usize,
    /// All rules one after the other: a dot before each symbol of a rule and one at its end.
    dots: Vec<Dot>,
    spec: LexerSpec,
    automaton: Mutex<Automaton>,
}

/// A symbol of the grammar.
struct Symbol {
    /// What it is, when it is no other symbols.
    lexeme: Option<LexemeIdx>,
    /// Whether it may be nothing.
    empty: bool,
    /// The first dots of its rules.
    rules: Vec<usize>,
    /// Least tokens.
    least: u32,
    /// The rule that gives them.
    best: Option<usize>,
    /// The shortest text, of a lexeme.
    text: Vec<u8>,
}

/// A place in a rule.
struct Dot {
    /// The symbol that follows; none at the end.
    next: Option<usize>,
    /// What the rule makes.
    made: usize,
    /// Least tokens from here to the rule's end.
    rest: u32,
}

/// The lexemes' automaton, grown as it is used, and the ends of lexemes found in it.
struct Automaton {
    states: RegexVec,
    env: TokEnv,
    /// One byte for each class of bytes that the lexemes tell apart; letters first.
    bytes: Vec<u8>,
    /// By state, in the fewest bytes.
    ends: HashMap<u32, Arc<Vec<End>>>,
    /// By state, in the fewest tokens.
    few: HashMap<u32, Arc<Vec<End>>>,
}

/// A way from a state to the end of a lexeme.
#[derive(Clone)]
struct End {
    lexeme: LexemeIdx,
    text: Vec<u8>,
    /// Bytes or tokens of it.
    cost: u32,
}

/// A rule with a dot in it, and the row where it began.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Item {
    dot: usize,
    start: usize,
}

struct Row {
    items: Vec<Item>,
    /// For each symbol that is waited for in this row: least tokens from its end to the end of the text, and the item
    /// that waits.
    after: HashMap<usize, (u32, usize)>,
    /// Least tokens from here to the end, when no lexeme is under way, and the item that gives them.
    left: (u32, usize),
}

/// Follows one text through a grammar.
#[derive(Clone)]
pub struct Follower {
    tables: Arc<Tables>,
    rows: Vec<Arc<Row>>,
    state: StateID,
    /// Whether a lexeme is under way.
    inside: bool,
}

/// Where a follower was.
#[derive(Clone, Copy)]
pub struct Mark {
    rows: usize,
    state: StateID,
    inside: bool,
}

impl Tables {
    /// `None` where the grammar has parts that a follower does not know.
    pub fn new(grammar: &CGrammar, limits: &ParserLimits, env: TokEnv) -> Option<Self> {
        let spec = grammar.lexer_spec().clone();
        if grammar.parametric() || spec.has_max_tokens || spec.has_stop {
            return None;
        }
        let mut automaton = Automaton::new(spec.to_regex_vec(&mut limits.clone()).ok()?, env);
        let mut symbols: HashMap<usize, Symbol> = HashMap::default();
        let mut dots = Vec::new();
        let mut found = vec![grammar.start()];
        while let Some(index) = found.pop() {
            if symbols.contains_key(&index.as_index()) {
                continue;
            }
            let data = grammar.sym_data(index);
            let mut symbol = Symbol {
                lexeme: data.lexeme,
                empty: data.is_nullable,
                rules: Vec::new(),
                least: if data.is_nullable { 0 } else { FAR },
                best: None,
                text: Vec::new(),
            };
            if let Some(lexeme) = data.lexeme {
                let end = automaton.shortest(lexeme, spec.alloc_lexeme_set())?;
                (symbol.text, symbol.least) = (end.text, end.cost);
            }
            for rule in &data.rules {
                symbol.rules.push(dots.len());
                let (right, ..) = grammar.rule_rhs(*rule);
                for next in right {
                    dots.push(Dot { next: Some(next.as_index()), made: index.as_index(), rest: FAR });
                    found.push(*next);
                }
                dots.push(Dot { next: None, made: index.as_index(), rest: 0 });
            }
            symbols.insert(index.as_index(), symbol);
        }
        let start = grammar.start().as_index();
        let mut tables = Self { symbols, start, dots, spec, automaton: Mutex::new(automaton) };
        tables.measure();
        Some(tables)
    }

    /// Finds the least tokens of every symbol and from every dot: from the ends of rules to their beginnings, until nothing
    /// becomes less.
    fn measure(&mut self) {
        loop {
            let mut changed = false;
            for at in (0..self.dots.len()).rev() {
                let Some(next) = self.dots[at].next else { continue };
                let least = self.symbols.get(&next).map_or(FAR, |s| s.least);
                let rest = (least + self.dots[at + 1].rest).min(FAR);
                if rest < self.dots[at].rest {
                    self.dots[at].rest = rest;
                    changed = true;
                }
            }
            for symbol in self.symbols.values_mut() {
                for &rule in &symbol.rules {
                    if self.dots[rule].rest < symbol.least {
                        (symbol.least, symbol.best) = (self.dots[rule].rest, Some(rule));
                        changed = true;
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The lexeme after a dot, if one stands there.
    fn lexeme(&self, dot: usize) -> Option<LexemeIdx> {
        self.symbols.get(&self.dots[dot].next?)?.lexeme
    }

    /// Adds the shortest text from a dot to the end of its rule.
    fn write_rest(&self, dot: usize, out: &mut Vec<u8>) {
        let mut waiting = vec![dot];
        while let Some(dot) = waiting.pop() {
            let Some(symbol) = self.dots[dot].next.and_then(|next| self.symbols.get(&next)) else { continue };
            waiting.push(dot + 1);
            if symbol.lexeme.is_some() {
                out.extend_from_slice(&symbol.text);
            } else {
                waiting.extend(symbol.best);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Automaton> {
        self.automaton.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Automaton {
    fn new(states: RegexVec, env: TokEnv) -> Self {
        let mut bytes = Vec::new();
        let mut classes = HashMap::default();
        for byte in (b'a'..=b'z').chain(b'0'..=b'9').chain(0..=255) {
            if classes.insert(states.alpha().map(byte), ()).is_none() {
                bytes.push(byte);
            }
        }
        Self { states, env, bytes, ends: HashMap::default(), few: HashMap::default() }
    }

    /// The text of a lexeme that takes the fewest tokens.
    fn shortest(&mut self, lexeme: LexemeIdx, mut only: LexemeSet) -> Option<End> {
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
    fn ends(&mut self, state: StateID) -> Option<Arc<Vec<End>>> {
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
            if ends.len() >= wanted || visited.len() > MOST_VISITED {
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
    fn few_ends(&mut self, state: StateID) -> Option<Arc<Vec<End>>> {
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
            if hoped >= dearest || tried >= MOST_TRIED || self.is_forced(state, &ends) {
                break;
            }
            tried += 1;
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

/// The fewest tokens that spell `bytes`, last one first.
pub fn tokens_of(trie: &TokTrie, bytes: &[u8]) -> Option<Vec<u32>> {
    // For each place, fewest tokens to the end and the first of them.
    let mut fewest: Vec<Option<(u32, u32, usize)>> = vec![None; bytes.len() + 1];
    fewest[bytes.len()] = Some((0, 0, bytes.len()));
    for at in (0..bytes.len()).rev() {
        let mut node = trie.root();
        for (end, &byte) in (at + 1..).zip(&bytes[at..]) {
            let Some(child) = trie.child_at_byte(node, byte) else { break };
            node = child;
            if let (Some(id), Some((rest, ..))) = (node.token_id(), fewest[end])
                && fewest[at].is_none_or(|(known, ..)| rest + 1 < known)
            {
                fewest[at] = Some((rest + 1, id, end));
            }
        }
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (_, id, end) = fewest[at]?;
        tokens.push(id);
        at = end;
    }
    tokens.reverse();
    Some(tokens)
}

impl Follower {
    /// Before the first byte; `None` when no text at all follows the grammar.
    pub fn start(tables: Arc<Tables>) -> Option<Self> {
        let rules = tables.symbols.get(&tables.start)?.rules.clone();
        let items = rules.into_iter().map(|dot| Item { dot, start: 0 }).collect();
        let mut follower = Self { tables, rows: Vec::new(), state: StateID::DEAD, inside: false };
        follower.push_row(items).then_some(follower)
    }

    /// Where the follower is, to come back to.
    pub fn mark(&self) -> Mark {
        Mark { rows: self.rows.len(), state: self.state, inside: self.inside }
    }

    /// Goes back.
    pub fn back_to(&mut self, mark: Mark) {
        self.rows.truncate(mark.rows);
        (self.state, self.inside) = (mark.state, mark.inside);
    }

    /// Follows bytes; `false` when they cannot be followed: then the follower is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.push_byte(byte))
    }

    fn push_byte(&mut self, byte: u8) -> bool {
        let tables = self.tables.clone();
        let mut automaton = tables.lock();
        let next = automaton.states.transition(self.state, byte);
        if !next.is_dead() && !next.has_lowest_match() {
            (self.state, self.inside) = (next, true);
            return true;
        }
        if next.has_lowest_match() {
            let info = automaton.states.state_desc(next);
            if info.has_special_token || info.lazy_hidden_len > 0 {
                return false;
            }
            let lexemes = info.lazy_accepting.as_slice().to_vec();
            return self.end_lexeme(&mut automaton, &lexemes);
        }
        // The byte is the first of the next lexeme.
        let lexemes = automaton.states.state_desc(self.state).greedy_accepting.as_slice().to_vec();
        if lexemes.is_empty() || !self.end_lexeme(&mut automaton, &lexemes) {
            return false;
        }
        let next = automaton.states.transition(self.state, byte);
        if next.is_dead() {
            return false;
        }
        let info = automaton.states.state_desc(next);
        let ended = if next.has_lowest_match() { &info.lazy_accepting } else { &info.greedy_accepting };
        let lexemes = ended.as_slice().to_vec();
        if automaton.states.next_byte(next) == NextByte::ForcedEOI {
            return self.end_lexeme(&mut automaton, &lexemes);
        }
        (self.state, self.inside) = (next, true);
        true
    }

    /// Goes from the current row over any of `lexemes` to a new one.
    fn end_lexeme(&mut self, automaton: &mut Automaton, lexemes: &[LexemeIdx]) -> bool {
        let Some(row) = self.rows.last().cloned() else { return false };
        let spec = &self.tables.spec;
        if lexemes.iter().any(|&l| spec.skip_by_class.contains(&l)) {
            // White space between lexemes: the same row again, without another one.
            let mut allowed = self.allowed(&row.items);
            for &skip in &spec.skip_by_class {
                allowed.remove(skip);
            }
            self.state = automaton.states.initial_state(&allowed);
            self.inside = false;
            return true;
        }
        let scanned = |item: &Item| {
            let lexeme = self.tables.lexeme(item.dot);
            lexeme.is_some_and(|l| lexemes.contains(&l)).then_some(Item { dot: item.dot + 1, ..*item })
        };
        let items: Vec<Item> = row.items.iter().filter_map(scanned).collect();
        self.add_row(automaton, items)
    }

    fn push_row(&mut self, items: Vec<Item>) -> bool {
        let tables = self.tables.clone();
        let mut automaton = tables.lock();
        self.add_row(&mut automaton, items)
    }

    /// Completes the items of a new row and what it costs to end from there.
    fn add_row(&mut self, automaton: &mut Automaton, mut items: Vec<Item>) -> bool {
        let here = self.rows.len();
        let tables = self.tables.clone();
        let mut known: HashSet<(usize, usize)> = items.iter().map(|i| (i.dot, i.start)).collect();
        let mut add = |items: &mut Vec<Item>, item: Item| {
            if known.insert((item.dot, item.start)) {
                items.push(item);
            }
        };
        let mut at = 0;
        while let Some(&item) = items.get(at) {
            at += 1;
            let dot = &tables.dots[item.dot];
            let Some(next) = dot.next else {
                // What is made of nothing is stepped over where it is waited for.
                if item.start < here {
                    for waiting in &self.rows[item.start].items {
                        if tables.dots[waiting.dot].next == Some(dot.made) {
                            add(&mut items, Item { dot: waiting.dot + 1, ..*waiting });
                        }
                    }
                }
                continue;
            };
            if let Some(symbol) = tables.symbols.get(&next) {
                for &rule in &symbol.rules {
                    add(&mut items, Item { dot: rule, start: here });
                }
                if symbol.empty {
                    add(&mut items, Item { dot: item.dot + 1, ..item });
                }
            }
        }
        if items.is_empty() {
            return false;
        }
        let after = self.after(&items, here);
        let left = items.iter().enumerate().map(|(i, item)| (self.ending(item, here, &after), i)).min();
        let mut allowed = self.allowed(&items);
        if !allowed.is_empty() {
            for &skip in &tables.spec.skip_by_class {
                allowed.add(skip);
            }
        }
        let state = automaton.states.initial_state(&allowed);
        let left = left.unwrap_or((FAR, 0));
        self.rows.push(Arc::new(Row { items, after, left }));
        (self.state, self.inside) = (state, false);
        true
    }

    fn allowed(&self, items: &[Item]) -> LexemeSet {
        let mut allowed = self.tables.spec.alloc_lexeme_set();
        for lexeme in items.iter().filter_map(|item| self.tables.lexeme(item.dot)) {
            allowed.add(lexeme);
        }
        allowed
    }

    /// Least tokens from the end of each symbol that is waited for in a new row to the end of the text.
    fn after(&self, items: &[Item], here: usize) -> HashMap<usize, (u32, usize)> {
        let mut after: HashMap<usize, (u32, usize)> = HashMap::default();
        loop {
            let mut changed = false;
            for (i, item) in items.iter().enumerate() {
                let Some(symbol) = self.tables.dots[item.dot].next else { continue };
                let cost = self.ending(&Item { dot: item.dot + 1, ..*item }, here, &after);
                let known = after.get(&symbol).map_or(FAR, |a| a.0);
                if cost < known {
                    after.insert(symbol, (cost, i));
                    changed = true;
                }
            }
            if !changed {
                return after;
            }
        }
    }

    /// Least tokens from an item's dot to the end of the text.
    fn ending(&self, item: &Item, here: usize, after: &HashMap<usize, (u32, usize)>) -> u32 {
        let Dot { made, rest, .. } = self.tables.dots[item.dot];
        if item.start == 0 && made == self.tables.start {
            return rest;
        }
        let after =
            if item.start == here { Some(after) } else { self.rows.get(item.start).map(|r| &r.after) };
        let then = after.and_then(|a| a.get(&made)).map_or(FAR, |a| a.0);
        (rest + then).min(FAR)
    }

    /// Adds the shortest text from an item's dot to the end.
    fn write_ending(&self, mut item: Item, out: &mut Vec<u8>) {
        // A rule's end is followed by whoever waited for it; costs fall on the way, so it ends.
        for _ in 0..100_000 {
            self.tables.write_rest(item.dot, out);
            let made = self.tables.dots[item.dot].made;
            if item.start == 0 && made == self.tables.start {
                return;
            }
            let row = self.rows.get(item.start);
            let Some(waiting) = row.and_then(|r| Some(r.items[r.after.get(&made)?.1])) else { return };
            item = Item { dot: waiting.dot + 1, ..waiting };
        }
    }

    /// Tokens that suffice for a lawful end, from here; `None` when none is known. Quick, and sometimes more than it takes.
    pub fn left(&self) -> Option<usize> {
        self.best(false).map(|best| best.0)
    }

    /// The lawful end that takes the fewest tokens, from here.
    pub fn closing(&self) -> Option<Vec<u8>> {
        let (_, mut bytes, item) = self.best(true)?;
        self.write_ending(item, &mut bytes);
        Some(bytes)
    }

    /// The cheapest way on: tokens in all, text to the end of the lexeme that is under way, item to go on with.
    fn best(&self, few: bool) -> Option<(usize, Vec<u8>, Item)> {
        let row = self.rows.last()?;
        if !self.inside {
            let (cost, item) = row.left;
            return (cost < FAR).then(|| (cost as usize, Vec::new(), row.items[item]));
        }
        let ends = {
            let mut automaton = self.tables.lock();
            if few { automaton.few_ends(self.state)? } else { automaton.ends(self.state)? }
        };
        let mut best: Option<(u32, &End, usize)> = None;
        for end in ends.iter() {
            for item in row.items.iter().filter(|item| self.tables.lexeme(item.dot) == Some(end.lexeme)) {
                let symbol = self.tables.dots[item.dot].next;
                let Some(&(cost, waiting)) = symbol.and_then(|symbol| row.after.get(&symbol)) else {
                    continue;
                };
                let total = end.cost + cost;
                if best.is_none_or(|b| total < b.0) {
                    best = Some((total, end, waiting));
                }
            }
        }
        let (total, end, waiting) = best?;
        let item = row.items[waiting];
        Some((total as usize, end.text.clone(), Item { dot: item.dot + 1, ..item }))
    }
}
