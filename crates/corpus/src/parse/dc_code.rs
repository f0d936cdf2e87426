//! Code of the District of Columbia, in the Council's XML (`dc-library`).

use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, write};
use super::{ParseError, Parsed};

/// Reads a section, or a container of sections.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "D.C. Code XML", missing: "a root element" });
    };
    let mut md = Markdown::new();
    write(&tree, root, &DcCode, &mut md);
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    let own = |name: &str| tree.child(root, name).map(|id| tree.text(id)).filter(|text| !text.is_empty());
    parsed.title = match (own("num"), own("heading")) {
        (Some(number), Some(heading)) => Some(format!("§ {number}. {heading}")),
        (number, heading) => heading.or(number),
    };
    if let Some(number) = own("num").filter(|_| tree.name(root) == "section") {
        parsed.extra("citation", format!("D.C. Code § {number}"));
    }
    parsed.extra("code", tree.attr(root, "containing-doc").unwrap_or_default());
    Ok(vec![parsed])
}

struct DcCode;

impl Dialect for DcCode {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).unwrap_or(Tree::ROOT);
        match tree.name(id) {
            "meta" | "codify:find" | "xi:include" => Role::Skip,
            "container" | "document" | "collection" => titled(tree, id, 2),
            "section" => titled(tree, id, 3),
            "num" if tree.name(parent) == "section" => Role::Text(format!("§ {}.", tree.text(id))),
            "num" | "prefix" => Role::Spaced,
            "heading" if tree.opens_with(parent, "num") || tree.name(parent) == "section" => Role::Spaced,
            "heading" => Role::Heading(4),
            "text" => Role::Flow,
            "annotations" => Role::Block,
            "annotation" => annotation(tree, id),
            "cite" | "code-cite" | "em" | "i" | "b" | "strong" | "span" | "sup" | "sub" | "a" | "u" => {
                Role::Inline
            }
            "br" => Role::Break,
            "table" => Role::Table,
            "blockquote" => Role::Quote,
            "footnote" => Role::InlineNote,
            _ => Role::Block,
        }
    }
}

/// Annotations say their kind in an attribute: "History: Feb. 9, 1996, …".
fn annotation(tree: &Tree, id: NodeId) -> Role {
    match tree.attr(id, "type") {
        Some(kind) if !kind.trim().is_empty() => Role::Marked(format!("{}:", kind.trim())),
        _ => Role::Block,
    }
}

fn titled(tree: &Tree, id: NodeId, level: u8) -> Role {
    let children = tree.children(id);
    let early = children.get(..children.len().min(10)).unwrap_or(children);
    let place = |name: &str| early.iter().position(|&child| tree.name(child) == name);
    match place("heading").or_else(|| place("num")) {
        None => Role::Block,
        Some(at) => Role::Titled { level, head: at + 1 },
    }
}
