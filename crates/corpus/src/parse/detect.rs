//! Which format bytes are in, told by the bytes alone.

use super::{ParseError, encoding, plain};

/// The formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Portable Document Format.
    Pdf,
    /// Office Open XML word processing.
    Docx,
    /// ZIP archive of any of these.
    Zip,
    /// EDGAR full submission: SGML header and documents.
    Edgar,
    /// UU-encoded data with nothing around it.
    UuEncoded,
    /// USPTO full text of 1976–2001 ("Green Book").
    UsptoText,
    /// USPTO grant or application XML, one or many in a file.
    UsptoXml,
    /// United States Legislative Markup.
    Uslm,
    /// The House and Senate bill DTD.
    BillDtd,
    /// Federal Register issue or document, GPO XML.
    FederalRegister,
    /// Electronic Code of Federal Regulations, GPO XML.
    Ecfr,
    /// CFPB regulations XML.
    Eregs,
    /// Code of the District of Columbia XML.
    DcCode,
    /// Case law, Fastcase XML.
    CaseXml,
    /// Case law, HTML of the Caselaw Access Project.
    CaseHtml,
    /// Docket or notice of electronic filing, HTML of CM/ECF (PACER).
    PacerHtml,
    /// Bill in HTML or XHTML.
    BillHtml,
    /// Any other HTML.
    Html,
    /// Any other XML.
    Xml,
    /// Markdown.
    Markdown,
    /// Plain text.
    Text,
}

impl Format {
    /// MIME type of files of this format.
    pub fn mime_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Zip => "application/zip",
            Self::CaseHtml | Self::PacerHtml | Self::BillHtml | Self::Html => "text/html",
            Self::UsptoXml
            | Self::Uslm
            | Self::BillDtd
            | Self::FederalRegister
            | Self::Ecfr
            | Self::Eregs
            | Self::DcCode
            | Self::CaseXml
            | Self::Xml => "application/xml",
            Self::Markdown => "text/markdown",
            Self::UuEncoded => "text/x-uuencode",
            Self::Edgar | Self::UsptoText | Self::Text => "text/plain",
        }
    }
}

/// Bytes of the start that are looked at.
const HEAD: usize = 16 << 10;

/// Formats without text for us, by their first bytes.
const NO_TEXT: [(&[u8], &str); 11] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\x7fELF", "application/x-elf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"RIFF", "application/x-riff"),
    (b"OggS", "application/ogg"),
];

/// Tells the format.
///
/// # Errors
/// [`ParseError::Empty`], [`ParseError::NoText`] for images and the like, [`ParseError::Unknown`] for other binary data.
pub fn detect(bytes: &[u8]) -> Result<Format, ParseError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ParseError::Empty);
    }
    // Readers accept a PDF header anywhere in the first kilobyte.
    if find(&bytes[..bytes.len().min(1024)], b"%PDF-").is_some()
        && !bytes.starts_with(b"<")
        && !bytes.starts_with(b"PK")
    {
        return Ok(Format::Pdf);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        let docx =
            find(bytes, b"word/document.xml").is_some() && find(bytes, b"[Content_Types].xml").is_some();
        return Ok(if docx { Format::Docx } else { Format::Zip });
    }
    if let Some((_, mime)) = NO_TEXT.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(ParseError::NoText { mime });
    }
    let head = readable_head(bytes)?;
    let start = head.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with("<SEC-DOCUMENT>") || start.starts_with("<SEC-HEADER>") || is_edgar(start) {
        return Ok(Format::Edgar);
    }
    if super::uuencode::is_header(start.lines().next().unwrap_or("")) {
        return Ok(Format::UuEncoded);
    }
    if start.starts_with("PATN") && (start.contains("\nWKU ") || start.contains("\rWKU "))
        || start.starts_with("HHHHHT")
    {
        return Ok(Format::UsptoText);
    }
    if let Some(root) = xml_root(start) {
        return Ok(xml_format(root, start));
    }
    if is_html(start) {
        return Ok(html_format(&head, bytes));
    }
    Ok(if plain::is_markdown(&head) { Format::Markdown } else { Format::Text })
}

/// The start of the bytes as text, for looking at only.
fn readable_head(bytes: &[u8]) -> Result<String, ParseError> {
    let head = &bytes[..bytes.len().min(HEAD)];
    if head.starts_with(&[0xff, 0xfe])
        || head.starts_with(&[0xfe, 0xff])
        || head.starts_with(b"<\0")
        || head.starts_with(b"\0<")
    {
        return encoding::decode(&head[..head.len() & !1]).or_else(|_| Ok(String::new()));
    }
    let control =
        head.iter().filter(|&&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0xc | 0x1b)).count();
    if head.contains(&0) || control * 20 > head.len() {
        let start = head.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        return Err(ParseError::Unknown { start });
    }
    Ok(String::from_utf8_lossy(head).into_owned())
}

fn is_edgar(start: &str) -> bool {
    start.starts_with("<DOCUMENT>") && start.contains("<TYPE>")
        || start.starts_with("-----BEGIN PRIVACY-ENHANCED MESSAGE-----") && start.contains("<SEC-")
}

/// Name of the first element, when the bytes look like XML rather than HTML.
fn xml_root(start: &str) -> Option<&str> {
    let mut rest = start;
    loop {
        rest = rest.trim_start();
        let skip = if rest.starts_with("<?") {
            rest.find("?>")? + 2
        } else if rest.starts_with("<!--") {
            rest.find("-->")? + 3
        } else if rest.starts_with("<!") {
            end_of_doctype(rest)?
        } else {
            break;
        };
        rest = &rest[skip..];
    }
    let name = rest.strip_prefix('<')?;
    let end = name.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).unwrap_or(name.len());
    let name = &name[..end];
    let valid = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let html = [
        "html", "head", "body", "div", "p", "table", "span", "title", "pre", "meta", "center", "article",
        "font", "h1", "h2", "b", "a", "style", "ul", "ol",
    ];
    let declared = start.starts_with("<?xml");
    let casebody = name == "section" && rest.contains("casebody") && rest.contains("class=");
    (valid
        && !casebody
        && (declared && !name.eq_ignore_ascii_case("html")
            || !html.contains(&name.to_ascii_lowercase().as_str())))
    .then_some(name)
}

/// Length of a `<!DOCTYPE …>` with its internal subset.
fn end_of_doctype(text: &str) -> Option<usize> {
    let mut brackets = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => brackets += 1,
            b']' => brackets = brackets.saturating_sub(1),
            b'>' if brackets == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn xml_format(root: &str, head: &str) -> Format {
    let local = root.rsplit(':').next().unwrap_or(root);
    if head.contains("schemas.gpo.gov/xml/uslm") || head.contains("xml.house.gov/schemas/uslm") {
        return Format::Uslm;
    }
    if head.contains("code.dccouncil.us/schemas") || head.contains("dc-library") {
        return Format::DcCode;
    }
    match local {
        "bill" | "resolution" | "amendment-doc" | "engrossed-amendment" => Format::BillDtd,
        "FEDREG" | "RULE" | "PRORULE" | "NOTICE" | "PRESDOCU" | "CORRECT" => Format::FederalRegister,
        "DLPSTEXTCLASS" | "ECFR" | "ECFRBRWS" | "DIV1" | "DIV2" | "DIV3" | "DIV4" | "DIV5" | "DIV6"
        | "DIV7" | "DIV8" | "DIV9" => Format::Ecfr,
        "regulation" if head.contains("eregs") => Format::Eregs,
        "notice" if head.contains("eregs") => Format::Eregs,
        "Case" => Format::CaseXml,
        "us-patent-grant" | "us-patent-application" | "patent-application-publication" => Format::UsptoXml,
        _ => Format::Xml,
    }
}

fn is_html(start: &str) -> bool {
    let lower: String = start.chars().take(4096).flat_map(char::to_lowercase).collect();
    if !lower.starts_with('<') {
        return lower.contains("<html") && lower.contains("<body");
    }
    let tags = [
        "<html",
        "<!doctype html",
        "<head",
        "<body",
        "<div",
        "<p>",
        "<p ",
        "<table",
        "<span",
        "<section",
        "<article",
        "<title",
        "<meta",
        "<center",
        "<pre",
        "<font",
        "<h1",
        "<h2",
        "<b>",
        "<a ",
        "<ul",
        "<ol",
        "<style",
    ];
    tags.iter().any(|tag| lower.contains(tag))
}

fn html_format(head: &str, bytes: &[u8]) -> Format {
    let lower = head.to_lowercase();
    let anywhere = |needle: &str| find(bytes, needle.as_bytes()).is_some();
    if lower.contains("casebody") && (lower.contains("head-matter") || lower.contains("class=\"opinion\"")) {
        Format::CaseHtml
    } else if lower.contains("cm/ecf") || lower.contains("dktrpt.pl") || anywhere("PACER Service Center") {
        Format::PacerHtml
    } else if lower.contains("lbexbody") || lower.contains(".lbex") || anywhere("class=\"lbex") {
        Format::BillHtml
    } else {
        Format::Html
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_content() {
        let cases: [(&[u8], Format); 16] = [
            (b"%PDF-1.4\n", Format::Pdf),
            (b"<?xml version='1.0'?><!DOCTYPE bill [<!ENTITY a 'b'>]>\n<bill><form/></bill>", Format::BillDtd),
            (b"<bill xmlns=\"http://schemas.gpo.gov/xml/uslm\"/>", Format::Uslm),
            (b"<FEDREG><VOL>1</VOL></FEDREG>", Format::FederalRegister),
            (b"<?xml version=\"1.0\"?><html xmlns='http://www.w3.org/1999/xhtml'><body class=\"lbexBody\">x", Format::BillHtml),
            (b"<section class=\"casebody\"><section class=\"head-matter\">", Format::CaseHtml),
            (b"<SEC-DOCUMENT>0000-1.txt\n", Format::Edgar),
            (b"PATN\nWKU  039305271\n", Format::UsptoText),
            (b"begin 644 a.txt\n#86)C\n`\nend\n", Format::UuEncoded),
            (b"Begin with the end in mind.", Format::Text),
            (b"# Title\n\ntext", Format::Markdown),
            (b"plain <b>not a page", Format::Text),
            (b"<Case><ShortName>A</ShortName></Case>", Format::CaseXml),
            (b"<note><to>x</to></note>", Format::Xml),
            (b"<!DOCTYPE html><title>LIVE CM/ECF</title>", Format::PacerHtml),
            (b"<p>paragraph</p>", Format::Html),
        ];
        for (bytes, format) in cases {
            assert_eq!(detect(bytes), Ok(format), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn images_binaries_and_nothing_are_refused_with_a_reason() {
        assert_eq!(detect(b" \n"), Err(ParseError::Empty));
        assert!(matches!(detect(b"\xff\xd8\xff\xe0"), Err(ParseError::NoText { mime: "image/jpeg" })));
        assert!(matches!(detect(b"\x00\x01\x02\x03"), Err(ParseError::Unknown { .. })));
    }
}
