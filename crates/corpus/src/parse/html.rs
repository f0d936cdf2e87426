//! HTML: agency pages, bills, PACER dockets and notices, filings.
//!
//! Page furniture (navigation, site headers and footers, scripts, hidden parts, CM/ECF's menu and billing receipt) is
//! left out. A table becomes a Markdown table when it holds data, and blocks when it only lays out the page.

use std::collections::{HashMap, HashSet};

use super::detect::Format;
use super::html_tree::from_html;
use super::markdown::Markdown;
use super::tree::{Data, NodeId, Tree};
use super::walk::{Dialect, Role, cells, rows, write_children};
use super::{ParseError, Parsed, iso_date};

/// Reads a page.
pub(super) fn parse(text: &str, format: Format) -> Result<Vec<Parsed>, ParseError> {
    let tree = from_html(text)?;
    let dialect = Html::new(&tree, format);
    let mut md = Markdown::new();
    write_children(&tree, Tree::ROOT, &dialect, &mut md);
    let mut parsed = Parsed { markdown: md.finish(), ..Parsed::default() };
    parsed.title = tree.text_of(Tree::ROOT, "title").or_else(|| tree.text_of(Tree::ROOT, "h1"));
    metadata(&tree, &mut parsed);
    if format == Format::PacerHtml {
        pacer(&tree, &mut parsed);
    }
    Ok(vec![parsed])
}

/// Address, date and description from the page's head.
fn metadata(tree: &Tree, parsed: &mut Parsed) {
    for link in tree.find_all(Tree::ROOT, "link") {
        if tree.attr(link, "rel") == Some("canonical") {
            parsed.url = tree.attr(link, "href").map(str::to_owned).filter(|href| !href.is_empty());
        }
    }
    for meta in tree.find_all(Tree::ROOT, "meta") {
        let Some(name) = tree.attr(meta, "name").or_else(|| tree.attr(meta, "property")) else { continue };
        let content = tree.attr(meta, "content").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "dc.date" | "dcterms.date" | "date" | "article:published_time" | "dcterms.created" => {
                parsed.date = Some(iso_date(content.get(..10).unwrap_or(content)));
            }
            "description" | "dc.description" => parsed.extra("description", content),
            "dc.creator" | "author" => parsed.extra("creator", content),
            "dc.rights" | "dcterms.rights" => parsed.extra("rights", content),
            _ => {}
        }
    }
}

/// Facts of a docket sheet or notice.
fn pacer(tree: &Tree, parsed: &mut Parsed) {
    let heading =
        parsed.markdown.lines().find_map(|line| line.strip_prefix("### ")).unwrap_or_default().to_owned();
    if let Some((before, number)) = heading.split_once("CASE #:") {
        parsed.extra("docket", number.trim());
        parsed.extra(
            "court",
            before.split(" CIVIL ").next().and_then(|t| t.split(" CRIMINAL ").next()).unwrap_or(""),
        );
    }
    let text = tree.text(Tree::ROOT);
    let after = |label: &str, end: &[&str]| -> Option<String> {
        let rest = text.split_once(label)?.1;
        let cut = end.iter().filter_map(|end| rest.find(end)).min()?;
        Some(rest.get(..cut)?.trim().to_owned()).filter(|found| !found.is_empty() && found.len() < 300)
    };
    if let Some(filed) = after("Date Filed: ", &["Date Terminated", "Jury Demand", " "]) {
        parsed.date = Some(iso_date(filed.split(' ').next().unwrap_or_default()));
    } else if let Some(filed) = after("and filed on ", &[" "]) {
        parsed.date = Some(iso_date(&filed));
    }
    let number = parsed.extras.get("docket").cloned().unwrap_or_default();
    let on_sheet = if number.is_empty() {
        None
    } else {
        after(&format!("CASE #: {number}"), &["Assigned to:", "Date Filed:"])
    };
    if let Some(name) = after("Case Name:", &["Case Number:"]).or(on_sheet) {
        parsed.title = Some(name);
    }
    if let Some(number) = after("Case Number:", &["Filer:", "Document Number:", "Docket Text:"]) {
        parsed.extra("docket", number);
    }
    if let Some(suit) = after("Nature of Suit: ", &["Jurisdiction:"]) {
        parsed.extra("nature_of_suit", suit);
    }
}

/// Elements that are never text.
const NO_TEXT: [&str; 20] = [
    "head",
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "iframe",
    "object",
    "embed",
    "select",
    "button",
    "input",
    "textarea",
    "nav",
    "canvas",
    "audio",
    "video",
    "map",
    "ix:header",
    "title",
];

/// Elements inside running text.
const INLINE: [&str; 45] = [
    "a",
    "abbr",
    "acronym",
    "b",
    "bdi",
    "bdo",
    "big",
    "cite",
    "code",
    "data",
    "del",
    "dfn",
    "em",
    "font",
    "i",
    "ins",
    "kbd",
    "label",
    "mark",
    "nobr",
    "o:p",
    "q",
    "rp",
    "rt",
    "ruby",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "time",
    "tt",
    "u",
    "var",
    "wbr",
    "ix:nonnumeric",
    "ix:nonfraction",
    "ix:continuation",
    "ix:fraction",
    "ix:footnote",
    "blink",
    "page",
];

/// What a pass over the whole page found out about single elements.
pub(super) struct Html {
    format: Format,
    /// List items: depth and marker.
    items: HashMap<NodeId, (usize, String)>,
    /// Tables that hold data.
    data_tables: HashSet<NodeId>,
}

impl Html {
    pub(super) fn new(tree: &Tree, format: Format) -> Self {
        let mut html = Self { format, items: HashMap::new(), data_tables: HashSet::new() };
        let lists = tree.descend(
            Tree::ROOT,
            &|tree, id| matches!(tree.name(id), "ol" | "ul" | "menu" | "dir"),
            usize::MAX,
        );
        for list in lists {
            html.number(tree, list);
        }
        for table in tree.find_all(Tree::ROOT, "table") {
            if holds_data(tree, table) {
                html.data_tables.insert(table);
            }
        }
        html
    }

    fn number(&mut self, tree: &Tree, list: NodeId) {
        let mut depth = 0;
        let mut at = tree.parent(list);
        while let Some(id) = at {
            depth += usize::from(matches!(tree.name(id), "ol" | "ul" | "menu" | "dir"));
            at = tree.parent(id);
        }
        let ordered = tree.name(list) == "ol";
        let start = tree.attr(list, "start").and_then(|start| start.trim().parse::<i64>().ok()).unwrap_or(1);
        let style = tree.attr(list, "type").unwrap_or("1");
        let mut number = start;
        for &item in tree.children(list) {
            if tree.name(item) != "li" {
                continue;
            }
            if let Some(value) = tree.attr(item, "value").and_then(|value| value.trim().parse().ok()) {
                number = value;
            }
            let marker = if ordered { format!("{}.", enumerator(number, style)) } else { String::new() };
            self.items.insert(item, (depth, marker));
            number = number.saturating_add(1);
        }
    }
}

/// A list number in HTML's `type`: `1`, `a`, `A`, `i` or `I`.
pub(super) fn enumerator(number: i64, style: &str) -> String {
    match style {
        "a" | "A" if number > 0 => {
            let (mut rest, mut letters) = (number, Vec::new());
            while rest > 0 {
                rest -= 1;
                letters.push(char::from(b'a' + (rest % 26) as u8));
                rest /= 26;
            }
            let text: String = letters.iter().rev().collect();
            if style == "A" { text.to_uppercase() } else { text }
        }
        "i" | "I" if (1..4000).contains(&number) => {
            const STEPS: [(i64, &str); 13] = [
                (1000, "m"),
                (900, "cm"),
                (500, "d"),
                (400, "cd"),
                (100, "c"),
                (90, "xc"),
                (50, "l"),
                (40, "xl"),
                (10, "x"),
                (9, "ix"),
                (5, "v"),
                (4, "iv"),
                (1, "i"),
            ];
            let (mut rest, mut text) = (number, String::new());
            for (value, numeral) in STEPS {
                while rest >= value {
                    text.push_str(numeral);
                    rest -= value;
                }
            }
            if style == "I" { text.to_uppercase() } else { text }
        }
        _ => number.to_string(),
    }
}

/// Whether a table holds data in rows and columns, rather than laying out the page.
fn holds_data(tree: &Tree, table: NodeId) -> bool {
    if matches!(tree.attr(table, "role"), Some("presentation" | "none")) {
        return false;
    }
    let block = |tree: &Tree, id: NodeId| {
        matches!(
            tree.name(id),
            "table" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "pre" | "hr" | "blockquote"
        )
    };
    if !tree.descend(table, &block, 1).is_empty() {
        return false;
    }
    let rows = rows(tree, table);
    let mut full_rows = 0;
    for row in &rows {
        let cells = cells(tree, *row);
        full_rows += usize::from(cells.iter().filter(|&&cell| has_text(tree, cell)).count() > 1);
        // An address over many lines is layout.
        let lines = |cell: &NodeId| {
            tree.descend(*cell, &|tree, id| matches!(tree.name(id), "br" | "p" | "div"), 4).len()
        };
        if cells.iter().any(|cell| lines(cell) > 3) {
            return false;
        }
    }
    full_rows >= 2
}

fn has_text(tree: &Tree, id: NodeId) -> bool {
    let text =
        |tree: &Tree, id: NodeId| matches!(&tree.node(id).data, Data::Text(text) if !text.trim().is_empty());
    !tree.descend(id, &text, 1).is_empty()
}

impl Dialect for Html {
    fn role(&self, tree: &Tree, id: NodeId) -> Role {
        let name = tree.name(id);
        if NO_TEXT.contains(&name) || self.is_furniture(tree, id, name) {
            return Role::Skip;
        }
        if self.format == Format::BillHtml
            && matches!(name, "p" | "div")
            && let Some(level) = bill_heading(tree, id)
        {
            return Role::Heading(level);
        }
        match name {
            "br" => Role::Break,
            "h1" => Role::Heading(1),
            "h2" => Role::Heading(2),
            "h3" => Role::Heading(3),
            "h4" => Role::Heading(4),
            "h5" => Role::Heading(5),
            "h6" => Role::Heading(6),
            "li" => match self.items.get(&id) {
                Some((depth, marker)) => Role::Item(*depth, marker.clone()),
                None => Role::Item(0, String::new()),
            },
            "table" if self.data_tables.contains(&id) => Role::Table,
            "td" | "th" => layout_cell(tree, id),
            "pre" | "xmp" | "listing" | "plaintext" => Role::Verbatim,
            "blockquote" => Role::Quote,
            name if INLINE.contains(&name) => Role::Inline,
            _ => Role::Block,
        }
    }
}

impl Html {
    fn is_furniture(&self, tree: &Tree, id: NodeId, name: &str) -> bool {
        if matches!(name, "header" | "footer")
            && tree.parent(id).is_some_and(|parent| !in_article(tree, parent))
        {
            return true;
        }
        if matches!(tree.attr(id, "role"), Some("navigation" | "banner" | "contentinfo" | "search"))
            || tree.attr(id, "hidden").is_some()
            || tree.attr(id, "aria-hidden") == Some("true")
        {
            return true;
        }
        if let Some(style) = tree.attr(id, "style") {
            let style: String = style.chars().filter(|c| !c.is_whitespace()).take(2000).collect();
            if style.to_ascii_lowercase().contains("display:none") {
                return true;
            }
        }
        if let Some(class) = tree.attr(id, "class") {
            let hidden = [
                "visually-hidden",
                "sr-only",
                "usa-sr-only",
                "skip-link",
                "skiplink",
                "usa-banner",
                "breadcrumb",
                "noprint",
            ];
            if class.split_ascii_whitespace().any(|class| hidden.contains(&class)) {
                return true;
            }
        }
        // CM/ECF appends a bill for the page view.
        self.format == Format::PacerHtml
            && name == "table"
            && rows(tree, id).first().is_some_and(|&row| tree.text(row).starts_with("PACER Service Center"))
    }
}

/// Whether a node is inside an article or the page's main part: a header there is a heading, not the site's.
fn in_article(tree: &Tree, id: NodeId) -> bool {
    let mut at = Some(id);
    while let Some(id) = at {
        if matches!(tree.name(id), "article" | "main") {
            return true;
        }
        at = tree.parent(id);
    }
    false
}

/// A cell of a table that lays out the page: a block when it holds lines, else part of its row's line.
fn layout_cell(tree: &Tree, id: NodeId) -> Role {
    let block = |tree: &Tree, id: NodeId| {
        !matches!(tree.node(id).data, Data::Text(_)) && !INLINE.contains(&tree.name(id))
    };
    if tree.descend(id, &block, 1).is_empty() { Role::Spaced } else { Role::Block }
}

/// Level of the heading that a paragraph of a bill is, by the class of it or of what opens it.
fn bill_heading(tree: &Tree, id: NodeId) -> Option<u8> {
    let level = |id: NodeId| {
        let class = tree.attr(id, "class")?;
        [
            ("lbexLegisType", 1),
            ("lbexTitleLevel", 2),
            ("lbexDivisionLevel", 2),
            ("lbexChapterLevel", 3),
            ("lbexSubtitleLevel", 3),
            ("lbexPartLevel", 3),
            ("lbexSectionlevel", 4),
        ]
        .iter()
        .find(|(start, _)| class.starts_with(start))
        .map(|(_, level)| *level)
    };
    // A paragraph around paragraphs is no heading.
    let inner_block = |tree: &Tree, id: NodeId| matches!(tree.name(id), "p" | "div" | "table");
    if tree.children(id).len() > 12 || !tree.descend(id, &inner_block, 1).is_empty() {
        return None;
    }
    level(id).or_else(|| {
        let mut seen = tree.children(id).iter().filter(|&&child| match &tree.node(child).data {
            Data::Text(text) => !text.trim().is_empty(),
            Data::Element(name, _) => &**name != "a" || has_text(tree, child),
            _ => false,
        });
        let &first = seen.next()?;
        let first = if matches!(tree.name(first), "b" | "strong" | "center") {
            tree.children(first).iter().copied().find(|&child| !tree.name(child).is_empty())?
        } else {
            first
        };
        (tree.name(first) == "span").then(|| level(first)).flatten()
    })
}
