//! How much of a source's character data is in the Markdown, in order.
//!
//! The source is read here by other means than the parsers': a scan for tags, so that a parser's mistake cannot hide.

/// Character data of markup without the elements named in `skip` (page furniture, metadata), entities resolved.
pub fn character_data(source: &str, skip: &[&str]) -> String {
    let mut out = String::new();
    let mut skipping: Option<(String, usize)> = None;
    let mut rest = source;
    while let Some(open) = rest.find('<') {
        if skipping.is_none() {
            out.push_str(&html_escape::decode_html_entities(&rest[..open]));
        }
        rest = &rest[open..];
        for (start, end) in [("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>")] {
            if rest.starts_with(start) {
                let stop = rest.find(end).map_or(rest.len(), |stop| stop + end.len());
                rest = &rest[stop..];
            }
        }
        if !rest.starts_with('<') {
            continue;
        }
        // A tag: quotes may hold ">".
        let mut quote = None;
        let end = rest
            .char_indices()
            .find(|&(_, c)| match (quote, c) {
                (None, '"' | '\'') => {
                    quote = Some(c);
                    false
                }
                (Some(open), c) if c == open => {
                    quote = None;
                    false
                }
                (None, '>') => true,
                _ => false,
            })
            .map_or(rest.len(), |(at, _)| at + 1);
        let tag = &rest[1..end.saturating_sub(1).max(1)];
        rest = &rest[end..];
        let closing = tag.starts_with('/');
        let name =
            tag.trim_start_matches('/').split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or("");
        let name = if source.contains("<html") || source.contains("<HTML") {
            name.to_lowercase()
        } else {
            name.to_owned()
        };
        match &mut skipping {
            None if !closing && !tag.ends_with('/') && skip.contains(&name.as_str()) => {
                skipping = Some((name, 1))
            }
            Some((skipped, depth)) if *skipped == name && !tag.ends_with('/') => {
                *depth = if closing { *depth - 1 } else { *depth + 1 };
                if *depth == 0 {
                    skipping = None;
                }
            }
            _ => {}
        }
        out.push('\u{1}');
    }
    if skipping.is_none() {
        out.push_str(&html_escape::decode_html_entities(rest));
    }
    out
}

/// The characters that count: no white space, no invisible ones, none that Markdown's own marks are made of.
pub fn significant(text: &str) -> Vec<char> {
    text.chars()
        .filter(|c| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(
                    c,
                    '\u{ad}'
                        | '\u{200b}'
                        | '\u{feff}'
                        | '#'
                        | '*'
                        | '|'
                        | '\\'
                        | '['
                        | ']'
                        | '^'
                        | '>'
                        | '-'
                        | '`'
                        | '_'
                )
        })
        .collect()
}

/// Length of the longest common subsequence, exactly.
fn longest_common(a: &[char], b: &[char]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for &x in a {
        let mut diagonal = 0;
        for (j, &y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Share of `source` that is found in `markdown` in order: exactly for small texts, else a lower bound (any matching in order is one), by greedy
/// matching that catches up after a difference where the next characters agree again: four nearby, twelve far off.
pub fn in_order(source: &str, markdown: &str) -> f64 {
    const REACH: usize = 3000;
    let (a, b) = (significant(source), significant(markdown));
    if a.is_empty() {
        return 1.0;
    }
    if a.len() * b.len() < 20_000_000 {
        return longest_common(&a, &b) as f64 / a.len() as f64;
    }
    let (mut i, mut j, mut matched) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            (i, j, matched) = (i + 1, j + 1, matched + 1);
            continue;
        }
        let agree = |length: usize, i: usize, j: usize| {
            let length = length.min(a.len() - i).min(b.len() - j);
            length > 0 && a[i..i + length] == b[j..j + length]
        };
        let step = (1..REACH).find_map(|distance| {
            let length = if distance < 24 { 4 } else { 12 };
            let mut places = (0..=distance).map(|x| (x, distance - x));
            places.find(|&(x, y)| i + x < a.len() && j + y < b.len() && agree(length, i + x, j + y))
        });
        match step {
            Some((x, y)) => (i, j) = (i + x, j + y),
            None => break,
        }
    }
    matched as f64 / a.len() as f64
}

/// Texts of all elements called one of `names`, in order.
pub fn texts_of(source: &str, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices('<') {
        let tag = &source[at + 1..];
        let name = tag.split(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).next().unwrap_or("");
        let Some(start) = tag.find('>') else { continue };
        if !names.contains(&name) || tag[..start].ends_with('/') {
            continue;
        }
        if let Some(end) = tag.find(&format!("</{name}>")) {
            let text = character_data(&tag[start + 1..end], &[]);
            if !significant(&text).is_empty() {
                found.push(text);
            }
        }
    }
    found
}

/// Asserts that each of `parts` stands on a heading line, in order.
pub fn assert_headings(parts: &[String], markdown: &str) {
    let mut lines =
        markdown.lines().filter(|line| line.trim_start_matches(['>', ' ']).starts_with('#')).map(significant);
    for part in parts {
        let wanted = significant(part);
        let found = lines.any(|line| line.windows(wanted.len().max(1)).any(|window| window == wanted));
        assert!(found, "heading lost or out of order: {part:?}");
    }
}

/// Asserts that each of `marks` opens a line (or stands in a heading), in order.
pub fn assert_enumerators(marks: &[String], markdown: &str) {
    let mut lines = markdown.lines().map(significant);
    for mark in marks {
        let wanted = significant(mark);
        let found = lines.any(|line| line.starts_with(&wanted));
        assert!(found, "enumerator lost or out of order: {mark:?}");
    }
}

#[test]
fn coverage_of_equal_texts_is_whole_and_lost_or_moved_text_shows() {
    let text = "The quick brown fox jumps over the lazy dog, and then it rests for a while.";
    assert_eq!(in_order(text, &format!("# {text}")), 1.0);
    assert!(in_order(text, &text.replace("jumps over the lazy dog, ", "")) < 0.75);
    let (first, second) = text.split_at(37);
    assert!(in_order(text, &format!("{second}{first}")) < 0.7);
}

#[test]
fn character_data_leaves_out_tags_and_furniture() {
    let data = character_data("<a x='>'>1 &amp; <b>2</b><nav>3<nav>4</nav></nav><!-- <b> -->5</a>", &["nav"]);
    assert_eq!(significant(&data).into_iter().collect::<String>(), "1&25");
}
