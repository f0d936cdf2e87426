//! The element vocabulary that the Federal Register and the eCFR share (the Government Publishing Office's SGML tags).

use super::tree::{Data, NodeId, Tree};
use super::walk::{Dialect, Role};

/// Reads GPO elements.
pub(super) struct Gpo;

impl Dialect for Gpo {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).map_or("", |parent| tree.name(parent));
        match tree.name(id) {
            // Page numbers and running heads of the printed page.
            "PRTPAGE" | "EAR" | "PG" => Role::Skip,
            "E" | "I" | "B" | "URL" | "AC" | "FR" | "SUB" | "SUP" | "G" | "MATH" | "SC" => Role::Inline,
            "LI" | "LINEBREAK" | "BR" => Role::Spaced,
            "SU" => superscript(tree, id, parent),
            "FTREF" => Role::Skip,
            "FTNT" => match label_of_note(tree, id) {
                Some(label) => Role::Footnote(label),
                None => Role::Block,
            },
            "P" | "FP" if parent == "FTNT" && tree.is_first(id) => Role::Inline,
            "HEAD" => Role::Heading(division_level(parent)),
            "HD" => Role::Heading(match tree.attr(id, "SOURCE") {
                Some("HD1") => 3,
                Some("HD2") => 4,
                Some("HD3") => 5,
                Some("HD4" | "HD5" | "HD6") => 6,
                _ => 2,
            }),
            "HD1" | "HED1" => Role::Heading(3),
            "HD2" => Role::Heading(4),
            "HD3" => Role::Heading(5),
            "TITLE3" => Role::Heading(2),
            // "Authority:" and the text it introduces are one paragraph.
            "HED" => Role::Spaced,
            "PSPACE" | "PGS" | "FRDOCBP" | "DOC" | "SJDOC" | "SUBSJDOC" => Role::Spaced,
            "SUBJECT" if matches!(parent, "PREAMB" | "PRORULE" | "RULE" | "NOTICE") => Role::Heading(1),
            "SUBJECT" if matches!(parent, "SECTION" | "CONTENTS" | "SUBPART" | "CHAPTI") => Role::Flow,
            "SECTNO" => section_number(tree, id, parent),
            "SECTION" => match section_head(tree, id) {
                Some(head) => Role::Titled { level: 4, head },
                None => Role::Block,
            },
            "STARS" => Role::Text("* * * * *".to_owned()),
            "GPOTABLE" | "TABLE" => Role::Table,
            "TTITLE" => Role::Block,
            "SECHD" => Role::Block,
            "FP-DASH" => Role::Block,
            "img" | "IMG" => Role::Skip,
            _ => Role::Block,
        }
    }
}

/// A superscript is a footnote's mark where a reference follows it, the label where it opens a footnote, else text.
fn superscript(tree: &Tree, id: NodeId, parent: &str) -> Role {
    let label = tree.text(id);
    if tree.next_element(id).is_some_and(|next| tree.name(next) == "FTREF") {
        return Role::FootnoteMark(label);
    }
    let grandparent = tree.parent(id).and_then(|parent| tree.parent(parent));
    let opens = tree.is_first(id)
        && matches!(parent, "P" | "FP")
        && grandparent.is_some_and(|node| tree.name(node) == "FTNT")
        && tree.parent(id).is_some_and(|parent| tree.is_first(parent));
    if opens { Role::Skip } else { Role::Inline }
}

/// Label of a footnote: the superscript that opens its first paragraph.
fn label_of_note(tree: &Tree, id: NodeId) -> Option<String> {
    let first = tree.children(id).iter().copied().find(|&child| matches!(tree.name(child), "P" | "FP"))?;
    let mark = tree.children(first).iter().copied().find(|&child| match &tree.node(child).data {
        Data::Text(text) => !text.trim().is_empty(),
        _ => true,
    })?;
    let label =
        (tree.name(mark) == "SU" && tree.is_first(first) && tree.is_first(mark)).then(|| tree.text(mark))?;
    (!label.is_empty()).then_some(label)
}

/// A section's number opens a line of the contents, or the heading of a section.
fn section_number(tree: &Tree, id: NodeId, parent: &str) -> Role {
    let titled = tree.next_element(id).is_some_and(|next| tree.name(next) == "SUBJECT");
    if titled || parent == "SECTION" { Role::Spaced } else { Role::Block }
}

/// How many children make a section's heading line: all up to its `SUBJECT`.
fn section_head(tree: &Tree, id: NodeId) -> Option<usize> {
    let children = tree.children(id);
    let number = children.iter().position(|&child| tree.name(child) == "SECTNO")?;
    let end = match children.iter().position(|&child| tree.name(child) == "SUBJECT") {
        Some(subject) if subject > number && subject <= number + 2 => subject,
        _ => number,
    };
    Some(end + 1)
}

/// Level of the heading of `DIV1` (title) … `DIV9` (appendix).
fn division_level(parent: &str) -> u8 {
    match parent.strip_prefix("DIV").and_then(|level| level.parse::<u8>().ok()) {
        Some(1) => 1,
        Some(2..=4) => 2,
        Some(5) => 3,
        Some(6) => 4,
        Some(7) => 5,
        Some(8 | 9) => 5,
        _ => 6,
    }
}

/// Takes back what pretty-printing did to running text: a line break before a full stop, after an opening bracket.
pub(super) fn undo_pretty_printing(tree: &mut Tree) {
    for index in 0..tree.len() {
        let id = NodeId(index as u32);
        let inner = !tree.is_first(id);
        if let Data::Text(text) = &mut tree.node_mut(id).data {
            let body = text.trim_start();
            if inner
                && text.starts_with('\n')
                && body.starts_with(['.', ',', ';', ':', ')', ']', '”', '’', '?', '!'])
            {
                *text = body.to_owned();
            }
            let body = text.trim_end();
            if body.len() < text.len()
                && text[body.len()..].starts_with('\n')
                && body.ends_with(['(', '[', '“', '‘'])
            {
                text.truncate(body.len());
            }
        }
    }
}
