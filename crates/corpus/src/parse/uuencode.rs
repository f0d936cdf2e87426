//! UU-encoded parts, as EDGAR carries binary exhibits.

use super::ParseError;

/// Whether a line opens a UU-encoded part: `begin MODE NAME`.
pub(super) fn is_header(line: &str) -> bool {
    name_of(line).is_some()
}

fn name_of(line: &str) -> Option<&str> {
    let rest = line.trim_end().strip_prefix("begin ")?;
    let (mode, name) = rest.split_once(' ')?;
    let octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
    (octal && !name.trim().is_empty()).then(|| name.trim())
}

/// Decodes the first part in `text`: its name and its bytes. A part that is cut short gives what there is: filings
/// in archives often lack their `end`.
///
/// # Errors
/// [`ParseError::Incomplete`] where there is none, [`ParseError::TooLarge`] beyond `limit` bytes.
pub(super) fn decode(text: &str, limit: u64) -> Result<(String, Vec<u8>), ParseError> {
    let mut lines = text.lines();
    let Some(name) = lines.by_ref().find_map(name_of) else {
        return Err(ParseError::Incomplete { format: "UU-encoded data", missing: "a begin line" });
    };
    let mut bytes = Vec::new();
    for line in lines {
        let line = line.trim_end_matches(['\r', '\n']);
        let Some((&first, rest)) = line.as_bytes().split_first() else { continue };
        if line == "end" {
            break;
        }
        let length = usize::from(first.wrapping_sub(b' ') & 63);
        if length == 0 {
            continue;
        }
        let before = bytes.len();
        // Blanks at line ends are cut off in transit: what is missing counts as blank.
        for group in 0..length.div_ceil(3) {
            let sextet = |at: usize| {
                let byte = rest.get(group * 4 + at).copied().unwrap_or(b' ');
                u32::from(byte.wrapping_sub(b' ') & 63)
            };
            let word = sextet(0) << 18 | sextet(1) << 12 | sextet(2) << 6 | sextet(3);
            bytes.extend_from_slice(&word.to_be_bytes()[1..]);
        }
        bytes.truncate(before + length);
        if bytes.len() as u64 > limit {
            return Err(ParseError::TooLarge { what: "bytes of a UU-encoded part", limit });
        }
    }
    Ok((name.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_decodes_with_its_blanks_cut_off() {
        let text = "junk\nbegin 644 cat.txt\n#0V%T\n!00\n`\nend\n";
        assert_eq!(decode(text, 100).unwrap(), ("cat.txt".into(), b"CatA".to_vec()));
    }

    #[test]
    fn prose_that_begins_is_no_part() {
        assert!(!is_header("begin with the 644 first"));
        assert!(is_header("begin 644 img_002.jpg"));
    }

    #[test]
    fn a_part_over_the_limit_is_an_error() {
        assert!(matches!(decode("begin 644 a\n#0V%T\n", 2), Err(ParseError::TooLarge { .. })));
    }
}
