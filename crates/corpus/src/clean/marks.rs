//! What a line looks like: enumerators, bullets, names of speakers, ends of sentences.

/// Bytes of the enumerator, bullet or `Section 1.2` that a line opens with; 0 where there is none.
pub(super) fn opening(line: &str) -> usize {
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return 0 };
    let end = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize + word.len();
    if is_enumerator(first) || is_bullet(first) {
        return end(first);
    }
    let named = ["section", "sec.", "article", "§", "§§", "part", "chapter", "exhibit", "schedule", "annex"];
    if named.contains(&first.to_lowercase().as_str())
        && first.starts_with(|c: char| c.is_uppercase() || c == '§')
        && let Some(second) = words.next()
        && is_ordinal(second.trim_end_matches(['.', ':', ',', ';', '—', '-']))
    {
        return end(second);
    }
    0
}

/// `(a)`, `(12)`, `(iv)`, `(c-1)`, `1.`, `1.2`, `1.2.3.`, `A.`, `iv.`, `a)`, and several such in a row: `(a)(1)`.
pub(super) fn is_enumerator(word: &str) -> bool {
    if word.starts_with('(') {
        return word.len() <= 24
            && word.ends_with(')')
            && word[1..word.len() - 1].split(")(").all(|inside| is_label(inside.trim_end_matches('.')));
    }
    if let Some(label) = word.strip_suffix(')') {
        return is_label(label);
    }
    let digits_and_dots = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.split('.').all(|n| n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    match word.strip_suffix('.') {
        Some(label) => digits_and_dots(label) && !label.ends_with('.') || is_letter(label) || is_roman(label),
        None => word.contains('.') && digits_and_dots(word),
    }
}

/// Between brackets: a number, a letter or two of the same, a roman number, and a suffix as in `c-1`.
fn is_label(text: &str) -> bool {
    let (head, tail) = text.split_once('-').map_or((text, "1"), |(head, tail)| (head, tail));
    let number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let twice = |text: &str| {
        let mut letters = text.chars();
        text.len() == 2 && letters.next() == letters.next() && text.bytes().all(|b| b.is_ascii_alphabetic())
    };
    number(tail) && (number(head) || is_letter(head) || is_roman(head) || twice(head))
}

fn is_letter(text: &str) -> bool {
    text.len() == 1 && text.bytes().all(|b| b.is_ascii_alphabetic())
}

fn is_roman(text: &str) -> bool {
    let of = |digits: &str| text.chars().all(|c| digits.contains(c));
    (1..=6).contains(&text.len()) && (of("ivxl") || of("IVXL"))
}

fn is_ordinal(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) || is_letter(text) || is_roman(text)
}

/// `-`, `*`, `•` and the like.
pub(super) fn is_bullet(word: &str) -> bool {
    matches!(word, "-" | "*" | "+" | "•" | "·" | "o" | "▪" | "■" | "●" | "–" | "—" | "\u{f0b7}" | "\u{f0a7}")
}

/// `JUSTICE SCALIA:`, `MR. SMITH:`, `QUESTION:`: who speaks next in a transcript.
pub(super) fn names_speaker(line: &str) -> bool {
    let Some((name, _)) = line.split_once(':') else { return false };
    (3..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_uppercase())
        && name.chars().filter(|c| c.is_alphabetic()).count() >= 2
        && !name.chars().any(|c| c.is_ascii_digit())
        && name.chars().all(|c| !c.is_alphabetic() || c.is_uppercase() || "cMDe".contains(c))
        && name.split_whitespace().next().is_some_and(|word| word.chars().all(|c| !c.is_lowercase()))
}

/// Whether a line stops within a sentence: after a letter, a digit, a comma, or `--`.
pub(super) fn stops_within(line: &str) -> bool {
    let line = line.trim_end_matches(['"', '”', '’', '\'', ')', '*', '_']);
    line.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ',' | '-' | '–' | '&' | '§' | '$'))
}

/// Whether a line begins within a sentence: with a small letter, perhaps after a bracket or the dash of someone who broke off.
pub(super) fn begins_within(line: &str) -> bool {
    let line = line.trim_start();
    line.strip_prefix('(')
        .or(line.strip_prefix("-- "))
        .unwrap_or(line)
        .starts_with(|c: char| c.is_lowercase())
        && opening(line) == 0
}

/// Whether a line ends with a word that no sentence and no heading ends with.
pub(super) fn ends_open(line: &str) -> bool {
    const OPEN: [&str; 39] = [
        "a", "an", "and", "any", "as", "at", "be", "by", "each", "every", "for", "from", "has", "have", "if",
        "in", "into", "is", "its", "may", "my", "no", "of", "on", "or", "our", "shall", "such", "that",
        "the", "their", "this", "to", "under", "upon", "which", "will", "with", "your",
    ];
    let last = line.rsplit(char::is_whitespace).next().unwrap_or_default();
    OPEN.contains(&last.trim_start_matches(['(', '[', '“', '"']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enumerators_are_told_from_words() {
        for yes in [
            "(a)",
            "(12)",
            "(iv)",
            "(AA)",
            "(c-1)",
            "(a)(1)(B)",
            "1.",
            "1.2",
            "12.3.4.",
            "A.",
            "iv.",
            "a)",
            "1)",
        ] {
            assert!(is_enumerator(yes), "{yes}");
        }
        for no in [
            "(the)",
            "(a",
            "a",
            "2010",
            "1",
            "the.",
            "(202)289-2260",
            "()",
            "U.S.",
            "$1.2",
            "1,000",
            "1..",
            "é)",
            "(é)",
        ] {
            assert!(!is_enumerator(no), "{no}");
        }
        assert_eq!(opening("Section 4.1 Term"), "Section 4.1".len());
        assert_eq!(opening("  (a) x"), "  (a)".len());
        assert_eq!((opening("Section headings are"), opening("section 4 of"), opening("I am")), (0, 0, 0));
    }

    #[test]
    fn speakers_are_told_from_sentences() {
        for yes in [
            "JUSTICE SCALIA: Why",
            "MR. SMITH:",
            "QUESTION: But",
            "MR. McGILL: Yes",
            "JUSTICE O'CONNOR: Well",
        ] {
            assert!(names_speaker(yes), "{yes}");
        }
        for no in ["Note: this", "the following: a", "10:00 a.m.", "In re: SMITH", "A: b"] {
            assert!(!names_speaker(no), "{no}");
        }
    }
}
