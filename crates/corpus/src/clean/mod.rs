//! What is no part of a text: printers' marks, page numbers, running heads, remains of HTML, and line ends and blanks that were
//! there for a page's width.
//!
//! A line goes only when all of it is such a mark, and of HTML only the tags go: every word of the text stays, in order.

mod marks;
mod pages;
mod spacing;
mod tags;
mod wrap;

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// What goes. All of it by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFilters {
    /// GPO's typesetting lines: `VerDate Sep<11>2014 …`, `Jkt 000000 PO 00000 Frm 00001 …`.
    pub typesetting: bool,
    /// Page marks: `[[Page 123]]`, `<PAGE>`, `- 12 -`, `Page 3 of 10`.
    pub page_marks: bool,
    /// Lines that are a number alone, where they count up through the text as page numbers do.
    pub page_numbers: bool,
    /// Short lines that stand again and again beside page marks, or where pages end within sentences.
    pub running_heads: bool,
    /// Tags of HTML that were left in the text; rows of tables become lines.
    pub html_tags: bool,
    /// Control characters, the null character among them, and byte-order marks inside the text.
    pub control_characters: bool,
    /// Line ends within paragraphs, where lines were wrapped at a width; enumerators on lines of their own go before their text.
    pub wrapped_lines: bool,
    /// Blanks at line ends, several blanks between words of prose, several blank lines, long leaders and rules.
    pub spacing: bool,
}

impl Default for LineFilters {
    fn default() -> Self {
        Self {
            typesetting: true,
            page_marks: true,
            page_numbers: true,
            running_heads: true,
            html_tags: true,
            control_characters: true,
            wrapped_lines: true,
            spacing: true,
        }
    }
}

/// A text without what went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned<'t> {
    /// The text.
    pub text: Cow<'t, str>,
    /// What went, by filter: lines; of control characters, characters; of spacing, bytes; of HTML, tags; of wrapped lines, line
    /// ends.
    pub removed: BTreeMap<&'static str, u64>,
}

impl LineFilters {
    /// Cleans a text.
    pub fn clean<'t>(&self, text: &'t str) -> Cleaned<'t> {
        let mut removed = BTreeMap::new();
        let mut text = match self.control_characters {
            true => without_controls(text, &mut removed),
            false => Cow::Borrowed(text),
        };
        if self.html_tags {
            let (cleaned, tags) = tags::without_tags(&text);
            if tags > 0 {
                removed.insert("html_tags", tags);
                text = Cow::Owned(cleaned.into_owned());
            }
        }
        let cleaned = self.lines(&text, &mut removed);
        if cleaned != *text {
            text = Cow::Owned(cleaned);
        }
        Cleaned { text, removed }
    }

    /// Takes the lines of pages out and puts wrapped ones together.
    fn lines(&self, text: &str, removed: &mut BTreeMap<&'static str, u64>) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let kinds = pages::kinds(self, &lines);
        let mut kept: Vec<wrap::Line<'_>> = Vec::with_capacity(lines.len());
        let (mut after_page, mut fenced, mut saved) = (false, false, 0);
        for (line, kind) in lines.iter().zip(&kinds) {
            if let Some(filter) = kind.filter() {
                *removed.entry(filter).or_default() += 1;
                after_page = true;
                continue;
            }
            fenced ^= line.trim_start().starts_with("```");
            let spacing = self.spacing && !fenced;
            let text = if spacing { spacing::tidy(line) } else { Cow::Borrowed(*line) };
            saved += line.len() - text.len();
            // Several blank lines say no more than one.
            match kept.last_mut() {
                Some(last) if spacing && text.is_empty() && last.text.is_empty() => {
                    last.after_page |= after_page;
                    saved += 1;
                }
                None if spacing && text.is_empty() => saved += 1,
                _ => kept.push(wrap::Line { text, after_page }),
            }
            after_page = false;
        }
        let mut add = |filter: &'static str, count: u64| {
            if count > 0 {
                removed.insert(filter, count);
            }
        };
        add("spacing", saved as u64);
        let mut out = if self.wrapped_lines {
            let (out, joined) = wrap::unwrap(&kept);
            add("wrapped_lines", joined);
            out
        } else {
            kept.iter().map(|line| line.text.as_ref()).collect::<Vec<_>>().join("\n")
        };
        let last_went = kinds.last().is_some_and(|kind| kind.filter().is_some());
        if (text.ends_with('\n') || last_went) && !kept.is_empty() {
            out.push('\n');
        }
        out
    }
}

fn without_controls<'t>(text: &'t str, removed: &mut BTreeMap<&'static str, u64>) -> Cow<'t, str> {
    // Form feeds divide pages; they become line ends with the other odd ones.
    let unwanted = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r') || c == '\u{feff}';
    let count = text.chars().filter(|&c| unwanted(c)).count();
    if count == 0 {
        return Cow::Borrowed(text);
    }
    removed.insert("control_characters", count as u64);
    let keep = |c: char| match c {
        '\u{c}' | '\u{b}' | '\u{85}' => Some('\n'),
        c if unwanted(c) => None,
        c => Some(c),
    };
    Cow::Owned(text.chars().filter_map(keep).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(text: &str) -> String {
        LineFilters::default().clean(text).text.into_owned()
    }

    #[test]
    fn typesetting_and_page_marks_go() {
        for line in [
            "VerDate Sep<11>2014 16:54 Feb 09, 2024",
            "VerDate 0ct 09 2002 10:56 Jul 01, 2003",
            "Jkt 262001 PO 00000 Frm 00001 Fmt 4700",
            "[[Page 12]]",
            "[[Page 117 ]]",
            "<PAGE>",
            "  - 12 -",
            "—3—",
            "Page 3 of 10",
        ] {
            assert_eq!(clean(&format!("one\n{line}\ntwo\n")), "one\ntwo\n", "{line}");
        }
    }

    #[test]
    fn lines_of_law_that_look_like_marks_stay() {
        for line in [
            "VerDate is the name of the field",
            "VerDates are not",
            "Page 3 of the application shall be signed.",
            "Page 12",
            "[[Page proofs]]",
            "<PAGE> of the form",
            "- 12 - and more",
            "12",
            "(12)",
            "§ 12",
            "1984",
            "- a -",
            "Jkt is an abbreviation for jacket",
            "PO Box 12 Fmt",
        ] {
            let text = format!("one\n{line}\ntwo\n");
            assert_eq!(clean(&text), text, "{line}");
        }
    }

    #[test]
    fn numbers_that_count_pages_go_and_those_of_a_table_stay() {
        let body = "a line of the text of an agreement\n".repeat(10);
        let paged: String = (1..7).map(|n| format!("{body}{n}\n")).collect();
        let filters = LineFilters { wrapped_lines: false, ..LineFilters::default() };
        let cleaned = filters.clean(&paged);
        assert_eq!((cleaned.text.as_ref(), cleaned.removed["page_numbers"]), (body.repeat(6).as_str(), 6));
        let table: String = (1..9).map(|n| format!("{n}\nitem\n")).collect();
        assert_eq!(clean(&table), table);
        let odd: String = [1, 4, 9, 2, 6].iter().map(|n| format!("{body}{n}\n")).collect();
        assert_eq!(filters.clean(&odd).text, odd);
    }

    #[test]
    fn running_heads_go_but_for_the_first() {
        let text: String = (1..6)
            .map(|n| format!("[[Page {n}]]\n\nLOAN AGREEMENT\n\nClause {n} says something else.\nIt ends.\n"))
            .collect();
        let cleaned = LineFilters::default().clean(&text);
        assert_eq!(cleaned.text.matches("LOAN AGREEMENT").count(), 1);
        assert_eq!(cleaned.removed["running_heads"], 4);
        assert!((1..6).all(|n| cleaned.text.contains(&format!("Clause {n} says"))));
        // In the text, or a sentence: no head.
        let text = text.replace("\n\nLOAN AGREEMENT\n\n", "\nLOAN AGREEMENT\n");
        assert_eq!(clean(&text).matches("LOAN AGREEMENT").count(), 5);
        let text = text.replace("LOAN AGREEMENT\n", "\nReserved.\n\n");
        assert_eq!(clean(&text).matches("Reserved.").count(), 5);
    }

    #[test]
    fn control_characters_go_and_form_feeds_end_lines() {
        assert_eq!(clean("a\u{0}b\u{c}c\td\u{feff}"), "ab\nc\td");
    }

    #[test]
    fn what_has_no_marks_is_not_copied_and_filters_can_be_off() {
        assert!(matches!(LineFilters::default().clean("plain\ntext").text, Cow::Borrowed(_)));
        let off: LineFilters = serde_json::from_str(r#"{"page_marks": false}"#).unwrap();
        assert_eq!(off.clean("<PAGE>\n").text, "<PAGE>\n");
    }

    proptest! {
        #[test]
        fn words_outside_marks_survive_any_text(text in "(\\PC{0,12}|VerDate [a-z<>0-9 ]{0,9}|[0-9]{1,3}|<PAGE>)(\n(\\PC{0,12}|[0-9]{1,3}|<PAGE>)){0,30}") {
            // Tags have a test of their own.
            let off = LineFilters { html_tags: false, wrapped_lines: false, spacing: false, ..LineFilters::default() };
            let cleaned = off.clean(&text);
            let gone: u64 = cleaned.removed.iter().filter(|(f, _)| **f != "control_characters").map(|(_, n)| n).sum();
            prop_assert_eq!(
                text.split_inclusive('\n').count() as u64,
                cleaned.text.split_inclusive('\n').count() as u64 + gone
            );
            let odd = |c: char| c.is_control() && c != '\n' || c == '\u{feff}';
            if !text.contains(odd) {
                prop_assert!(cleaned.text.lines().all(|line| text.lines().any(|l| l == line)));
            }
        }
    }
}
