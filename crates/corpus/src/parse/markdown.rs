//! The Markdown writer all parsers share.
//!
//! Blocks are paragraphs, headings, list items, footnotes, tables and verbatim text, one blank line apart. Runs of
//! whitespace become one space. Emphasis and links are typography and are not written; what is written is never
//! escaped, except a `|` inside a table cell and a `#` that would turn a paragraph into a heading: the text is for
//! reading and for training, and a reader must find the law's own characters in it.

/// What the block being written will become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Paragraph,
    /// Heading of a level, 1–6.
    Heading(u8),
    /// List item at a nesting depth (0 outermost), with its own marker or none.
    Item(usize, String),
    /// Footnote text for a label.
    Footnote(String),
}

/// A Markdown document being written.
#[derive(Debug)]
pub(super) struct Markdown {
    out: String,
    block: String,
    kind: Kind,
    /// Whether a space is owed before the next character.
    space: bool,
    quotes: usize,
    /// Whether the last block is a list item: the next one stands close to it.
    after_item: bool,
    /// While above 0, ends of blocks are only spaces: inside a heading or a table cell.
    inline: usize,
}

impl Markdown {
    pub(super) fn new() -> Self {
        Self {
            out: String::new(),
            block: String::new(),
            kind: Kind::Paragraph,
            space: false,
            quotes: 0,
            after_item: false,
            inline: 0,
        }
    }

    /// A writer whose whole output is one line.
    pub(super) fn one_line() -> Self {
        Self { inline: 1, ..Self::new() }
    }

    /// Writes text into the current block, collapsing whitespace and dropping invisible characters.
    pub(super) fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                c if c.is_whitespace() || c == '\u{85}' => self.space = true,
                '\u{ad}' | '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}' => {}
                c if c.is_control() => {}
                c => {
                    if self.space && !self.block.is_empty() && !self.block.ends_with('\n') {
                        self.block.push(' ');
                    }
                    self.space = false;
                    self.block.push(c);
                }
            }
        }
    }

    /// Owes a space: the next text does not touch what stands before it. After a dash that runs a heading into its
    /// text, it does.
    pub(super) fn space(&mut self) {
        self.space |= !self.block.ends_with(['—', '[']);
    }

    /// Breaks the line inside the block; a second break in a row ends the paragraph.
    pub(super) fn line_break(&mut self) {
        self.space = false;
        if self.inline > 0 || matches!(self.kind, Kind::Heading(_)) {
            self.space = true;
        } else if self.block.ends_with('\n') {
            if self.kind == Kind::Paragraph {
                self.end();
            }
        } else if !self.block.is_empty() {
            self.block.push('\n');
        }
    }

    /// Ends the current block and starts one of `kind`.
    pub(super) fn begin(&mut self, kind: Kind) {
        self.end();
        if self.inline == 0 {
            self.kind = kind;
        }
    }

    /// Ends the current block; the next text starts a paragraph.
    pub(super) fn end(&mut self) {
        self.space = true;
        if self.inline > 0 {
            return;
        }
        self.space = false;
        let block = std::mem::take(&mut self.block);
        let block = block.trim();
        if block.is_empty() {
            // An item or a note whose text is in a paragraph of its own has not begun yet.
            return;
        }
        let kind = std::mem::replace(&mut self.kind, Kind::Paragraph);
        // The full stop after a quoted block belongs to the line above, not in a paragraph of its own.
        let lone = block.chars().count() <= 3
            && block.chars().all(|c| matches!(c, '.' | ';' | ',' | ':' | '”' | '’'));
        if lone
            && kind == Kind::Paragraph
            && self.out.ends_with(|c: char| c.is_alphanumeric() || "”’\".,;".contains(c))
        {
            self.out.push_str(block);
            return;
        }
        let text = match kind {
            Kind::Paragraph => {
                let lines = block.lines().map(|line| match line.trim_start_matches('#') {
                    rest if rest.len() < line.len() && rest.starts_with(' ') => format!("\\{line}"),
                    _ => line.to_owned(),
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Kind::Heading(level) => format!("{} {block}", "#".repeat(usize::from(level.clamp(1, 6)))),
            Kind::Item(depth, marker) => {
                let marker = if marker.is_empty() { "-".to_owned() } else { marker };
                // Deeper than three levels, the indent would make code of the item.
                format!("{}{marker} {block}", "  ".repeat(depth.min(3)))
            }
            Kind::Footnote(label) => format!("[^{label}]: {block}"),
        };
        self.write_block(&text);
    }

    /// Ends the current block and forgets what kind it was to be, if nothing was written.
    pub(super) fn close(&mut self) {
        self.end();
        if self.inline == 0 {
            self.kind = Kind::Paragraph;
        }
    }

    /// Writes a finished block (a table, verbatim text) after what came before.
    pub(super) fn block(&mut self, text: &str) {
        if self.inline > 0 {
            self.space();
            self.text(text);
            self.space();
            return;
        }
        self.end();
        let text = text.trim_matches('\n').trim_end();
        if !text.trim().is_empty() {
            self.write_block(text);
        }
    }

    fn write_block(&mut self, text: &str) {
        if !self.out.is_empty() {
            let tight = is_item(text) && self.after_item;
            self.out.push_str(if tight { "\n" } else { "\n\n" });
        }
        self.after_item = is_item(text);
        if self.quotes == 0 {
            self.out.push_str(text);
            return;
        }
        let prefix = "> ".repeat(self.quotes.min(4));
        for (index, line) in text.lines().enumerate() {
            if index > 0 {
                self.out.push('\n');
            }
            self.out.push_str(&prefix);
            self.out.push_str(line);
        }
    }

    /// Writes what `inside` writes as one heading line.
    pub(super) fn heading(&mut self, level: u8, inside: impl FnOnce(&mut Self)) {
        self.begin(Kind::Heading(level));
        self.inline += 1;
        inside(self);
        self.inline -= 1;
        self.close();
    }

    /// Writes what `inside` writes as a block quotation.
    pub(super) fn quote(&mut self, inside: impl FnOnce(&mut Self)) {
        self.end();
        self.quotes += 1;
        inside(self);
        self.end();
        self.quotes -= 1;
    }

    /// Writes a mark that points to footnote `label`.
    pub(super) fn footnote_mark(&mut self, label: &str) {
        self.space = false;
        self.block.push_str(&format!("[^{}]", label_of(label)));
    }

    /// Starts the text of footnote `label`.
    pub(super) fn footnote(&mut self, label: &str) {
        self.begin(Kind::Footnote(label_of(label)));
    }

    /// Writes a table: the first row is its header. Rows are padded to the same width.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut used = vec![false; width];
        for row in rows {
            for (used, cell) in used.iter_mut().zip(row) {
                *used |= !cell.is_empty();
            }
        }
        // Columns that only space out the page are left out. Short rows are legal, so only the header is padded:
        // hostile spans cannot make the table larger than its cells.
        let shown: Vec<usize> = (0..width).filter(|&column| used.get(column) == Some(&true)).collect();
        if shown.is_empty() {
            return;
        }
        let width = shown.len();
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            for &column in shown.iter().take_while(|&&column| index == 0 || column < row.len()) {
                let cell = row.get(column).map_or("", String::as_str);
                text.push_str("| ");
                text.push_str(&cell.replace('|', "\\|"));
                text.push(' ');
            }
            text.push_str("|\n");
            if index == 0 {
                text.push_str(&"| --- ".repeat(width));
                text.push_str("|\n");
            }
        }
        self.block(&text);
    }

    /// Everything written.
    pub(super) fn finish(mut self) -> String {
        self.inline = 0;
        self.end();
        let mut out = self.out;
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }
}

fn is_item(block: &str) -> bool {
    block.lines().next().is_some_and(|line| line.trim_start().starts_with("- "))
}

/// A footnote's label: no white space, no brackets.
fn label_of(label: &str) -> String {
    label.chars().filter(|c| !c.is_whitespace() && !matches!(c, '[' | ']' | '^')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_one_blank_line_apart_and_whitespace_collapses() {
        let mut md = Markdown::new();
        md.heading(2, |md| md.text(" Sec. 1.\n Title "));
        md.text("(a)");
        md.space();
        md.text("In   general.\u{ad}");
        md.end();
        assert_eq!(md.finish(), "## Sec. 1. Title\n\n(a) In general.\n");
    }

    #[test]
    fn a_pipe_in_a_cell_does_not_split_it() {
        let mut md = Markdown::new();
        md.table(&[vec!["a".into(), "b".into()], vec!["1|2".into()]]);
        assert_eq!(md.finish(), "| a | b |\n| --- | --- |\n| 1\\|2 |\n");
    }

    #[test]
    fn a_full_stop_after_a_quoted_block_joins_the_line_above() {
        let mut md = Markdown::new();
        md.quote(|md| md.text("“(b) Text.”"));
        md.text(".");
        md.end();
        assert_eq!(md.finish(), "> “(b) Text.”.\n");
    }

    #[test]
    fn a_paragraph_that_starts_with_a_number_sign_is_no_heading() {
        let mut md = Markdown::new();
        md.text("# 7 of the list");
        md.end();
        assert_eq!(md.finish(), "\\# 7 of the list\n");
    }
}
