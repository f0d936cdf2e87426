//! Walks a [`Tree`] and writes Markdown; each format says only what its elements mean.

use super::markdown::{Kind, Markdown};
use super::tree::{Data, NodeId, Tree};

/// What an element means for the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Not part of the text: metadata, page furniture, scripts.
    Skip,
    /// Flows with the text around it.
    Inline,
    /// Flows with the text around it, but never touches it.
    Spaced,
    /// Goes on with the current block and ends it: the text after an enumerator.
    Flow,
    /// Starts and ends a block.
    Block,
    /// A heading of a level, 1–6.
    Heading(u8),
    /// A division whose first `head` children make its heading line.
    Titled { level: u8, head: usize },
    /// A quotation in blocks.
    Quote,
    /// A line break.
    Break,
    /// A list item at a depth, with its marker ("" for a bullet).
    Item(usize, String),
    /// A table of rows and cells.
    Table,
    /// Text whose lines are kept.
    Verbatim,
    /// A mark that points to the footnote of this label.
    FootnoteMark(String),
    /// The text of the footnote of this label.
    Footnote(String),
    /// A note that stands inside the text: Pandoc's `^[…]`.
    InlineNote,
    /// Text that the source keeps in an attribute (an enumerator), then the children, in one block.
    Marked(String),
    /// A heading of these words, which the source's element name says, and the children below it.
    MarkedBlock(u8, String),
    /// A heading with an enumerator that the source computes.
    MarkedHeading(u8, String),
    /// These words, then nothing: for elements that stand for characters.
    Text(String),
}

/// A format's reading of its elements.
pub(super) trait Dialect {
    /// What element `id` means.
    fn role(&self, tree: &Tree, id: NodeId) -> Role;
}

/// Writes everything below `id`.
///
/// Recursion is bounded by the tree's own limit on depth.
pub(super) fn write_children(tree: &Tree, id: NodeId, dialect: &dyn Dialect, md: &mut Markdown) {
    for &child in tree.children(id) {
        write(tree, child, dialect, md);
    }
}

/// Writes node `id`.
pub(super) fn write(tree: &Tree, id: NodeId, dialect: &dyn Dialect, md: &mut Markdown) {
    match &tree.node(id).data {
        Data::Text(text) => return md.text(text),
        Data::Other => return,
        Data::Document => return write_children(tree, id, dialect, md),
        Data::Element(..) => {}
    }
    match dialect.role(tree, id) {
        Role::Skip => {}
        Role::Inline => write_children(tree, id, dialect, md),
        Role::Spaced => {
            md.space();
            write_children(tree, id, dialect, md);
            md.space();
        }
        Role::Flow => {
            md.space();
            write_children(tree, id, dialect, md);
            md.end();
        }
        Role::Block => {
            md.end();
            write_children(tree, id, dialect, md);
            md.end();
        }
        Role::Heading(level) => md.heading(level, |md| write_children(tree, id, dialect, md)),
        Role::Titled { level, head } => {
            let (line, rest) = tree.children(id).split_at(head.min(tree.children(id).len()));
            md.heading(level, |md| {
                for &child in line {
                    md.space();
                    write(tree, child, dialect, md);
                }
            });
            for &child in rest {
                write(tree, child, dialect, md);
            }
            md.end();
        }
        Role::Quote => md.quote(|md| write_children(tree, id, dialect, md)),
        Role::Break => md.line_break(),
        Role::Item(depth, marker) => {
            md.begin(Kind::Item(depth, marker));
            write_children(tree, id, dialect, md);
            md.close();
        }
        Role::Table => write_table(tree, id, dialect, md),
        Role::Verbatim => md.block(&verbatim(tree, id)),
        Role::FootnoteMark(label) => md.footnote_mark(&label),
        Role::Footnote(label) => {
            md.footnote(&label);
            write_children(tree, id, dialect, md);
            md.close();
        }
        Role::InlineNote => {
            md.text("^[");
            write_children(tree, id, dialect, md);
            md.text("]");
        }
        Role::Marked(marker) => {
            md.end();
            md.text(&marker);
            md.space();
            write_children(tree, id, dialect, md);
            md.end();
        }
        Role::MarkedBlock(level, words) => {
            md.heading(level, |md| md.text(&words));
            write_children(tree, id, dialect, md);
            md.end();
        }
        Role::MarkedHeading(level, marker) => md.heading(level, |md| {
            md.text(&marker);
            md.space();
            write_children(tree, id, dialect, md);
        }),
        Role::Text(text) => md.text(&text),
    }
}

/// One line of text: everything below `id` as the dialect writes it.
pub(super) fn line(tree: &Tree, id: NodeId, dialect: &dyn Dialect) -> String {
    let mut md = Markdown::one_line();
    write_children(tree, id, dialect, &mut md);
    md.finish().trim().to_owned()
}

/// Character data with its line ends, trailing blanks cut.
fn verbatim(tree: &Tree, id: NodeId) -> String {
    let mut all = String::new();
    for node in tree.descend(id, &|tree, node| matches!(tree.node(node).data, Data::Text(_)), usize::MAX) {
        if let Data::Text(text) = &tree.node(node).data {
            all.push_str(text);
        }
    }
    super::plain::tidy(&all)
}

const ROWS: [&str; 7] = ["w:tr", "tr", "TR", "row", "ROW", "BOXHD", "columnHeaderRow"];
const CELLS: [&str; 11] =
    ["w:tc", "td", "th", "TD", "TH", "entry", "ENT", "CHED", "oasis:entry", "cell", "column"];
const TABLES: [&str; 5] = ["w:tbl", "table", "TABLE", "GPOTABLE", "oasis:table"];

/// Rows that belong to table `id` itself, not to a table inside one of its cells.
pub(super) fn rows(tree: &Tree, id: NodeId) -> Vec<NodeId> {
    fn collect(tree: &Tree, id: NodeId, found: &mut Vec<NodeId>) {
        for &child in tree.children(id) {
            let name = tree.name(child);
            if ROWS.contains(&name) || name == "oasis:row" {
                found.push(child);
            } else if !TABLES.contains(&name) {
                collect(tree, child, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(tree, id, &mut found);
    found
}

/// Cells of a row.
pub(super) fn cells(tree: &Tree, row: NodeId) -> Vec<NodeId> {
    tree.children(row).iter().copied().filter(|&child| CELLS.contains(&tree.name(child))).collect()
}

/// A table: what stands before the first row and after the last one as blocks, the rows as a Markdown table.
fn write_table(tree: &Tree, id: NodeId, dialect: &dyn Dialect, md: &mut Markdown) {
    md.end();
    let all = rows(tree, id);
    let mut lines: Vec<Vec<String>> = Vec::new();
    for &row in &all {
        let mut line_of_cells =
            if tree.name(row) == "BOXHD" { boxed_heads(tree, row, dialect) } else { Vec::new() };
        if line_of_cells.is_empty() {
            for cell in cells(tree, row) {
                line_of_cells.push(line(tree, cell, dialect));
                for _ in 1..span(tree, cell) {
                    line_of_cells.push(String::new());
                }
            }
        }
        if line_of_cells.iter().any(|cell| !cell.is_empty()) {
            lines.push(line_of_cells);
        }
    }
    let mut written = false;
    write_around(tree, id, dialect, md, &lines, &mut written);
    if !written {
        md.table(&lines);
    }
    md.end();
}

/// Writes the table's rows at the place of the first of them, and what is no row (titles, notes) where it stands.
fn write_around(
    tree: &Tree,
    id: NodeId,
    dialect: &dyn Dialect,
    md: &mut Markdown,
    lines: &[Vec<String>],
    written: &mut bool,
) {
    for &child in tree.children(id) {
        let name = tree.name(child);
        if ROWS.contains(&name) || name == "oasis:row" {
            if !*written {
                *written = true;
                md.table(lines);
            }
        } else if rows(tree, child).is_empty() || TABLES.contains(&name) {
            write(tree, child, dialect, md);
            md.end();
        } else {
            write_around(tree, child, dialect, md, lines, written);
        }
    }
}

/// Columns a cell covers, by HTML's, GPO's or CALS's attribute; 1–64.
fn span(tree: &Tree, cell: NodeId) -> usize {
    let number = |name: &str| tree.attr(cell, name).and_then(|value| value.trim().parse::<usize>().ok());
    let columns = match (number("colspan").or(number("COLSPAN")), number("A")) {
        (Some(columns), _) => columns,
        // GPO counts the columns beyond the first.
        (None, Some(further)) => further.saturating_add(1),
        _ => 1,
    };
    columns.clamp(1, 64)
}

/// Header cells of a GPO table, whose levels (`H`) form a tree: one column per leaf. A head that spans others stands
/// before the first of them, so that nothing is said twice.
fn boxed_heads(tree: &Tree, row: NodeId, dialect: &dyn Dialect) -> Vec<String> {
    let heads: Vec<(u32, String)> = cells(tree, row)
        .into_iter()
        .map(|cell| {
            let level = tree.attr(cell, "H").and_then(|level| level.parse().ok()).unwrap_or(1);
            (level, line(tree, cell, dialect))
        })
        .collect();
    let mut columns = Vec::new();
    let mut above = String::new();
    for (index, (level, text)) in heads.iter().enumerate() {
        if !above.is_empty() && !text.is_empty() {
            above.push_str(": ");
        }
        above.push_str(text);
        let spans = heads.get(index + 1).is_some_and(|(next, _)| next > level);
        if !spans {
            columns.push(std::mem::take(&mut above));
        }
    }
    columns
}
