//! Plain text and Markdown: kept as they are, line by line, in tidy form.

use super::{ParseError, Parsed};

/// One document: the text itself.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let markdown = tidy(text);
    let title = markdown
        .lines()
        .find_map(|line| line.strip_prefix("# "))
        .map(|title| title.trim().to_owned())
        .filter(|title| !title.is_empty());
    Ok(vec![Parsed { title, markdown, ..Parsed::default() }])
}

/// Whether text is Markdown rather than plain: headings, fences, links or tables at line starts.
pub(super) fn is_markdown(text: &str) -> bool {
    let mut signs = 0;
    for line in text.lines().take(400) {
        let heading = line.trim_start_matches('#');
        let hashes = line.len() - heading.len();
        if ((1..=6).contains(&hashes) && heading.starts_with(' '))
            || line.starts_with("```")
            || line.starts_with("| --")
            || line.starts_with("|--")
            || (line.contains("](") && line.contains('['))
        {
            signs += 1;
        }
    }
    signs > 0
}

/// `\n` line ends, form feeds as blank lines, no other control characters, no blanks at line ends, at most two blank
/// lines in a row.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = 0;
    let text =
        text.replace("\r\n", "\n").replace(['\r', '\u{85}', '\u{2028}'], "\n").replace('\u{c}', "\n\n");
    for line in text.split('\n') {
        let kept: String = line
            .chars()
            .filter(|&c| (c == '\t' || !c.is_control()) && !matches!(c, '\u{ad}' | '\u{feff}' | '\u{200b}'))
            .map(|c| if c == '\u{a0}' { ' ' } else { c })
            .collect();
        let kept = kept.trim_end();
        blank = if kept.is_empty() { blank + 1 } else { 0 };
        if blank <= 2 {
            out.push_str(kept);
            out.push('\n');
        }
    }
    let body = out.trim_matches('\n');
    if body.trim().is_empty() { String::new() } else { format!("{body}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tidy_keeps_the_words_and_drops_control_characters() {
        assert_eq!(tidy("a \r\nb\u{c}c\0\u{1b}\r\n\n\n\n\nd"), "a\nb\n\nc\n\n\nd\n");
        assert_eq!(tidy("\n \n\t\n"), "");
    }

    #[test]
    fn markdown_is_told_from_prose() {
        assert!(is_markdown("# Title\n\ntext"));
        assert!(!is_markdown("SEC. 2. Findings\n#1 priority\n"));
    }
}
