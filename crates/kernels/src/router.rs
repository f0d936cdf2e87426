//! Which experts a token goes to, and with which weights.

use crate::{Isa, elementwise::dot, softmax};

/// The experts of some tokens, by token and by expert.
#[derive(Default)]
pub struct Routing {
    /// Chosen `(expert, weight)` pairs, `[token, top_k]`.
    chosen: Vec<(usize, f32)>,
    /// Where each expert's part of `rows` starts, and the end: `experts + 1` values.
    offsets: Vec<usize>,
    /// `(token, weight)` pairs in the order of their expert, then token.
    rows: Vec<(usize, f32)>,
    probabilities: Vec<f32>,
    taken: Vec<bool>,
}

impl Routing {
    /// The `(token, weight)` pairs of `expert`, in the order of the tokens.
    pub fn rows_of(&self, expert: usize) -> &[(usize, f32)] {
        &self.rows[self.range_of(expert)]
    }

    /// Where [`Self::rows_of`] lies in [`Self::rows`].
    pub fn range_of(&self, expert: usize) -> std::ops::Range<usize> {
        self.offsets[expert]..self.offsets[expert + 1]
    }

    /// All `(token, weight)` pairs, those of expert 0 first: `tokens × top_k`.
    pub fn rows(&self) -> &[(usize, f32)] {
        &self.rows
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Makes room for `tokens` tokens, so that [`route`] does not allocate.
    pub fn reserve(&mut self, tokens: usize, experts: usize, top_k: usize) {
        self.chosen.reserve(tokens * top_k);
        self.rows.reserve(tokens * top_k);
        self.offsets.reserve(experts + 1);
        self.probabilities.reserve(experts);
        self.taken.reserve(experts);
    }
}

/// Routes tokens as Mixtral does: softmax over all experts, the `top_k` largest, their weights divided by
/// their sum. Of equal probabilities the expert with the lower index goes first.
///
/// `x` is `[tokens, hidden]`, `gate` the router's weight `[experts, hidden]`, both `f32`.
///
/// # Panics
/// When the lengths do not fit each other or `top_k` is not in `1..=experts`.
pub fn route(isa: Isa, x: &[f32], gate: &[f32], hidden: usize, top_k: usize, out: &mut Routing) {
    let experts = gate.len() / hidden;
    assert!(
        gate.len() == experts * hidden && x.len().is_multiple_of(hidden) && (1..=experts).contains(&top_k)
    );
    out.chosen.clear();
    for token in x.chunks_exact(hidden) {
        out.probabilities.clear();
        out.probabilities.extend(gate.chunks_exact(hidden).map(|row| dot(isa, token, row)));
        softmax(&mut out.probabilities);
        out.taken.clear();
        out.taken.resize(experts, false);
        let first = out.chosen.len();
        let mut sum = 0.0;
        for _ in 0..top_k {
            let mut best: Option<usize> = None;
            for e in 0..experts {
                if !out.taken[e] && best.is_none_or(|b| out.probabilities[e] > out.probabilities[b]) {
                    best = Some(e);
                }
            }
            if let Some(e) = best {
                out.taken[e] = true;
                sum += out.probabilities[e];
                out.chosen.push((e, out.probabilities[e]));
            }
        }
        for (_, weight) in &mut out.chosen[first..] {
            *weight /= sum;
        }
    }
    out.offsets.clear();
    out.offsets.push(0);
    out.rows.clear();
    for e in 0..experts {
        for (i, &(expert, weight)) in out.chosen.iter().enumerate() {
            if expert == e {
                out.rows.push((i / top_k, weight));
            }
        }
        out.offsets.push(out.rows.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate of one input: the logit of expert `e` is `logits[e]`.
    fn routed(logits: &[f32], top_k: usize) -> Routing {
        let mut out = Routing::default();
        route(Isa::Scalar, &[1.0], logits, 1, top_k, &mut out);
        out
    }

    #[test]
    fn weights_of_the_chosen_sum_to_one_in_proportion_to_their_probabilities() {
        let routing = routed(&[0.0, 2.0, -1.0, 1.0], 2);
        assert!(routing.rows_of(0).is_empty() && routing.rows_of(2).is_empty());
        let (a, b) = (routing.rows_of(1)[0].1, routing.rows_of(3)[0].1);
        assert!((a + b - 1.0).abs() < 1e-6);
        assert!((a / b - 1.0f32.exp()).abs() < 1e-5);
    }

    #[test]
    fn of_equal_experts_the_first_wins() {
        let routing = routed(&[1.0, 3.0, 3.0, 3.0], 2);
        assert_eq!((routing.rows_of(1).len(), routing.rows_of(2).len(), routing.rows_of(3).len()), (1, 1, 0));
    }

    #[test]
    fn top_one_has_weight_one_and_top_all_takes_all() {
        assert_eq!(routed(&[0.3, 0.1], 1).rows_of(0), &[(0, 1.0)]);
        assert_eq!(routed(&[0.3, 0.1, 0.2], 3).rows().len(), 3);
    }
}
