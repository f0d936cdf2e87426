//! A grammar with the least tokens of each of its parts.

use super::{FAR, automaton::Automaton};
use llguidance::{
    api::ParserLimits,
    derivre::HashMap,
    earley::{
        CGrammar,
        lexerspec::{LexemeIdx, LexerSpec},
    },
    toktrie::TokEnv,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is known of a grammar before any text.
pub struct Tables {
    /// By the index that the grammar gives them.
    pub(super) symbols: HashMap<usize, Symbol>,
    pub(super) start: usize,
    /// All rules one after the other: a dot before each symbol of a rule and one at its end.
    pub(super) dots: Vec<Dot>,
    pub(super) spec: LexerSpec,
    automaton: Mutex<Automaton>,
}

/// A symbol of the grammar.
pub(super) struct Symbol {
    /// What it is, when it is no other symbols.
    lexeme: Option<LexemeIdx>,
    /// Whether it may be nothing.
    pub(super) empty: bool,
    /// The first dots of its rules.
    pub(super) rules: Vec<usize>,
    /// Least tokens.
    least: u32,
    /// The rule that gives them.
    best: Option<usize>,
    /// The shortest text, of a lexeme.
    text: Vec<u8>,
}

/// A place in a rule.
pub(super) struct Dot {
    /// The symbol that follows; none at the end.
    pub(super) next: Option<usize>,
    /// What the rule makes.
    pub(super) made: usize,
    /// Least tokens from here to the rule's end.
    pub(super) rest: u32,
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

    /// Finds the least tokens of every symbol and from every dot. The symbol that takes the fewest is known first, as no rule
    /// takes fewer than its parts (Knuth 1977).
    fn measure(&mut self) {
        // Where symbols are used: the rule's first dot, once for each time. And how much of each rule is not known yet.
        let mut uses: HashMap<usize, Vec<usize>> = HashMap::default();
        let mut open: HashMap<usize, usize> = HashMap::default();
        let mut queue = BinaryHeap::new();
        for (&index, symbol) in &self.symbols {
            if symbol.least < FAR {
                queue.push(Reverse((symbol.least, index, None)));
            }
            for &rule in &symbol.rules {
                let parts = self.parts(rule);
                open.insert(rule, parts.len());
                if parts.is_empty() {
                    queue.push(Reverse((0, index, Some(rule))));
                }
                parts.into_iter().for_each(|part| uses.entry(part).or_default().push(rule));
            }
        }
        let mut known = HashSet::new();
        while let Some(Reverse((least, index, best))) = queue.pop() {
            if !known.insert(index) {
                continue;
            }
            if let Some(symbol) = self.symbols.get_mut(&index) {
                (symbol.least, symbol.best) = (least, best);
            }
            for &rule in uses.get(&index).into_iter().flatten() {
                let Some(left) = open.get_mut(&rule) else { continue };
                *left -= 1;
                if *left == 0 {
                    let least = |part: usize| self.symbols.get(&part).map_or(FAR, |s| s.least);
                    let all = self.parts(rule).into_iter().fold(0, |all, part| (all + least(part)).min(FAR));
                    if all < FAR {
                        queue.push(Reverse((all, self.dots[rule].made, Some(rule))));
                    }
                }
            }
        }
        for at in (0..self.dots.len()).rev() {
            let Some(next) = self.dots[at].next else { continue };
            let least = self.symbols.get(&next).map_or(FAR, |s| s.least);
            self.dots[at].rest = (least + self.dots[at + 1].rest).min(FAR);
        }
    }

    /// The symbols of a rule.
    fn parts(&self, rule: usize) -> Vec<usize> {
        self.dots.get(rule..).into_iter().flatten().map_while(|dot| dot.next).collect()
    }

    /// The lexeme after a dot, if one stands there.
    pub(super) fn lexeme(&self, dot: usize) -> Option<LexemeIdx> {
        self.symbols.get(&self.dots[dot].next?)?.lexeme
    }

    /// Adds the shortest text from a dot to the end of its rule.
    pub(super) fn write_rest(&self, dot: usize, out: &mut Vec<u8>) {
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

    /// The automaton, with fuel for one more step.
    pub(super) fn lock(&self) -> MutexGuard<'_, Automaton> {
        let mut automaton = self.automaton.lock().unwrap_or_else(PoisonError::into_inner);
        automaton.refuel();
        automaton
    }
}
