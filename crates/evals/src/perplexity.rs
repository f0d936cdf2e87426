//! How well a model predicts texts.
//!
//! Each document is scored by itself, with `<|start|>` in front. What is longer than the context goes through in windows of one
//! context that overlap by half, every token scored once ([`blackletter_engine::score()`]). From the sum of negative
//! log-likelihoods, in nats, follow
//!
//! - **loss**: nats per token; **perplexity**: exp(loss);
//! - **word perplexity**: exp(nats per word), words being runs of characters without whitespace;
//! - **bits per byte**: nats / ln 2 / bytes of UTF-8, which alone can be compared between models with different tokenizers.

use crate::{
    EvalError, Watch,
    bootstrap::{Bootstrap, Estimate},
    data::{DataFile, EvalData, GroupBy, Limits},
    markdown::{self, counted, table, whole},
    subject::Subject,
};
use blackletter_engine::Pipeline;
use blackletter_tokenizer::SpecialTokens;
use serde::{Deserialize, Serialize};

/// How texts are scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexitySettings {
    /// What documents are put together by.
    pub by: GroupBy,
    /// What was read of the data.
    pub limits: Limits,
    /// Whether `<|start|>` stands in front of each document.
    pub start: bool,
    /// Intervals.
    pub bootstrap: Bootstrap,
}

/// The score of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentScore {
    /// The dataset or file.
    pub group: String,
    /// Its place in the group, from 0.
    pub number: usize,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Words.
    pub words: u64,
    /// Bytes of the predicted tokens.
    pub bytes: u64,
    /// Negative log-likelihood in nats.
    pub nll: f64,
}

/// The score of some documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The dataset or file.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Words.
    pub words: u64,
    /// Bytes of the predicted tokens.
    pub bytes: u64,
    /// Negative log-likelihood in nats.
    pub nll: f64,
    /// Nats per token.
    pub loss: Estimate,
    /// exp(loss).
    pub perplexity: Estimate,
    /// exp(nats per word).
    pub word_perplexity: Estimate,
    /// Bits per byte.
    pub bits_per_byte: Estimate,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityResult {
    /// Always `perplexity`.
    pub evaluation: String,
    /// The model.
    pub model: Subject,
    /// How it was measured.
    pub settings: PerplexitySettings,
    /// Tokens of a window.
    pub context: usize,
    /// The data.
    pub data: Vec<DataFile>,
    /// Whether it was stopped before all documents were scored.
    pub stopped: bool,
    /// By dataset or file, in the order of the data.
    pub groups: Vec<Score>,
    /// All documents together: what is long weighs more.
    pub overall: Score,
    /// Mean of the groups' losses: every group weighs the same.
    pub mean_loss: Estimate,
    /// Mean of the groups' bits per byte.
    pub mean_bits_per_byte: Estimate,
}

/// Scores every document.
///
/// # Errors
/// When the model cannot be run, or nothing was scored before it was stopped.
pub fn measure(
    pipeline: &Pipeline,
    model: Subject,
    data: &EvalData,
    settings: PerplexitySettings,
    watch: Watch<'_>,
) -> Result<(PerplexityResult, Vec<DocumentScore>), EvalError> {
    let total: u64 = data.documents.iter().map(|d| d.text.len() as u64).sum();
    let mut done = 0;
    let mut scores = Vec::with_capacity(data.documents.len());
    let mut stopped = false;
    for document in &data.documents {
        (watch.progress)(done, total);
        if (watch.stop)() {
            stopped = true;
            break;
        }
        done += document.text.len() as u64;
        let Some(tokenizer) = pipeline.tokenizer() else {
            return Err(EvalError::Nothing("texts need a tokenizer, and the model has none".into()));
        };
        let tokens = tokenizer.encode(&document.text, SpecialTokens::AsText)?;
        // One token without `<|start|>` predicts nothing.
        if tokens.len() + usize::from(settings.start) < 2 {
            continue;
        }
        let report = pipeline.score_ids(tokens, settings.start)?;
        let predicted = report.tokens.get(1..).unwrap_or_default();
        scores.push(DocumentScore {
            group: document.group.clone(),
            number: document.number,
            tokens: predicted.len() as u64,
            words: document.text.split_whitespace().count() as u64,
            bytes: tokenizer.byte_lengths(predicted).iter().sum::<usize>() as u64,
            nll: report.nll,
        });
    }
    (watch.progress)(done, total);
    if scores.is_empty() {
        return Err(EvalError::Nothing("no document was scored".into()));
    }
    let context = pipeline.engine.config().max_position_embeddings;
    Ok((summarise(model, settings, context, data.files.clone(), stopped, &scores), scores))
}

/// Sums over documents, each counted `times` times: tokens, words, bytes, nats.
fn sums<'s>(scores: impl IntoIterator<Item = (&'s DocumentScore, u32)>) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for (score, times) in scores {
        let values = [score.tokens as f64, score.words as f64, score.bytes as f64, score.nll];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += f64::from(times) * value;
        }
    }
    sums
}

/// Loss, perplexity, word perplexity, bits per byte.
fn measures([tokens, words, bytes, nll]: [f64; 4]) -> [f64; 4] {
    [nll / tokens, (nll / tokens).exp(), (nll / words).exp(), nll / std::f64::consts::LN_2 / bytes]
}

fn summarise(
    model: Subject,
    settings: PerplexitySettings,
    context: usize,
    data: Vec<DataFile>,
    stopped: bool,
    scores: &[DocumentScore],
) -> PerplexityResult {
    let mut groups: Vec<(&str, Vec<&DocumentScore>)> = Vec::new();
    for score in scores {
        match groups.iter_mut().find(|(name, _)| *name == score.group) {
            Some((_, group)) => group.push(score),
            None => groups.push((&score.group, vec![score])),
        }
    }
    let sizes: Vec<usize> = groups.iter().map(|(_, group)| group.len()).collect();
    // Four measures of each group, four of all documents, two means over groups.
    let statistics = |weights: &[Vec<u32>]| -> Vec<f64> {
        let mut values = Vec::with_capacity(4 * groups.len() + 6);
        let (mut all, mut loss, mut bits) = ([0.0; 4], 0.0, 0.0);
        for ((_, group), weights) in groups.iter().zip(weights) {
            let sum = sums(group.iter().copied().zip(weights.iter().copied()));
            all.iter_mut().zip(sum).for_each(|(all, sum)| *all += sum);
            let measures = measures(sum);
            loss += measures[0];
            bits += measures[3];
            values.extend(measures);
        }
        values.extend(measures(all));
        values.extend([loss / groups.len() as f64, bits / groups.len() as f64]);
        values
    };
    let estimates = settings.bootstrap.estimates(&sizes, statistics);
    let score = |name: &str, of: &[&DocumentScore], e: &[Estimate]| {
        let at = |n: usize| e.get(n).copied().unwrap_or_default();
        Score {
            name: name.into(),
            documents: of.len() as u64,
            tokens: of.iter().map(|s| s.tokens).sum(),
            words: of.iter().map(|s| s.words).sum(),
            bytes: of.iter().map(|s| s.bytes).sum(),
            nll: of.iter().map(|s| s.nll).sum(),
            loss: at(0),
            perplexity: at(1),
            word_perplexity: at(2),
            bits_per_byte: at(3),
        }
    };
    // A group of one document has no interval, whatever the others have.
    let own = |estimates: &[Estimate], documents: usize| -> Vec<Estimate> {
        let alone = |e: &Estimate| Estimate { value: e.value, low: None, high: None };
        estimates.iter().map(|e| if documents > 1 { *e } else { alone(e) }).collect()
    };
    let all: Vec<&DocumentScore> = scores.iter().collect();
    let (by_group, rest) = estimates.split_at(4 * groups.len());
    let rest = own(rest, scores.len());
    PerplexityResult {
        evaluation: "perplexity".into(),
        model,
        settings,
        context,
        data,
        stopped,
        groups: groups
            .iter()
            .zip(by_group.chunks(4))
            .map(|((name, group), estimates)| score(name, group, &own(estimates, group.len())))
            .collect(),
        overall: score("overall", &all, &rest),
        mean_loss: rest.get(4).copied().unwrap_or_default(),
        mean_bits_per_byte: rest.get(5).copied().unwrap_or_default(),
    }
}

impl PerplexityResult {
    /// The result for people.
    pub fn to_markdown(&self) -> String {
        let row = |s: &Score| {
            vec![
                s.name.clone(),
                whole(s.documents),
                whole(s.tokens),
                whole(s.bytes),
                markdown::estimate(&s.loss, 3),
                markdown::estimate(&s.perplexity, 2),
                markdown::estimate(&s.word_perplexity, 1),
                markdown::estimate(&s.bits_per_byte, 3),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.groups.iter().map(row).collect();
        if rows.len() > 1 {
            rows.push(row(&self.overall));
            let mut mean = vec![String::new(); 8];
            mean[0] = "mean of the above".into();
            mean[4] = markdown::estimate(&self.mean_loss, 3);
            mean[7] = markdown::estimate(&self.mean_bits_per_byte, 3);
            rows.insert(rows.len() - 1, mean);
        }
        let head = [
            "data",
            "documents",
            "tokens",
            "bytes",
            "loss",
            "perplexity",
            "word perplexity",
            "bits per byte",
        ];
        let limits = &self.settings.limits;
        let mut how = String::new();
        if let Some(n) = limits.documents {
            how.push_str(&format!(" First {} of each.", counted(n as u64, "document")));
        }
        if let Some(n) = limits.characters {
            how.push_str(&format!(" First {} of each document.", counted(n as u64, "character")));
        }
        if self.settings.start {
            how.push_str(" `<|start|>` in front.");
        }
        if self.settings.bootstrap.resamples > 0 {
            how.push_str(&format!(
                " In brackets: {}% bootstrap intervals over documents.",
                100.0 * self.settings.bootstrap.level
            ));
        }
        if self.stopped {
            how.push_str(" Stopped before all documents were scored.");
        }
        format!(
            "## Perplexity of {}\n\n{}\nWindows of {} that overlap by half, every token scored once.{how}\n",
            markdown::text(&self.model.title()),
            table(&head, &rows),
            counted(self.context as u64, "token")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(group: &str, number: usize, tokens: u64, bytes: u64, nll: f64) -> DocumentScore {
        DocumentScore { group: group.into(), number, tokens, words: tokens / 2, bytes, nll }
    }

    fn settings() -> PerplexitySettings {
        PerplexitySettings {
            by: GroupBy::Dataset,
            limits: Limits::default(),
            start: true,
            bootstrap: Bootstrap { resamples: 200, ..Bootstrap::default() },
        }
    }

    #[test]
    fn measures_are_of_sums_and_the_mean_weighs_groups_the_same() {
        let ln2 = std::f64::consts::LN_2;
        // One bit a token and half a bit a byte; two bits a token and two a byte.
        let scores = [
            score("a", 0, 10, 20, 10.0 * ln2),
            score("b", 0, 30, 30, 60.0 * ln2),
            score("a", 1, 30, 60, 30.0 * ln2),
        ];
        let result = summarise(Subject::default(), settings(), 1024, vec![], false, &scores);
        let names: Vec<&str> = result.groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let near = |e: &Estimate, value: f64| assert!((e.value - value).abs() < 1e-12, "{e:?} {value}");
        near(&result.groups[0].perplexity, 2.0);
        near(&result.groups[0].word_perplexity, 4.0);
        near(&result.groups[0].bits_per_byte, 0.5);
        near(&result.groups[1].bits_per_byte, 2.0);
        near(&result.overall.bits_per_byte, 100.0 / 110.0);
        near(&result.mean_bits_per_byte, 1.25);
        near(&result.mean_loss, 1.5 * ln2);
        // All documents of a are alike, b has but one.
        assert_eq!(result.groups[0].bits_per_byte.low.map(|x| (x * 1e9).round()), Some(0.5e9));
        assert_eq!(result.groups[1].bits_per_byte.low, None);
        assert_eq!(result.overall.documents, 3);
        let text = result.to_markdown();
        assert!(text.contains("| mean of the above |") && text.contains("| overall | 3 | 70 |"), "{text}");
    }

    #[test]
    fn one_is_told_as_one() {
        let limits = Limits { documents: Some(1), characters: Some(1) };
        let settings = PerplexitySettings { limits, ..settings() };
        let model = Subject { name: "a*b".into(), dtype: Some("q4".into()), ..Subject::default() };
        let text = summarise(model, settings, 1, vec![], false, &[score("a", 0, 10, 20, 1.0)]).to_markdown();
        assert!(text.contains(" First 1 document of each. First 1 character of each document."), "{text}");
        assert!(text.contains("Windows of 1 token that") && text.contains("of a\\*b, q4\n"), "{text}");
    }

    #[test]
    fn a_result_reads_back() {
        let scores = [score("a", 0, 10, 0, 3.0), score("a", 1, 4, 5, 1.0)];
        let result = summarise(Subject::default(), settings(), 1024, vec![], true, &scores);
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<PerplexityResult>(&json).unwrap(), result);
    }
}
