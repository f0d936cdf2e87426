//! USPTO full text of 1976–2001, the "Green Book" format.
//!
//! Lines open with a field name of up to four characters in columns 1–4 and text from column 6; a line that opens with
//! five blanks goes on. A name alone opens a section (`ABST`, `BSUM`, `CLMS`, …); `PATN` opens a patent.

use super::markdown::Markdown;
use super::{ParseError, Parsed, iso_date};

/// A field of the file: its name and its lines.
struct Field<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl Field<'_> {
    fn text(&self) -> String {
        self.lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

/// Reads a file of patents.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let mut out = Vec::new();
    let mut patent: Vec<Field<'_>> = Vec::new();
    for field in fields(text) {
        if field.name == "PATN" && !patent.is_empty() {
            out.extend(document(&patent));
            patent.clear();
        }
        patent.push(field);
    }
    out.extend(document(&patent));
    if out.is_empty() {
        return Err(ParseError::Incomplete { format: "USPTO text", missing: "a PATN section" });
    }
    Ok(out)
}

fn fields(text: &str) -> Vec<Field<'_>> {
    let mut all: Vec<Field<'_>> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let name = line.get(..4).unwrap_or(line).trim_end();
        let named = !line.starts_with(' ')
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            && line.get(4..5).is_none_or(|gap| gap == " ");
        match all.last_mut() {
            Some(last) if !named => last.lines.push(line.strip_prefix("     ").unwrap_or(line)),
            _ => all.push(Field { name, lines: vec![line.get(5..).unwrap_or("")] }),
        }
    }
    all
}

/// Sections that are text, and their headings.
fn section(name: &str) -> Option<&'static str> {
    Some(match name {
        "ABST" => "Abstract",
        "GOVT" => "Government Interest",
        "PARN" => "Related Applications",
        "BSUM" => "Summary",
        "DRWD" => "Brief Description of the Drawings",
        "DETD" => "Detailed Description",
        "CLMS" => "Claims",
        "DCLM" => "Design Claim",
        _ => return None,
    })
}

fn document(fields: &[Field<'_>]) -> Option<Parsed> {
    if !fields.iter().any(|field| field.name == "PATN") {
        return None;
    }
    let mut parsed = Parsed::default();
    let mut md = Markdown::new();
    let (mut group, mut inventors, mut assignees) = ("", Vec::new(), Vec::new());
    let mut claim: Option<String> = None;
    for field in fields {
        let text = field.text();
        if text.is_empty() && field.name.len() == 4 {
            group = field.name;
            if let Some(heading) = section(group) {
                md.heading(2, |md| md.text(heading));
            }
            continue;
        }
        if section(group).is_some() {
            write_field(field, &text, &mut claim, &mut md);
            continue;
        }
        match (group, field.name) {
            ("PATN", "WKU") => parsed.extra("number", number(&text)),
            ("PATN", "TTL") => {
                md.heading(1, |md| md.text(&text));
                parsed.title = Some(text);
            }
            ("PATN", "ISD") => parsed.date = Some(iso_date(&text)),
            ("PATN", "APN") => parsed.extra("application_number", text),
            ("PATN", "APD") => parsed.extra("application_date", iso_date(&text)),
            ("PATN", "EXP") => parsed.extra("examiner", text),
            ("INVT", "NAM") => inventors.push(text),
            ("ASSG", "NAM") => assignees.push(text),
            ("CLAS", "OCL") => parsed.extra("us_class", text),
            ("CLAS", "ICL") => parsed.extra("ipc", text),
            _ => {}
        }
    }
    parsed.extra("country", "US");
    parsed.extra("inventors", inventors.join("; "));
    parsed.extra("assignees", assignees.join("; "));
    parsed.markdown = md.finish();
    Some(parsed)
}

/// A field inside a text section.
fn write_field(field: &Field<'_>, text: &str, claim: &mut Option<String>, md: &mut Markdown) {
    match field.name {
        // The number of the claim that the next paragraph opens; most paragraphs repeat it.
        "NUM" => *claim = Some(text.to_owned()),
        "PAC" => md.heading(3, |md| md.text(text)),
        "TBL" | "EQU" | "CHM" => {
            let lines = field.lines.join("\n");
            md.block(&format!(
                "```\n{}\n```",
                lines.trim_end().trim_start_matches('\n').replace("```", "'''")
            ));
        }
        _ => {
            md.end();
            if let Some(number) = claim.take()
                && !text.starts_with(&number)
            {
                md.text(&number);
                md.space();
            }
            md.text(text);
            md.end();
        }
    }
}

/// `039305271`: type digit or letter and seven digits, then a check digit.
fn number(wku: &str) -> String {
    let wku = wku.trim();
    let digits = wku.get(..wku.len().saturating_sub(1)).unwrap_or(wku);
    digits.trim_start_matches('0').to_owned()
}
