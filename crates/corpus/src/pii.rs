//! Personal data that can be told by its form: social security numbers, telephone numbers, e-mail addresses, account numbers.
//!
//! Each is replaced by its kind in brackets, `[SSN]`, `[PHONE]`, `[EMAIL]`, `[ACCOUNT]`. Law is full of numbers, so a number is
//! only taken for personal data where its form or the words before it leave little doubt: citations, dates, docket numbers and
//! amounts stay.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// What is scrubbed. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrub {
    /// `123-45-6789`, but no number that is never issued (000, 666, 9xx; group 00; serial 0000).
    pub ssn: bool,
    /// `(202) 555-0143`, `202-555-0143`, `+1 202 555 0143`.
    pub phone: bool,
    /// `name@example.org`.
    pub email: bool,
    /// Eight digits or more after `account no.` and the like; card numbers that pass Luhn's check.
    pub account: bool,
}

/// A text without what was scrubbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed<'t> {
    /// The text.
    pub text: Cow<'t, str>,
    /// How many of each kind went.
    pub removed: BTreeMap<&'static str, u64>,
}

impl Scrub {
    /// Whether nothing is scrubbed.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Replaces what is found.
    pub fn scrub<'t>(&self, text: &'t str) -> Scrubbed<'t> {
        let mut removed = BTreeMap::new();
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        let bytes = text.as_bytes();
        while let Some(&byte) = bytes.get(at) {
            let found = match byte {
                b'@' if self.email => email(text, at).map(|(from, to)| (from, to, "email", "[EMAIL]")),
                b'0'..=b'9' | b'(' | b'+' if !inside_number(bytes, at) => self.number(text, at),
                _ => None,
            };
            match found {
                Some((from, to, kind, mark)) if from >= copied => {
                    out.push_str(&text[copied..from]);
                    out.push_str(mark);
                    *removed.entry(kind).or_default() += 1;
                    (copied, at) = (to, to);
                }
                _ => at += 1,
            }
        }
        if removed.is_empty() {
            return Scrubbed { text: Cow::Borrowed(text), removed };
        }
        out.push_str(&text[copied..]);
        Scrubbed { text: Cow::Owned(out), removed }
    }

    fn number(&self, text: &str, at: usize) -> Option<(usize, usize, &'static str, &'static str)> {
        let rest = &text.as_bytes()[at..];
        let ssn = || if self.ssn { ssn(rest).map(|n| (at, at + n, "ssn", "[SSN]")) } else { None };
        let phone = || if self.phone { phone(rest).map(|n| (at, at + n, "phone", "[PHONE]")) } else { None };
        let account = || {
            if !self.account {
                return None;
            }
            let length = account(&text[..at], rest).or_else(|| card(rest))?;
            Some((at, at + length, "account", "[ACCOUNT]"))
        };
        ssn().or_else(phone).or_else(account)
    }
}

/// Whether the byte at `at` goes on a number or an identifier that began before.
fn inside_number(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| bytes.get(at));
    match before(1) {
        Some(b) if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'/') => true,
        // `1-202-…` and `12.345`, but a dash or a full stop after a word is none of it.
        Some(b'-' | b'.' | b',' | b':') => before(2).is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}

/// Length of a number in the form of `pattern`, in which `0` is any digit, `~` one of ` `, `-`, `.`, and the rest itself; with
/// nothing after it that would go on with it.
fn form(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    for (at, wanted) in pattern.iter().enumerate() {
        let byte = bytes.get(at)?;
        let fits = match wanted {
            b'0' => byte.is_ascii_digit(),
            b'~' => matches!(byte, b' ' | b'-' | b'.'),
            other => byte == other,
        };
        if !fits {
            return None;
        }
    }
    ends(bytes, pattern.len()).then_some(pattern.len())
}

fn ends(bytes: &[u8], at: usize) -> bool {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    match bytes.get(at) {
        Some(b) if b.is_ascii_alphanumeric() || *b == b'_' => false,
        Some(b'-' | b'.' | b',' | b'/' | b':') => !digit(at + 1),
        Some(b'(') => false,
        _ => true,
    }
}

fn ssn(bytes: &[u8]) -> Option<usize> {
    let length = form(bytes, b"000-00-0000")?;
    let never = bytes.starts_with(b"000") || bytes.starts_with(b"666") || bytes.starts_with(b"9");
    (!never && &bytes[4..6] != b"00" && &bytes[7..11] != b"0000").then_some(length)
}

fn phone(bytes: &[u8]) -> Option<usize> {
    // Codes of areas and of exchanges begin with 2 to 9.
    let codes = |area: usize, exchange: usize| bytes[area] >= b'2' && bytes[exchange] >= b'2';
    let forms: [(&[u8], usize, usize); 5] = [
        (b"(000) 000-0000", 1, 6),
        (b"(000)000-0000", 1, 5),
        (b"+1~000~000~0000", 3, 7),
        (b"1-000-000-0000", 2, 6),
        (b"000-000-0000", 0, 4),
    ];
    forms.iter().find_map(|&(pattern, area, exchange)| form(bytes, pattern).filter(|_| codes(area, exchange)))
}

fn email(text: &str, at: usize) -> Option<(usize, usize)> {
    let local = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-');
    let before = text[..at].trim_end_matches(local);
    let from = before.len() + text[before.len()..at].len()
        - text[before.len()..at].trim_start_matches(['.', '-']).len();
    let domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let after = &text[at + 1..];
    let host = &after[..after.find(|c| !domain(c)).unwrap_or(after.len())];
    let host = host.trim_end_matches(['.', '-']);
    let (name, top) = host.rsplit_once('.')?;
    let good = from < at && !name.is_empty() && !name.starts_with('.') && top.len() >= 2;
    (good && top.bytes().all(|b| b.is_ascii_alphabetic())).then_some((from, at + 1 + host.len()))
}

/// A number after words that say what it is.
fn account(before: &str, bytes: &[u8]) -> Option<usize> {
    let run = bytes.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b'-')).count();
    let run = bytes[..run].iter().rposition(u8::is_ascii_digit)? + 1;
    let digits = bytes[..run].iter().filter(|b| b.is_ascii_digit()).count();
    if !(8..=20).contains(&digits) || !ends(bytes, run) {
        return None;
    }
    let tail: String = before.chars().rev().take(32).collect::<Vec<_>>().into_iter().rev().collect();
    let tail = tail.trim_end_matches([' ', ':', '#', '.', '\n']).to_lowercase();
    let tail = ["number", "no", "num", "nr"].iter().find_map(|word| tail.strip_suffix(word)).unwrap_or(&tail);
    let tail = tail.trim_end_matches([' ', '.']);
    ["account", "acct", "routing", "iban", "a/c"].iter().any(|word| tail.ends_with(word)).then_some(run)
}

/// A card number of 16 digits in fours that passes Luhn's check.
fn card(bytes: &[u8]) -> Option<usize> {
    let length = form(bytes, b"0000~0000~0000~0000")?;
    let digits = bytes[..length].iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(at, d)| if at % 2 == 0 { if d > 4 { 2 * d - 9 } else { 2 * d } } else { d })
        .sum();
    (sum.is_multiple_of(10)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Scrub = Scrub { ssn: true, phone: true, email: true, account: true };

    fn scrub(text: &str) -> String {
        ALL.scrub(text).text.into_owned()
    }

    #[test]
    fn personal_data_goes_by_kind() {
        for (text, expected) in [
            ("SSN 219-09-9999.", "SSN [SSN]."),
            ("call (202) 555-0143, or", "call [PHONE], or"),
            ("202-555-0143", "[PHONE]"),
            ("+1 202.555.0143", "[PHONE]"),
            ("1-800-555-0199;", "[PHONE];"),
            ("write to a.b-c@mail.example.org.", "write to [EMAIL]."),
            ("<x@y.gov>", "<[EMAIL]>"),
            ("Account No. 12345678901", "Account No. [ACCOUNT]"),
            ("acct #: 1234-5678-90", "acct #: [ACCOUNT]"),
            ("card 4111 1111 1111 1111", "card [ACCOUNT]"),
        ] {
            assert_eq!(scrub(text), expected);
        }
        let both = ALL.scrub("a@b.org and c@d.org");
        assert_eq!(both.removed, [("email", 2)].into());
    }

    #[test]
    fn numbers_of_the_law_stay() {
        for text in [
            "12 U.S.C. 5481",
            "Pub. L. 111-203",
            "§ 1026.19(e)(1)(iii)",
            "124 Stat. 1376",
            "2024-02-12",
            "02-12-2024",
            "No. 14-144",
            "1:19-cv-01234-ABC",
            "77 FR 12345-12346",
            "$1,234,567,890",
            "OMB No. 3170-0015",
            "RIN 3170-AA00",
            "000-12-3456",
            "900-12-3456",
            "666-12-3456",
            "123-00-4567",
            "123-45-0000",
            "123-45-67890",
            "4123-45-6789",
            "CUSIP 123456789",
            "12345678",
            "account for 12 months",
            "account 1234567",
            "1234 5678 9012 3456",
            "a@b",
            "@example.org",
            "102-555-0143",
            "202-155-0143",
            "555-0143",
            "FR Doc. 2024-02345",
            "docket 202-555-0143-7",
            "9:00-10:00",
            "50-State",
            "33-8238; 34-47986",
            "001-12345678",
            "Commission File Number 001-31950",
        ] {
            assert_eq!(scrub(text), text);
        }
    }

    #[test]
    fn nothing_goes_unless_asked_for() {
        assert!(Scrub::default().is_off());
        assert_eq!(Scrub::default().scrub("219-09-9999 a@b.org").text, "219-09-9999 a@b.org");
        let one = Scrub { email: true, ..Scrub::default() };
        assert_eq!(one.scrub("219-09-9999 a@b.org").text, "219-09-9999 [EMAIL]");
    }

    proptest! {
        #[test]
        fn any_text_is_scrubbed_once_and_for_all(text in "([0-9@.() a-zé-]|account no|219-09-9999){0,40}") {
            let once = scrub(&text);
            prop_assert_eq!(scrub(&once), once.clone());
            let _ = scrub(&text.replace('a', "€"));
        }

        #[test]
        fn citations_stay(title in 1u32..60, section in 1u32..99999, law in 1u32..120, number in 1u32..999, page in 1u32..99999) {
            let text = format!("{title} U.S.C. {section}; Pub. L. {law}-{number}; {title} CFR {number}.{section}; {law} Stat. {page}-{section}");
            prop_assert_eq!(scrub(&text), text.clone());
        }
    }
}
