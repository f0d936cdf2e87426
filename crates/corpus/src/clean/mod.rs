//! What is no part of a text: printers' marks, page numbers, running heads, remains of HTML.
//!
//! A line goes only when all of it is such a mark, and of HTML only the tags go: text around the marks stays as it is.

mod tags;

use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// Which lines go. All of them by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFilters {
    /// GPO's typesetting lines: `VerDate Sep<11>2014 …`, `Jkt 000000 PO 00000 Frm 00001 …`.
    pub typesetting: bool,
    /// Page marks: `[[Page 123]]`, `<PAGE>`, `- 12 -`, `Page 3 of 10`.
    pub page_marks: bool,
    /// Lines that are a number alone, where they count up through the text as page numbers do.
    pub page_numbers: bool,
    /// Short lines that stand again and again beside page marks.
    pub running_heads: bool,
    /// Tags of HTML that were left in the text; rows of tables become lines.
    pub html_tags: bool,
    /// Control characters, the null character among them, and byte-order marks inside the text.
    pub control_characters: bool,
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
        }
    }
}

/// A text without the lines that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned<'t> {
    /// The text.
    pub text: Cow<'t, str>,
    /// What went, by filter: lines, and of two filters characters and tags.
    pub removed: BTreeMap<&'static str, u64>,
}

/// Page numbers in a text, at least, before numbers alone on lines are taken for such.
const FEWEST_PAGES: usize = 4;
/// Times that a running head stands, at least.
const FEWEST_HEADS: usize = 4;
/// Bytes of a running head, at most.
const LONGEST_HEAD: usize = 80;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Text,
    Blank,
    Typesetting,
    Mark,
    Number(u64),
    PageNumber,
    Head,
}

impl LineFilters {
    /// Takes the lines out.
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
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut kinds: Vec<Line> = lines.iter().map(|line| self.kind(line.trim())).collect();
        if self.page_numbers {
            number_pages(&mut kinds);
        }
        if self.running_heads {
            find_heads(&lines, &mut kinds);
        }
        let mut out = String::new();
        for (line, kind) in lines.iter().zip(&kinds) {
            let filter = match kind {
                Line::Text | Line::Blank | Line::Number(_) => {
                    out.push_str(line);
                    continue;
                }
                Line::Typesetting => "typesetting",
                Line::Mark => "page_marks",
                Line::PageNumber => "page_numbers",
                Line::Head => "running_heads",
            };
            *removed.entry(filter).or_default() += 1;
        }
        let text = if out.len() == text.len() { text } else { Cow::Owned(out) };
        Cleaned { text, removed }
    }

    fn kind(&self, line: &str) -> Line {
        if line.is_empty() {
            Line::Blank
        } else if self.typesetting && is_typesetting(line) {
            Line::Typesetting
        } else if self.page_marks && is_page_mark(line) {
            Line::Mark
        } else if let Some(number) = number(line) {
            Line::Number(number)
        } else {
            Line::Text
        }
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

fn is_typesetting(line: &str) -> bool {
    // `VerDate Mar<15>2010 12:00 Feb 01, 2012 Jkt 226000 PO 00000 …`, or its second half on a line of its own.
    let word = |line: &str, at: usize| line.split_whitespace().nth(at).map(str::to_owned).unwrap_or_default();
    let digits = |word: &str| word.len() >= 4 && word.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = line.strip_prefix("VerDate") {
        let date = rest.trim_start_matches([' ', '\u{a0}']);
        let time = |word: &str| {
            word.split_once(':').is_some_and(|(h, m)| number(h).is_some() && number(m).is_some())
        };
        return rest.is_empty() || date.contains('<') || date.contains("Jkt") || date.split(' ').any(time);
    }
    (line.starts_with("Jkt ") && digits(&word(line, 1)) || line.starts_with("PO 0") && digits(&word(line, 1)))
        && (line.contains(" PO ") || line.contains(" Frm ") || line.contains(" Fmt "))
}

fn number(line: &str) -> Option<u64> {
    (line.len() <= 4 && line.bytes().all(|b| b.is_ascii_digit())).then(|| line.parse().ok()).flatten()
}

fn is_page_mark(line: &str) -> bool {
    let inside = |open: &str, close: &str| line.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    let page = |text: &str| {
        let rest = text.trim().strip_prefix("Page").or(text.trim().strip_prefix("PAGE"));
        rest.is_some_and(|rest| number(rest.trim()).is_some() || rest.trim().is_empty())
    };
    if inside("[[", "]]").is_some_and(page) || inside("<", ">").is_some_and(|tag| tag == "PAGE") {
        return true;
    }
    // `- 12 -`, `-12-`, `— 12 —`.
    for dash in ["-", "–", "—"] {
        if inside(dash, dash).is_some_and(|n| number(n.trim()).is_some()) {
            return true;
        }
    }
    // `Page 3 of 10`; `Page 3` alone could be a reference.
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (head, at, of, all, end) = (next(), next(), next(), next(), next());
    head.eq_ignore_ascii_case("page")
        && of == "of"
        && end.is_empty()
        && number(at).is_some()
        && number(all).is_some()
}

/// Numbers alone on a line are page numbers where each is the one before and 1, over the whole text.
fn number_pages(kinds: &mut [Line]) {
    let numbers: Vec<(usize, u64)> = kinds
        .iter()
        .enumerate()
        .filter_map(|(at, kind)| if let Line::Number(n) = kind { Some((at, *n)) } else { None })
        .collect();
    let counts_up = numbers.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1);
    // Lines of a table stand close together, pages do not.
    let apart = numbers.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 8);
    if numbers.len() >= FEWEST_PAGES && counts_up && apart {
        for (at, _) in numbers {
            kinds[at] = Line::PageNumber;
        }
    }
}

/// The line after or before a page mark, when the same words stand beside several. It has to stand apart from the text, with
/// a page mark or a blank line on either side, and not end like a sentence or a clause.
fn find_heads(lines: &[&str], kinds: &mut [Line]) {
    let of_page = |kind: &Line| matches!(kind, Line::Mark | Line::Typesetting | Line::PageNumber);
    let mut beside: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut last_text = None;
    let mut after_mark = false;
    let apart = |at: Option<&Line>| at.is_none_or(|kind| *kind == Line::Blank || of_page(kind));
    let all = kinds.to_vec();
    let candidate = |at: usize| {
        let line = lines[at].trim();
        line.len() <= LONGEST_HEAD
            && !line.ends_with(['.', ';', ':', ',', ')', '—'])
            && at.checked_sub(1).is_none_or(|before| apart(all.get(before)))
            && apart(all.get(at + 1))
    };
    for (at, kind) in kinds.iter().enumerate() {
        match kind {
            Line::Blank => {}
            kind if of_page(kind) => {
                if let Some(before) = last_text.take().filter(|&before| candidate(before)) {
                    beside.entry(lines[before].trim()).or_default().push(before);
                }
                after_mark = true;
            }
            _ => {
                if after_mark && candidate(at) {
                    beside.entry(lines[at].trim()).or_default().push(at);
                    last_text = None;
                } else {
                    last_text = Some(at);
                }
                after_mark = false;
            }
        }
    }
    for places in beside.into_values().filter(|places| places.len() >= FEWEST_HEADS) {
        // The first stays: it may be the title.
        for at in places.into_iter().skip(1) {
            kinds[at] = Line::Head;
        }
    }
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
        let body = "A line of the text of an agreement.\n".repeat(10);
        let paged: String = (1..7).map(|n| format!("{body}{n}\n")).collect();
        let cleaned = LineFilters::default().clean(&paged);
        assert_eq!((cleaned.text.as_ref(), cleaned.removed["page_numbers"]), (body.repeat(6).as_str(), 6));
        let table: String = (1..9).map(|n| format!("{n}\nitem\n")).collect();
        assert_eq!(clean(&table), table);
        let skips: String = [1, 2, 3, 5, 6].iter().map(|n| format!("{body}{n}\n")).collect();
        assert_eq!(clean(&skips), skips);
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
            let cleaned = LineFilters { html_tags: false, ..LineFilters::default() }.clean(&text);
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
