//! Changes to the logits that depend on the tokens so far, in greedy and in sampled generation.

/// Makes tokens seen less likely (Keskar et al. 2019): a positive logit is divided by `penalty`, a negative one multiplied, once
/// however often the token has come.
pub fn repetition_penalty(logits: &mut [f32], history: &[u32], penalty: f32, seen: &mut Vec<u32>) {
    if penalty == 1.0 {
        return;
    }
    seen.clear();
    seen.extend_from_slice(history);
    seen.sort_unstable();
    seen.dedup();
    for &id in seen.iter() {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Rules out every token that would complete an n-gram of length `size` that has come before.
pub fn no_repeat_ngram(logits: &mut [f32], history: &[u32], size: usize) {
    if size == 0 || history.len() + 1 < size {
        return;
    }
    let prefix = &history[history.len() + 1 - size..];
    for ngram in history.windows(size) {
        if ngram[..size - 1] == *prefix
            && let Some(logit) = logits.get_mut(ngram[size - 1] as usize)
        {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_seen_twice_is_penalised_once_and_towards_less_likely() {
        let mut logits = [2.0, -2.0, 1.0];
        repetition_penalty(&mut logits, &[0, 1, 0, 9], 2.0, &mut Vec::new());
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn a_repeated_bigram_is_ruled_out_and_a_unigram_too() {
        let mut logits = [0.0; 5];
        no_repeat_ngram(&mut logits, &[1, 2, 3, 1], 2);
        assert_eq!(logits.map(f32::is_finite), [true, true, false, true, true]);
        let mut logits = [0.0; 5];
        no_repeat_ngram(&mut logits, &[1, 3], 1);
        assert_eq!(logits.map(f32::is_finite), [true, false, true, false, true]);
        let mut logits = [0.0; 5];
        no_repeat_ngram(&mut logits, &[1], 3);
        assert!(logits.iter().all(|l| l.is_finite()));
    }
}
