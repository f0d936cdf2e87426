//! Which lines are of pages and not of the text: printers' marks, page numbers, running heads and feet.

use super::{
    LineFilters,
    marks::{begins_within, ends_open, names_speaker, opening, stops_within},
};
use std::collections::HashMap;

/// Page numbers in a text, at least, before numbers alone on lines are taken for such.
const FEWEST_PAGES: usize = 4;
/// Times that a running head stands, at least.
const FEWEST_HEADS: usize = 4;
/// Bytes of a running head, at most.
const LONGEST_HEAD: usize = 80;

/// Times that a line stands which breaks into sentences again and again, at least.
const FEWEST_FEET: usize = 6;
/// Lines of a page, at least.
const SHORTEST_PAGE: usize = 12;
/// Lines between page numbers, at least: lines of a table stand closer.
const SHORTEST_NUMBERED: usize = 8;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text,
    Blank,
    Typesetting,
    Mark,
    Number(u64),
    PageNumber,
    Head,
}

impl Line {
    /// The filter that takes the line out, where it belongs to a page.
    pub(super) fn filter(self) -> Option<&'static str> {
        match self {
            Self::Text | Self::Blank | Self::Number(_) => None,
            Self::Typesetting => Some("typesetting"),
            Self::Mark => Some("page_marks"),
            Self::PageNumber => Some("page_numbers"),
            Self::Head => Some("running_heads"),
        }
    }
}

/// Tells what each line is.
pub(super) fn kinds(filters: &LineFilters, lines: &[&str]) -> Vec<Line> {
    let mut kinds: Vec<Line> = lines.iter().map(|line| kind(filters, line.trim())).collect();
    if filters.page_numbers {
        number_pages(lines, &mut kinds);
        number_between(lines, &mut kinds);
    }
    if filters.running_heads {
        find_heads(lines, &mut kinds);
        find_feet(lines, &mut kinds);
    }
    kinds
}

fn kind(filters: &LineFilters, line: &str) -> Line {
    if line.is_empty() {
        Line::Blank
    } else if filters.typesetting && is_typesetting(line) {
        Line::Typesetting
    } else if filters.page_marks && is_page_mark(line) {
        Line::Mark
    } else if let Some(number) = page_number(line) {
        Line::Number(number)
    } else {
        Line::Text
    }
}

/// `12`, `Page 12`.
fn page_number(line: &str) -> Option<u64> {
    let rest = line.get(..5).filter(|head| head.eq_ignore_ascii_case("page ")).map_or(line, |_| &line[5..]);
    number(rest.trim())
}

fn is_typesetting(line: &str) -> bool {
    // `VerDate Mar<15>2010 12:00 Feb 01, 2012 Jkt 226000 PO 00000 …`, or its second half on a line of its own.
    let word = |line: &str, at: usize| line.split_whitespace().nth(at).map(str::to_owned).unwrap_or_default();
    let digits = |word: &str| word.len() >= 4 && word.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = line.strip_prefix("VerDate") {
        let date = rest.trim_start_matches([' ', '\u{a0}']);
        let time = |word: &str| {
            word.split_once(':').is_some_and(|(h, m)| number(h).is_some() && number(m).is_some())
        };
        return rest.is_empty() || date.contains('<') || date.contains("Jkt") || date.split(' ').any(time);
    }
    (line.starts_with("Jkt ") && digits(&word(line, 1)) || line.starts_with("PO 0") && digits(&word(line, 1)))
        && (line.contains(" PO ") || line.contains(" Frm ") || line.contains(" Fmt "))
}

fn number(line: &str) -> Option<u64> {
    (line.len() <= 4 && line.bytes().all(|b| b.is_ascii_digit())).then(|| line.parse().ok()).flatten()
}

/// `<PAGE>`, with or without a number.
fn is_page_tag(line: &str) -> bool {
    line.strip_prefix("<PAGE>").is_some_and(|rest| rest.is_empty() || number(rest.trim()).is_some())
}

fn is_page_mark(line: &str) -> bool {
    let inside = |open: &str, close: &str| line.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    let page = |text: &str| {
        let rest = text.trim().strip_prefix("Page").or(text.trim().strip_prefix("PAGE"));
        rest.is_some_and(|rest| number(rest.trim()).is_some() || rest.trim().is_empty())
    };
    if inside("[[", "]]").is_some_and(page) || is_page_tag(line) {
        return true;
    }
    // `- 12 -`, `-12-`, `— 12 —`.
    for dash in ["-", "–", "—"] {
        if inside(dash, dash).is_some_and(|n| number(n.trim()).is_some()) {
            return true;
        }
    }
    // `Page 3 of 10`; `Page 3` alone could be a reference.
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (head, at, of, all, end) = (next(), next(), next(), next(), next());
    head.eq_ignore_ascii_case("page")
        && of == "of"
        && end.is_empty()
        && number(at).is_some()
        && number(all).is_some()
}

/// Whether what stands around the lines `from..to` breaks a sentence in two: the lines came between by the end of a page.
fn breaks_sentence(lines: &[&str], kinds: &[Line], from: usize, to: usize) -> bool {
    let text = |at: &usize| kinds.get(*at) == Some(&Line::Text);
    let before = (0..from).rev().take(6).find(text);
    let after = (to..lines.len()).take(6).find(text);
    let (Some(before), Some(after)) = (before, after) else { return false };
    let before = lines[before].trim();
    stops_within(before) && (begins_within(lines[after]) || ends_open(before) && opening(lines[after]) == 0)
}

/// Numbers alone on a line are page numbers where each is the one before and 1, with lines between. Sections are counted up on
/// lines of their own, too, so some of the numbers have to stand beside page marks or within sentences.
fn number_pages(lines: &[&str], kinds: &mut [Line]) {
    let mut numbers: Vec<(usize, u64)> = kinds
        .iter()
        .enumerate()
        .filter_map(|(at, kind)| if let Line::Number(n) = kind { Some((at, *n)) } else { None })
        .collect();
    // A text can be several documents, each with its own pages.
    loop {
        let chain = longest_count(&numbers);
        if chain.len() < FEWEST_PAGES {
            return;
        }
        let marked = |at: usize| {
            let mark = |at: Option<usize>| at.and_then(|at| kinds.get(at)) == Some(&Line::Mark);
            let near = |mut places: Box<dyn Iterator<Item = usize>>| {
                places.find(|&at| kinds.get(at).is_some_and(|kind| *kind != Line::Blank))
            };
            mark(near(Box::new((0..at).rev().take(6)))) || mark(near(Box::new((at + 1..lines.len()).take(6))))
        };
        let evident = |at: usize| marked(at) || breaks_sentence(lines, kinds, at, at + 1);
        let evidence = chain.iter().filter(|&&(at, _)| evident(at)).count();
        if evidence >= 2 && evidence * 8 >= chain.len() {
            for &(at, _) in &chain {
                kinds[at] = Line::PageNumber;
            }
        }
        numbers.retain(|number| !chain.contains(number));
    }
}

/// A number between blank lines that breaks a long line's sentence in two is a page number wherever it stands.
fn number_between(lines: &[&str], kinds: &mut [Line]) {
    for at in 1..lines.len().saturating_sub(1) {
        let number = matches!(kinds[at], Line::Number(_));
        if number && kinds[at - 1] == Line::Blank && kinds[at + 1] == Line::Blank {
            let before = (0..at).rev().find(|&at| kinds[at] != Line::Blank);
            let long = before.is_some_and(|at| lines[at].trim().len() >= LONGEST_HEAD / 2);
            if long && breaks_sentence(lines, kinds, at, at + 1) {
                kinds[at] = Line::PageNumber;
            }
        }
    }
}

/// The longest run of numbers of which each is the one before and 1, a page's lines after it. One number may be missing: that of
/// a page without text.
fn longest_count(numbers: &[(usize, u64)]) -> Vec<(usize, u64)> {
    // By number, the last place and the length of the longest run that ends there, and where the one before stands.
    let mut ends: HashMap<u64, usize> = HashMap::new();
    let mut runs: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (index, &(at, number)) in numbers.iter().enumerate() {
        let before = [number.checked_sub(1), number.checked_sub(2)]
            .into_iter()
            .flatten()
            .filter_map(|before| ends.get(&before).copied())
            .filter(|&before| at - numbers[before].0 >= SHORTEST_NUMBERED)
            .max_by_key(|&before| runs[before].0);
        runs.push((before.map_or(1, |before| runs[before].0 + 1), before));
        let own = runs[index].0;
        let end = ends.entry(number).or_insert(index);
        if own >= runs[*end].0 {
            *end = index;
        }
    }
    let mut chain = Vec::new();
    let mut next = (0..runs.len()).max_by_key(|&index| (runs[index].0, std::cmp::Reverse(index)));
    while let Some(index) = next {
        chain.push(numbers[index]);
        next = runs[index].1;
    }
    chain.reverse();
    chain
}

/// The line after or before a page mark, when the same words stand beside several. It has to stand apart from the text, with
/// a page mark or a blank line on either side, and not end like a sentence or a clause.
fn find_heads(lines: &[&str], kinds: &mut [Line]) {
    let of_page = |kind: &Line| kind.filter().is_some();
    let mut beside: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut last_text = None;
    let mut after_mark = false;
    let apart = |at: Option<&Line>| at.is_none_or(|kind| *kind == Line::Blank || of_page(kind));
    let all = kinds.to_vec();
    let candidate = |at: usize| {
        let line = lines[at].trim();
        line.len() <= LONGEST_HEAD
            && !line.ends_with(['.', ';', ':', ',', ')', ']', '—'])
            && at.checked_sub(1).is_none_or(|before| apart(all.get(before)))
            && apart(all.get(at + 1))
    };
    for (at, kind) in kinds.iter().enumerate() {
        match kind {
            Line::Blank => {}
            kind if of_page(kind) => {
                if let Some(before) = last_text.take().filter(|&before| candidate(before)) {
                    beside.entry(lines[before].trim()).or_default().push(before);
                }
                after_mark = true;
            }
            _ => {
                if after_mark && candidate(at) {
                    beside.entry(lines[at].trim()).or_default().push(at);
                    last_text = None;
                } else {
                    last_text = Some(at);
                }
                after_mark = false;
            }
        }
    }
    for places in beside.into_values().filter(|places| places.len() >= FEWEST_HEADS) {
        // The first stays: it may be the title.
        for at in places.into_iter().skip(1) {
            kinds[at] = Line::Head;
        }
    }
}

/// Lines that stand between pages without a page mark: the same words, or the same words and a number that counts up, again and
/// again at a page's distance, breaking into sentences. A reporter's address at the foot of each page is such, several lines long.
fn find_feet(lines: &[&str], kinds: &mut [Line]) {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, line) in lines.iter().enumerate().filter(|(at, _)| kinds[*at] == Line::Text) {
        let line = line.trim();
        if line.len() <= LONGEST_HEAD + 40 && may_be_foot(line) {
            let key = line.split_whitespace().collect::<Vec<_>>().join(" ");
            places.entry(without_page(&key)).or_default().push(at);
        }
    }
    let regular = |places: &Vec<usize>| {
        let mut gaps: Vec<usize> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        let median = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
        let alike = gaps.iter().filter(|&&gap| gap * 2 >= median && gap * 5 <= median * 8).count();
        median >= SHORTEST_PAGE && alike * 10 >= gaps.len() * 6
    };
    let same_or_counting = |places: &Vec<usize>| {
        let same = places.windows(2).all(|pair| lines[pair[0]].trim() == lines[pair[1]].trim());
        let numbers: Vec<Option<u64>> = places.iter().map(|&at| page_of(lines[at].trim())).collect();
        let counting = |pair: &[Option<u64>]| matches!(pair, [Some(a), Some(b)] if *b > *a && *b <= *a + 2);
        same || numbers.windows(2).filter(|pair| counting(pair)).count() * 10 >= (numbers.len() - 1) * 8
    };
    places.retain(|_, at| at.len() >= FEWEST_FEET && regular(at) && same_or_counting(at));
    let mut of = vec![None; lines.len()];
    for (key, places) in &places {
        for &at in places {
            of[at] = Some(key.as_str());
        }
    }
    // Lines of one foot stand together, perhaps with blank lines or numbers between.
    let mut breaks: HashMap<&str, usize> = HashMap::new();
    let mut at = 0;
    while at < lines.len() {
        if of[at].is_none() {
            at += 1;
            continue;
        }
        let inside = |to: usize| to < lines.len() && (of[to].is_some() || kinds[to] != Line::Text);
        let to = (at..).find(|&to| !inside(to)).unwrap_or(lines.len());
        let evident = (at..to).any(|at| of[at].is_some() && is_evident_foot(lines[at].trim()));
        if evident && breaks_sentence(lines, kinds, at, to) {
            of[at..to].iter().flatten().for_each(|key| *breaks.entry(key).or_default() += 1);
        }
        at = to;
    }
    for (key, places) in &places {
        if breaks.get(key.as_str()).is_some_and(|&breaks| breaks * 4 >= places.len()) {
            places.iter().for_each(|&at| kinds[at] = Line::Head);
        }
    }
}

/// Feet are names, addresses and numbers; a converter that puts references and defined terms on lines of their own breaks into
/// sentences with those, too.
fn may_be_foot(line: &str) -> bool {
    let letters = line.chars().filter(|c| c.is_alphanumeric()).count();
    // `(800) 555-0100` opens as `(800)` of a list does.
    let telephone =
        line.len() > 8 && line.starts_with('(') && line.as_bytes()[1..4].iter().all(u8::is_ascii_digit);
    letters >= 4
        && (opening(line) == 0 || telephone)
        && !names_speaker(line)
        && line.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || "(-—–[".contains(c))
        && !(line.starts_with(['(', '[']) && line.ends_with([')', ']']))
        && !line.ends_with([':', ';', ','])
}

/// Whether a line is foot enough to stand alone; shorter ones have to stand beside such.
fn is_evident_foot(line: &str) -> bool {
    line.split_whitespace().count() >= 3 || line.bytes().filter(u8::is_ascii_digit).count() >= 4
}

/// The line without the number that it starts or ends with.
fn without_page(line: &str) -> String {
    let bare = line.trim_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == '-');
    if bare.len() < 4 { line.to_owned() } else { bare.to_owned() }
}

fn page_of(line: &str) -> Option<u64> {
    let last = line.rsplit([' ', '-']).find(|word| !word.is_empty()).and_then(number);
    last.or_else(|| line.split([' ', '-']).find(|word| !word.is_empty()).and_then(number))
}

#[cfg(test)]
mod tests {
    use crate::clean::LineFilters;

    fn clean(text: &str) -> String {
        let filters = LineFilters { wrapped_lines: false, spacing: false, ..LineFilters::default() };
        filters.clean(text).text.into_owned()
    }

    /// Lines of which pages end within sentences.
    fn page(lines: usize) -> String {
        "the parties agree to the terms that follow and\n".repeat(lines)
    }

    #[test]
    fn page_tags_with_numbers_go() {
        assert_eq!(clean("one\n<PAGE>   4\ntwo\n"), "one\ntwo\n");
        assert_eq!(clean("one\n<PAGE> 4 of\ntwo\n"), "one\n<PAGE> 4 of\ntwo\n");
    }

    #[test]
    fn sections_that_are_counted_on_lines_of_their_own_stay() {
        let sections: String =
            (1..8).map(|n| format!("{n}\n{}", "The Act is amended as follows.\n".repeat(9))).collect();
        assert_eq!(clean(&sections), sections);
    }

    #[test]
    fn numbers_of_several_documents_in_one_text_and_missing_pages_go() {
        let paged =
            |numbers: &[u32]| -> String { numbers.iter().map(|n| format!("{}{n}\n", page(10))).collect() };
        let text = format!("{}{}", paged(&[1, 2, 3, 5, 6, 7]), paged(&[1, 2, 3, 4]));
        assert_eq!(clean(&text), page(100));
    }

    #[test]
    fn a_single_number_between_blank_lines_within_a_sentence_goes() {
        let long = "The Employee will be entitled to no other remuneration and the";
        assert_eq!(
            clean(&format!("{long}\n\n2\n\nEmployee agrees.\n")),
            format!("{long}\n\n\nEmployee agrees.\n")
        );
        let kept = "The Employee will be entitled to no other remuneration.\n\n2\n\nThe Employee agrees.\n";
        assert_eq!(clean(kept), kept);
        let cells = "Salary\n\n12\n\nper year\n";
        assert_eq!(clean(cells), cells);
    }

    #[test]
    fn feet_of_several_lines_that_break_into_sentences_go() {
        let foot = "1111 FOURTEENTH STREET, N.W.\nSUITE 400\n(800) FOR DEPO\n";
        let text: String = (0..8).map(|_| format!("{}{foot}", page(20))).collect::<String>() + &page(3);
        assert_eq!(clean(&text), page(163));
    }

    #[test]
    fn feet_that_count_pages_go() {
        let text: String = (1..9)
            .map(|n| format!("{}Construction Management Agreement - Page {n}\n", page(20)))
            .collect::<String>()
            + &page(3);
        assert_eq!(clean(&text), page(163));
    }

    #[test]
    fn lines_that_stand_again_and_again_but_break_no_sentence_stay() {
        let text: String =
            (0..9).map(|_| format!("{}It ends.\nMR. SMITH: Yes, Your Honor.\nGo on.\n", page(20))).collect();
        assert_eq!(clean(&text), text);
        let text: String = (0..9).map(|n| format!("{}Section {n}.1\n{}", page(9), page(9))).collect();
        assert_eq!(clean(&text), text, "references on lines of their own");
        let text: String =
            (0..9).map(|_| format!("{}(Laughter.)\n", page(20))).collect::<String>() + &page(3);
        assert_eq!(clean(&text), text, "what happened stands in brackets");
    }
}
