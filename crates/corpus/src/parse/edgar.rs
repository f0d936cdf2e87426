//! EDGAR full submissions: an SGML header, then documents, some of them UU-encoded.
//!
//! One [`Parsed`] per document with text. Machine data (XBRL, spreadsheets' pages) and images are listed in the first
//! document's extras under `not_text`.

use super::{Budget, PART, ParseError, Parsed, iso_date, parse_within, plain, unreadable, uuencode};

/// Bytes between the brackets of an SGML mark, at most.
const LONGEST_MARK: usize = 32;

/// Reads a submission.
pub(super) fn parse(text: &str, budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    let header_end = text.find("<DOCUMENT>").unwrap_or(text.len());
    let header = Header::read(&text[..header_end]);
    let mut out: Vec<Parsed> = Vec::new();
    let mut not_text: Vec<String> = Vec::new();
    let mut rest = &text[header_end..];
    while let Some(start) = rest.find("<DOCUMENT>") {
        let after = &rest[start + "<DOCUMENT>".len()..];
        let end = after.find("</DOCUMENT>").unwrap_or(after.len());
        let document = Document::read(&after[..end]);
        rest = &after[end..];
        if budget.entries == 0 {
            return Err(ParseError::TooLarge {
                what: "documents of one submission",
                limit: super::MAX_ENTRIES as u64,
            });
        }
        budget.entries -= 1;
        if document.is_machine_data() {
            not_text.push(document.label());
            continue;
        }
        match document.parse(budget) {
            Ok(parsed) => {
                for mut parsed in parsed {
                    parsed.extra("document_type", document.kind);
                    parsed.extra("sequence", document.sequence);
                    parsed.extras.entry(PART.to_owned()).or_insert_with(|| document.filename.to_owned());
                    parsed.extra("description", document.description);
                    out.push(parsed);
                }
            }
            Err(ParseError::NoText { mime }) => not_text.push(format!("{} ({mime})", document.label())),
            Err(error) => out.push(unreadable(&document.label(), &error)),
        }
    }
    if out.is_empty() {
        return Err(ParseError::Incomplete {
            format: "an EDGAR submission",
            missing: "a document with text",
        });
    }
    for parsed in &mut out {
        header.fill(parsed);
    }
    if let Some(first) = out.first_mut() {
        first.extra("not_text", not_text.join("; "));
    }
    Ok(out)
}

/// Reads a UU-encoded file with nothing around it.
pub(super) fn parse_uuencoded(
    name: &str,
    text: &str,
    budget: &mut Budget,
) -> Result<Vec<Parsed>, ParseError> {
    let (inner, bytes) = uuencode::decode(text, budget.bytes)?;
    let label = if inner.is_empty() { name } else { &inner };
    nested(label, &bytes, budget)
}

/// Reads what was inside, one level deeper.
pub(super) fn nested(name: &str, bytes: &[u8], budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    if budget.nesting == 0 {
        return Err(ParseError::TooDeep { limit: super::MAX_NESTING });
    }
    budget.bytes = budget.bytes.saturating_sub(bytes.len() as u64);
    budget.nesting -= 1;
    let parsed = parse_within(name, bytes, budget);
    budget.nesting += 1;
    parsed
}

/// Facts of the submission.
#[derive(Default)]
struct Header {
    date: Option<String>,
    company: Option<String>,
    form: Option<String>,
    extras: Vec<(&'static str, String)>,
}

impl Header {
    fn read(text: &str) -> Self {
        let mut header = Self::default();
        for line in text.lines() {
            // "<ACCEPTANCE-DATETIME>2023…" or "COMPANY CONFORMED NAME:  EXAMPLE CORP".
            let pair = match line.trim().strip_prefix('<') {
                Some(tag) => tag.split_once('>'),
                None => line.trim().split_once(':'),
            };
            let Some((key, value)) = pair.map(|(key, value)| (key.trim(), value.trim())) else { continue };
            if value.is_empty() {
                continue;
            }
            let extra = match key {
                "ACCESSION NUMBER" => "accession_number",
                "CENTRAL INDEX KEY" => "cik",
                "STANDARD INDUSTRIAL CLASSIFICATION" => "sic",
                "STATE OF INCORPORATION" => "state_of_incorporation",
                "CONFORMED PERIOD OF REPORT" => "period",
                "SEC FILE NUMBER" => "file_number",
                "SEC ACT" => "act",
                "PUBLIC DOCUMENT COUNT" => "document_count",
                "CONFORMED SUBMISSION TYPE" => {
                    header.form.get_or_insert_with(|| value.to_owned());
                    continue;
                }
                "FILED AS OF DATE" => {
                    header.date.get_or_insert_with(|| iso_date(value));
                    continue;
                }
                "COMPANY CONFORMED NAME" => {
                    header.company.get_or_insert_with(|| value.to_owned());
                    continue;
                }
                _ => continue,
            };
            // The first filer's facts stand for the submission.
            if !header.extras.iter().any(|(known, _)| *known == extra) {
                header.extras.push((extra, value.to_owned()));
            }
        }
        header
    }

    fn fill(&self, parsed: &mut Parsed) {
        for (key, value) in &self.extras {
            parsed.extra(key, value.clone());
        }
        parsed.extra("company", self.company.clone().unwrap_or_default());
        parsed.extra("form", self.form.clone().unwrap_or_default());
        if self.date.is_some() {
            parsed.date.clone_from(&self.date);
        }
        if let Some(company) = &self.company {
            let kind = parsed.extras.get("document_type").or(self.form.as_ref()).cloned().unwrap_or_default();
            let stated = parsed.title.take().filter(|title| !title.trim().is_empty());
            parsed.title = stated.or_else(|| Some(format!("{company} {kind}").trim().to_owned()));
        }
    }
}

/// One `<DOCUMENT>`.
struct Document<'a> {
    kind: &'a str,
    sequence: &'a str,
    filename: &'a str,
    description: &'a str,
    body: &'a str,
}

impl<'a> Document<'a> {
    fn read(text: &'a str) -> Self {
        let body_start = text.find("<TEXT>");
        let head = &text[..body_start.unwrap_or(text.len())];
        let body = body_start.map_or("", |start| &text[start + "<TEXT>".len()..]);
        let body = body.rfind("</TEXT>").map_or(body, |end| &body[..end]);
        let tag =
            |name: &str| head.lines().find_map(|line| line.trim().strip_prefix(name)).map_or("", str::trim);
        Self {
            kind: tag("<TYPE>"),
            sequence: tag("<SEQUENCE>"),
            filename: tag("<FILENAME>"),
            description: tag("<DESCRIPTION>"),
            body,
        }
    }

    fn label(&self) -> String {
        match self.filename {
            "" => format!("{} {}", self.sequence, self.kind).trim().to_owned(),
            name => name.to_owned(),
        }
    }

    /// XBRL instances and schemas, rendered spreadsheet pages and archives of them: data, not text.
    fn is_machine_data(&self) -> bool {
        self.kind.starts_with("EX-101") || matches!(self.kind, "XML" | "ZIP" | "EXCEL" | "JSON")
    }

    fn parse(&self, budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
        let body = unwrapped(self.body);
        let first = body.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
        if uuencode::is_header(first) {
            let (name, bytes) = uuencode::decode(body, budget.bytes)?;
            let name = if self.filename.is_empty() { name } else { self.filename.to_owned() };
            return nested(&name, &bytes, budget);
        }
        // Text with SGML marks looks like markup by its tables; only XML declared and pages with HTML's own elements are.
        if first.trim_start().starts_with("<?xml") || is_page(body) {
            return nested(self.filename, body.as_bytes(), budget);
        }
        if body.trim().is_empty() {
            return Err(ParseError::Empty);
        }
        text_with_marks(body)
    }
}

/// The body without the element that says what it is.
fn unwrapped(body: &str) -> &str {
    let trimmed = body.trim_start_matches(['\r', '\n', ' ']);
    for tag in ["PDF", "XML", "XBRL", "JSON"] {
        if let Some(rest) =
            trimmed.strip_prefix('<').and_then(|t| t.strip_prefix(tag)).and_then(|t| t.strip_prefix('>'))
        {
            let end = rest.rfind(&format!("</{tag}>")).unwrap_or(rest.len());
            // An XML declaration must come first.
            return rest[..end].trim_start();
        }
    }
    body
}

fn is_page(body: &str) -> bool {
    let mut cut = body.len().min(200_000);
    while !body.is_char_boundary(cut) {
        cut -= 1;
    }
    let lower = body[..cut].to_ascii_lowercase();
    ["<html", "<body", "<div", "<font", "<td", "<tr", "<p ", "<br"].iter().any(|tag| lower.contains(tag))
}

/// Text as EDGAR took it before HTML: lines, with `<PAGE>`, `<TABLE>`, `<CAPTION>`, `<S>`, `<C>` and footnote marks.
/// Tables keep their columns in a fence.
fn text_with_marks(body: &str) -> Result<Vec<Parsed>, ParseError> {
    let mut out = String::with_capacity(body.len());
    let mut fenced = false;
    for line in body.lines() {
        let upper = line.trim().to_ascii_uppercase();
        if upper.starts_with("<TABLE>") && !fenced {
            fenced = true;
            out.push_str("\n```\n");
        }
        let kept = without_marks(line);
        if !(kept.trim().is_empty() && upper.starts_with('<')) {
            out.push_str(&kept.replace("```", "'''"));
            out.push('\n');
        }
        if upper.ends_with("</TABLE>") && fenced {
            fenced = false;
            out.push_str("```\n\n");
        }
    }
    if fenced {
        out.push_str("```\n");
    }
    Ok(vec![Parsed { markdown: plain::tidy(&out), ..Parsed::default() }])
}

/// A line without its SGML marks, entities resolved.
fn without_marks(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(open) = rest.find('<') {
        kept.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        // No mark is longer: a line of nothing but `<` costs no more than another.
        let end = after.bytes().take(LONGEST_MARK + 1).position(|byte| byte == b'>');
        let mark = end.map(|end| &after[..end]).filter(|mark| {
            let name = mark.trim_start_matches('/');
            let known =
                ["PAGE", "TABLE", "CAPTION", "S", "C", "FN", "TEXT", "R", "ARTICLE", "LEGEND", "MULTIPLIER"];
            let footnote =
                name.len() <= 4 && name.strip_prefix(['F', 'f']).is_some_and(|n| n.parse::<u16>().is_ok());
            footnote || known.iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        match mark {
            Some(mark) => rest = &after[mark.len() + 1..],
            None => {
                kept.push('<');
                rest = after;
            }
        }
    }
    kept.push_str(rest);
    if kept.contains('&') {
        quick_xml::escape::unescape(&kept).map(|text| text.into_owned()).unwrap_or(kept)
    } else {
        kept
    }
}
