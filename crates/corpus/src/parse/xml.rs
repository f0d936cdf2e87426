//! XML of no known vocabulary: its text in order, an element with elements inside it as a block.

use super::markdown::Markdown;
use super::tree::{Data, NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed};

/// Reads any XML.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let mut md = Markdown::new();
    write_children(&tree, Tree::ROOT, &Any, &mut md);
    let title =
        ["title", "Title", "TITLE", "dc:title"].iter().find_map(|name| tree.text_of(Tree::ROOT, name));
    Ok(vec![Parsed { title, markdown: md.finish(), ..Parsed::default() }])
}

struct Any;

impl Dialect for Any {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        match tree.name(id) {
            "script" | "style" => Role::Skip,
            "table" => Role::Table,
            "title" | "heading" | "header" | "head" | "h1" | "h2" | "h3" => Role::Heading(2),
            "br" => Role::Break,
            // Inside running text an element is part of the sentence; among elements it is a block.
            _ if in_running_text(tree, id) => Role::Inline,
            _ => Role::Block,
        }
    }
}

/// Whether an element stands next to words in its parent. Its nearest siblings decide.
fn in_running_text(tree: &Tree, id: NodeId) -> bool {
    tree.neighbours(id).into_iter().flatten().any(|node| match &tree.node(node).data {
        Data::Text(text) => !text.trim().is_empty(),
        _ => false,
    })
}
