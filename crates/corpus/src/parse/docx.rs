//! Office Open XML word processing documents.
//!
//! Headings come from styles and outline levels, enumerators are computed from the numbering definitions (a DOCX does
//! not store "(a)", it stores "third item of list 7"), footnotes and endnotes follow the text. Headers and footers are
//! page furniture. Deleted text of tracked changes is left out, inserted text is kept.

use std::collections::HashMap;

use super::html::enumerator;
use super::markdown::Markdown;
use super::tree::{NodeId, Tree};
use super::walk::{Dialect, Role, line, write};
use super::zip::{Archive, named, open};
use super::{Budget, ParseError, Parsed, encoding};

/// Reads a document.
pub(super) fn parse(bytes: &[u8], budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    let mut archive = open(bytes)?;
    let Some(document) = part(&mut archive, "word/document.xml", budget)? else {
        return Err(ParseError::Incomplete { format: "DOCX", missing: "word/document.xml" });
    };
    let styles =
        part(&mut archive, "word/styles.xml", budget)?.map(|tree| Styles::read(&tree)).unwrap_or_default();
    let numbering = part(&mut archive, "word/numbering.xml", budget)?
        .map(|tree| Numbering::read(&tree))
        .unwrap_or_default();
    let dialect = Docx::new(&document, &styles, numbering);
    let mut md = Markdown::new();
    if let Some(body) = document.find(Tree::ROOT, "w:body") {
        write(&document, body, &dialect, &mut md);
    }
    for (file, note, prefix) in
        [("word/footnotes.xml", "w:footnote", ""), ("word/endnotes.xml", "w:endnote", "e")]
    {
        if let Some(notes) = part(&mut archive, file, budget)? {
            write_notes(&notes, note, prefix, &dialect, &mut md);
        }
    }
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    if let Some(core) = part(&mut archive, "docProps/core.xml", budget)? {
        parsed.title = core.text_of(Tree::ROOT, "dc:title");
        let date = core
            .text_of(Tree::ROOT, "dcterms:modified")
            .or_else(|| core.text_of(Tree::ROOT, "dcterms:created"));
        parsed.date = date.map(|date| date.get(..10).unwrap_or(&date).to_owned());
        for (key, name) in
            [("creator", "dc:creator"), ("subject", "dc:subject"), ("description", "dc:description")]
        {
            parsed.extra(key, core.text_of(Tree::ROOT, name).unwrap_or_default());
        }
    }
    if parsed.title.is_none() {
        parsed.title = dialect.first_heading.map(|id| document.text(id)).filter(|title| !title.is_empty());
    }
    Ok(vec![parsed])
}

fn part(archive: &mut Archive<'_>, name: &str, budget: &mut Budget) -> Result<Option<Tree>, ParseError> {
    let Some(bytes) = named(archive, name, budget)? else { return Ok(None) };
    Ok(Some(Tree::from_xml(&encoding::decode(&bytes)?)?))
}

fn write_notes(notes: &Tree, name: &str, prefix: &'static str, dialect: &Docx, md: &mut Markdown) {
    for note in notes.find_all(Tree::ROOT, name) {
        // The lines that separate notes from text are stored as notes.
        if notes.attr(note, "w:type").is_some_and(|kind| kind != "normal") {
            continue;
        }
        let text = line(notes, note, &NoteText);
        let id = notes.attr(note, "w:id").unwrap_or_default();
        if !text.is_empty() {
            md.footnote(&dialect.label(prefix, id));
            md.text(&text);
            md.close();
        }
    }
}

/// What a paragraph is by its style or its own properties.
#[derive(Debug, Clone, Default)]
struct Properties {
    heading: Option<u8>,
    /// List and level in it.
    list: Option<(String, usize)>,
}

impl Properties {
    /// Reads `w:pPr`.
    fn read(tree: &Tree, id: NodeId) -> Self {
        let value = |of: NodeId, name: &str| {
            tree.child(of, name).and_then(|id| tree.attr(id, "w:val")).map(str::to_owned)
        };
        let level = value(id, "w:outlineLvl").and_then(|level| level.parse::<u8>().ok());
        let list = tree.child(id, "w:numPr").and_then(|list| {
            let depth = value(list, "w:ilvl").and_then(|level| level.parse().ok()).unwrap_or(0usize);
            value(list, "w:numId").map(|list| (list, depth.min(8)))
        });
        Self { heading: level.filter(|level| *level < 9).map(|level| (level + 1).min(6)), list }
    }
}

/// Paragraph styles by id.
#[derive(Debug, Default)]
struct Styles(HashMap<String, Properties>);

impl Styles {
    fn read(tree: &Tree) -> Self {
        let mut styles = HashMap::new();
        let mut based_on = HashMap::new();
        for style in tree.find_all(Tree::ROOT, "w:style") {
            let Some(id) = tree.attr(style, "w:styleId") else { continue };
            let value = |name: &str| tree.child(style, name).and_then(|id| tree.attr(id, "w:val"));
            let mut properties =
                tree.child(style, "w:pPr").map(|id| Properties::read(tree, id)).unwrap_or_default();
            let name = value("w:name").unwrap_or_default().to_ascii_lowercase();
            if name == "title" {
                properties.heading = Some(1);
            } else if let Some(level) =
                name.strip_prefix("heading ").and_then(|level| level.parse::<u8>().ok())
            {
                properties.heading = Some(level.clamp(1, 6));
            }
            if let Some(base) = value("w:basedOn") {
                based_on.insert(id.to_owned(), base.to_owned());
            }
            styles.insert(id.to_owned(), properties);
        }
        // Styles inherit; a chain longer than this is a loop.
        let ids: Vec<String> = styles.keys().cloned().collect();
        for id in ids {
            let mut at = id.clone();
            for _ in 0..16 {
                let Some(base) = based_on.get(&at) else { break };
                let Some(inherited) = styles.get(base).cloned() else { break };
                if let Some(own) = styles.get_mut(&id) {
                    own.heading = own.heading.or(inherited.heading);
                    own.list = own.list.take().or(inherited.list);
                }
                at.clone_from(base);
            }
        }
        Self(styles)
    }
}

/// A level of a list.
#[derive(Debug, Clone, Default)]
struct Level {
    start: i64,
    format: String,
    text: String,
}

/// Lists by number, and how far each has counted.
#[derive(Debug, Default)]
struct Numbering {
    /// Abstract list and levels of each list.
    lists: HashMap<String, (String, HashMap<usize, Level>)>,
    /// Counters of each abstract list.
    counters: HashMap<String, [Option<i64>; 9]>,
}

impl Numbering {
    fn read(tree: &Tree) -> Self {
        let mut shapes: HashMap<String, HashMap<usize, Level>> = HashMap::new();
        for shape in tree.find_all(Tree::ROOT, "w:abstractNum") {
            let id = tree.attr(shape, "w:abstractNumId").unwrap_or_default().to_owned();
            shapes.insert(id, levels(tree, shape));
        }
        let mut lists = HashMap::new();
        for list in tree.find_all(Tree::ROOT, "w:num") {
            let Some(id) = tree.attr(list, "w:numId") else { continue };
            let shape =
                tree.child(list, "w:abstractNumId").and_then(|id| tree.attr(id, "w:val")).unwrap_or_default();
            let mut own = shapes.get(shape).cloned().unwrap_or_default();
            let mut counts_alone = false;
            for change in tree.elements(list, "w:lvlOverride") {
                counts_alone = true;
                own.extend(levels(tree, change));
                let depth =
                    tree.attr(change, "w:ilvl").and_then(|depth| depth.parse().ok()).unwrap_or(0usize);
                let start = tree.child(change, "w:startOverride").and_then(|id| tree.attr(id, "w:val"));
                if let (Some(start), Some(level)) = (start.and_then(|s| s.parse().ok()), own.get_mut(&depth))
                {
                    level.start = start;
                }
            }
            // Lists of one shape count on together, unless one starts anew.
            let counter = if counts_alone { format!("list {id}") } else { shape.to_owned() };
            lists.insert(id.to_owned(), (counter, own));
        }
        Self { lists, counters: HashMap::new() }
    }

    /// Counts one item and gives its enumerator: `None` outside any list, `""` for a bullet.
    fn next(&mut self, list: &str, depth: usize) -> Option<String> {
        let (counter, levels) = self.lists.get(list)?;
        let level = levels.get(&depth)?;
        let counters = self.counters.entry(counter.clone()).or_default();
        let here = counters.get_mut(depth)?;
        *here = Some(here.map_or(level.start, |count| count.saturating_add(1)));
        for deeper in counters.iter_mut().skip(depth + 1) {
            *deeper = None;
        }
        match level.format.as_str() {
            "bullet" => return Some(String::new()),
            "none" => return None,
            _ => {}
        }
        let mut text = level.text.chars().take(64).collect::<String>();
        for (at, count) in counters.iter().enumerate() {
            let place = format!("%{}", at + 1);
            if text.contains(&place) {
                let of = levels.get(&at);
                let number = count.unwrap_or(of.map_or(1, |level| level.start));
                let style = match of.map_or("", |level| level.format.as_str()) {
                    "lowerLetter" => "a",
                    "upperLetter" => "A",
                    "lowerRoman" => "i",
                    "upperRoman" => "I",
                    _ => "1",
                };
                text = text.replace(&place, &enumerator(number, style));
            }
        }
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

fn levels(tree: &Tree, id: NodeId) -> HashMap<usize, Level> {
    let value = |of: NodeId, name: &str| {
        tree.child(of, name).and_then(|id| tree.attr(id, "w:val")).unwrap_or_default()
    };
    tree.elements(id, "w:lvl")
        .map(|level| {
            let depth = tree.attr(level, "w:ilvl").and_then(|depth| depth.parse().ok()).unwrap_or(0);
            let start = value(level, "w:start").parse().unwrap_or(1);
            let (format, text) = (value(level, "w:numFmt").to_owned(), value(level, "w:lvlText").to_owned());
            (depth, Level { start, format, text })
        })
        .collect()
}

/// The document's elements, with what one pass found out about its paragraphs.
struct Docx {
    paragraphs: HashMap<NodeId, Role>,
    /// Printed number of each note, by prefix and id.
    labels: HashMap<(&'static str, String), usize>,
    first_heading: Option<NodeId>,
}

impl Docx {
    fn new(tree: &Tree, styles: &Styles, mut numbering: Numbering) -> Self {
        let mut docx = Self { paragraphs: HashMap::new(), labels: HashMap::new(), first_heading: None };
        for id in tree.find_all(Tree::ROOT, "w:p") {
            let role = docx.paragraph(tree, id, styles, &mut numbering);
            if matches!(role, Role::Heading(_) | Role::MarkedHeading(..)) && docx.first_heading.is_none() {
                docx.first_heading = Some(id);
            }
            docx.paragraphs.insert(id, role);
        }
        for (name, prefix) in [("w:footnoteReference", ""), ("w:endnoteReference", "e")] {
            for (index, mark) in tree.find_all(Tree::ROOT, name).into_iter().enumerate() {
                let id = tree.attr(mark, "w:id").unwrap_or_default().to_owned();
                docx.labels.entry((prefix, id)).or_insert(index + 1);
            }
        }
        docx
    }

    fn paragraph(&self, tree: &Tree, id: NodeId, styles: &Styles, numbering: &mut Numbering) -> Role {
        let own = tree.child(id, "w:pPr");
        let style = own
            .and_then(|own| tree.child(own, "w:pStyle"))
            .and_then(|style| tree.attr(style, "w:val"))
            .and_then(|style| styles.0.get(style))
            .cloned()
            .unwrap_or_default();
        let own = own.map(|own| Properties::read(tree, own)).unwrap_or_default();
        let heading = own.heading.or(style.heading);
        let empty = tree.descend(id, &|tree, id| matches!(tree.name(id), "w:t" | "w:sym"), 1).is_empty();
        let marker = match own.list.or(style.list) {
            // List 0 takes a paragraph out of its style's list.
            Some((list, depth)) if list != "0" && !empty => {
                numbering.next(&list, depth).map(|marker| (marker, depth))
            }
            _ => None,
        };
        match (heading, marker) {
            (Some(level), Some((marker, _))) => Role::MarkedHeading(level, marker),
            (Some(level), None) => Role::Heading(level),
            (None, Some((marker, depth))) if marker.is_empty() => Role::Item(depth, marker),
            (None, Some((marker, _))) => Role::Marked(marker),
            (None, None) => Role::Block,
        }
    }

    fn label(&self, prefix: &'static str, id: &str) -> String {
        match self.labels.get(&(prefix, id.to_owned())) {
            Some(number) => format!("{prefix}{number}"),
            None => format!("{prefix}{id}"),
        }
    }
}

impl Dialect for Docx {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        match tree.name(id) {
            "w:p" => self.paragraphs.get(&id).cloned().unwrap_or(Role::Block),
            "w:footnoteReference" => {
                Role::FootnoteMark(self.label("", tree.attr(id, "w:id").unwrap_or_default()))
            }
            "w:endnoteReference" => {
                Role::FootnoteMark(self.label("e", tree.attr(id, "w:id").unwrap_or_default()))
            }
            "w:tbl" => Role::Table,
            "w:sdt" | "w:sdtContent" | "w:body" | "w:txbxContent" => Role::Block,
            _ => run(tree, id),
        }
    }
}

/// Elements of notes: text only.
struct NoteText;

impl Dialect for NoteText {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        match tree.name(id) {
            "w:p" => Role::Spaced,
            _ => run(tree, id),
        }
    }
}

/// Elements inside a paragraph.
fn run(tree: &Tree, id: NodeId) -> Role {
    match tree.name(id) {
        "w:pPr" | "w:rPr" | "w:tblPr" | "w:trPr" | "w:tcPr" | "w:sectPr" | "w:sdtPr" | "w:sdtEndPr"
        | "w:tblGrid" => Role::Skip,
        "w:del" | "w:moveFrom" | "w:instrText" | "w:delText" | "w:fldData" | "mc:Fallback"
        | "w:footnoteRef" | "w:endnoteRef" | "wp:positionH" | "wp:positionV" => Role::Skip,
        // Numbers of drawings' places and sizes are stored as text.
        "wp14:sizeRelH" | "wp14:sizeRelV" | "wp:docPr" => Role::Skip,
        "w:tab" | "w:ptab" => Role::Text(" ".to_owned()),
        "w:noBreakHyphen" => Role::Text("-".to_owned()),
        "w:br" | "w:cr" => Role::Break,
        "w:r" if hidden(tree, id) => Role::Skip,
        _ => Role::Inline,
    }
}

fn hidden(tree: &Tree, id: NodeId) -> bool {
    tree.opens_with(id, "w:rPr")
        && tree.child(id, "w:rPr").is_some_and(|own| {
            tree.child(own, "w:vanish")
                .is_some_and(|vanish| !matches!(tree.attr(vanish, "w:val"), Some("0" | "false")))
        })
}
