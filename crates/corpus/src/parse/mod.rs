//! Original files to documents in Markdown.
//!
//! In: the bytes of one file, whatever its name. Out: one [`Parsed`] per document it holds, or a [`ParseError`] that
//! says what was wrong and where. The format is told by the bytes ([`detect`]); each format has a file of its own.
//!
//! * A file of several documents (a Federal Register issue, an EDGAR submission, a ZIP) gives several. A part that
//!   cannot be read is not dropped in silence: it comes back with empty text and the reason in the extras under
//!   [`PARSE_ERROR`].
//! * Input is hostile: nesting, expansion, sizes and time are limited, and what exceeds a limit is a typed error.
//! * Text is kept in the order of the source. Headings, enumerators, paragraphs, tables and footnotes survive as
//!   Markdown; emphasis and links do not (see `markdown`).

mod bill_dtd;
mod case_law;
mod dc_code;
mod detect;
mod docx;
mod ecfr;
mod edgar;
mod encoding;
mod eregs;
mod federal_register;
mod gpo;
mod html;
mod html_tree;
mod markdown;
mod pdf;
mod pdf_layout;
mod pdf_size;
mod plain;
mod tree;
mod uslm;
mod uspto_text;
mod uspto_xml;
mod uuencode;
mod walk;
mod xml;
mod zip;

use std::collections::BTreeMap;

pub use detect::{Format, detect};

/// Key in [`Parsed::extras`] under which the reason stands why a part of a file could not be read.
pub const PARSE_ERROR: &str = "parse_error";

/// Key in [`Parsed::extras`] of the MIME type of the bytes that this document was read from.
pub const MIME_TYPE: &str = "mime_type";

/// Key in [`Parsed::extras`] of the name of the part (file in a ZIP, document of a submission) this was read from.
pub const PART: &str = "part";

/// Largest file read, in bytes.
pub const MAX_INPUT: u64 = 1 << 30;

/// Largest single XML or HTML document made into a tree, in bytes of text.
pub const MAX_MARKUP: u64 = 128 << 20;

/// One document out of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Title, when the source states one.
    pub title: Option<String>,
    /// Date, `YYYY-MM-DD` where the source's could be understood, else as written.
    pub date: Option<String>,
    /// Address, when the source states one.
    pub url: Option<String>,
    /// Everything else the source says about the document: docket numbers, citations, agencies, …
    pub extras: BTreeMap<String, String>,
    /// The text.
    pub markdown: String,
}

impl Parsed {
    /// Adds an extra; empty values are not kept.
    pub(crate) fn extra(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.trim().is_empty() {
            self.extras.insert(key.to_owned(), value);
        }
    }
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing in the file.
    #[error("the file is empty")]
    Empty,
    /// Bytes of no known format.
    #[error(
        "the bytes are no format that can be read (they start with {start}); give HTML, XML, PDF, DOCX, ZIP or text"
    )]
    Unknown {
        /// The first bytes, in hexadecimal.
        start: String,
    },
    /// A known format that holds no text for us: an image, a sound, an executable.
    #[error("{mime} holds no text")]
    NoText {
        /// Its MIME type.
        mime: &'static str,
    },
    /// Bytes that are not in the encoding declared for them.
    #[error("not valid {label} at byte {offset}; state the encoding in the file or convert it to UTF-8")]
    Encoding {
        /// The encoding.
        label: String,
        /// Where it breaks, in bytes.
        offset: u64,
    },
    /// XML that is not well formed.
    #[error("not well-formed XML at byte {offset}: {reason}")]
    Xml {
        /// Where, in bytes of the decoded text.
        offset: u64,
        /// What the XML reader says.
        reason: String,
    },
    /// A reference to an entity that the document declares itself: these are not expanded.
    #[error("the XML uses an entity of its own, &{name};: such entities are refused, expand them beforehand")]
    Entity {
        /// The entity.
        name: String,
    },
    /// Elements or archives nested too deep.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Something beyond its limit in size.
    #[error("{what}: more than the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Took longer than allowed.
    #[error("not read within {seconds} s")]
    TooSlow {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// A damaged or encrypted PDF.
    #[error("the PDF cannot be read: {reason}")]
    Pdf {
        /// What is wrong with it.
        reason: String,
    },
    /// A damaged ZIP or DOCX.
    #[error("the ZIP archive cannot be read: {reason}")]
    Zip {
        /// What is wrong with it.
        reason: String,
    },
    /// A file that lacks a part its format requires.
    #[error("{format} without {missing}")]
    Incomplete {
        /// The format.
        format: &'static str,
        /// What was looked for.
        missing: &'static str,
    },
}

/// What is left to spend on one file and everything inside it.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Archives and submissions still allowed inside each other.
    nesting: usize,
    /// Bytes that may still be inflated or decoded.
    bytes: u64,
    /// Entries that may still be opened.
    entries: usize,
}

/// Archives inside archives: a docket's ZIP of ZIPs is two deep.
const MAX_NESTING: usize = 4;
/// Inflated bytes over a whole file.
const MAX_INFLATED: u64 = 1 << 30;
/// Entries over a whole file.
const MAX_ENTRIES: usize = 100_000;

impl Default for Budget {
    fn default() -> Self {
        Self { nesting: MAX_NESTING, bytes: MAX_INFLATED, entries: MAX_ENTRIES }
    }
}

/// Reads a file.
///
/// `name` is where the bytes came from; it is never used to tell the format, only as a title of last resort for parts.
///
/// # Errors
/// [`ParseError`] when nothing of the file could be read.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Parsed>, ParseError> {
    parse_within(name, bytes, &mut Budget::default())
}

/// [`parse`], inside another file.
pub(crate) fn parse_within(name: &str, bytes: &[u8], budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    read(detect(bytes)?, name, bytes, budget)
}

/// Reads a file as a format, whatever its bytes look like.
///
/// # Errors
/// [`ParseError`] when the bytes are not of that format.
pub fn parse_as(format: Format, name: &str, bytes: &[u8]) -> Result<Vec<Parsed>, ParseError> {
    read(format, name, bytes, &mut Budget::default())
}

fn read(format: Format, name: &str, bytes: &[u8], budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    if bytes.len() as u64 > MAX_INPUT {
        return Err(ParseError::TooLarge { what: "bytes of one file", limit: MAX_INPUT });
    }
    let text = || encoding::decode(bytes);
    let mut parsed = match format {
        Format::Pdf => pdf::parse(bytes)?,
        Format::Docx => match docx::parse(bytes, budget) {
            // An archive that holds such a file as it is looks like one.
            Err(ParseError::Incomplete { .. }) => zip::parse(name, bytes, budget)?,
            read => read?,
        },
        Format::Zip => zip::parse(name, bytes, budget)?,
        Format::Edgar => edgar::parse(&text()?, budget)?,
        Format::UuEncoded => edgar::parse_uuencoded(name, &text()?, budget)?,
        Format::UsptoText => uspto_text::parse(&text()?)?,
        Format::UsptoXml => uspto_xml::parse(&text()?)?,
        Format::Uslm => uslm::parse(&text()?)?,
        Format::BillDtd => bill_dtd::parse(&text()?)?,
        Format::FederalRegister => federal_register::parse(&text()?)?,
        Format::Ecfr => ecfr::parse(&text()?)?,
        Format::Eregs => eregs::parse(&text()?)?,
        Format::DcCode => dc_code::parse(&text()?)?,
        Format::CaseXml => case_law::parse_xml(&text()?)?,
        Format::CaseHtml => case_law::parse_html(&text()?)?,
        Format::Xml => xml::parse(&text()?)?,
        Format::PacerHtml | Format::BillHtml | Format::Html => html::parse(&text()?, format)?,
        Format::Markdown | Format::Text => plain::parse(&text()?)?,
    };
    for document in &mut parsed {
        // Titles and numbers come from attributes and fields that no writer of Markdown has seen.
        document.markdown.retain(|c| matches!(c, '\n' | '\t') || !c.is_control());
        document.title.iter_mut().for_each(|title| title.retain(|c| !c.is_control()));
        document.extras.entry(MIME_TYPE.to_owned()).or_insert_with(|| format.mime_type().to_owned());
    }
    Ok(parsed)
}

/// The document that stands for a part that could not be read.
pub(crate) fn unreadable(part: &str, error: &ParseError) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.extra(PART, part);
    parsed.extra(PARSE_ERROR, error.to_string());
    parsed
}

/// `20240212`, `2024-02-12`, `02-12-2024`, `02/12/2024`, `February 12, 2024` (with or without a weekday) as
/// `2024-02-12`; anything else as it is.
pub(crate) fn iso_date(text: &str) -> String {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let text = text.trim().trim_end_matches('.');
    let build = |year: &str, month: u32, day: &str| -> Option<String> {
        let (year, day): (u32, u32) = (year.parse().ok()?, day.parse().ok()?);
        ((1500..2200).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day))
            .then(|| format!("{year:04}-{month:02}-{day:02}"))
    };
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let found = match words.as_slice() {
        [all] if all.len() == 8 && all.is_ascii() => {
            all[4..6].parse().ok().and_then(|month| build(&all[..4], month, &all[6..]))
        }
        [year, month, day] if year.len() == 4 && year.starts_with(|c: char| c.is_ascii_digit()) => {
            month.parse().ok().and_then(|month| build(year, month, day))
        }
        [month, day, year] if month.len() <= 2 && year.len() == 4 => {
            month.parse().ok().and_then(|month| build(year, month, day))
        }
        [.., month, day, year] => {
            let start: String = month.chars().take(3).flat_map(char::to_lowercase).collect();
            MONTHS.iter().position(|m| *m == start).and_then(|at| build(year, at as u32 + 1, day))
        }
        _ => None,
    };
    found.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_iso_and_strange_ones_stay() {
        for (given, expected) in [
            ("20240212", "2024-02-12"),
            ("2024-2-3", "2024-02-03"),
            ("10-09-2014", "2014-10-09"),
            ("Monday, February 12, 2024", "2024-02-12"),
            ("Sept. 29, 2014.", "2014-09-29"),
            ("the third day of January", "the third day of January"),
            ("99999999", "99999999"),
            ("20240200", "20240200"),
            ("日本語日本語日本", "日本語日本語日本"),
        ] {
            assert_eq!(iso_date(given), expected);
        }
    }
}
