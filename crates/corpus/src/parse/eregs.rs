//! CFPB regulations XML ("eRegs"): one regulation with its appendices and official interpretations.

use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed, iso_date};

/// Reads a regulation.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "eRegs XML", missing: "a root element" });
    };
    let mut parsed = Parsed::default();
    if let Some(source) = tree.child(root, "fdsys") {
        parsed.title = tree.text_of(source, "title");
        for (key, name) in [
            ("cfr_title", "cfrTitleNum"),
            ("cfr_title_name", "cfrTitleText"),
            ("volume", "volume"),
            ("published", "date"),
            ("originally_published", "originalDate"),
        ] {
            parsed.extra(key, tree.text_of(source, name).unwrap_or_default());
        }
    }
    if let Some(preamble) = tree.child(root, "preamble") {
        parsed.date = tree.text_of(preamble, "effectiveDate").map(|date| iso_date(&date));
        parsed.url = tree.text_of(preamble, "federalRegisterURL");
        for (key, name) in [
            ("agency", "agency"),
            ("regulation", "regLetter"),
            ("fr_doc", "documentNumber"),
            ("cfr_part", "section"),
        ] {
            parsed.extra(key, tree.text_of(preamble, name).unwrap_or_default());
        }
    }
    let mut md = Markdown::new();
    if let Some(title) = &parsed.title {
        md.heading(1, |md| md.text(title));
    }
    write_children(&tree, root, &Eregs, &mut md);
    parsed.markdown = md.finish();
    Ok(vec![parsed])
}

struct Eregs;

impl Dialect for Eregs {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).map_or("", |parent| tree.name(parent));
        match tree.name(id) {
            // Facts of the edition, which go to the extras, and numbers that the entries' subjects repeat.
            "fdsys" | "preamble" | "changeset" | "sectionNum" | "appendixLetter" | "url" => Role::Skip,
            "ref" | "def" | "dash" | "variable" | "text" | "altText" => Role::Inline,
            "tocSecEntry" | "tocAppEntry" | "tocSubpartEntry" => Role::Item(0, String::new()),
            "sectionSubject" | "appendixSubject" | "subpartTitle" => Role::Inline,
            "paragraph" | "interpParagraph" | "noticeSection" => {
                let marker = tree.attr(id, "marker").unwrap_or_default().trim();
                if marker.is_empty() || marker == "none" {
                    Role::Block
                } else {
                    Role::Marked(marker.to_owned())
                }
            }
            "content" if matches!(parent, "part" | "regulation" | "subpart") => Role::Block,
            "content" => Role::Flow,
            "subject" | "title"
                if parent == "section" || parent == "appendixSection" || parent == "interpSection" =>
            {
                Role::Heading(3)
            }
            "appendixTitle" => Role::Heading(2),
            "title" if parent == "interpretations" || parent == "subpart" => Role::Heading(2),
            // A key term opens its paragraph; any other title stands above it.
            "title" if tree.attr(id, "type") == Some("keyterm") || marked(tree, id) => Role::Spaced,
            "title" => Role::Heading(4),
            "footnote" => Role::InlineNote,
            "table" => Role::Table,
            "callout" => Role::Quote,
            _ => Role::Block,
        }
    }
}

fn marked(tree: &Tree, id: NodeId) -> bool {
    tree.parent(id)
        .and_then(|parent| tree.attr(parent, "marker"))
        .is_some_and(|marker| !marker.trim().is_empty())
}
