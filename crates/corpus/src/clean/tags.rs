//! Remains of HTML in text: tables and links that a converter left as they were.
//!
//! Tags go, and what stands between them stays; a table's row becomes a line with bars between its cells. Only tags that HTML
//! knows are taken for such: `<PAGE>`, `<S>` and `<C>` of EDGAR's tables are not, nor is `a < b`.

use std::borrow::Cow;

/// Names of tags that go, in lower case.
const KNOWN: [&str; 33] = [
    "a",
    "b",
    "big",
    "blockquote",
    "br",
    "center",
    "col",
    "colgroup",
    "div",
    "dd",
    "dl",
    "dt",
    "em",
    "font",
    "h1",
    "h2",
    "h3",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
];
/// Further ones.
const ROWS: [&str; 3] = ["tr", "tfoot", "ul"];
/// Bytes of a tag, at most.
const LONGEST: usize = 2000;

/// A tag at the start of `text`: its name in lower case, whether it closes, and its length in bytes.
fn tag(text: &str) -> Option<(&'static str, bool, usize)> {
    let inside = text.strip_prefix('<')?;
    let (closes, inside) = inside.strip_prefix('/').map_or((false, inside), |rest| (true, rest));
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric())?;
    let name = KNOWN.iter().chain(&ROWS).find(|known| known.eq_ignore_ascii_case(&inside[..end]))?;
    let rest = &inside[end..];
    // A name alone, or with attributes: `<a b>` of a formula has none.
    let close = memchr::memchr(b'>', &rest.as_bytes()[..rest.len().min(LONGEST)])?;
    let attributes = rest[..close].trim_end_matches('/').trim();
    let fits = attributes.is_empty() || rest.starts_with(char::is_whitespace) && attributes.contains('=');
    (fits && !attributes.contains('<')).then(|| (*name, closes, text.len() - rest.len() + close + 1))
}

/// Takes tags out. Gives the text and how many went.
pub(super) fn without_tags(text: &str) -> (Cow<'_, str>, u64) {
    let mut out = String::new();
    let (mut removed, mut copied, mut at) = (0, 0, 0);
    // Tables inside each other, and whether a cell of the row at hand is written.
    let (mut tables, mut cells) = (0usize, 0usize);
    while let Some(found) = memchr::memchr(b'<', &text.as_bytes()[at..]) {
        at += found;
        let Some((name, closes, length)) = tag(&text[at..]) else {
            at += 1;
            continue;
        };
        put(&mut out, &text[copied..at], tables > 0);
        removed += 1;
        match (name, closes) {
            // EDGAR's tables are laid out with blanks, and their line ends are rows.
            ("table", false) if tables == 0 && !has_rows(&text[at + length..]) => {}
            ("table", false) => (tables, cells) = (tables + 1, 0),
            ("table", true) if tables > 0 => {
                tables = tables.saturating_sub(1);
                end_line(&mut out);
            }
            ("tr", _) => {
                end_line(&mut out);
                cells = 0;
            }
            ("td" | "th", false) => {
                if cells > 0 {
                    out.push_str(" | ");
                }
                cells += 1;
            }
            ("br" | "p" | "div" | "li", _) if tables == 0 => end_line(&mut out),
            _ => {}
        }
        at += length;
        copied = at;
    }
    if removed == 0 {
        return (Cow::Borrowed(text), 0);
    }
    put(&mut out, &text[copied..], tables > 0);
    (Cow::Owned(out), removed)
}

/// Whether a row or a cell comes before the table's end.
fn has_rows(text: &str) -> bool {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'<', &text.as_bytes()[at..]) {
        at += found;
        match tag(&text[at..]) {
            Some(("tr" | "td" | "th", false, _)) => return true,
            Some(("table", _, _)) => return false,
            _ => at += 1,
        }
    }
    false
}

/// Adds text; in a table, where line ends mean nothing, as words with one space between them.
fn put(out: &mut String, text: &str, in_table: bool) {
    if !in_table {
        out.push_str(text);
        return;
    }
    if text.starts_with(char::is_whitespace) && !out.ends_with(char::is_whitespace) && !text.trim().is_empty()
    {
        out.push(' ');
    }
    for (at, word) in text.split_whitespace().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
    if text.ends_with(char::is_whitespace) && !text.trim().is_empty() {
        out.push(' ');
    }
}

fn end_line(out: &mut String) {
    let end = out.trim_end_matches([' ', '|', '\t']).len();
    // A bar that the text itself ends with stays: only those of empty cells have a space before them.
    let end = if out[end..].trim_start_matches(' ').starts_with('|') && !out[end..].starts_with(' ') {
        out.len()
    } else {
        end
    };
    out.truncate(end);
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(text: &str) -> String {
        without_tags(text).0.into_owned()
    }

    #[test]
    fn a_table_of_links_becomes_lines_with_all_its_words() {
        let table = "## CHAPTER 1\n\n<table>\n\n<tr>\n\n<td> Sec. </td>\n\n</tr>\n\n<tr>\n\n<td> <a href=\"https://x.org/?a=1&b=2\" \
                     data-x=\"/us\">801.</a> </td>\n\n<td> Bills of\nLading </td>\n\n<td> </td>\n\n</tr>\n\n</table>\n\nEnd.\n";
        assert_eq!(clean(table), "## CHAPTER 1\n\nSec.\n801. | Bills of Lading\n\n\nEnd.\n");
        assert_eq!(without_tags(table).1, 16);
    }

    #[test]
    fn rows_of_a_table_without_tags_for_them_stay_lines() {
        let table = "<TABLE>\n<CAPTION>\nPeriod       Pay\n<S>          <C>\nJuly 1995    $150,000\nJuly 1996    $160,000\n</TABLE>\nEnd.";
        assert_eq!(clean(table), table.replace("<TABLE>", "").replace("</TABLE>", ""));
    }

    #[test]
    fn tags_go_and_what_is_none_stays() {
        assert_eq!(clean("a <B>bold</B> word<br/>next"), "a bold word\nnext");
        assert_eq!(clean("<font size=2>x</font>"), "x");
        for text in [
            "a < b and b > c",
            "<PAGE>",
            "<S> <C>",
            "<TYPE>10-K",
            "if i <i and j> 2",
            "<<a>>".trim_matches('<'),
            "x <",
            "<a",
            "<a b>",
            "<us-gaap:Assets>",
            "1<2",
        ] {
            assert_eq!(clean(text), text);
        }
    }

    proptest! {
        #[test]
        fn every_word_outside_tags_survives_in_order(pieces in prop::collection::vec("[a-z.é§]{1,5}|<td>|</td>|<tr>|</tr>|<table>|</table>|<a href=\"x\">|</a>|<|>|\n| ", 0..40)) {
            let known = |piece: &String| tag(piece).is_some_and(|(_, _, length)| length == piece.len());
            // Signs alone would join with their neighbours to tags.
            let pieces: Vec<String> = pieces.into_iter().filter(|p| p != "<" && p != ">").collect();
            let text = pieces.concat();
            let expected: String = pieces.iter().filter(|p| !known(p)).flat_map(|p| p.chars()).filter(|c| !c.is_whitespace()).collect();
            let found: String = clean(&text).chars().filter(|c| !c.is_whitespace() && *c != '|').collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_text_is_read(text in "(<|>|/|table|td|tr| |=|\\PC){0,40}") {
            let _ = clean(&text);
        }
    }
}
