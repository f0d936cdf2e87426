//! A text on its way through a grammar.

use super::{
    FAR,
    automaton::{Automaton, End},
    tables::{Dot, Tables},
};
use llguidance::{
    derivre::{HashMap, NextByte, StateID},
    earley::{lexerspec::LexemeIdx, regexvec::LexemeSet},
};
use std::{collections::HashSet, sync::Arc};

/// Items of a row: with more, `llguidance` gives a grammar up, too.
const MOST_ITEMS: usize = 2000;

/// Tokens of an ending that is written out.
const LONGEST: usize = 1 << 16;

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
        while let Some(&item) = items.get(at).filter(|_| items.len() <= MOST_ITEMS) {
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
        if items.is_empty() || items.len() > MOST_ITEMS {
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
        let (tokens, mut bytes, item) = self.best(true)?;
        if tokens > LONGEST {
            return None;
        }
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
