//! Reports: what evaluations came to, read from the directories that their results are in, as one page.

use crate::{EvalError, bootstrap::Estimate, figures, perplexity::PerplexityResult, sft::SftResult};
use blackletter_provenance::bom::Metric;
use pulldown_cmark::{Event, Options, Parser, html};
use serde::de::DeserializeOwned;
use std::{fs, io, path::Path};

/// The results in a directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Perplexity.
    pub perplexity: Option<PerplexityResult>,
    /// Answers to examples.
    pub sft: Option<SftResult>,
}

impl Results {
    /// Reads what there is in `folder`.
    ///
    /// # Errors
    /// When a result cannot be read, or there is none.
    pub fn read(folder: &Path) -> Result<Self, EvalError> {
        let results = Self { perplexity: one(folder, "perplexity")?, sft: one(folder, "sft")? };
        if results == Self::default() {
            let shown = folder.display();
            return Err(EvalError::Nothing(format!("{shown} has no results of `blackletter eval … --out`")));
        }
        Ok(results)
    }

    /// Each result for people.
    pub fn markdown(&self) -> Vec<String> {
        let perplexity = self.perplexity.iter().map(PerplexityResult::to_markdown);
        perplexity.chain(self.sft.iter().map(SftResult::to_markdown)).collect()
    }

    /// Every figure with its data.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        if let Some(result) = &self.perplexity {
            for group in result.groups.iter().chain([&result.overall]) {
                metrics.push(metric("bits per byte", &group.name, &group.bits_per_byte));
                metrics.push(metric("perplexity per token", &group.name, &group.perplexity));
            }
        }
        if let Some(result) = &self.sft {
            for kind in &result.kinds {
                metrics.push(metric("exact match", &kind.kind, &kind.exact));
                metrics.push(metric("F1", &kind.kind, &kind.f1));
            }
        }
        metrics
    }
}

fn metric(name: &str, slice: &str, e: &Estimate) -> Metric {
    Metric { name: name.into(), slice: slice.into(), value: e.value, interval: e.low.zip(e.high) }
}

fn one<R: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<R>, EvalError> {
    let path = folder.join(format!("{name}.json"));
    match fs::read(&path) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json).map_err(|e| EvalError::Line {
            path,
            line: e.line(),
            reason: format!("no result of `eval {name}`: {e}"),
        })?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EvalError::file("read", &path)(e)),
    }
}

/// The figures in all of these directories.
///
/// # Errors
/// As [`Results::read`].
pub fn metrics<P: AsRef<Path>>(folders: &[P]) -> Result<Vec<Metric>, EvalError> {
    let mut all = Vec::new();
    for folder in folders {
        all.extend(Results::read(folder.as_ref())?.metrics());
    }
    Ok(all)
}

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// As Markdown, with figures as files beside it.
    pub markdown: String,
    /// As one page that needs nothing else.
    pub html: String,
    /// Figures: names of files, and SVG.
    pub figures: Vec<(String, String)>,
}

/// Puts results together, of one model or of several side by side. `about` is Markdown that stands in front.
///
/// # Errors
/// When a figure cannot be drawn.
pub fn report(title: &str, about: &str, results: &[Results]) -> Result<Report, EvalError> {
    let mut figures = Vec::new();
    let perplexity: Vec<&PerplexityResult> = results.iter().filter_map(|r| r.perplexity.as_ref()).collect();
    if let Some(svg) = compare(
        "Bits per byte",
        "bits per byte, less is better",
        perplexity.iter().map(|r| {
            let groups = r.groups.iter().map(|g| (g.name.as_str(), g.bits_per_byte));
            (r.model.name.as_str(), groups.chain([("mean", r.mean_bits_per_byte)]).collect())
        }),
    )? {
        figures.push(("bits-per-byte.svg".to_owned(), svg));
    }
    let sft: Vec<&SftResult> = results.iter().filter_map(|r| r.sft.as_ref()).collect();
    for (title, file, exact) in [("Exact match", "exact-match.svg", true), ("F1", "f1.svg", false)] {
        let series = sft.iter().map(|r| {
            let value = |e: &Estimate| Estimate {
                value: 100.0 * e.value,
                low: e.low.map(|x| 100.0 * x),
                high: e.high.map(|x| 100.0 * x),
            };
            let kinds =
                r.kinds.iter().map(|k| (k.kind.as_str(), value(if exact { &k.exact } else { &k.f1 })));
            (r.model.name.as_str(), kinds.collect())
        });
        if let Some(svg) = compare(title, "%, more is better", series)? {
            figures.push((file.to_owned(), svg));
        }
    }
    let mut markdown = format!("# {title}\n\n{about}\n");
    for (name, _) in &figures {
        let shown = name.trim_end_matches(".svg").replace('-', " ");
        markdown.push_str(&format!("\n![{shown}](figures/{name})\n"));
    }
    for result in results {
        for part in result.markdown() {
            markdown.push_str(&format!("\n{part}"));
        }
    }
    let html = page(title, &markdown, &figures);
    Ok(Report { markdown, html, figures })
}

/// Bars of several models side by side; none where there is no result.
fn compare<'r>(
    title: &str,
    unit: &str,
    models: impl Iterator<Item = (&'r str, Vec<(&'r str, Estimate)>)>,
) -> Result<Option<String>, EvalError> {
    let models: Vec<(&str, Vec<(&str, Estimate)>)> = models.collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in models.iter().flat_map(|(_, values)| values) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let nothing = Estimate { value: f64::NAN, low: None, high: None };
    let of = |values: &[(&str, Estimate)], name: &str| {
        values.iter().find(|(own, _)| *own == name).map_or(nothing, |(_, e)| *e)
    };
    let groups: Vec<(String, Vec<Estimate>)> = names
        .into_iter()
        .map(|name| (name.to_owned(), models.iter().map(|(_, values)| of(values, name)).collect()))
        .collect();
    let series: Vec<String> = models.iter().map(|(name, _)| (*name).to_owned()).collect();
    figures::bars(title, unit, &series, &groups).map(Some)
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{border-bottom:1px solid #ddd;padding:.25rem .7rem}\
th{border-bottom:2px solid #888}svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:.1rem .25rem}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}code{background:#2a2a2a}svg{background:#fff}td,th{border-color:#444}}";

/// Markdown as one page, with figures in it.
fn page(title: &str, markdown: &str, figures: &[(String, String)]) -> String {
    let mut body = String::new();
    // Names of datasets and the like come from outside: HTML in them is text.
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    html::push_html(&mut body, events);
    for (name, svg) in figures {
        let shown = name.trim_end_matches(".svg").replace('-', " ");
        let image = format!("<img src=\"figures/{name}\" alt=\"{shown}\" />");
        let named = svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{shown}\""), 1);
        body = body.replace(&image, &named);
    }
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_figures_and_escapes_what_is_not_its_own() {
        let figures = [("bits-per-byte.svg".to_owned(), "<svg width=\"1\"></svg>".to_owned())];
        let text =
            "# T\n\n![bits per byte](figures/bits-per-byte.svg)\n\n| a | b |\n|---|--:|\n| x | <b>1</b> |\n";
        let page = page("a < b", text, &figures);
        assert!(
            page.contains("<title>a &lt; b</title>") && page.contains("aria-label=\"bits per byte\""),
            "{page}"
        );
        assert!(
            page.contains("<td>x</td>") && page.contains("&lt;b&gt;1") && !page.contains("<img"),
            "{page}"
        );
        // Nothing is fetched from elsewhere.
        assert!(!page.contains("http"), "{page}");
    }

    #[test]
    fn folders_without_results_are_refused_and_broken_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Results::read(dir.path()).unwrap_err().to_string().contains("no results"));
        fs::write(dir.path().join("sft.json"), "{}").unwrap();
        assert!(Results::read(dir.path()).unwrap_err().to_string().contains("no result of `eval sft`"));
    }
}
