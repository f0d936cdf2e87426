//! United States Legislative Markup: bills, public laws, statute compilations, the United States Code.
//!
//! Titles, chapters and sections become headings; lower levels are paragraphs that open with their enumerator.

use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed, iso_date};

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "USLM XML", missing: "a root element" });
    };
    let mut md = Markdown::new();
    write_children(&tree, root, &Uslm, &mut md);
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    if let Some(meta) = tree.child(root, "meta").or_else(|| tree.find(root, "meta")) {
        parsed.title = tree.text_of(meta, "dc:title");
        parsed.date = ["dc:date", "approvedDate", "dcterms:created"]
            .iter()
            .find_map(|name| tree.text_of(meta, name))
            .map(|date| iso_date(&date));
        for (key, name) in [
            ("type", "dc:type"),
            ("citation", "citableAs"),
            ("number", "docNumber"),
            ("congress", "congress"),
            ("session", "session"),
            ("stage", "docStage"),
            ("creator", "dc:creator"),
            ("publisher", "dc:publisher"),
            ("rights", "dc:rights"),
            ("current_through", "currentThroughPublicLaw"),
        ] {
            parsed.extra(key, tree.text_of(meta, name).unwrap_or_default());
        }
    }
    if parsed.date.is_none() {
        let action = tree.find(root, "action").and_then(|id| tree.find(id, "date"));
        parsed.date = action.and_then(|id| tree.attr(id, "date")).map(iso_date);
    }
    Ok(vec![parsed])
}

/// Divisions with a heading of their own, and its level.
fn division(name: &str) -> Option<u8> {
    Some(match name {
        "title" | "division" | "preliminary" => 2,
        "subtitle" | "part" | "chapter" | "appendix" | "article" | "compiledAct" | "courtRules" => 3,
        "subpart" | "subchapter" | "subdivision" | "reorganizationPlan" => 3,
        "section" | "courtRule" | "rule" => 4,
        _ => return None,
    })
}

struct Uslm;

impl Dialect for Uslm {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).map_or("", |parent| tree.name(parent));
        let name = tree.name(id);
        if let Some(level) = division(name) {
            return match head(tree, id) {
                0 => Role::Block,
                head => Role::Titled { level, head },
            };
        }
        match name {
            "meta" | "page" | "runningHead" => Role::Skip,
            "b"
            | "i"
            | "em"
            | "strong"
            | "inline"
            | "ref"
            | "term"
            | "quotedText"
            | "amendingAction"
            | "shortTitle"
            | "headingText"
            | "date"
            | "sponsor"
            | "cosponsor"
            | "committee"
            | "sup"
            | "sub"
            | "span"
            | "a"
            | "del"
            | "ins"
            | "entity"
            | "person"
            | "organization"
            | "def"
            | "citableAs"
            | "currentThroughPublicLaw"
            | "html:span"
            | "html:a"
            | "abbr"
            | "approvedDate" => Role::Inline,
            "num" | "designator" => Role::Spaced,
            "editorialNote" if matches!(parent, "section" | "subsection" | "paragraph") => Role::Spaced,
            "heading" | "subheading" => {
                // In numbered levels the heading runs into the text; elsewhere it stands alone.
                let runs_in = tree.parent(id).is_some_and(|parent| tree.opens_with(parent, "num"));
                if runs_in { Role::Spaced } else { Role::Heading(5) }
            }
            "content" | "chapeau" | "text" | "label" => Role::Flow,
            "p" if tree.is_first(id) && parent == "content" => Role::Flow,
            "quotedContent" => Role::Quote,
            "docTitle" => Role::Heading(1),
            // The note stands where it is referred to, its number first.
            "footnote" => Role::InlineNote,
            "br" | "html:br" => Role::Break,
            "img" | "html:img" | "figure" => Role::Inline,
            "table" | "html:table" => Role::Table,
            // "II", "S.", "2245": printed side by side at the head of a bill.
            "dc:type" | "docNumber" if parent == "preface" => {
                if name == "dc:type" {
                    Role::Spaced
                } else {
                    Role::Flow
                }
            }
            _ => Role::Block,
        }
    }
}

/// How many children make the heading line of a division: all up to the heading, or the number.
fn head(tree: &Tree, id: NodeId) -> usize {
    let children = tree.children(id);
    // A heading never stands far from its number: a note may come between.
    let early = children.get(..children.len().min(8)).unwrap_or(children);
    let place = |name: &str| early.iter().position(|&child| tree.name(child) == name);
    place("heading").or_else(|| place("num")).map_or(0, |at| at + 1)
}
