//! What a text says that a term means.

use super::text::{self, patterns};
use regex::Regex;
use std::sync::LazyLock;

patterns! {
    MEANS = r#"[“"]([^“”"]{2,60})[”"](?:,? or [“"][^“”"]{2,60}[”"])? (?:means|shall mean|has the meaning|includes) "#;
    ELSEWHERE = r"(?:has|have|given|having) (?:the|that|such) (?:same )?(?:meaning|term)|means the meaning";
}

/// A term and the words that say what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// The term, without quotation marks.
    pub(super) term: String,
    /// The definition, beginning with the term in quotation marks.
    pub(super) text: String,
    /// The paragraph that it stands in.
    pub(super) paragraph: usize,
}

/// Definitions that are complete within a paragraph, and within `most` bytes.
pub(super) fn definitions(paragraphs: &[String], most: usize) -> Vec<Definition> {
    let mut found: Vec<Definition> = Vec::new();
    for (number, paragraph) in paragraphs.iter().enumerate() {
        let Some(one) = MEANS.as_ref().and_then(|pattern| pattern.captures(paragraph)) else { continue };
        let (Some(whole), Some(term)) = (one.get(0), one.get(1)) else { continue };
        let rest = paragraph.get(whole.start()..).unwrap_or_default();
        // Only one in a paragraph: where one ends and the next begins is not always plain.
        if MEANS.as_ref().is_some_and(|pattern| pattern.find_iter(rest).count() > 1) {
            continue;
        }
        let Some(text) = text::sentences(rest, most).map(without_end) else { continue };
        let sound =
            text::is_prose(text) && !text.ends_with(['—', ':', '-', ',']) && text.split(' ').count() >= 5;
        // A list follows: the next paragraph is one of its items, deeper than this.
        let next = paragraphs.get(number + 1).map_or("", String::as_str);
        let cut = text.len() == rest.len() && next.starts_with(|c: char| c.is_lowercase());
        let elsewhere = ELSEWHERE.as_ref().is_none_or(|pattern| pattern.is_match(text));
        let named = term.as_str().chars().filter(|c| c.is_alphabetic()).count() * 10 >= term.len() * 7;
        if sound && !cut && !elsewhere && named && !found.iter().any(|other| other.term == term.as_str()) {
            found.push(Definition {
                term: term.as_str().trim_end_matches(',').into(),
                text: text::curly(text),
                paragraph: number,
            });
        }
    }
    found
}

/// A definition without what leads to the next one: `; and`.
fn without_end(text: &str) -> &str {
    let text = text.trim_end();
    let text = text.strip_suffix("; and").or(text.strip_suffix("; or")).unwrap_or(text);
    text.trim_end_matches(';').trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_whole_and_their_own() {
        let paragraphs = [
            "In this chapter—",
            "(1) “Office” means the Office of Personnel Management;",
            "(2) the term “Federal agency” means an executive department; and",
            "(3) “income” has the meaning given such term in section 5;",
            "(4) “eligible entity” means—",
            "(i) an Indian tribe;",
            "(5) \"Minor\" means an individual who has not reached the age of 18.",
        ]
        .map(str::to_owned);
        let found: Vec<(String, String, usize)> =
            definitions(&paragraphs, 200).into_iter().map(|d| (d.term, d.text, d.paragraph)).collect();
        let expected = [
            ("Office", "“Office” means the Office of Personnel Management", 1),
            ("Federal agency", "“Federal agency” means an executive department", 2),
            ("Minor", "“Minor” means an individual who has not reached the age of 18.", 6),
        ];
        assert_eq!(found, expected.map(|(a, b, n)| (a.to_owned(), b.to_owned(), n)));
    }
}
