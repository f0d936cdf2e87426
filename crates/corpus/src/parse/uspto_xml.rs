//! USPTO patent XML, 2002 on: grants and applications, one document or a week of them in one file.

use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, write_children};
use super::{ParseError, Parsed, iso_date, unreadable};

/// Reads a file: documents follow each other, each with an XML declaration.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let mut starts: Vec<usize> = memchr::memmem::find_iter(text.as_bytes(), b"<?xml ").collect();
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    starts.push(text.len());
    let mut out = Vec::new();
    let mut first_error = None;
    let mut good = 0;
    for (index, pair) in starts.windows(2).enumerate() {
        let [from, to] = pair else { continue };
        let Some(piece) = text.get(*from..*to).map(str::trim).filter(|piece| !piece.is_empty()) else {
            continue;
        };
        match document(piece) {
            Ok(parsed) => {
                good += 1;
                out.push(parsed);
            }
            Err(error) => {
                out.push(unreadable(&format!("document {}", index + 1), &error));
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if good == 0 => Err(error),
        _ => Ok(out),
    }
}

fn document(text: &str) -> Result<Parsed, ParseError> {
    let tree = Tree::from_xml(text)?;
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "patent XML", missing: "a root element" });
    };
    let title = tree.text_of(root, "invention-title").or_else(|| tree.text_of(root, "title-of-invention"));
    let mut parsed = Parsed { title, ..Parsed::default() };
    let publication = tree.find(root, "publication-reference");
    let application = tree.find(root, "application-reference");
    parsed.date = publication
        .and_then(|id| tree.text_of(id, "date"))
        .or_else(|| tree.attr(root, "date-publ").map(str::to_owned))
        .map(|date| iso_date(&date));
    for (key, place, name) in [
        ("country", publication, "country"),
        ("number", publication, "doc-number"),
        ("kind", publication, "kind"),
        ("application_number", application, "doc-number"),
        ("application_date", application, "date"),
    ] {
        parsed.extra(key, place.and_then(|id| tree.text_of(id, name)).unwrap_or_default());
    }
    parsed.extra("inventors", names(&tree, root, "inventor"));
    parsed.extra("assignees", names(&tree, root, "assignee"));
    if let Some(cpc) = tree.find(root, "main-cpc").and_then(|id| tree.find(id, "classification-cpc")) {
        let part = |name: &str| tree.text_of(cpc, name).unwrap_or_default();
        let [section, class, subclass] = ["section", "class", "subclass"].map(part);
        parsed
            .extra("cpc", format!("{section}{class}{subclass} {}/{}", part("main-group"), part("subgroup")));
    }
    let mut md = Markdown::new();
    if let Some(title) = &parsed.title {
        md.heading(1, |md| md.text(title));
    }
    write_children(&tree, root, &Patent, &mut md);
    parsed.markdown = md.finish();
    Ok(parsed)
}

/// Names of all inventors or assignees, `; ` between.
fn names(tree: &Tree, root: NodeId, role: &str) -> String {
    let name = |id: NodeId| {
        tree.text_of(id, "orgname").unwrap_or_else(|| {
            let parts = ["first-name", "last-name"].map(|part| tree.text_of(id, part).unwrap_or_default());
            parts.join(" ").trim().to_owned()
        })
    };
    let all: Vec<String> =
        tree.find_all(root, role).into_iter().map(name).filter(|name| !name.is_empty()).collect();
    all.join("; ")
}

struct Patent;

impl Dialect for Patent {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let parent = tree.parent(id).map_or("", |parent| tree.name(parent));
        match tree.name(id) {
            // Bibliography: its facts go to the extras.
            name if name.starts_with("us-bibliographic-data") => Role::Skip,
            "img" | "drawings" | "us-chemistry" => Role::Skip,
            "abstract" => Role::MarkedBlock(2, "Abstract".to_owned()),
            "description" => Role::MarkedBlock(2, "Description".to_owned()),
            "claims" => Role::MarkedBlock(2, "Claims".to_owned()),
            "heading" => Role::Heading(3),
            "claim" => claim(tree, id),
            "claim-text" if parent == "claim" && tree.is_first(id) => Role::Inline,
            "table" => Role::Table,
            "li" => Role::Item(
                0,
                tree.attr(id, "num").filter(|num| !num.trim().is_empty()).unwrap_or("").to_owned(),
            ),
            "br" => Role::Break,
            "b" | "i" | "u" | "o" | "sub" | "sup" | "sub2" | "sup2" | "smallcaps" | "figref"
            | "claim-ref" | "crossref" | "patcit" | "nplcit" | "text" | "othercit" | "maths"
            | "chemistry" | "dna" | "in-line-formulae" | "bold" | "italic" => Role::Inline,
            _ if inside_formula(tree, id) => Role::Inline,
            _ => Role::Block,
        }
    }
}

/// A claim's number is in its text, as a rule; where it is not, the attribute has it.
fn claim(tree: &Tree, id: NodeId) -> Role {
    let number = tree.attr(id, "num").unwrap_or_default().trim_start_matches('0').trim();
    let numbered = tree.text(id).starts_with(|c: char| c.is_ascii_digit());
    if numbered || number.is_empty() { Role::Block } else { Role::Marked(format!("{number}.")) }
}

/// Whether an element is part of MathML.
fn inside_formula(tree: &Tree, id: NodeId) -> bool {
    let name = tree.name(id);
    name == "math"
        || (name.starts_with('m')
            && name.len() < 14
            && tree.parent(id).is_some_and(|parent| {
                let parent = tree.name(parent);
                parent == "math" || parent.starts_with('m')
            }))
}
