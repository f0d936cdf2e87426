//! Documents with the same words: a hash of the text that passes over case, spacing and punctuation.

/// BLAKE3 of the normalised text, its first 128 bits: letters and digits in lower case, one space for whatever stands between
/// them. None for a text without letters and digits: such texts are not each other's copies.
pub fn normalized_hash(text: &str) -> Option<u128> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::with_capacity(text.len().min(1 << 14) + 8);
    let (mut any, mut gap) = (false, false);
    for c in text.chars() {
        if !c.is_alphanumeric() {
            gap = true;
            continue;
        }
        if gap && any {
            buffer.push(b' ');
        }
        (any, gap) = (true, false);
        if c.is_ascii() {
            buffer.push(c.to_ascii_lowercase() as u8);
        } else {
            for lower in c.to_lowercase() {
                buffer.extend_from_slice(lower.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if buffer.len() >= 1 << 14 {
            hasher.update(&buffer);
            buffer.clear();
        }
    }
    hasher.update(&buffer);
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    any.then(|| u128::from_le_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_spacing_and_punctuation_do_not_matter_and_words_do() {
        let hash = |text: &str| normalized_hash(text).unwrap();
        assert_eq!(hash("§ 1. The  Oil-Act\n"), hash("1 the oil act"));
        assert_ne!(hash("the oil act"), hash("theoil act"));
        assert_ne!(hash("section 1"), hash("section 2"));
        assert_ne!(hash("(a) b"), hash("b (a)"));
        assert_eq!(hash("ÉTAT"), hash("état"));
        assert_eq!(normalized_hash(" § — \n"), None);
    }

    proptest! {
        #[test]
        fn long_texts_hash_as_their_words(words in prop::collection::vec("[a-zé]{1,9}", 1..40), times in 1usize..900) {
            let text = words.join(" ").repeat(times);
            prop_assert_eq!(normalized_hash(&text), normalized_hash(&text.to_uppercase().replace(' ', " , ")));
        }
    }
}
