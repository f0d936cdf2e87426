//! Texts taken apart: paragraphs as a reader sees them, whatever the lines and marks of the source.

use regex::Regex;
use std::sync::LazyLock;

/// A pattern of this crate; one that does not compile matches nothing, and a test says so.
pub(super) fn pattern(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

macro_rules! patterns {
    ($($name:ident = $pattern:expr;)*) => {
        $(static $name: LazyLock<Option<Regex>> = LazyLock::new(|| crate::derive::text::pattern($pattern));)*
        #[cfg(test)]
        #[test]
        fn all_patterns_compile() {
            $(assert!($name.is_some(), stringify!($name));)*
        }
    };
}
pub(super) use patterns;

patterns! {
    ENUMERATOR = r"^(?:\([0-9A-Za-z]{1,5}\)|[0-9]{1,3}(?:\.[0-9]{1,2})*\.?|[A-Za-z]\.|[IVX]{1,5}\.|(?:Section|SECTION|Article|ARTICLE) [0-9IVX.]{1,6}\.?)$";
    ITEM = r"^(?:(?:Section|SECTION) )?(?:\(?[0-9]{1,2}(?:\.[0-9]{1,2})*[.)]|[0-9]{1,2}(?:\.[0-9]{1,2})+|\([a-z]{1,3}\)) ?[A-Z“]";
    FURNITURE = r"^(?:[-–— ]*(?:[0-9]{1,3}|[ivxl]{1,6})[-–— ]*|<PAGE>.*|(?i:page [0-9]+(?: of [0-9]+)?)|[A-Z]-[0-9]{1,3})$";
    LINK = r"<[a-zA-Z/][^>]*>|https?://|\{\{|\|";
}

/// How lines are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// A line is a paragraph.
    Paragraphs,
    /// A blank line ends a paragraph; other ends of lines are where a page had no more room.
    Wrapped,
}

/// The paragraphs of a text: Markdown's marks and runs of spaces gone, an enumerator that stands alone put before what it
/// counts, and a line that goes on with punctuation put where it belongs.
pub(super) fn paragraphs(text: &str, lines: Lines) -> Vec<String> {
    let wrapped = lines == Lines::Wrapped;
    let is = |pattern: &LazyLock<Option<Regex>>, line: &str| {
        wrapped && pattern.as_ref().is_some_and(|pattern| pattern.is_match(line))
    };
    let mut paragraphs: Vec<String> = Vec::new();
    let (mut open, mut page) = (false, false);
    for line in text.lines() {
        let line = plain(line);
        if line.is_empty() {
            open = false;
            continue;
        }
        // Numbers of pages are no text; what stood on both sides of them may be one paragraph.
        if is(&FURNITURE, &line) {
            (open, page) = (false, true);
            continue;
        }
        let last = paragraphs.last_mut();
        let ended = last.as_ref().is_none_or(|last| last.ends_with(['.', ';', ':', '”', '"', '!', '?']));
        let resumes = std::mem::take(&mut page) && !ended && line.starts_with(char::is_lowercase);
        let joins = wrapped && (open || resumes) && !(ended && is(&ITEM, &line));
        match last {
            Some(last) if joins || is_enumerator(last) || goes_on(&line) => {
                if !line.starts_with([',', '.', ';', ')', ':']) {
                    last.push(' ');
                }
                last.push_str(&line);
            }
            _ => paragraphs.push(line),
        }
        open = true;
    }
    paragraphs
}

fn is_enumerator(paragraph: &str) -> bool {
    paragraph.len() <= 16 && ENUMERATOR.as_ref().is_some_and(|pattern| pattern.is_match(paragraph))
}

/// Whether a line cannot begin a paragraph.
fn goes_on(line: &str) -> bool {
    line.starts_with([',', '.', ';', ':']) || line.starts_with(") ")
}

/// A line without Markdown's marks, its spaces single.
fn plain(line: &str) -> String {
    let line = line.trim_start_matches(|c: char| c == '#' || c.is_whitespace());
    let mut plain = String::with_capacity(line.len());
    let mut space = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            rest = after;
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if c.is_whitespace() {
            space = !plain.is_empty();
            continue;
        }
        // The source sets marks apart that belong to the word before: `**Credits** **.—**`.
        let mark = matches!(c, '.' | ',' | ';') && !rest.starts_with(|c: char| c.is_ascii_digit());
        if space && !mark {
            plain.push(' ');
        }
        space = false;
        plain.push(c);
    }
    plain
}

/// A text without what [`plain`] and [`curly`] change, for finding one in the other.
pub(super) fn squash(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '*' | '#'));
    kept.map(|c| if matches!(c, '“' | '”') { '"' } else { c }).collect()
}

/// A text with quotation marks that open and close, where it has only straight ones.
pub(super) fn curly(text: &str) -> String {
    if text.contains('“') || text.matches('"').count() % 2 == 1 {
        return text.to_owned();
    }
    let mut opens = false;
    let curl = |c: char| match c {
        '"' => {
            opens = !opens;
            if opens { '“' } else { '”' }
        }
        other => other,
    };
    text.chars().map(curl).collect()
}

/// Whether a paragraph is text that a model should say: no tables, links or templates.
pub(super) fn is_prose(paragraph: &str) -> bool {
    let letters = paragraph.chars().filter(|c| c.is_alphabetic() || *c == ' ').count();
    letters * 100 >= paragraph.chars().count() * 78
        && !LINK.as_ref().is_some_and(|pattern| pattern.is_match(paragraph))
        && !["lt;", "So in original", "Text note below"].iter().any(|mark| paragraph.contains(mark))
        && !paragraph.contains("___")
        && !paragraph.contains(". . .")
}

/// The beginning of some paragraphs, whole ones as far as they fit into `most` bytes, or whole sentences of the first; and
/// whether that is all there is. Nothing when not even a sentence fits.
pub(super) fn beginning(paragraphs: &[String], most: usize) -> Option<(String, bool)> {
    let mut text = String::new();
    // Where the last paragraph ends that is not a caption of what follows.
    let mut sound = 0;
    for (number, paragraph) in paragraphs.iter().enumerate() {
        if text.len() + paragraph.len() + 2 * usize::from(number > 0) > most {
            // What announces a list says nothing without it, nor does a caption without its text.
            text.truncate(sound);
            return match number {
                0 => Some((sentences(paragraph, most)?.to_owned(), false)),
                _ => (!text.is_empty()).then_some((text, false)),
            };
        }
        if number > 0 {
            text.push_str("\n\n");
        }
        text.push_str(paragraph);
        if paragraph.ends_with(['.', ';', ',', '”', '"'])
            || paragraph.ends_with("; and")
            || paragraph.ends_with("; or")
        {
            sound = text.len();
        }
    }
    (!text.is_empty()).then_some((text, true))
}

/// The whole sentences of a paragraph that fit into `most` bytes.
pub(super) fn sentences(paragraph: &str, most: usize) -> Option<&str> {
    if paragraph.len() <= most {
        return Some(paragraph);
    }
    let mut end = None;
    for (at, c) in paragraph.char_indices().take_while(|&(at, _)| at < most) {
        let after = paragraph.get(at + c.len_utf8()..).unwrap_or_default();
        let next = after.strip_prefix(' ').and_then(|rest| rest.chars().next());
        let word = paragraph.get(..at).unwrap_or_default().rsplit(' ').next().unwrap_or_default();
        let long = word.len() >= 4 && word.chars().any(char::is_lowercase) && !word.contains('.');
        if c == '.' && long && next.is_some_and(|next| next.is_uppercase() || next == '(') {
            end = Some(at + 1);
        }
    }
    paragraph.get(..end?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_those_that_a_reader_sees() {
        let usc = "## § 1. Law\n\n    (a) **Credits** **.—** \n\n    Cash, not to exceed $.50.\n\n    (4)\n\n     coordinate—\n";
        assert_eq!(
            paragraphs(usc, Lines::Paragraphs),
            ["§ 1. Law", "(a) Credits.—", "Cash, not to exceed $.50.", "(4) coordinate—"]
        );
        let dc = "(3)\n\"Codes\" means those under\nsection 10\n.\n(4)\n\"Documents\" means papers.";
        assert_eq!(
            paragraphs(dc, Lines::Paragraphs),
            ["(3) \"Codes\" means those under", "section 10.", "(4) \"Documents\" means papers."]
        );
        let edgar = "THIS\nAGREEMENT is made\n\n5.\n\nBonus.  You will\nbe paid.";
        assert_eq!(
            paragraphs(edgar, Lines::Wrapped),
            ["THIS AGREEMENT is made", "5. Bonus. You will be paid."]
        );
    }

    #[test]
    fn beginnings_are_whole_paragraphs_or_whole_sentences() {
        let text = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(beginning(&text(&["One two.", "Three."]), 100), Some(("One two.\n\nThree.".into(), true)));
        assert_eq!(beginning(&text(&["One two.", "Three."]), 12), Some(("One two.".into(), false)));
        let long = "The first sentence. The U.S. Code is the second sentence.";
        assert_eq!(beginning(&text(&[long]), 40), Some(("The first sentence.".into(), false)));
        assert_eq!(beginning(&text(&["Not a sentence that would fit"]), 10), None);
        assert_eq!(beginning(&text(&["The following—", "(1) a very long item"]), 20), None);
        let captions = text(&["(a) One.", "(b) In general", "What follows is too long."]);
        assert_eq!(beginning(&captions, 40), Some(("(a) One.".into(), false)));
    }
}
