//! Federal Register XML: a whole issue, or one document of it.
//!
//! One [`Parsed`] per rule, proposed rule, notice and presidential document, and one each for the issue's contents and
//! reader aids. What stands between documents (the heading of a separate part) goes before the next one.

use super::gpo::{Gpo, undo_pretty_printing};
use super::markdown::Markdown;
use super::tree::{Data, NodeId, Tree};
use super::walk::write;
use super::{ParseError, Parsed, iso_date};

/// Elements that are one document each.
const DOCUMENTS: [&str; 9] = [
    "RULE",
    "PRORULE",
    "NOTICE",
    "PRESDOCU",
    "CORRECT",
    "CNTNTS",
    "READAIDS",
    "UNIFIED_AGENDA",
    "FRDOCUMENT",
];

/// Reads an issue or a document.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let mut tree = Tree::from_xml(text)?;
    undo_pretty_printing(&mut tree);
    let root = tree.children(Tree::ROOT).iter().copied().find(|&id| !tree.name(id).is_empty());
    let Some(root) = root else {
        return Err(ParseError::Incomplete { format: "Federal Register XML", missing: "a root element" });
    };
    let issue = Issue {
        date: tree.child(root, "DATE").map(|id| iso_date(&tree.text(id))),
        volume: tree.child(root, "VOL").map(|id| tree.text(id)).unwrap_or_default(),
        number: tree.child(root, "NO").map(|id| tree.text(id)).unwrap_or_default(),
    };
    let mut walk = Walk { tree: &tree, issue, before: Markdown::new(), unit: String::new(), out: Vec::new() };
    if DOCUMENTS.contains(&tree.name(root)) {
        walk.document(root);
    } else {
        walk.between(root);
    }
    let rest = std::mem::replace(&mut walk.before, Markdown::new()).finish();
    let mut out = walk.out;
    if !rest.is_empty() {
        match out.last_mut() {
            Some(last) => {
                last.markdown.push('\n');
                last.markdown.push_str(&rest);
            }
            None => out.push(Parsed { markdown: rest, ..Parsed::default() }),
        }
    }
    Ok(out)
}

/// What the issue says of all its documents.
struct Issue {
    date: Option<String>,
    volume: String,
    number: String,
}

struct Walk<'a> {
    tree: &'a Tree,
    issue: Issue,
    /// Text since the last document, for the head of the next.
    before: Markdown,
    /// The section of the issue: "Rules and Regulations", "Notices", …
    unit: String,
    out: Vec<Parsed>,
}

impl Walk<'_> {
    /// Goes through what holds documents.
    fn between(&mut self, id: NodeId) {
        for &child in self.tree.children(id) {
            let name = self.tree.name(child);
            if DOCUMENTS.contains(&name) {
                self.document(child);
            } else if matches!(name, "VOL" | "NO" | "DATE" | "UNITNAME") && self.is_running_head(id) {
                if name == "UNITNAME" {
                    self.unit = self.tree.text(child);
                }
            } else if self.holds_documents(child) {
                self.between(child);
            } else {
                write(self.tree, child, &Gpo, &mut self.before);
            }
        }
    }

    /// Volume, number, date and section are repeated before each section: they are the page's running head, and go
    /// to each document's extras.
    fn is_running_head(&self, parent: NodeId) -> bool {
        matches!(self.tree.name(parent), "FEDREG" | "NEWPART" | "PTITLE")
    }

    fn holds_documents(&self, id: NodeId) -> bool {
        let tree = self.tree;
        matches!(tree.node(id).data, Data::Element(..))
            && !tree.descend(id, &|tree, node| DOCUMENTS.contains(&tree.name(node)), 1).is_empty()
    }

    fn document(&mut self, id: NodeId) {
        let tree = self.tree;
        let mut md = std::mem::replace(&mut self.before, Markdown::new());
        md.end();
        write(tree, id, &Gpo, &mut md);
        let mut parsed = Parsed { markdown: md.finish(), date: self.issue.date.clone(), ..Parsed::default() };
        let preamble = tree.child(id, "PREAMB").unwrap_or(id);
        parsed.title = match tree.name(id) {
            "CNTNTS" => Some("Contents".to_owned()),
            "READAIDS" => Some("Reader Aids".to_owned()),
            _ => ["SUBJECT", "HD", "UNITNAME"].iter().find_map(|name| tree.text_of(preamble, name)),
        };
        let kind = match tree.name(id) {
            "RULE" => "rule",
            "PRORULE" => "proposed rule",
            "NOTICE" => "notice",
            "PRESDOCU" => "presidential document",
            "CORRECT" => "correction",
            "CNTNTS" => "contents",
            "READAIDS" => "reader aids",
            _ => "document",
        };
        parsed.extra("document_type", kind);
        parsed.extra("section", self.unit.clone());
        parsed.extra("volume", self.issue.volume.clone());
        parsed.extra("issue", self.issue.number.clone());
        for (key, name) in [
            ("agency", "AGENCY"),
            ("subagency", "SUBAGY"),
            ("cfr", "CFR"),
            ("docket", "DEPDOC"),
            ("rin", "RIN"),
        ] {
            parsed.extra(key, tree.text_of(preamble, name).unwrap_or_default());
        }
        let action = tree.find(preamble, "ACT").and_then(|action| tree.text_of(action, "P"));
        parsed.extra("action", action.unwrap_or_default());
        if !matches!(kind, "contents" | "reader aids") {
            parsed.extra("fr_doc", tree.text_of(id, "FRDOC").unwrap_or_default());
            let page = tree.find(id, "PRTPAGE").and_then(|page| tree.attr(page, "P")).unwrap_or_default();
            if !page.is_empty() && !self.issue.volume.is_empty() {
                parsed.extra("citation", format!("{} FR {page}", self.issue.volume));
            }
        }
        self.out.push(parsed);
    }
}
