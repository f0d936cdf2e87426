//! Results as text for people: tables, numbers, and names that come from outside.

use crate::bootstrap::Estimate;
use std::fmt::Write;

/// A name or another text from outside as Markdown that shows it as it is, in a line or a cell. What means nothing where it stands,
/// such as an underscore within a word, is left alone.
pub fn text(plain: &str) -> String {
    let characters: Vec<char> = plain.chars().map(|c| if ends_a_line(c) { ' ' } else { c }).collect();
    let at = |place: Option<usize>| place.and_then(|place| characters.get(place)).copied();
    let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut out = String::with_capacity(plain.len());
    for (place, &c) in characters.iter().enumerate() {
        let (before, after) = (at(place.checked_sub(1)), at(place.checked_add(1)));
        let means_something = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '|' | '~' => true,
            '_' => !(in_word(before) && in_word(after)),
            // The number of a character, or its name.
            '&' => {
                after.is_some_and(|c| c == '#' || c.is_ascii_alphabetic())
                    && characters[place..].contains(&';')
            }
            // The closing marks of a heading.
            '#' => before.is_none_or(char::is_whitespace),
            _ => false,
        };
        if means_something {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Whether a character may end a line, or is none to be shown.
fn ends_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A text from outside as code, within a line.
pub fn code(plain: &str) -> String {
    if plain.contains('`') || plain.contains(ends_a_line) || plain.is_empty() {
        text(plain)
    } else {
        format!("`{plain}`")
    }
}

/// A table in Markdown; the first column is text, the others are numbers. Cells are shown as they are.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("| {} |\n|", head.join(" | "));
    for column in 0..head.len() {
        out.push_str(if column == 0 { "---|" } else { "--:|" });
    }
    out.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| text(cell)).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

/// A value with its interval, `digits` after the point.
pub fn estimate(e: &Estimate, digits: usize) -> String {
    match (e.low, e.high) {
        (Some(low), Some(high)) => format!("{:.digits$} ({low:.digits$}–{high:.digits$})", e.value),
        _ => format!("{:.digits$}", e.value),
    }
}

/// A whole number with commas between thousands.
pub fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 document`, `1,000 documents`. `one` is the noun, which takes an s.
pub fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", whole(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulldown_cmark::{Event, Options, Parser, Tag};

    #[test]
    fn one_is_one() {
        assert_eq!([0, 1, 2000].map(|n| counted(n, "time")), ["0 times", "1 time", "2,000 times"]);
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "extract_json",
            "LicenseRef-17-USC-105 AND MIT",
            "-0.16 (-1.35–1.08)",
            "AT&T (50 %)",
            "C#",
            "a.b/c@d, q4",
        ] {
            assert_eq!(text(name), name);
        }
        assert_eq!(text("![x](http://tracker.example/x.png)"), "!\\[x\\](http://tracker.example/x.png)");
        assert_eq!((code("a_b"), code("a`b")), ("`a_b`".to_owned(), "a\\`b".to_owned()));
    }

    /// What a reader sees of Markdown, and whether anything in it is more than text in a table or a heading.
    fn seen(markdown: &str) -> (String, bool) {
        let (mut shown, mut plain) = (String::new(), true);
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
            match event {
                Event::Text(text) => shown.push_str(&text),
                Event::Start(
                    Tag::Heading { .. } | Tag::Table(_) | Tag::TableHead | Tag::TableRow | Tag::TableCell,
                )
                | Event::End(_) => {}
                _ => plain = false,
            }
        }
        (shown, plain)
    }

    proptest! {
        #[test]
        fn whatever_a_name_is_made_of_it_is_shown_and_does_nothing(
            name in r"[a_*`~<>|!\[\]()#&;: /\\\n\-=+.0-9]{0,24}|\PC{0,12}",
        ) {
            let name = format!("x{name}");
            let expected: String = name.chars().map(|c| if ends_a_line(c) { ' ' } else { c }).collect();
            for markdown in [format!("## Of {}\n", text(&name)), table(&["h"], &[vec![name.clone()]])] {
                let (shown, plain) = seen(&markdown);
                prop_assert!(plain, "{markdown}");
                let shown = shown.trim_start_matches("Of ").trim_start_matches('h').trim_end();
                prop_assert_eq!(shown, expected.trim_end(), "{}", markdown);
            }
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(whole(n), text);
        }
    }
}
