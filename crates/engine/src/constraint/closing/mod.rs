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

mod automaton;
mod follower;
mod tables;

pub use follower::Follower;
pub use tables::Tables;

use llguidance::toktrie::TokTrie;

/// More than any text has tokens, and small enough to add up.
const FAR: u32 = u32::MAX / 4;

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
