//! From glyphs with places to lines, columns, paragraphs and headings.
//!
//! * A *line* is a run of glyphs on one baseline; a gap wider than a fifth of the size is a space.
//! * Lines stay in the order in which the page draws them, which is the reading order of columns in files that
//!   typesetting systems write. Where a page draws its lines out of order (more than one in five steps goes back up
//!   without going to another column), they are sorted from top to bottom.
//! * A line starts a paragraph when the gap above is wider than the page's usual leading, when it is indented, or when
//!   the line before ended early with the end of a sentence.
//! * Running heads and page numbers (the same line, digits aside, at the edge of most pages) are furniture.

use std::collections::HashMap;

use super::markdown::Markdown;

/// A glyph's characters and place, in points from the page's top left corner.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) text: String,
    /// Origin on the baseline.
    pub(super) x: f64,
    pub(super) y: f64,
    /// Where the next glyph of the run would start.
    pub(super) end: f64,
    pub(super) end_y: f64,
    /// Height of an em.
    pub(super) size: f64,
}

/// A page's glyphs in drawing order.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) height: f64,
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug, Clone)]
struct Line {
    text: String,
    x: f64,
    end: f64,
    y: f64,
    size: f64,
    /// Where the second word starts.
    second: Option<f64>,
}

/// Markdown of all pages.
pub(super) fn document(pages: &[Page]) -> String {
    let mut lines: Vec<Vec<Line>> =
        pages.iter().map(|page| in_reading_order(lines_of(&page.marks))).collect();
    remove_furniture(&mut lines, pages);
    lines.iter_mut().for_each(remove_line_numbers);
    let body = body_size(&lines);
    let mut md = Markdown::new();
    let mut paragraph = String::new();
    let mut heading = None;
    let mut before: Option<Line> = None;
    for page in &lines {
        // The right edge of a column: where its longest lines end.
        let mut edges: Vec<f64> = page.iter().map(|line| line.end).collect();
        edges.sort_by(f64::total_cmp);
        let leading = leading(page);
        let mut first_on_page = true;
        for (index, line) in page.iter().enumerate() {
            let level = heading_level(line, body);
            let starts = match &before {
                None => true,
                Some(_) if level != heading => true,
                // A heading over several lines.
                Some(before) if level.is_some() => first_on_page || line.y - before.y > 1.7 * line.size,
                Some(before) if first_on_page => {
                    ends_paragraph(before, line, &edges)
                        || line.x > before.x + 1.2 * line.size && !goes_on(before, line)
                }
                Some(before) => starts_paragraph(before, line, page.get(index + 1), leading, &edges),
            };
            if starts {
                flush(&mut md, &mut paragraph, heading);
                heading = level;
            }
            join(&mut paragraph, &line.text);
            before = Some(line.clone());
            first_on_page = false;
        }
    }
    flush(&mut md, &mut paragraph, heading);
    md.finish()
}

fn flush(md: &mut Markdown, paragraph: &mut String, heading: Option<u8>) {
    match heading {
        Some(level) => md.heading(level, |md| md.text(paragraph)),
        None => {
            md.text(paragraph);
            md.end();
        }
    }
    paragraph.clear();
}

/// Adds a line to a paragraph; a word cut at the line's end is made whole.
fn join(paragraph: &mut String, line: &str) {
    let lower = line.starts_with(char::is_lowercase);
    let mut tail = paragraph.chars().rev();
    match (tail.next(), tail.next()) {
        (Some('\u{ad}'), Some(_)) => {
            paragraph.pop();
        }
        (Some('-' | '\u{2010}'), Some(letter)) if letter.is_lowercase() && lower => {
            paragraph.pop();
        }
        // After a cut number or a name ("2021-", "O’Neill-"), the hyphen is meant.
        (Some('-' | '–' | '—' | '/'), Some(letter)) if letter.is_alphanumeric() => {}
        (None, _) => {}
        _ => paragraph.push(' '),
    }
    paragraph.push_str(line);
}

/// Glyphs to lines, in drawing order; upright text first, then what is set sideways.
fn lines_of(marks: &[Mark]) -> Vec<Line> {
    let upright = |mark: &&Mark| {
        (mark.end_y - mark.y).abs() <= (mark.end - mark.x).abs() || mark.text.trim().is_empty()
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut current: Option<Line> = None;
    let mut space = false;
    for mark in marks.iter().filter(upright) {
        if mark.text.trim().is_empty() {
            space = true;
            continue;
        }
        let same_line = current.as_ref().is_some_and(|line| {
            let size = line.size.max(mark.size);
            (mark.y - line.y).abs() < 0.5 * size
                && mark.x > line.end - 0.6 * size
                && mark.x < line.end + 2.5 * size
        });
        if !same_line {
            lines.extend(current.take());
            space = false;
        }
        let line = current.get_or_insert_with(|| Line {
            text: String::new(),
            x: mark.x,
            end: mark.x,
            y: mark.y,
            size: mark.size,
            second: None,
        });
        let gap = mark.x - line.end;
        if !line.text.is_empty() && (space || gap > 0.18 * mark.size) {
            line.text.push(' ');
            line.second.get_or_insert(mark.x);
        }
        space = false;
        line.text.push_str(&mark.text);
        line.end = line.end.max(mark.end);
        // A superscript neither moves the line nor shrinks it.
        if mark.size > line.size {
            (line.size, line.y) = (mark.size, mark.y);
        }
    }
    lines.extend(current);
    let mut sideways = String::new();
    let (mut last_y, mut last_size) = (f64::NAN, 0.0);
    for mark in marks.iter().filter(|mark| !upright(mark)) {
        if !sideways.is_empty() && (mark.y - last_y).abs() > 0.25 * last_size {
            sideways.push(' ');
        }
        sideways.push_str(&mark.text);
        (last_y, last_size) = (mark.end_y, mark.size);
    }
    if !sideways.trim().is_empty() {
        lines.push(Line { text: sideways, x: 0.0, end: 0.0, y: f64::MAX, size: last_size, second: None });
    }
    merge_pieces(lines)
}

/// Joins pieces of one line that stand next to each other in drawing order: an enumerator and its text, cells of a
/// row.
fn merge_pieces(pieces: Vec<Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(last)
                if (piece.y - last.y).abs() < 0.5 * last.size.max(piece.size)
                    && piece.x >= last.end - 0.6 * last.size =>
            {
                last.text.push(' ');
                last.second.get_or_insert(piece.x);
                last.text.push_str(&piece.text);
                last.end = piece.end;
                last.size = last.size.max(piece.size);
            }
            _ => lines.push(piece),
        }
    }
    lines
}

/// Sorts a page's lines from top to bottom when the page draws them in no order of reading.
fn in_reading_order(mut lines: Vec<Line>) -> Vec<Line> {
    let backward = lines
        .windows(2)
        .filter(|pair| match pair {
            // Up and to the right is the next column.
            [one, two] => two.y < one.y - one.size && two.x < one.end,
            _ => false,
        })
        .count();
    if backward * 5 > lines.len() {
        lines.sort_by(|one, two| one.y.total_cmp(&two.y).then(one.x.total_cmp(&two.x)));
        lines = merge_pieces(lines);
    }
    lines
}

/// Takes running heads and page numbers off the pages.
fn remove_furniture(lines: &mut [Vec<Line>], pages: &[Page]) {
    /// Share of the page's height, at the top and at the bottom, where they stand.
    const EDGE: f64 = 0.1;
    let key = |line: &Line| -> String {
        let text: String = line
            .text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        // Numbers grow by a digit.
        let mut key = String::new();
        for c in text.chars() {
            if !(c == '0' && key.ends_with('0')) {
                key.push(c);
            }
        }
        key
    };
    let at_edge = |line: &Line, page: &Page| {
        line.y < page.height * EDGE || (line.y > page.height * (1.0 - EDGE) && line.y < f64::MAX)
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (lines, page) in lines.iter().zip(pages) {
        let mut keys: Vec<String> = lines.iter().filter(|line| at_edge(line, page)).map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            *seen.entry(key).or_default() += 1;
        }
    }
    let many = (pages.len() / 3).max(3);
    for (lines, page) in lines.iter_mut().zip(pages) {
        lines.retain(|line| {
            !(at_edge(line, page) && seen.get(&key(line)).is_some_and(|&count| count >= many))
        });
    }
}

/// Size that most characters are set in.
fn body_size(pages: &[Vec<Line>]) -> f64 {
    let mut sizes: HashMap<i64, usize> = HashMap::new();
    for line in pages.iter().flatten() {
        *sizes.entry((line.size * 2.0).round() as i64).or_default() += line.text.len();
    }
    sizes.into_iter().max_by_key(|&(size, count)| (count, size)).map_or(10.0, |(size, _)| size as f64 / 2.0)
}

/// The usual distance from a line to the next, in sizes of the line.
fn leading(page: &[Line]) -> f64 {
    let mut gaps: Vec<f64> = page
        .windows(2)
        .filter_map(|pair| match pair {
            [one, two] if two.y > one.y && two.y - one.y < 4.0 * one.size && one.size > 0.0 => {
                Some((two.y - one.y) / one.size)
            }
            _ => None,
        })
        .collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().unwrap_or(1.2)
}

fn heading_level(line: &Line, body: f64) -> Option<u8> {
    let long = line.text.chars().count() > 160 || line.text.chars().filter(|c| c.is_alphabetic()).count() < 3;
    let ratio = line.size / body;
    match () {
        () if long || ratio < 1.15 => None,
        () if ratio > 1.6 => Some(1),
        () if ratio > 1.3 => Some(2),
        () => Some(3),
    }
}

fn starts_paragraph(before: &Line, line: &Line, after: Option<&Line>, leading: f64, edges: &[f64]) -> bool {
    let gap = line.y - before.y;
    if gap < -0.5 * line.size {
        // Next column, or back up the page.
        return ends_paragraph(before, line, edges);
    }
    let size = before.size.max(line.size);
    if gap > leading.max(1.0) * size * 1.35 {
        return true;
    }
    // Indented against the line before and the one after: the first line of a paragraph.
    let indented = line.x > before.x + 0.8 * size;
    let alone = after.is_none_or(|after| line.x > after.x + 0.8 * size || after.y < line.y);
    (indented && alone && !goes_on(before, line))
        || (ends_paragraph(before, line, edges) && line.x <= before.x + 0.8 * size)
}

/// Whether a line ends well before its column does, and what follows does not go on with its sentence.
fn ends_paragraph(line: &Line, next: &Line, edges: &[f64]) -> bool {
    // The column's edge: the furthest that a line starting left of this line's end goes, within reach.
    let reach = edges.partition_point(|edge| *edge < line.end + 40.0 * line.size);
    let edge = reach.checked_sub(1).and_then(|at| edges.get(at)).copied().unwrap_or(line.end).max(line.end);
    // A line is short when the next one's first word would have fitted.
    let letters = next.text.chars().count().max(1) as f64;
    let first = next.text.split(' ').next().map_or(0, |word| word.chars().count()) as f64;
    let word = (first + 1.5) * (next.end - next.x).max(0.0) / letters;
    line.end + word < edge - 0.5 * line.size && !goes_on(line, next)
}

/// Whether a line goes on with the words of the one before: it starts in lower case, or that one ended in a hyphen
/// or a comma.
fn goes_on(before: &Line, line: &Line) -> bool {
    line.text.starts_with(char::is_lowercase)
        || before.text.ends_with(['-', '\u{ad}', '\u{2010}'])
        || before.text.ends_with(',') && !line.text.starts_with('(')
}

/// Takes off the line numbers of transcripts and pleadings: 1, 2, 3, … before nearly every line of a page.
fn remove_line_numbers(page: &mut Vec<Line>) {
    let number = |line: &Line| {
        let digits = line.text.split(' ').next().unwrap_or_default();
        if digits.len() <= 2 { digits.parse::<u32>().ok() } else { None }
    };
    let mut expected = 1;
    for line in page.iter() {
        if number(line) == Some(expected) {
            expected += 1;
        }
    }
    let count = expected as usize - 1;
    if count < 10 || count * 10 < page.len() * 8 {
        return;
    }
    let mut expected = 1;
    for line in page.iter_mut() {
        if number(line) == Some(expected) {
            expected += 1;
            let rest = line.text.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            line.x = line.second.unwrap_or(line.x);
            line.text = rest;
        }
    }
    page.retain(|line| !line.text.trim().is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, x: f64, y: f64, size: f64) -> Vec<Mark> {
        let step = size / 2.0;
        let mark = |(at, c): (usize, char)| {
            let x = x + step * at as f64;
            Mark { text: c.to_string(), x, y, end: x + step, end_y: y, size }
        };
        text.chars().enumerate().map(mark).collect()
    }

    #[test]
    fn lines_become_paragraphs_and_cut_words_are_made_whole() {
        let marks = [
            set("SHORT TITLE", 50.0, 50.0, 18.0),
            set("This Act may be cited as the Exam-", 50.0, 80.0, 10.0),
            set("ple Act.", 50.0, 92.0, 10.0),
            set("(b) It takes effect at once and", 70.0, 104.0, 10.0),
            set("goes on.", 50.0, 116.0, 10.0),
        ]
        .concat();
        let text = document(&[Page { height: 800.0, marks }]);
        assert_eq!(
            text,
            "# SHORT TITLE\n\nThis Act may be cited as the Example Act.\n\n(b) It takes effect at once and goes on.\n"
        );
    }

    #[test]
    fn a_gap_is_a_space_and_a_superscript_stays_in_its_line() {
        let mut marks = set("see", 0.0, 100.0, 10.0);
        marks.extend(set("note", 18.0, 100.0, 10.0));
        marks.extend(set("1", 38.0, 96.0, 6.0));
        assert_eq!(document(&[Page { height: 800.0, marks }]), "see note1\n");
    }

    #[test]
    fn running_heads_and_page_numbers_go_and_the_text_between_stays() {
        let page = |number: usize| Page {
            height: 800.0,
            marks: [
                set("Opinion of the Court", 50.0, 20.0, 10.0),
                set(&format!("Body text of page {number} runs on"), 50.0, 400.0, 10.0),
                set(&number.to_string(), 300.0, 790.0, 10.0),
            ]
            .concat(),
        };
        let text = document(&(1..=4).map(page).collect::<Vec<_>>());
        assert!(!text.contains("Opinion"), "{text}");
        for number in 1..=4 {
            assert!(text.contains(&format!("Body text of page {number} runs on")), "{text}");
        }
    }

    #[test]
    fn line_numbers_of_a_transcript_go_and_its_sentences_join() {
        let marks: Vec<Mark> = (1..=12)
            .flat_map(|row| {
                set(&format!("{row} words of line {row} and so on"), 50.0, 40.0 + 20.0 * f64::from(row), 10.0)
            })
            .collect();
        let text = document(&[Page { height: 800.0, marks }]);
        assert!(text.starts_with("words of line 1 and so on words of line 2 and"), "{text}");
    }

    #[test]
    fn columns_drawn_one_after_the_other_stay_apart() {
        let mut marks = Vec::new();
        for (column, x) in [("left", 50.0), ("right", 350.0)] {
            for row in 0..6 {
                marks.extend(set(
                    &format!("{column} column text row {row} and"),
                    x,
                    100.0 + 12.0 * f64::from(row),
                    10.0,
                ));
            }
        }
        let text = document(&[Page { height: 800.0, marks }]);
        assert!(text.find("left column text row 5").unwrap() < text.find("right column text row 0").unwrap());
    }
}
