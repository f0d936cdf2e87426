//! Bills, resolutions and amendments in the House and Senate DTD (`bill.dtd`, `res.dtd`, `amend.dtd`).

use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed, iso_date};

/// Reads a bill.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "bill XML", missing: "a root element" });
    };
    let mut md = Markdown::new();
    write_children(&tree, root, &Bill, &mut md);
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    let metadata = tree.find(root, "metadata");
    parsed.title = metadata
        .and_then(|id| tree.text_of(id, "dc:title"))
        .or_else(|| tree.text_of(root, "official-title"))
        .or_else(|| tree.text_of(root, "short-title"));
    parsed.date = metadata
        .and_then(|id| tree.text_of(id, "dc:date"))
        .or_else(|| tree.text_of(root, "action-date"))
        .or_else(|| tree.text_of(root, "attestation-date"))
        .map(|date| iso_date(&date));
    for (key, name) in [
        ("number", "legis-num"),
        ("congress", "congress"),
        ("session", "session"),
        ("chamber", "current-chamber"),
        ("type", "legis-type"),
        ("rights", "dc:rights"),
    ] {
        parsed.extra(key, tree.text_of(root, name).unwrap_or_default());
    }
    let stage =
        ["bill-stage", "resolution-stage", "amend-stage"].iter().find_map(|name| tree.attr(root, name));
    parsed.extra("stage", stage.unwrap_or_default());
    Ok(vec![parsed])
}

struct Bill;

impl Dialect for Bill {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).map_or("", |parent| tree.name(parent));
        match tree.name(id) {
            // Page and line furniture, and facts that go to the extras.
            "metadata" | "page" | "pagebreak" => Role::Skip,
            "legis-type" => Role::Heading(1),
            "division" | "title" => titled(tree, id, 2),
            "subtitle" | "part" | "chapter" | "subpart" | "subchapter" | "appropriations-major" => {
                titled(tree, id, 3)
            }
            "section" | "appropriations-intermediate" | "appropriations-small" => titled(tree, id, 4),
            "enum" => Role::Spaced,
            "header" | "subheader" => {
                let runs_in = tree.parent(id).is_some_and(|parent| tree.opens_with(parent, "enum"));
                if runs_in { Role::Spaced } else { Role::Heading(5) }
            }
            "text" if matches!(parent, "quoted-block" | "toc-entry") => Role::Inline,
            "text" => Role::Flow,
            "continuation-text" => Role::Block,
            "quoted-block" | "amendment-block" => Role::Quote,
            "after-quoted-block" => Role::Block,
            "toc-entry" => Role::Item(toc_depth(tree.attr(id, "level")), String::new()),
            "list-item" => Role::Item(0, String::new()),
            "linebreak" => Role::Break,
            "footnote-ref" => Role::FootnoteMark(tree.text(id)),
            "footnote" => Role::InlineNote,
            "table" => Role::Table,
            "quote" => Role::Inline,
            name if INLINE.contains(&name) => Role::Inline,
            _ => Role::Block,
        }
    }
}

/// Elements inside running text.
const INLINE: [&str; 29] = [
    "act-name",
    "added-phrase",
    "bold",
    "cato-short-title",
    "committee-name",
    "cosponsor",
    "deleted-phrase",
    "effective-date",
    "enum-in-header",
    "external-xref",
    "header-in-text",
    "internal-xref",
    "italic",
    "nobreak",
    "nonsponsor",
    "omitted-text",
    "para",
    "pocket-veto-text",
    "short-title",
    "sponsor",
    "subscript",
    "superscript",
    "target",
    "term",
    "underscore",
    "fraction",
    "inline-comment",
    "editorial",
    "short-title-in-text",
];

/// A division: enumerator and header in one heading line, when it has either.
fn titled(tree: &Tree, id: NodeId, level: u8) -> Role {
    let children = tree.children(id);
    let early = children.get(..children.len().min(8)).unwrap_or(children);
    let place = |name: &str| early.iter().position(|&child| tree.name(child) == name);
    match place("header").or_else(|| place("enum")) {
        // A section without a header runs on from its number: "Section 1." and the text.
        None => Role::Block,
        Some(at) => Role::Titled { level, head: at + 1 },
    }
}

fn toc_depth(level: Option<&str>) -> usize {
    match level {
        Some("division" | "title") | None => 0,
        _ => 1,
    }
}
