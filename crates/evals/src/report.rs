//! Reports: what evaluations came to, read from the directories that their results are in, as one page.

use crate::{
    EvalError,
    bias::BiasResult,
    bootstrap::Estimate,
    figures, markdown,
    memorization::MemorizationResult,
    page::page,
    perplexity::PerplexityResult,
    results::is_of,
    sft::SftResult,
    subject::Subject,
    tasks::TasksResult,
    toxicity::{ToxicityResult, judge::Aspect},
};
use blackletter_figures::Figure;
use blackletter_provenance::{ModelRecord, bom::Metric, hash};
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

    /// Each evaluation with the model that was measured; a directory may hold those of several.
    pub fn subjects(&self) -> Vec<(String, &Subject)> {
        let mut all: Vec<(String, &Subject)> = Vec::new();
        all.extend(self.perplexity.iter().map(|r| ("perplexity".into(), &r.model)));
        all.extend(self.sft.iter().map(|r| ("sft".into(), &r.model)));
        all.extend(self.tasks.iter().map(|r| ("tasks".into(), &r.model)));
        let toxicity = |r: &ToxicityResult| format!("toxicity {}", r.settings.experiment);
        all.extend(self.toxicity.iter().map(|r| (toxicity(r), &r.model)));
        all.extend(self.bias.iter().map(|r| ("bias".into(), &r.model)));
        all.extend(self.memorization.iter().map(|r| ("memorization".into(), &r.model)));
        all
    }

    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        let mut all: Vec<&mut Subject> = Vec::new();
        all.extend(self.perplexity.iter_mut().map(|r| &mut r.model));
        all.extend(self.sft.iter_mut().map(|r| &mut r.model));
        all.extend(self.tasks.iter_mut().map(|r| &mut r.model));
        all.extend(self.toxicity.iter_mut().map(|r| &mut r.model));
        all.extend(self.bias.iter_mut().map(|r| &mut r.model));
        all.extend(self.memorization.iter_mut().map(|r| &mut r.model));
        all
    }

    /// Those of the results that are of the model of `record` ([`is_of`]).
    pub fn of(&self, record: &ModelRecord) -> Self {
        let own = |subject: &Subject| is_of(subject, record);
        Self {
            perplexity: self.perplexity.clone().filter(|r| own(&r.model)),
            sft: self.sft.clone().filter(|r| own(&r.model)),
            tasks: self.tasks.clone().filter(|r| own(&r.model)),
            toxicity: self.toxicity.iter().filter(|r| own(&r.model)).cloned().collect(),
            bias: self.bias.clone().filter(|r| own(&r.model)),
            memorization: self.memorization.clone().filter(|r| own(&r.model)),
        }
    }

    /// The others, in words: which evaluation of which model.
    pub fn not_of(&self, record: &ModelRecord) -> Vec<String> {
        let others = self.subjects().into_iter().filter(|(_, subject)| !is_of(subject, record));
        others
            .map(|(evaluation, subject)| {
                let title = subject.title();
                let same = if title == record.model.name { " (other weights)" } else { "" };
                format!("{evaluation} of {title}{same}")
            })
            .collect()
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
            let slice = format!("prompts of {}", markdown::counted(c.prompt_tokens as u64, "token"));
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

/// The figures in all of these directories that are of the model of `record`; and which evaluations were left out since they are of
/// others, in words.
///
/// # Errors
/// As [`Results::read`].
pub fn metrics<P: AsRef<Path>>(
    folders: &[P],
    record: &ModelRecord,
) -> Result<(Vec<Metric>, Vec<String>), EvalError> {
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for folder in folders {
        let results = Results::read(folder.as_ref())?;
        all.extend(results.of(record).metrics());
        others.extend(results.not_of(record));
    }
    Ok((all, others))
}

/// The results with models that their titles tell apart: where other weights go by the same title, the beginning of their hash is put
/// to the name. The weights of `record` go by its name there, in whatever form they were run, and no others do.
pub(crate) fn told_apart(results: &[Results], record: Option<&ModelRecord>) -> Vec<Results> {
    let mut results = results.to_vec();
    let own = |subject: &Subject| {
        let stored = Subject { dtype: None, ..subject.clone() };
        record.filter(|record| is_of(&stored, record))
    };
    for subject in results.iter_mut().flat_map(Results::subjects_mut) {
        if let Some(record) = own(subject) {
            subject.name.clone_from(&record.model.name);
        }
    }
    let all: Vec<Subject> =
        results.iter().flat_map(Results::subjects).map(|(_, subject)| subject.clone()).collect();
    for subject in results.iter_mut().flat_map(Results::subjects_mut).filter(|s| own(s).is_none()) {
        let title = subject.title();
        let taken = record.is_some_and(|record| record.model.name == title)
            || all.iter().any(|other| other.weights != subject.weights && other.title() == title);
        if taken {
            let of_one = subject.weights.first().filter(|_| subject.weights.len() == 1);
            let hash = of_one.map(|file| file.blake3.clone()).unwrap_or_else(|| {
                let all: String = subject.weights.iter().map(|file| file.blake3.as_str()).collect();
                hash::hex(all.as_bytes())
            });
            subject.name.push_str(&format!(" ({})", hash.get(..8).unwrap_or(&hash)));
        }
    }
    results
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
    let results = &told_apart(results, None);
    let mut figures = Vec::new();
    let perplexity: Vec<&PerplexityResult> = results.iter().filter_map(|r| r.perplexity.as_ref()).collect();
    if let Some(figure) = compare(
        "Bits per byte",
        "bits per byte, less is better",
        perplexity.iter().map(|r| {
            let groups = r.groups.iter().map(|g| (g.name.as_str(), g.bits_per_byte));
            (r.model.title(), groups.chain([("mean", r.mean_bits_per_byte)]).collect())
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
            (r.model.title(), kinds.collect())
        });
        if let Some(figure) = compare(title, "%, more is better", series)? {
            figures.push((file.to_owned(), figure));
        }
    }
    figures.extend(toxicity_figures(results)?);
    let bias = results.iter().filter_map(|r| r.bias.as_ref()).map(|r| {
        let share = |s: &crate::bias::BiasScore| s.preference.map(|x| 100.0 * x);
        (r.model.title(), r.categories.iter().map(|s| (s.category.as_str(), share(s))).collect())
    });
    if let Some(figure) = compare("Stereotyped sentence likelier", "%, 50 is no preference", bias)? {
        figures.push(("bias".to_owned(), figure));
    }
    let mut markdown = format!("# {}\n\n{about}\n", markdown::text(title));
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
    models: impl Iterator<Item = (String, Vec<(&'r str, Estimate)>)>,
) -> Result<Option<Figure>, EvalError> {
    let models: Vec<(String, Vec<(&str, Estimate)>)> = models.collect();
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
    let series: Vec<String> = models.into_iter().map(|(name, _)| name).collect();
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
    let of = |r: &Results| r.toxicity.first().map(|t| t.model.title()).unwrap_or_default();
    let models: Vec<(String, &Results)> = measured().map(|r| (of(r), r)).collect();
    let rates = models.iter().map(|(model, r)| {
        let rate = |t: &ToxicityResult| t.bad_word_rate.map(|x| 100.0 * x);
        (model.clone(), r.toxicity.iter().map(|t| (name(t), rate(t))).collect())
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
            (model.clone(), values)
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        bootstrap::Bootstrap,
        data::{GroupBy, Limits},
        perplexity::{PerplexitySettings, Score},
        subject::WeightFile,
    };

    /// A result of a model of that name whose weights have that hash, on one dataset; every measure has that value.
    pub(crate) fn measured(
        name: &str,
        blake3: &str,
        dtype: Option<&str>,
        dataset: &str,
        value: f64,
    ) -> Results {
        let weights = vec![WeightFile { name: "model.safetensors".into(), blake3: blake3.into() }];
        let dtype = dtype.map(str::to_owned);
        let e = Estimate { value, low: None, high: None };
        let score = Score {
            name: dataset.into(),
            documents: 1,
            tokens: 2,
            words: 1,
            bytes: 3,
            nll: 1.0,
            loss: e,
            perplexity: e,
            word_perplexity: e,
            bits_per_byte: e,
        };
        let result = PerplexityResult {
            evaluation: "perplexity".into(),
            model: Subject { name: name.into(), weights, dtype, ..Subject::default() },
            settings: PerplexitySettings {
                by: GroupBy::Dataset,
                limits: Limits::default(),
                start: true,
                bootstrap: Bootstrap::default(),
            },
            context: 8,
            data: vec![],
            stopped: false,
            groups: vec![score.clone()],
            overall: score,
            mean_loss: e,
            mean_bits_per_byte: e,
        };
        Results { perplexity: Some(result), ..Results::default() }
    }

    #[test]
    fn names_from_outside_are_shown_and_do_nothing() {
        let name = "![x](http://tracker.example/x.png)";
        let page = report(name, "", &[measured(name, "aa", None, name, 0.5)]).unwrap();
        assert!(!page.html.contains("<img") && !page.html.contains("src=\"http"), "{}", page.html);
        assert_eq!(page.html.matches(&format!("<td>{name}</td>")).count(), 1, "{}", page.html);
        assert!(page.html.contains(&format!("<h1>{name}</h1>")), "{}", page.html);
        assert!(!page.markdown.contains("![x]"), "{}", page.markdown);
    }

    #[test]
    fn models_of_one_name_are_told_apart_by_their_weights() {
        let of = |blake3: &str| measured("nano", blake3, None, "usc", 0.5);
        let results = [of("aaaaaaaa11"), of("bbbbbbbb22")];
        let made = report("t", "", &results).unwrap();
        for title in ["Perplexity of nano (aaaaaaaa)", "Perplexity of nano (bbbbbbbb)"] {
            assert!(made.markdown.contains(title), "{}", made.markdown);
        }
        assert!(made.figures[0].1.svg.contains("nano (aaaaaaaa)"));
        let twice = [results[0].clone(), results[0].clone()];
        assert!(report("t", "", &twice).unwrap().markdown.contains("Perplexity of nano\n"));
    }

    #[test]
    fn folders_without_results_are_refused_and_broken_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Results::read(dir.path()).unwrap_err().to_string().contains("no results"));
        fs::write(dir.path().join("sft.json"), "{}").unwrap();
        assert!(Results::read(dir.path()).unwrap_err().to_string().contains("no result of `eval sft`"));
    }
}
