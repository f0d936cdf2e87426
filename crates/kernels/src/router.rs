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
    order: Vec<usize>,
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
        self.order.reserve(experts);
    }
}

/// Routes tokens as Mixtral does: softmax over all experts, the `top_k` largest, their weights divided by
/// their sum. Of equal probabilities those are taken that `torch.topk` takes on a CPU.
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
        let first = out.chosen.len();
        let mut sum = 0.0;
        select_largest(&out.probabilities, top_k, &mut out.order);
        for &e in &out.order[..top_k.min(experts)] {
            sum += out.probabilities[e];
            out.chosen.push((e, out.probabilities[e]));
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

/// Puts the places of the `k` largest values first in `order`, the largest of them first.
///
/// Which of several equal values are taken decides what a token's experts are, so it follows what `torch.topk` does on a CPU:
/// quickselect with the median of three as pivot (`std::nth_element` of libstdc++), then the `k - 1` first are sorted. Equal weights of
/// two experts, or a gate of zeros, thus go to the experts to which `transformers` sends them.
pub(crate) fn select_largest(values: &[f32], k: usize, order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..values.len());
    if k == 0 || k > values.len() {
        return;
    }
    let before = |a: usize, b: usize| values[a] > values[b] || (values[a].is_nan() && !values[b].is_nan());
    let (mut first, mut last) = (0, values.len());
    // With 64 experts or more for each one chosen, torch takes another way, which keeps the first of equals when one is chosen.
    if k * 64 <= values.len() {
        insertion_sort(order, &before);
        return;
    }
    // Each cut leaves a smaller part; the limit is that of libstdc++, beyond which any choice of equals will do.
    let mut cuts = 2 * values.len().ilog2();
    while last - first > 3 && cuts > 0 {
        cuts -= 1;
        let (a, b, c) = (first + 1, first + (last - first) / 2, last - 1);
        let [va, vb, vc] = [a, b, c].map(|i| order[i]);
        let median = if before(va, vb) {
            if before(vb, vc) {
                b
            } else if before(va, vc) {
                c
            } else {
                a
            }
        } else if before(va, vc) {
            a
        } else if before(vb, vc) {
            c
        } else {
            b
        };
        order.swap(first, median);
        let pivot = order[first];
        let (mut low, mut high) = (first + 1, last);
        loop {
            while before(order[low], pivot) {
                low += 1;
            }
            high -= 1;
            while before(pivot, order[high]) {
                high -= 1;
            }
            if low >= high {
                break;
            }
            order.swap(low, high);
            low += 1;
        }
        if low < k { first = low } else { last = low }
    }
    insertion_sort(&mut order[first..last], &before);
    insertion_sort(&mut order[..k - 1], &before);
}

/// Keeps equals in their order, and allocates nothing.
fn insertion_sort(order: &mut [usize], before: &impl Fn(usize, usize) -> bool) {
    for i in 1..order.len() {
        let mut j = i;
        while j > 0 && before(order[j], order[j - 1]) {
            order.swap(j, j - 1);
            j -= 1;
        }
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
    fn of_equal_experts_those_are_chosen_that_torch_chooses() {
        let goldens = include_str!("../tests/topk_ties.txt").lines().filter(|line| !line.starts_with('#'));
        let mut cases = 0;
        for line in goldens {
            let [k, values, chosen] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
            let numbers =
                |text: &str| text.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<usize>>();
            let logits: Vec<f32> = numbers(values).into_iter().map(|n| n as f32).collect();
            let routing = routed(&logits, k.trim().parse().unwrap());
            let found: Vec<usize> = (0..logits.len()).filter(|&e| !routing.rows_of(e).is_empty()).collect();
            assert_eq!(found, numbers(chosen), "{line}");
            cases += 1;
        }
        assert!(cases > 300);
    }

    #[test]
    fn top_one_has_weight_one_and_top_all_takes_all() {
        assert_eq!(routed(&[0.3, 0.1], 1).rows_of(0), &[(0, 1.0)]);
        assert_eq!(routed(&[0.3, 0.1, 0.2], 3).rows().len(), 3);
    }
}
