//! The report for people, in Markdown.

use crate::{
    document::SCORE,
    report::{Counts, Histogram, Report},
};
use blackletter_provenance::Provenance;
use std::fmt::Write;

/// Writes a report and the record of the corpus for people.
pub fn of(report: &Report, record: &Provenance) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, report, record);
    out
}

fn write_all(out: &mut String, report: &Report, record: &Provenance) -> std::fmt::Result {
    writeln!(out, "# {}\n\n{}\n", record.dataset.name, record.dataset.description)?;
    writeln!(
        out,
        "{} documents, {} of text; root `{}`.\n",
        record.documents,
        mega(record.text_bytes),
        record.root
    )?;
    for (name, part) in &record.parts {
        writeln!(out, "- `{name}`: {} documents, {} of text", part.documents, mega(part.text_bytes))?;
    }
    writeln!(
        out,
        "\n## Steps\n\nTokens are runs of characters without whitespace.\n\n| step | in | kept | dropped | text in | text kept | tokens kept |\n|---|--:|--:|--:|--:|--:|--:|"
    )?;
    for step in &report.steps {
        let counts = &step.counts;
        let dropped = counts.entered - counts.kept;
        let (name, bytes_in, bytes_kept) = (&step.name, mega(counts.bytes_in), mega(counts.bytes_kept));
        writeln!(
            out,
            "| {name} | {} | {} | {dropped} | {bytes_in} | {bytes_kept} | {} |",
            counts.entered, counts.kept, counts.tokens_kept
        )?;
    }
    for step in &report.steps {
        writeln!(out, "\n## {}\n", step.name)?;
        step_details(out, &step.counts)?;
    }
    rights(out, record)
}

fn mega(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// A cell of a table: what documents say cannot break it.
fn cell(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}

fn step_details(out: &mut String, counts: &Counts) -> std::fmt::Result {
    writeln!(
        out,
        "| dataset | in | kept | text in | text kept | tokens kept | dropped |\n|---|--:|--:|--:|--:|--:|---|"
    )?;
    for (dataset, tally) in &counts.sources {
        let reasons: Vec<String> = tally.dropped.iter().map(|(reason, n)| format!("{reason}: {n}")).collect();
        let (bytes_in, bytes_kept) = (mega(tally.bytes_in), mega(tally.bytes_kept));
        let (dataset, reasons) = (cell(dataset), cell(&reasons.join("; ")));
        writeln!(
            out,
            "| {dataset} | {} | {} | {bytes_in} | {bytes_kept} | {} | {reasons} |",
            tally.entered, tally.kept, tally.tokens_kept
        )?;
    }
    if !counts.dropped.is_empty() {
        writeln!(out, "\n| dropped because | documents | the first of them |\n|---|--:|---|")?;
        for (reason, count) in &counts.dropped {
            let first = counts.examples.get(reason).map(|e| e.join(" · ")).unwrap_or_default();
            writeln!(out, "| {} | {count} | {} |", cell(reason), cell(&first))?;
        }
    }
    for (title, counts) in [("taken out of texts", &counts.removed), ("observed", &counts.observed)] {
        if !counts.is_empty() {
            writeln!(out, "\n| {title} | times |\n|---|--:|")?;
            counts.iter().try_for_each(|(what, count)| writeln!(out, "| {} | {count} |", cell(what)))?;
        }
    }
    if counts.changed > 0 {
        writeln!(out, "\n{} texts were changed.", counts.changed)?;
    }
    if !counts.parts.is_empty() {
        writeln!(out, "\n| part | documents | text |\n|---|--:|--:|")?;
        for (part, size) in &counts.parts {
            writeln!(out, "| {part} | {} | {} |", size.documents, mega(size.bytes))?;
        }
    }
    if counts.histograms.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| metric | from | distribution | to | below | above |\n|---|--:|---|--:|--:|--:|")?;
    let (scores, metrics): (Vec<_>, Vec<_>) =
        counts.histograms.iter().partition(|(name, _)| name.starts_with(SCORE));
    for (name, histogram) in scores.into_iter().chain(metrics) {
        let (bars, name) = (bars(histogram), cell(name));
        let Histogram { from, to, below, above, .. } = histogram;
        writeln!(out, "| {name} | {from:.4} | `{bars}` | {to:.4} | {below} | {above} |")?;
    }
    Ok(())
}

/// A bar for each bin, as high as its share of the fullest.
fn bars(histogram: &Histogram) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.bins.iter().copied().max().unwrap_or(0).max(1);
    let height = |&count: &u64| {
        if count == 0 { ' ' } else { HEIGHTS[(count * (HEIGHTS.len() as u64 - 1)).div_ceil(most) as usize] }
    };
    histogram.bins.iter().map(height).collect()
}

fn rights(out: &mut String, record: &Provenance) -> std::fmt::Result {
    writeln!(out, "\n## Sources and licences\n")?;
    writeln!(out, "| dataset | source | licence | basis | documents | text |\n|---|---|---|---|--:|--:|")?;
    for source in &record.sources {
        let (from, basis) =
            (source.source.as_deref().unwrap_or(""), source.license_basis.as_deref().unwrap_or(""));
        let [dataset, from, license, basis] = [&source.dataset, from, &source.license, basis].map(cell);
        let (documents, text) = (source.documents, mega(source.text_bytes));
        writeln!(out, "| {dataset} | {from} | {license} | {basis} | {documents} | {text} |")?;
    }
    for accepted in &record.accepted {
        let (license, reason) = (&accepted.license, accepted.reason.trim());
        writeln!(out, "\n**{license}** was accepted by name for {} documents: {reason}", accepted.documents)?;
    }
    if !record.refused.is_empty() {
        writeln!(out, "\n| refused | because | documents | the first of them |\n|---|---|--:|---|")?;
        for refused in &record.refused {
            let [dataset, reason] = [&refused.dataset, &refused.reason].map(|text| cell(text));
            writeln!(
                out,
                "| {dataset} | {reason} | {} | {} |",
                refused.documents,
                cell(&refused.examples.join(" · "))
            )?;
        }
    }
    writeln!(out, "\n## Files\n\n| shard | documents | text | BLAKE3 |\n|---|--:|--:|---|")?;
    for shard in &record.shards {
        writeln!(
            out,
            "| {} | {} | {} | `{}` |",
            shard.path,
            shard.documents,
            mega(shard.text_bytes),
            shard.blake3
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_shares_and_cells_stay_in_their_table() {
        let histogram = Histogram { bins: vec![0, 1, 4, 8], ..Histogram::default() };
        assert_eq!(bars(&histogram), " ▂▅█");
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
