//! What a grammar of JSON leaves open and parsers do not.
//!
//! - A number may have any number of digits; many parsers hold it as a 64-bit float. Kept here: at most [`DIGITS`] digits, which such a
//!   float holds exactly, and an exponent of at most [`EXPONENT_DIGITS`].
//! - An object may name a key twice where the schema leaves keys open; parsers then drop one.

/// Most digits of a number.
const DIGITS: usize = 15;

/// Most digits of its exponent.
const EXPONENT_DIGITS: usize = 2;

/// Follows a compact JSON text whose strings have one spelling for each character.
#[derive(Clone, Default)]
pub struct JsonGuard {
    /// Open objects and arrays; objects with the keys so far.
    open: Vec<Option<Vec<Vec<u8>>>>,
    place: Place,
    /// The next string in this object is a key.
    key_next: bool,
}

#[derive(Clone, Default, PartialEq)]
enum Place {
    #[default]
    Between,
    String {
        /// The bytes so far, of a key.
        key: Option<Vec<u8>>,
        escaped: bool,
    },
    Number {
        digits: usize,
        exponent: Option<usize>,
    },
}

impl JsonGuard {
    /// Follows bytes; `false` when they go against the rules above.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.push_byte(byte))
    }

    fn push_byte(&mut self, byte: u8) -> bool {
        match &mut self.place {
            Place::String { key, escaped } => {
                if *escaped || byte != b'"' {
                    *escaped = !*escaped && byte == b'\\';
                    key.iter_mut().for_each(|key| key.push(byte));
                    return true;
                }
                let key = key.take();
                self.place = Place::Between;
                let Some(key) = key else { return true };
                let Some(Some(keys)) = self.open.last_mut() else { return true };
                let new = !keys.contains(&key);
                keys.push(key);
                return new;
            }
            Place::Number { digits, exponent } => match byte {
                b'0'..=b'9' => {
                    let (count, most) = match exponent {
                        Some(count) => (count, EXPONENT_DIGITS),
                        None => (digits, DIGITS),
                    };
                    *count += 1;
                    return *count <= most;
                }
                b'e' | b'E' => {
                    *exponent = Some(0);
                    return true;
                }
                b'.' | b'+' | b'-' => return true,
                _ => self.place = Place::Between,
            },
            Place::Between => {}
        }
        match byte {
            b'{' => {
                self.open.push(Some(Vec::new()));
                self.key_next = true;
            }
            b'[' => {
                self.open.push(None);
                self.key_next = false;
            }
            b'}' | b']' => {
                self.open.pop();
                self.key_next = false;
            }
            b',' => self.key_next = matches!(self.open.last(), Some(Some(_))),
            b'"' => {
                self.place = Place::String { key: self.key_next.then(Vec::new), escaped: false };
                self.key_next = false;
            }
            b'-' => self.place = Place::Number { digits: 0, exponent: None },
            b'0'..=b'9' => self.place = Place::Number { digits: 1, exponent: None },
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> bool {
        JsonGuard::default().push(text.as_bytes())
    }

    #[test]
    fn numbers_stay_within_what_a_float_holds_exactly() {
        assert!(accepts("[123456789012345,-1.5e10,0.12345678901234]"));
        assert!(!accepts("1234567890123456"));
        assert!(!accepts("1e100"));
        assert!(accepts("\"12345678901234567890\""), "digits of a string are free");
    }

    #[test]
    fn an_object_names_no_key_twice_and_its_parts_may_have_the_same() {
        assert!(accepts(r#"{"a":{"a":1},"b":["a","a"],"a\"":2}"#));
        assert!(!accepts(r#"{"a":1,"a""#));
        assert!(!accepts(r#"{"a":{"b":1},"a":"#));
        assert!(accepts(r#"{"a":"a","b":"a"}"#));
    }
}
