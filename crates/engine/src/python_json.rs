//! JSON exactly as Python's `json.dumps` writes it, so that results compare byte for byte with Python's.

use std::fmt::Write;

/// `json.dumps(texts, indent=2, ensure_ascii=ascii)`.
pub fn texts(texts: &[impl AsRef<str>], ascii: bool) -> String {
    if texts.is_empty() {
        return "[]".into();
    }
    let mut out = String::from("[");
    for (i, text) in texts.iter().enumerate() {
        out.push_str(if i == 0 { "\n  " } else { ",\n  " });
        push_text(&mut out, text.as_ref(), ascii);
    }
    out.push_str("\n]");
    out
}

/// `json.dumps(text, ensure_ascii=ascii)`.
pub fn text(text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_text(&mut out, text, ascii);
    out
}

/// `json.dumps(lists)`.
pub fn id_lists(lists: &[impl AsRef<[u32]>]) -> String {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let lists: Vec<String> = lists.iter().map(|ids| format!("[{}]", list(ids.as_ref()))).collect();
    format!("[{}]", lists.join(", "))
}

fn push_text(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ if ascii || c < ' ' => {
                // Characters beyond the first plane are written as their two UTF-16 halves.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made with: json.dumps(TEXTS, indent=2) and json.dumps(TEXTS, indent=2, ensure_ascii=False) of Python 3.
    const TEXTS: [&str; 6] = [
        "a\u{7f}",
        "§ \u{2028}\u{2029} é",
        "😀\u{10ffff}",
        "\0\u{1}\u{1f}\u{8}\u{c}\n\r\t\"\\/",
        "",
        "<|end|> \u{80}\u{a0}",
    ];

    #[test]
    fn texts_are_written_as_python_writes_them() {
        let expected = r#"[
  "a\u007f",
  "\u00a7 \u2028\u2029 \u00e9",
  "\ud83d\ude00\udbff\udfff",
  "\u0000\u0001\u001f\b\f\n\r\t\"\\/",
  "",
  "<|end|> \u0080\u00a0"
]"#;
        assert_eq!(texts(&TEXTS, true), expected);
    }

    #[test]
    fn without_ascii_only_control_characters_quotes_and_backslashes_are_escaped() {
        let expected = "[\n  \"a\u{7f}\",\n  \"§ \u{2028}\u{2029} é\",\n  \"😀\u{10ffff}\",\n  \
            \"\\u0000\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\/\",\n  \"\",\n  \"<|end|> \u{80}\u{a0}\"\n]";
        assert_eq!(texts(&TEXTS, false), expected);
    }

    #[test]
    fn empty_lists_and_id_lists_are_written_as_python_writes_them() {
        assert_eq!(texts(&[] as &[&str], true), "[]");
        assert_eq!(id_lists(&[vec![5, 6], vec![], vec![7]]), "[[5, 6], [], [7]]");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(given: Vec<String>, ascii: bool) {
            let written = texts(&given, ascii);
            prop_assert!(!ascii || written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), given);
        }
    }
}
