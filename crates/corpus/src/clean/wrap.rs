//! Hard-wrapped lines back to paragraphs.
//!
//! A line is joined to the next where the break cannot be meant: within a sentence before a small letter, or where the next
//! line's first word would not have fitted. Lines that open with an enumerator, a bullet or a speaker's name, rows of tables,
//! headings and Markdown stay. What is joined keeps every character but the break.

use super::marks::{
    begins_within, ends_open, is_bullet, is_enumerator, names_speaker, opening, stops_within,
};
use std::{borrow::Cow, collections::HashSet};

/// A line without its end, and whether a page ended before it.
pub(super) struct Line<'t> {
    /// Its text.
    pub(super) text: Cow<'t, str>,
    /// Whether marks of pages were taken out between it and the line before.
    pub(super) after_page: bool,
}

/// How far short of the full width the first line of a paragraph may end: its indent is often lost.
const INDENT: usize = 12;
/// Enumerators on lines of their own that are put before one text, at most.
const NESTED: usize = 4;
/// Breaks within sentences, at least, before lines are taken to be wrapped.
const FEWEST_WRAPPED: usize = 3;
/// Characters of the width that lines are wrapped at, at least.
const NARROWEST: usize = 30;

enum Joint {
    /// The lines stay two.
    Break,
    /// A space between.
    Space,
    /// Nothing between.
    Tight,
    /// Nothing between, and the hyphen goes.
    Hyphen,
}

/// Joins lines. Gives the text and how many breaks went.
pub(super) fn unwrap<'t>(lines: &'t [Line<'t>]) -> (String, u64) {
    let mut joiner = Joiner { width: width(lines), lines, words: None };
    let mut out = String::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
    let mut joined = 0;
    let (mut before, mut blanks, mut after_page): (Option<Before<'_>>, usize, bool) = (None, 0, false);
    let mut fenced = false;
    for line in lines {
        after_page |= line.after_page;
        let bare = line.text.trim_start();
        if bare.is_empty() {
            blanks += 1;
            continue;
        }
        let fence = bare.starts_with("```");
        let joint = match &before {
            Some(before) if !fenced && !fence => joiner.joint(before, &line.text, blanks, after_page),
            _ => Joint::Break,
        };
        match joint {
            Joint::Break => {
                let ends = if before.is_some() { 1 + blanks } else { blanks };
                (0..ends).for_each(|_| out.push('\n'));
            }
            Joint::Space => out.push(' '),
            Joint::Tight => {}
            Joint::Hyphen => {
                out.pop();
            }
        }
        let breaks = matches!(joint, Joint::Break);
        joined += u64::from(!breaks);
        fenced ^= fence;
        out.push_str(if breaks { &line.text } else { bare });
        let alone = before.as_ref().map_or(0, |before| before.alone);
        let within =
            blanks == 0 && before.as_ref().is_some_and(|before| stops_within(before.line) && alone == 0);
        let alone = match is_enumerator(bare) {
            true if breaks && !within => 1,
            true if alone > 0 => alone + 1,
            _ => 0,
        };
        before = Some(Before { line: &line.text, first: breaks, alone });
        (blanks, after_page) = (0, false);
    }
    (0..blanks).for_each(|_| out.push('\n'));
    (out, joined)
}

/// What stands before a line.
struct Before<'t> {
    /// The line as it stood.
    line: &'t str,
    /// Whether it opens a paragraph.
    first: bool,
    /// How many enumerators the paragraph is made of, where it is made of nothing else.
    alone: usize,
}

/// Characters that lines were wrapped at; `None` where lines are not wrapped.
fn width(lines: &[Line<'_>]) -> Option<usize> {
    let (mut pairs, mut within) = (0, Vec::new());
    for pair in lines.windows(2) {
        let (this, next) = (pair[0].text.trim(), pair[1].text.trim());
        if this.is_empty() || next.is_empty() {
            continue;
        }
        pairs += 1;
        if stops_within(this) && begins_within(next) {
            within.push(this.chars().count());
        }
    }
    within.sort_unstable();
    let wide = within.get(within.len() * 95 / 100).copied()?;
    (within.len() >= FEWEST_WRAPPED && within.len() * 6 >= pairs && wide >= NARROWEST).then_some(wide)
}

struct Joiner<'t> {
    width: Option<usize>,
    lines: &'t [Line<'t>],
    /// Words of the text; only gathered where words are divided.
    words: Option<HashSet<&'t str>>,
}

impl<'t> Joiner<'t> {
    fn joint(&mut self, before: &Before<'t>, next: &'t str, blanks: usize, after_page: bool) -> Joint {
        let (this, next) = (before.line.trim(), next.trim());
        if is_markup(this) || is_markup(next) {
            return Joint::Break;
        }
        if (1..=NESTED).contains(&before.alone) && blanks <= 1 {
            return Joint::Space;
        }
        // Some converters put what is in italics on lines of its own, and a full stop after it on another.
        let stop = this.ends_with('.') && next.starts_with(')');
        let open = stop || this.ends_with(|c: char| c.is_alphanumeric() || ")”\"".contains(c));
        if blanks == 0 && open && goes_on(next) {
            return Joint::Tight;
        }
        let Some(width) = self.width else {
            return if blanks == 0
                && (next == "et seq" || next == "et seq." || next == "Id.")
                && stops_within(this)
            {
                Joint::Space
            } else {
                Joint::Break
            };
        };
        if is_row(this) || is_row(next) || names_speaker(next) {
            return Joint::Break;
        }
        if next.bytes().all(|b| b.is_ascii_digit()) && !ends_open(this) {
            return Joint::Break;
        }
        let own = this.chars().count();
        let small = begins_within(next);
        let within = stops_within(this);
        if blanks > 0 {
            // A page ended within a sentence.
            let open = small && within || ends_open(this) && opening(next) == 0;
            return if after_page && open && own * 4 >= width {
                self.joined(this, next)
            } else {
                Joint::Break
            };
        }
        let long = |part: usize| own * part >= width || next.chars().count() * part >= width;
        let fits = |width: usize| own + 1 + first_word(next) <= width;
        let full = width.saturating_sub(if before.first { INDENT } else { 0 });
        let join = if opening(next) > 0 {
            // An enumeration within a sentence; one that begins a paragraph comes after a stop.
            within && !is_bullet_line(next) && !fits(full)
        } else if small {
            (within && (long(3) || this.starts_with('•'))) || !fits(full)
        } else if within {
            ends_open(this) || !fits(full) || this.ends_with(',') && next.chars().count() * 2 >= width
        } else {
            !fits(width)
        };
        if join { self.joined(this, next) } else { Joint::Break }
    }

    /// How two lines of a sentence are put together: a word divided at the end of the line is one again where the text has it as
    /// one elsewhere.
    fn joined(&mut self, this: &'t str, next: &'t str) -> Joint {
        let Some(head) = this.strip_suffix('-').filter(|head| head.ends_with(char::is_alphanumeric)) else {
            return Joint::Space;
        };
        let first = |text: &'t str| text.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let head = head.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let tail = first(next);
        if tail.is_empty() || !begins_within(next) || ["and", "or", "to"].contains(&tail) {
            return if tail == "and" || tail == "or" || tail == "to" { Joint::Space } else { Joint::Tight };
        }
        let lines = self.lines;
        let words = self.words.get_or_insert_with(|| {
            lines.iter().flat_map(|line| line.text.split(|c: char| !c.is_alphabetic())).collect()
        });
        if words.contains(format!("{head}{tail}").as_str()) { Joint::Hyphen } else { Joint::Tight }
    }
}

/// Headings, tables, quotations and code of Markdown, and tags.
fn is_markup(line: &str) -> bool {
    line.starts_with(['#', '|', '>', '<', '{']) || line.ends_with('>') || line.starts_with("[^")
}

/// Words apart, as in the rows of a table, dots that lead to a page, or nothing but marks.
fn is_row(line: &str) -> bool {
    let rest = line.get(opening(line)..).unwrap_or_default().trim_start();
    rest.contains("   ")
        || rest.contains('\t')
        || rest.contains("....")
        || rest.contains(". . . ")
        || rest.contains("____")
        || !line.contains(char::is_alphanumeric)
}

fn is_bullet_line(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(is_bullet)
}

/// Whether a line is the end of what stands before it: a full stop, comma or semicolon by itself or before a space, and the like.
fn goes_on(line: &str) -> bool {
    let marks = line.len() - line.trim_start_matches([')', '.', ',', ';', '”']).len();
    let rest = &line[marks..];
    let first = line.starts_with(['.', ',', ';'])
        || line.starts_with(").")
        || line.starts_with("),")
        || line.starts_with(");");
    first
        && marks <= 4
        && !line.starts_with("..")
        && (rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn first_word(line: &str) -> usize {
    line.split_whitespace().next().map_or(0, |word| word.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(text: &str) -> String {
        let lines: Vec<Line<'_>> =
            text.lines().map(|text| Line { text: Cow::Borrowed(text), after_page: false }).collect();
        unwrap(&lines).0
    }

    const TRANSCRIPT: &str = "\
MR. SCHIFF: Thank you, Mr. Chief Justice,
and may it please the Court:
Mike and Chantell Sackett are here today
because 4 years ago the Environmental Protection Agency
issued against them a compliance order charging them
with violations of the Clean Water Act, and requiring of
them that they restore their property to its alleged
-- its co-
equal condition, and imposing upon them the threat.
But in these 4 years, the Sacketts have
never been offered a meaningful opportunity for judicial
review of the compliance order.
JUSTICE SCALIA: Of course, there would have
been a daily fine with or without the order.";

    #[test]
    fn a_transcript_has_a_line_for_each_paragraph_of_a_speaker() {
        let text = joined(TRANSCRIPT);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].ends_with("may it please the Court:"));
        assert!(
            lines[1].contains("Clean Water Act, and requiring of them that")
                && lines[1].contains(" its co-equal condition,")
        );
        assert!(lines[2].starts_with("But in these 4 years, the Sacketts have never been"));
        assert!(lines[3].starts_with("JUSTICE SCALIA: Of course, there would have been a daily fine"));
    }

    #[test]
    fn an_agreement_keeps_headings_enumerations_tables_and_signatures() {
        let text = "\
9.1 GOVERNING LAW. This Agreement shall be interpreted and governed by the
laws of the State of California, without reference to conflict of laws
principles, and shall be
(a) in writing.

MISCELLANEOUS PROVISIONS
The parties agree to the following, and to nothing else that was said or was
written before the date of this agreement.
- Tax planning
- Estate planning

Name              Amount
the first         $150,000
the second        $160,000

Term ........ 5
term ........ 6

By: /s/ Jane Doe
Jane Doe
President";
        let expected = "\
9.1 GOVERNING LAW. This Agreement shall be interpreted and governed by the laws of the State of California, without reference to conflict of laws principles, and shall be
(a) in writing.

MISCELLANEOUS PROVISIONS
The parties agree to the following, and to nothing else that was said or was written before the date of this agreement.
- Tax planning
- Estate planning

Name              Amount
the first         $150,000
the second        $160,000

Term ........ 5
term ........ 6

By: /s/ Jane Doe
Jane Doe
President";
        assert_eq!(joined(text), expected);
    }

    #[test]
    fn a_sentence_that_a_page_divided_is_one_again() {
        let wrapped = "one two three four five six seven eight nine ten\nfor eleven\n".repeat(4);
        let mut lines: Vec<Line<'_>> =
            wrapped.lines().map(|text| Line { text: Cow::Borrowed(text), after_page: false }).collect();
        for (text, after_page) in
            [("and the Employee, while an", false), ("", true), ("employee, agrees.", false)]
        {
            lines.push(Line { text: Cow::Borrowed(text), after_page });
        }
        assert!(unwrap(&lines).0.ends_with("and the Employee, while an employee, agrees."));
        lines.iter_mut().for_each(|line| line.after_page = false);
        assert!(
            unwrap(&lines).0.ends_with("while an\n\nemployee, agrees."),
            "blank lines divide paragraphs otherwise"
        );
    }

    #[test]
    fn divided_words_are_one_where_the_text_has_them_so() {
        let text = "the government of the District of Columbia and the govern-\nment of the United States, which may be joint-\nly held, and the\npower of a govern-\nment is to be";
        assert!(joined(text).contains("and the government of the United States"));
        assert!(joined(text).contains("joint-ly held"), "nothing tells that the hyphen is not meant");
    }

    #[test]
    fn enumerators_on_lines_of_their_own_go_before_their_text() {
        assert_eq!(joined("    (b)\n\n     The department shall"), "    (b) The department shall");
        assert_eq!(joined("(c-1)\n(1)\n(A)\nThe Authority shall"), "(c-1) (1) (A) The Authority shall");
        assert_eq!(joined("(a)\n\n\nText"), "(a)\n\n\nText");
        assert_eq!(joined("(a)\n\n## Heading"), "(a)\n\n## Heading");
    }

    #[test]
    fn a_full_stop_alone_ends_the_line_before() {
        assert_eq!(joined("section 216\n.\n(b) Next"), "section 216.\n(b) Next");
        assert_eq!(joined("Code § 34-2101\net seq\n.), is amended"), "Code § 34-2101 et seq.), is amended");
        assert_eq!(joined("Code § 1 et seq.\n), is amended"), "Code § 1 et seq.), is amended");
    }

    #[test]
    fn what_is_not_wrapped_stays() {
        for text in [
            "Taxes\ninsurance\nrent",
            "A line.\nAnother line.\n\n\nThird.",
            "```\nif a\nthen b\nelse c\nfi d\n```",
            "",
            "\n\na",
        ] {
            assert_eq!(joined(text), text);
        }
    }

    proptest! {
        #[test]
        fn every_character_but_blanks_stays_in_order(text in "([a-z]{1,9}|[A-Z]{1,5}|\\([a-z]\\)|[0-9]{1,3}|\\.|,|;| |   |\n|\n\n|--|é|#|\\|){0,80}") {
            let dense = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(dense(&joined(&text)), dense(&text));
        }

        #[test]
        fn any_text_is_read(text in "(\\PC|\n){0,60}") {
            let _ = joined(&text);
        }
    }
}
