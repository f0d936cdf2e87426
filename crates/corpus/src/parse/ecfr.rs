//! eCFR XML: a title of the Code of Federal Regulations, or a piece of one.
//!
//! One [`Parsed`] per part (`DIV5`). Headings and contents that stand before a part go to its head.

use super::gpo::{Gpo, undo_pretty_printing};
use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::write;
use super::{ParseError, Parsed, iso_date};

/// Reads a title.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let mut tree = Tree::from_xml(text)?;
    undo_pretty_printing(&mut tree);
    let header = tree.find(Tree::ROOT, "HEADER");
    // The number on `DIV1` is the volume's.
    let title = header.and_then(|id| tree.text_of(id, "IDNO"));
    let amended = tree.text_of(Tree::ROOT, "AMDDATE");
    let mut walk = Walk { tree: &tree, title, amended, before: Markdown::new(), out: Vec::new() };
    walk.between(Tree::ROOT);
    let rest = std::mem::replace(&mut walk.before, Markdown::new()).finish();
    let mut out = walk.out;
    if !rest.is_empty() {
        match out.last_mut() {
            Some(last) => {
                last.markdown.push('\n');
                last.markdown.push_str(&rest);
            }
            None => {
                out.push(Parsed { title: heading(&tree, Tree::ROOT), markdown: rest, ..Parsed::default() })
            }
        }
    }
    Ok(out)
}

struct Walk<'a> {
    tree: &'a Tree,
    title: Option<String>,
    amended: Option<String>,
    before: Markdown,
    out: Vec<Parsed>,
}

impl Walk<'_> {
    fn between(&mut self, id: NodeId) {
        for &child in self.tree.children(id) {
            match self.tree.name(child) {
                // Bibliographic header: its facts go to the extras.
                "HEADER" | "AMDDATE" => {}
                "DIV5" => self.part(child),
                "DLPSTEXTCLASS" | "TEXT" | "BODY" | "ECFR" | "ECFRBRWS" | "DIV1" | "DIV2" | "DIV3"
                | "DIV4" => {
                    self.before.end();
                    self.between(child);
                    self.before.end();
                }
                _ => write(self.tree, child, &Gpo, &mut self.before),
            }
        }
    }

    fn part(&mut self, id: NodeId) {
        let mut md = std::mem::replace(&mut self.before, Markdown::new());
        md.end();
        write(self.tree, id, &Gpo, &mut md);
        let mut parsed = Parsed { markdown: md.finish(), title: heading(self.tree, id), ..Parsed::default() };
        let number = self.tree.attr(id, "N").unwrap_or_default();
        if let Some(title) = &self.title {
            parsed.extra("citation", format!("{title} CFR Part {number}"));
            parsed.extra("cfr_title", title.clone());
        }
        parsed.extra("cfr_part", number);
        if let Some(amended) = &self.amended {
            let date = iso_date(amended.split('(').next().unwrap_or_default());
            parsed.date = Some(date);
        }
        self.out.push(parsed);
    }
}

fn heading(tree: &Tree, id: NodeId) -> Option<String> {
    tree.text_of(id, "HEAD")
}
