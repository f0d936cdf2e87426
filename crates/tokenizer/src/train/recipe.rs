//! What the kl3m-001 recipe puts into a vocabulary beside what BPE learns.

use std::collections::HashSet;

/// Special tokens; a token's place is its id.
pub const SPECIAL_TOKENS: [&str; 7] =
    ["<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|cls|>", "<|mask|>"];

/// Names of elements that legal web pages, forms and filings use.
const TAGS: [&str; 37] = [
    "html", "head", "body", "div", "span", "img", "table", "thead", "tbody", "tfoot", "tr", "td", "ul", "ol",
    "li", "h1", "h2", "h3", "h4", "iframe", "script", "style", "svg", "input", "button", "form", "label",
    "select", "option", "textarea", "meta", "link", "title", "pre", "code", "row", "column",
];
const ATTRIBUTES: [&str; 6] = [" href=", " src=", " alt=", " title=", " class=", " id="];
const MARKDOWN: [&str; 6] = ["##", "###", "####", "#####", "######", "```"];
const URL: [&str; 6] = ["http://", "https://", "www.", "ftp://", "mailto:", "tel:"];
const JSON: [&str; 19] = [
    "{\"", "\"}", "\",\"", "\":\"", "[\"", "\"]", "\"},", "\"],", "},", "],", "{}", "[]", "[{", "}]", "}}",
    "]]", "true", "false", "null",
];
const XML: [&str; 9] = ["<!--", "-->", "<![CDATA[", "]]>", "<?xml", "?>", "<xml", "</xml>", "<!"];
const ROMAN: [&str; 8] = ["ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"];

/// The custom tokens, group after group, each once.
pub(crate) fn custom_tokens() -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for c in [' ', '\t', '\r', '\n'] {
        tokens.extend((2..=8).map(|n| run(c, n)));
    }
    tokens.extend(["\r\n", "\t "].map(String::from));
    tokens.extend(MARKDOWN.iter().chain(&URL).map(ToString::to_string));
    for c in ['.', '-', '=', '_', '*', '~'] {
        tokens.extend((2..=8).map(|n| run(c, n)));
    }
    let both_cases = |text: String| [text.to_lowercase(), text.to_uppercase()];
    for cased in 0..2 {
        let one = |text: String| both_cases(text).into_iter().nth(cased);
        tokens.extend(TAGS.iter().filter_map(|tag| one(format!("<{tag}"))));
        tokens.extend(TAGS.iter().filter_map(|tag| one(format!("</{tag}>"))));
        tokens.extend(ATTRIBUTES.iter().filter_map(|name| one(name.to_string())));
    }
    tokens.extend(JSON.iter().chain(&XML).map(ToString::to_string));
    tokens.extend((1776..=2049).map(|year| year.to_string()));
    tokens.extend(('a'..='z').chain('A'..='Z').map(|c| format!("({c})")));
    tokens.extend(ROMAN.iter().map(|n| format!("({n})")));
    tokens.extend(ROMAN.iter().map(|n| format!("({})", n.to_uppercase())));
    tokens.extend((0..=9).map(|digit| format!("({digit})")));
    tokens.extend((10..=999).map(|number| number.to_string()));
    let mut seen = HashSet::new();
    tokens.retain(|token| seen.insert(token.clone()));
    tokens
}

/// `c`, `n` times.
pub(crate) fn run(c: char, n: usize) -> String {
    std::iter::repeat_n(c, n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;
    use std::path::Path;

    #[test]
    fn every_group_is_there_and_no_token_twice() {
        let tokens = custom_tokens();
        let set: HashSet<_> = tokens.iter().map(String::as_str).collect();
        assert_eq!(set.len(), tokens.len());
        for token in [
            "  ",
            "\n\n\n\n\n\n\n\n",
            "\r\n",
            "\t ",
            "```",
            "mailto:",
            "~~~~~~~~",
            "<table",
            "</TABLE>",
            " HREF=",
        ] {
            assert!(set.contains(token), "{token:?}");
        }
        for token in ["null", "<![CDATA[", "1776", "2049", "(a)", "(Z)", "(viii)", "(IX)", "(0)", "10", "999"]
        {
            assert!(set.contains(token), "{token:?}");
        }
        for token in [" ", "         ", "1775", "2050", "(10)", "9", "1000"] {
            assert!(!set.contains(token), "{token:?}");
        }
    }

    #[test]
    fn custom_tokens_cover_those_of_the_published_tokenizer() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kl3m-001-32k");
        if !dir.exists() {
            println!("skipped: {} is not here", dir.display());
            return;
        }
        let tokenizer = Tokenizer::load(&dir).unwrap();
        let set: HashSet<_> = custom_tokens().into_iter().collect();
        // Below id 31,139 stands what BPE learned, from 31,673 on stands the padding.
        for id in 31_139..31_673 {
            let token = tokenizer.token(id).unwrap();
            assert!(set.contains(&token), "{id} {token:?}");
        }
    }
}
