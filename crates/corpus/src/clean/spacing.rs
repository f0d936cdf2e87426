//! Blanks and marks that were there for the eye: at ends of lines, between the words of justified lines, leaders of dots, rules
//! of dashes.

use super::marks::opening;
use std::borrow::Cow;

/// Marks in a row, at most; the tokenizer has runs of up to eight as one token.
const LONGEST_RUN: usize = 8;

/// The line without them. No words go, and neither does the indent.
pub(super) fn tidy(line: &str) -> Cow<'_, str> {
    let line = line.trim_end();
    if line.is_empty() || line.trim_start().starts_with('|') {
        return Cow::Borrowed(line);
    }
    let mut line = plain_spaces(line);
    if let Some(rest) = line.strip_prefix("- -")
        && (rest.starts_with('-') || rest.starts_with("  "))
    {
        // Privacy-enhanced mail, in which EDGAR was filed, put `- ` before every dash that begins a line.
        line = Cow::Owned(line[2..].to_owned());
    }
    if line.contains("** **") {
        line = Cow::Owned(joined_bold(&line));
    }
    line = short_runs(line);
    single_spaces(line)
}

fn plain_spaces(line: &str) -> Cow<'_, str> {
    let odd = |c: char| {
        matches!(c, '\u{a0}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{ad}')
    };
    if !line.contains(odd) {
        return Cow::Borrowed(line);
    }
    let gone = |c: &char| !matches!(c, '\u{200b}' | '\u{ad}');
    let plain: String = line.chars().filter(gone).map(|c| if odd(c) { ' ' } else { c }).collect();
    Cow::Owned(plain.trim_end().to_owned())
}

/// `**Term** **.—**` is `**Term.—**`.
fn joined_bold(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("** **") {
        let (head, tail) = (&rest[..at], &rest[at + 5..]);
        out.push_str(head);
        let words = |text: &str, end: bool| {
            let c = if end { text.chars().next_back() } else { text.chars().next() };
            c.is_some_and(|c| !c.is_whitespace() && c != '*')
        };
        if words(head, true) && words(tail, false) {
            if tail.starts_with(|c: char| c.is_alphanumeric() || "(“‘\"'§[".contains(c)) {
                out.push(' ');
            }
        } else {
            out.push_str("** **");
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Long runs of one mark become eight of it, or as many as fit their place: `........`, `. . . . .`, `________`, `- - - - -`.
fn short_runs(line: Cow<'_, str>) -> Cow<'_, str> {
    let bytes = line.as_bytes();
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < bytes.len() {
        let mark = bytes[at];
        if !b"._-=*~".contains(&mark) {
            if let Some(out) = &mut out {
                out.push(mark);
            }
            at += 1;
            continue;
        }
        let (mut end, mut count) = (at + 1, 1);
        loop {
            let spaces = bytes[end..].iter().take(3).take_while(|b| **b == b' ').count();
            if bytes.get(end + spaces) != Some(&mark) || spaces > 2 {
                break;
            }
            end += spaces + 1;
            count += 1;
        }
        let spaced = end - at > count;
        // `* * * * *` stands for what is left out.
        if count > LONGEST_RUN || spaced && count >= 6 && mark != b'*' {
            let out = out.get_or_insert_with(|| bytes[..at].to_vec());
            out.extend(std::iter::repeat_n(mark, LONGEST_RUN.min(end - at)));
        } else if let Some(out) = &mut out {
            out.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    match out.map(String::from_utf8) {
        Some(Ok(short)) => Cow::Owned(short),
        _ => line,
    }
}

/// One space between words, but in rows of tables, where more of them divide columns.
fn single_spaces(line: Cow<'_, str>) -> Cow<'_, str> {
    let indent = line.len() - line.trim_start().len();
    let gap = |rest: &str| rest.contains("  ") || rest.contains('\t');
    if !gap(&line[indent..]) {
        return line;
    }
    let head = opening(&line);
    let tail = &line[head.max(indent)..];
    let widest = tail.trim_start().split(|c: char| c != ' ').map(str::len).max().unwrap_or(0);
    let words = tail.split_whitespace().count();
    let columns = tail.trim_start().contains('\t') || widest > 3 || widest == 3 && words < 8;
    let mut out = String::with_capacity(line.len());
    out.push_str(&line[..indent]);
    if head > indent {
        push_words(&mut out, &line[indent..head]);
        if !tail.is_empty() {
            out.push(' ');
        }
    }
    if columns {
        out.push_str(if head > indent { tail.trim_start() } else { tail })
    } else {
        push_words(&mut out, tail)
    }
    Cow::Owned(out)
}

fn push_words(out: &mut String, text: &str) {
    for (at, word) in text.split_whitespace().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prose_has_one_space_between_words_and_tables_keep_their_columns() {
        for (line, tidied) in [
            (
                "of  the  State  of  California,  without reference ",
                "of the State of California, without reference",
            ),
            ("    (a)     The Company", "    (a) The Company"),
            ("2.\tIn connection with it", "2. In connection with it"),
            ("Section 4.1    Term.  It ends.", "Section 4.1 Term. It ends."),
            ("July 1, 1995                $150,000", "July 1, 1995                $150,000"),
            ("| a   |  b |  ", "| a   |  b |"),
            ("a\u{a0}\u{a0}b\u{ad}c d", "a bc d"),
            ("", ""),
        ] {
            assert_eq!(tidy(line), tidied, "{line}");
        }
    }

    #[test]
    fn leaders_and_rules_become_short() {
        for (line, tidied) in [
            ("Term ............................. 5", "Term ........ 5"),
            ("Term . . . . . . . . . . . . . 5", "Term ........ 5"),
            ("______________________________", "________"),
            ("- - - - - - - - - - - - - - - - - x", "-------- x"),
            ("* * * * *", "* * * * *"),
            ("By: ______", "By: ______"),
            ("Well ... no -- yes", "Well ... no -- yes"),
        ] {
            assert_eq!(tidy(line), tidied, "{line}");
        }
    }

    #[test]
    fn dashes_of_mail_and_divided_bold_words_are_mended() {
        assert_eq!(tidy("- -     Benefits"), "- Benefits");
        assert_eq!(tidy("- --------------------"), "--------");
        assert_eq!(tidy("(a) **Needs of Dependents** **.—** "), "(a) **Needs of Dependents.—**");
        assert_eq!(tidy("**A** **B** c"), "**A B** c");
        assert_eq!(tidy("**a** b **c**"), "**a** b **c**");
    }

    proptest! {
        #[test]
        fn no_words_go(line in "( |  |\t|[a-z]{1,4}|\\.{1,12}|_{1,12}|\\([a-z]\\)|é|- |\\*\\* \\*\\*){0,20}") {
            let words = |text: &str| text.chars().filter(|c| c.is_alphanumeric() || "()".contains(*c)).collect::<String>();
            let tidied = tidy(&line);
            prop_assert_eq!(words(&tidied), words(&line));
            prop_assert!(tidied.len() <= line.len());
        }

        #[test]
        fn any_line_is_tidied(line in "\\PC{0,40}") {
            let _ = tidy(&line);
        }
    }
}
