//! Filters on the distribution, in sampled generation only, with the definitions of transformers' `logits_process.py`
//! (`min_tokens_to_keep = 1`).
//!
//! A filter works on the candidates that those before it left: `(logit, id)`, the others having probability 0.

/// A token that may be drawn: its logit and id.
pub type Candidate = (f32, u32);

/// Keeps the `k` largest logits, and all that equal the last of them.
pub fn top_k(candidates: &mut Vec<Candidate>, k: usize, scratch: &mut Vec<f32>) {
    if k == 0 || k >= candidates.len() {
        return;
    }
    scratch.clear();
    scratch.extend(candidates.iter().map(|c| c.0));
    let (_, &mut least, _) = scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    candidates.retain(|c| c.0 >= least);
}

/// Keeps the most likely tokens whose probabilities, summed from the least likely up, pass `1 − p`; at least one.
pub fn top_p(candidates: &mut Vec<Candidate>, p: f32, probabilities: &mut Vec<f32>) {
    if p >= 1.0 || candidates.is_empty() {
        return;
    }
    candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    softmax(candidates, probabilities);
    let mut sum = 0.0;
    let last = candidates.len() - 1;
    let removed = probabilities[..last].iter().take_while(|&&q| {
        sum += q;
        sum <= 1.0 - p
    });
    let removed = removed.count();
    candidates.drain(..removed);
}

/// Keeps tokens at least `share` as likely as the most likely.
pub fn min_p(candidates: &mut Vec<Candidate>, share: f32, probabilities: &mut Vec<f32>) {
    if share <= 0.0 || candidates.is_empty() {
        return;
    }
    softmax(candidates, probabilities);
    let least = share * probabilities.iter().copied().fold(0.0, f32::max);
    let mut kept = probabilities.iter().map(|&q| q >= least);
    candidates.retain(|_| kept.next() == Some(true));
}

/// Keeps the tokens whose information is nearest to the expected (Meister et al. 2022) until their probabilities reach `mass`.
pub fn typical_p(candidates: &mut Vec<Candidate>, mass: f32, probabilities: &mut Vec<f32>) {
    if mass >= 1.0 || candidates.is_empty() {
        return;
    }
    softmax(candidates, probabilities);
    let entropy: f32 = probabilities.iter().filter(|&&q| q > 0.0).map(|q| -q * q.ln()).sum();
    let largest = candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
    let normaliser = largest + candidates.iter().map(|c| (c.0 - largest).exp()).sum::<f32>().ln();
    let surprise = |logit: f32| (normaliser - logit - entropy).abs();
    candidates.sort_unstable_by(|a, b| surprise(a.0).total_cmp(&surprise(b.0)).then(a.1.cmp(&b.1)));
    softmax(candidates, probabilities);
    let mut sum = 0.0;
    let below = probabilities.iter().take_while(|&&q| {
        sum += q;
        sum < mass
    });
    let last = below.count().min(candidates.len() - 1);
    let most = surprise(candidates[last].0);
    candidates.retain(|c| surprise(c.0) <= most);
}

/// Probabilities of the candidates, in their order.
pub fn softmax(candidates: &[Candidate], out: &mut Vec<f32>) {
    let largest = candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
    out.clear();
    out.extend(candidates.iter().map(|c| (c.0 - largest).exp()));
    let sum: f32 = out.iter().sum();
    for q in out.iter_mut() {
        *q /= sum;
    }
}
