//! Case law: Fastcase XML (whose opinions are HTML inside XML) and the Caselaw Access Project's HTML.

use std::collections::HashSet;

use super::detect::Format;
use super::html::Html;
use super::html_tree::from_html;
use super::markdown::Markdown;
use super::tree::{Data, NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed, iso_date};

/// Reads Fastcase XML.
pub(super) fn parse_xml(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = Tree::from_xml(text)?;
    let mut parsed = Parsed { title: tree.text_of(Tree::ROOT, "ShortName"), ..Parsed::default() };
    parsed.date = tree.text_of(Tree::ROOT, "DecisionDate").map(|date| iso_date(&date));
    let citations: Vec<String> = tree
        .find_all(Tree::ROOT, "Citation")
        .into_iter()
        .map(|id| {
            let parts = tree.children(id).iter().map(|&part| tree.text(part)).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join(" ")
        })
        .collect();
    parsed.extra("citation", citations.join("; "));
    let dockets: Vec<String> =
        tree.find_all(Tree::ROOT, "DocketNumber").into_iter().map(|id| tree.text(id)).collect();
    parsed.extra("docket", dockets.join("; "));
    for (key, name) in [
        ("court", "CourtName"),
        ("jurisdiction", "CourtAbbreviation"),
        ("author", "Author"),
        ("parties", "PartyHeader"),
        ("counsel", "LawyerHeader"),
        ("current_opinion", "CurrentOpinion"),
    ] {
        parsed.extra(key, tree.text_of(Tree::ROOT, name).unwrap_or_default());
    }
    let mut md = Markdown::new();
    if let Some(title) = &parsed.title {
        md.heading(1, |md| md.text(title));
    }
    for name in ["HeaderHtml", "CaseHtml"] {
        for id in tree.find_all(Tree::ROOT, name) {
            for &child in tree.children(id) {
                match &tree.node(child).data {
                    // The opinion is escaped HTML: text to XML.
                    Data::Text(html) => write_html(html, &mut md)?,
                    _ => super::walk::write(&tree, child, &Case::new(&tree), &mut md),
                }
            }
            md.end();
        }
    }
    parsed.markdown = md.finish();
    Ok(vec![parsed])
}

fn write_html(html: &str, md: &mut Markdown) -> Result<(), ParseError> {
    let tree = from_html(html)?;
    write_children(&tree, Tree::ROOT, &Case::new(&tree), md);
    md.end();
    Ok(())
}

/// Reads the Caselaw Access Project's HTML.
pub(super) fn parse_html(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let tree = from_html(text)?;
    let mut md = Markdown::new();
    write_children(&tree, Tree::ROOT, &Case::new(&tree), &mut md);
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    let class = |wanted: &'static str| {
        let found = tree.descend(Tree::ROOT, &|tree, id| has_class(tree, id, wanted), 1);
        found.first().map(|&id| tree.text(id)).filter(|text| !text.is_empty())
    };
    parsed.title = class("parties");
    parsed.date = class("decisiondate").map(|date| {
        // "Submitted Sept. 29, 2014. Decided Oct. 9, 2014.": the decision is the last.
        let last = date.trim_end_matches('.').rsplit("Decided ").next().unwrap_or_default().to_owned();
        iso_date(&last)
    });
    for (key, name) in
        [("docket", "docketnumber"), ("court", "court"), ("author", "author"), ("citation", "citations")]
    {
        parsed.extra(key, class(name).unwrap_or_default());
    }
    if let Some(&body) = tree.descend(Tree::ROOT, &|tree, id| has_class(tree, id, "casebody"), 1).first() {
        parsed.extra("first_page", tree.attr(body, "data-firstpage").unwrap_or_default());
        parsed.extra("last_page", tree.attr(body, "data-lastpage").unwrap_or_default());
        parsed.extra("case_id", tree.attr(body, "data-case-id").unwrap_or_default());
    }
    Ok(vec![parsed])
}

fn has_class(tree: &Tree, id: NodeId, class: &str) -> bool {
    tree.attr(id, "class").is_some_and(|classes| classes.split_ascii_whitespace().any(|found| found == class))
}

/// HTML as case law writes it: its footnotes and its headings.
struct Case {
    html: Html,
    /// The first paragraph of each footnote, which goes on after the label.
    openings: HashSet<NodeId>,
}

impl Case {
    fn new(tree: &Tree) -> Self {
        let notes = tree.descend(Tree::ROOT, &|tree, id| has_class(tree, id, "footnote"), usize::MAX);
        let openings = notes.into_iter().filter_map(|note| tree.child(note, "p")).collect();
        Self { html: Html::new(tree, Format::Html), openings }
    }
}

impl Dialect for Case {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        match tree.name(id) {
            "a" if has_class(tree, id, "footnotemark") => Role::FootnoteMark(tree.text(id)),
            "a" if has_class(tree, id, "page-label") => Role::Spaced,
            // The way back from the note to its mark; the label is on the note.
            "a" if tree.attr(id, "href").is_some_and(|to| to.starts_with("#ref_footnote")) => Role::Skip,
            "a" if named(tree, id, "fn") => Role::FootnoteMark(tree.text(id)),
            "a" if named(tree, id, "fr") => Role::Skip,
            "aside" if has_class(tree, id, "footnote") => match tree.attr(id, "data-label") {
                Some(label) => Role::Footnote(label.to_owned()),
                None => Role::Block,
            },
            "p" if self.openings.contains(&id) => Role::Inline,
            "p" => match opening_anchor(tree, id) {
                Some(anchor) => Role::Footnote(tree.text(anchor)),
                None if only_bold(tree, id) => Role::Heading(3),
                None => Role::Block,
            },
            "b" | "center" if tree.child(id, "p").is_some() => Role::Block,
            _ => self.html.role(tree, id),
        }
    }
}

/// Whether an anchor is called `start` and a number: Fastcase's `fn1` marks, `fr1` notes.
fn named(tree: &Tree, id: NodeId, start: &str) -> bool {
    tree.attr(id, "name")
        .and_then(|name| name.strip_prefix(start))
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The anchor of a note that opens a paragraph, however wrapped.
fn opening_anchor(tree: &Tree, id: NodeId) -> Option<NodeId> {
    let mut at = id;
    loop {
        at = first_shown(tree, at)?;
        if tree.name(at) == "a" {
            return named(tree, at, "fr").then_some(at);
        }
    }
}

/// The first child that shows something.
fn first_shown(tree: &Tree, id: NodeId) -> Option<NodeId> {
    tree.children(id).iter().copied().find(|&child| match &tree.node(child).data {
        Data::Text(text) => !text.trim().is_empty(),
        Data::Element(..) => true,
        _ => false,
    })
}

/// Whether a paragraph is one short bold run: how reporters print headings.
fn only_bold(tree: &Tree, id: NodeId) -> bool {
    let mut shown = tree.children(id).iter().filter(|&&child| match &tree.node(child).data {
        Data::Text(text) => !text.trim().is_empty(),
        Data::Element(..) => true,
        _ => false,
    });
    let (first, second) = (shown.next(), shown.next());
    match (first, second) {
        (Some(&only), None) => {
            matches!(tree.name(only), "b" | "strong") && (1..200).contains(&tree.text(only).chars().count())
        }
        _ => false,
    }
}
