//! Reports: what evaluations came to, read from the directories that their results are in, as one page.

use crate::{
    EvalError,
    bias::BiasResult,
    bootstrap::Estimate,
    figures,
    memorization::MemorizationResult,
    perplexity::PerplexityResult,
    sft::SftResult,
    tasks::TasksResult,
    toxicity::{ToxicityResult, judge::Aspect},
};
use blackletter_figures::Figure;
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
    /// Questions of tasks.
    pub tasks: Option<TasksResult>,
    /// Toxicity, by experiment.
    pub toxicity: Vec<ToxicityResult>,
    /// Bias.
    pub bias: Option<BiasResult>,
    /// Memorisation.
    pub memorization: Option<MemorizationResult>,
}

impl Results {
    /// Reads what there is in `folder`.
    ///
    /// # Errors
    /// When a result cannot be read, or there is none.
    pub fn read(folder: &Path) -> Result<Self, EvalError> {
        let mut toxicity = Vec::new();
        for experiment in 1..=3 {
            toxicity.extend(one(folder, &format!("toxicity-{experiment}"))?);
        }
        let results = Self {
            perplexity: one(folder, "perplexity")?,
            sft: one(folder, "sft")?,
            tasks: one(folder, "tasks")?,
            toxicity,
            bias: one(folder, "bias")?,
            memorization: one(folder, "memorization")?,
        };
        if results == Self::default() {
            let shown = folder.display();
            return Err(EvalError::Nothing(format!("{shown} has no results of `blackletter eval … --out`")));
        }
        Ok(results)
    }

    /// Each result for people.
    pub fn markdown(&self) -> Vec<String> {
        let mut all: Vec<String> = self.perplexity.iter().map(PerplexityResult::to_markdown).collect();
        all.extend(self.sft.iter().map(SftResult::to_markdown));
        all.extend(self.tasks.iter().map(TasksResult::to_markdown));
        all.extend(self.toxicity.iter().map(ToxicityResult::to_markdown));
        all.extend(self.bias.iter().map(BiasResult::to_markdown));
        all.extend(self.memorization.iter().map(MemorizationResult::to_markdown));
        all
    }

    /// The name of the model that was measured.
    pub fn model(&self) -> Option<&str> {
        let subjects = [
            self.perplexity.as_ref().map(|r| &r.model),
            self.sft.as_ref().map(|r| &r.model),
            self.tasks.as_ref().map(|r| &r.model),
            self.toxicity.first().map(|r| &r.model),
            self.bias.as_ref().map(|r| &r.model),
            self.memorization.as_ref().map(|r| &r.model),
        ];
        subjects.into_iter().flatten().map(|subject| subject.name.as_str()).next()
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
        for task in self.tasks.iter().flat_map(|result| &result.tasks) {
            metrics.extend(task.metrics.iter().map(|(name, e)| metric(name, &task.task, e)));
        }
        for result in &self.toxicity {
            let slice = format!("toxicity experiment {}", result.settings.experiment);
            metrics.push(metric("bad word rate", &slice, &result.bad_word_rate));
            for score in &result.scores {
                let name = if score.aspect == Aspect::Bias { "judged bias" } else { "judged toxicity" };
                metrics.push(metric(name, &slice, &score.mean));
            }
        }
        if let Some(result) = &self.bias {
            metrics.push(metric("stereotype preference", "pairs", &result.overall.preference));
        }
        for c in self.memorization.iter().flat_map(|result| &result.continuations) {
            let slice = format!("prompts of {} tokens", c.prompt_tokens);
            metrics.push(metric("verbatim continuation", &slice, &c.verbatim));
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
    /// Figures, with the names of their files without endings.
    pub figures: Vec<(String, Figure)>,
}

/// Puts results together, of one model or of several side by side. `about` is Markdown that stands in front.
///
/// # Errors
/// When a figure cannot be drawn.
pub fn report(title: &str, about: &str, results: &[Results]) -> Result<Report, EvalError> {
    let mut figures = Vec::new();
    let perplexity: Vec<&PerplexityResult> = results.iter().filter_map(|r| r.perplexity.as_ref()).collect();
    if let Some(figure) = compare(
        "Bits per byte",
        "bits per byte, less is better",
        perplexity.iter().map(|r| {
            let groups = r.groups.iter().map(|g| (g.name.as_str(), g.bits_per_byte));
            (r.model.name.as_str(), groups.chain([("mean", r.mean_bits_per_byte)]).collect())
        }),
    )? {
        figures.push(("bits-per-byte".to_owned(), figure));
    }
    let sft: Vec<&SftResult> = results.iter().filter_map(|r| r.sft.as_ref()).collect();
    for (title, file, exact) in [("Exact match", "exact-match", true), ("F1", "f1", false)] {
        let series = sft.iter().map(|r| {
            let value = |e: &Estimate| e.map(|x| 100.0 * x);
            let kinds =
                r.kinds.iter().map(|k| (k.kind.as_str(), value(if exact { &k.exact } else { &k.f1 })));
            (r.model.name.as_str(), kinds.collect())
        });
        if let Some(figure) = compare(title, "%, more is better", series)? {
            figures.push((file.to_owned(), figure));
        }
    }
    figures.extend(toxicity_figures(results)?);
    let bias = results.iter().filter_map(|r| r.bias.as_ref()).map(|r| {
        let share = |s: &crate::bias::BiasScore| s.preference.map(|x| 100.0 * x);
        (r.model.name.as_str(), r.categories.iter().map(|s| (s.category.as_str(), share(s))).collect())
    });
    if let Some(figure) = compare("Stereotyped sentence likelier", "%, 50 is no preference", bias)? {
        figures.push(("bias".to_owned(), figure));
    }
    let mut markdown = format!("# {title}\n\n{about}\n");
    for (name, _) in &figures {
        let shown = name.replace('-', " ");
        markdown.push_str(&format!("\n![{shown}](figures/{name}.svg)\n"));
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
) -> Result<Option<Figure>, EvalError> {
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

/// Bad-word rates, mean scores and shares of scores of all models side by side.
fn toxicity_figures(results: &[Results]) -> Result<Vec<(String, Figure)>, EvalError> {
    let mut figures = Vec::new();
    let names = ["experiment 1", "experiment 2", "experiment 3"];
    let name = |result: &ToxicityResult| {
        names.get(usize::from(result.settings.experiment.saturating_sub(1))).copied().unwrap_or_default()
    };
    let measured = || results.iter().filter(|r| !r.toxicity.is_empty());
    let of = |r: &Results| r.toxicity.first().map(|t| t.model.name.clone()).unwrap_or_default();
    let models: Vec<(String, &Results)> = measured().map(|r| (of(r), r)).collect();
    let rates = models.iter().map(|(model, r)| {
        let rate = |t: &ToxicityResult| t.bad_word_rate.map(|x| 100.0 * x);
        (model.as_str(), r.toxicity.iter().map(|t| (name(t), rate(t))).collect())
    });
    if let Some(figure) = compare("Bad words", "% of words", rates)? {
        figures.push(("bad-words".to_owned(), figure));
    }
    for (aspect, title, file) in
        [(Aspect::Toxicity, "Judged toxicity", "toxicity"), (Aspect::Bias, "Judged bias", "judged-bias")]
    {
        let score = |t: &ToxicityResult| t.scores.iter().find(|s| s.aspect == aspect).cloned();
        let means = models.iter().map(|(model, r)| {
            let values: Vec<(&str, Estimate)> =
                r.toxicity.iter().filter_map(|t| Some((name(t), score(t)?.mean))).collect();
            (model.as_str(), values)
        });
        if let Some(figure) = compare(title, "mean score, 0 to 10", means)? {
            figures.push((file.to_owned(), figure));
        }
        let mut groups = Vec::new();
        for (model, r) in &models {
            for t in &r.toxicity {
                groups.extend(score(t).map(|s| (format!("{model} {}", t.settings.experiment), s.shares)));
            }
        }
        if !groups.is_empty() {
            let parts: Vec<String> = (0..=10).map(|score| score.to_string()).collect();
            figures.push((
                format!("{file}-scores"),
                figures::stacked(&format!("{title}: shares of scores"), &parts, &groups)?,
            ));
        }
    }
    Ok(figures)
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{border-bottom:1px solid #ddd;padding:.25rem .7rem}\
th{border-bottom:2px solid #888}svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:.1rem .25rem}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}code{background:#2a2a2a}svg{background:#fff}td,th{border-color:#444}}";

/// Markdown as one page, with figures in it.
fn page(title: &str, markdown: &str, figures: &[(String, Figure)]) -> String {
    let mut body = String::new();
    // Names of datasets and the like come from outside: HTML in them is text.
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    html::push_html(&mut body, events);
    for (name, figure) in figures {
        let shown = name.replace('-', " ");
        let image = format!("<img src=\"figures/{name}.svg\" alt=\"{shown}\" />");
        let named = figure.svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{shown}\""), 1);
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
        let figure = Figure { svg: "<svg width=\"1\"></svg>".into(), png: Vec::new() };
        let figures = [("bits-per-byte".to_owned(), figure)];
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
