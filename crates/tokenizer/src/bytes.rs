//! How a byte-level vocabulary spells bytes: one printable character for each.
//!
//! The mapping is the one that GPT-2 introduced: bytes that print in Latin-1 stand for themselves, the others take the
//! characters from U+0100 on, in order. So a space is spelled `Ġ`, a line feed `Ċ`.

/// The character that spells `byte`.
pub(crate) fn char_of(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !prints(b)).count();
    char::from_u32(256 + before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The characters of all 256 bytes, in order.
pub(crate) fn alphabet() -> [char; 256] {
    std::array::from_fn(|b| char_of(b as u8))
}

/// Spellings to bytes.
pub(crate) struct Speller {
    /// Indexed by code point; the last character in use is U+0143.
    bytes: [Option<u8>; 0x144],
}

impl Speller {
    pub(crate) fn new() -> Self {
        let mut bytes = [None; 0x144];
        for (byte, c) in (0..=255).zip(alphabet()) {
            if let Some(slot) = bytes.get_mut(c as usize) {
                *slot = Some(byte);
            }
        }
        Self { bytes }
    }

    /// The bytes that `token` spells. A token with any character outside the spelling (an added token with a space in
    /// it, say) stands for its own UTF-8, as in `tokenizers`' byte-level decoder.
    pub(crate) fn bytes(&self, token: &str) -> Vec<u8> {
        let spelled: Option<Vec<u8>> =
            token.chars().map(|c| self.bytes.get(c as usize).copied().flatten()).collect();
        spelled.unwrap_or_else(|| token.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let speller = Speller::new();
        let alphabet = alphabet();
        assert_eq!(alphabet.iter().collect::<HashSet<_>>().len(), 256);
        for (byte, c) in (0..=255).zip(alphabet) {
            assert_eq!(speller.bytes(&c.to_string()), [byte]);
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(0xad)), ('Ġ', 'Ċ', 'Ń'));
    }

    #[test]
    fn a_token_outside_the_spelling_stands_for_itself() {
        assert_eq!(Speller::new().bytes("a §"), "a §".as_bytes());
        assert_eq!(Speller::new().bytes("Â§"), "§".as_bytes());
    }
}
