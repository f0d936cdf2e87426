//! Bytes to text: byte-order mark, declared encoding, UTF-8, and Windows-1252 where nothing was declared.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::ParseError;

/// Decodes a document.
///
/// # Errors
/// [`ParseError::Encoding`] where bytes are not what the document says they are. A document that declares nothing is
/// UTF-8 or, failing that, Windows-1252, unless it holds NUL bytes: then it is not text.
pub(super) fn decode(bytes: &[u8]) -> Result<String, ParseError> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return strictly(encoding, &bytes[mark..]);
    }
    if bytes.starts_with(b"<\0") {
        return strictly(UTF_16LE, bytes);
    }
    if bytes.starts_with(b"\0<") {
        return strictly(UTF_16BE, bytes);
    }
    if let Some(label) = declared(bytes) {
        let Some(encoding) = Encoding::for_label(label.as_bytes()) else {
            return Err(ParseError::Encoding { label, offset: 0 });
        };
        // A declaration that could be read as ASCII proves that the text is not UTF-16.
        let encoding = if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding };
        return strictly(encoding, bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) if bytes.contains(&0) => {
            Err(ParseError::Encoding { label: "UTF-8".into(), offset: error.valid_up_to() as u64 })
        }
        Err(_) => strictly(WINDOWS_1252, bytes),
    }
}

fn strictly(encoding: &'static Encoding, bytes: &[u8]) -> Result<String, ParseError> {
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        return Ok(text.into_owned());
    }
    let offset =
        if encoding == UTF_8 { std::str::from_utf8(bytes).err().map_or(0, |e| e.valid_up_to()) } else { 0 };
    Err(ParseError::Encoding { label: encoding.name().to_owned(), offset: offset as u64 })
}

/// The encoding that an XML declaration or an HTML `<meta>` names in the first 2,048 bytes.
fn declared(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(2048)];
    let head: String =
        head.iter().map(|&b| if b.is_ascii() { b.to_ascii_lowercase() as char } else { ' ' }).collect();
    let value = |from: usize| -> Option<String> {
        let rest = head.get(from..)?.trim_start().strip_prefix('=')?.trim_start();
        let rest = rest.trim_start_matches(['"', '\'']);
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)).unwrap_or(rest.len());
        (end > 0).then(|| rest[..end].to_owned())
    };
    if let Some(start) = head.find("<?xml") {
        let end = head[start..].find("?>").map_or(head.len(), |end| start + end);
        if let Some(at) = head[start..end].find("encoding") {
            return value(start + at + "encoding".len());
        }
    }
    let mut from = 0;
    while let Some(at) = head[from..].find("<meta") {
        let start = from + at;
        let end = head[start..].find('>').map_or(head.len(), |end| start + end);
        if let Some(at) = head[start..end].find("charset") {
            return value(start + at + "charset".len());
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undeclared_bytes_are_utf8_or_windows_1252() {
        assert_eq!(decode("§ 1".as_bytes()).unwrap(), "§ 1");
        assert_eq!(decode(b"\xa7 1 \x93quoted\x94").unwrap(), "§ 1 “quoted”");
    }

    #[test]
    fn bytes_that_belie_their_declaration_are_an_error() {
        let error = decode(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><a>\xa7</a>").unwrap_err();
        assert!(matches!(error, ParseError::Encoding { offset: 41, .. }), "{error}");
        assert!(decode(b"<?xml version='1.0' encoding='ebcdic-q'?><a/>").is_err());
    }

    #[test]
    fn utf16_is_read_with_and_without_a_mark() {
        let marked: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("<a>§</a>".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(decode(&marked).unwrap(), "<a>§</a>");
        assert_eq!(decode(&marked[2..]).unwrap(), "<a>§</a>");
    }

    #[test]
    fn html_meta_names_the_encoding() {
        assert_eq!(
            decode(b"<html><meta charset=\"iso-8859-1\"><p>\xe9").unwrap(),
            "<html><meta charset=\"iso-8859-1\"><p>é"
        );
    }
}
