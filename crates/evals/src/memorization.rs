//! How much of its training data a model repeats.
//!
//! - **Continuations**: the model is given the `k` tokens before a random place in a random training document, and continues
//!   with its most likely tokens; is what follows in the document repeated word for word (Carlini et al. 2023, *Quantifying
//!   Memorization Across Neural Language Models*)? The places are the same for every `k`.
//! - **Free texts**: texts made from `<|start|>` by sampling; what are the longest spans of them that stand in the training
//!   data, and how many are for the most part in one document?

use crate::{
    EvalError, Watch,
    bootstrap::{Bootstrap, Estimate},
    greedy::{GreedyOptions, greedy},
    markdown::{self, counted, table, whole},
    subject::Subject,
};
use blackletter_engine::{GenerationOptions, Pipeline, generate, sampling::SamplingOptions};
use blackletter_tokenizer::Tokenizer;
use blackletter_trace::{DocumentRecord, Found, Index, SpanOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::ControlFlow};

/// Tokens from which on a span counts as repeated.
const SPAN: usize = 16;
/// A text is nearly one of the training data when this share of its tokens is in spans of one document.
const NEARLY: f64 = 0.8;
/// Documents that are looked at for each span.
const DOCUMENTS: usize = 64;

/// What is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorizationSettings {
    /// Tokens of prompts.
    pub prompt_tokens: Vec<usize>,
    /// Tokens of continuations.
    pub continuation: usize,
    /// Places in documents.
    pub samples: usize,
    /// Free texts.
    pub texts: usize,
    /// Most tokens of a free text.
    pub text_tokens: usize,
    /// Temperature of free texts.
    pub temperature: f32,
    /// What makes it repeatable.
    pub seed: u64,
    /// Intervals.
    pub bootstrap: Bootstrap,
}

impl Default for MemorizationSettings {
    fn default() -> Self {
        Self {
            prompt_tokens: vec![16, 32, 64, 128],
            continuation: 32,
            samples: 200,
            texts: 50,
            text_tokens: 256,
            temperature: 1.0,
            seed: 0,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// Continuations of prompts of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continuations {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Prompts.
    pub samples: u64,
    /// The share continued word for word.
    pub verbatim: Estimate,
    /// Mean share of the continuation up to the first token that differs.
    pub matched: Estimate,
    /// Verbatim continuations by licence of the document.
    pub licenses: BTreeMap<String, u64>,
}

/// Free texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FreeTexts {
    /// How many.
    pub texts: u64,
    /// Mean tokens of the longest span in the training data.
    pub longest: Estimate,
    /// The longest of all.
    pub longest_of_all: usize,
    /// Mean share of tokens in spans of at least 16 tokens.
    pub covered: Estimate,
    /// The share of texts of which at least 80 % are in such spans of one document.
    pub near_duplicates: Estimate,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorizationResult {
    /// Always `memorization`.
    pub evaluation: String,
    /// The model.
    pub model: Subject,
    /// Root over the documents of the corpus that was searched.
    pub corpus: String,
    /// How it was measured.
    pub settings: MemorizationSettings,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// By length of the prompt.
    pub continuations: Vec<Continuations>,
    /// Free texts, if there were any.
    pub free: Option<FreeTexts>,
}

/// A single measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Trial {
    /// A continuation.
    Continuation {
        /// The document.
        document: DocumentRecord,
        /// Where in its tokens the continuation begins.
        token: usize,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens up to the first that differs.
        matched: usize,
        /// Whether all are the document's.
        verbatim: bool,
        /// What follows in the document.
        expected: String,
        /// What the model made.
        made: String,
    },
    /// A free text.
    Text {
        /// The text.
        text: String,
        /// Its spans in the training data.
        #[serde(flatten)]
        found: Found,
        /// The greatest share of it that is in spans of one document.
        one_document: f64,
    },
}

struct Place {
    document: usize,
    /// Place in the document's tokens.
    token: usize,
}

/// Measures.
///
/// # Errors
/// When model and index have different tokenizers, no document is long enough, or the model cannot be run.
pub fn measure(
    pipeline: &Pipeline,
    model: Subject,
    index: &Index,
    settings: &MemorizationSettings,
    watch: Watch<'_>,
) -> Result<(MemorizationResult, Vec<Trial>), EvalError> {
    let Some(tokenizer) = pipeline.tokenizer() else {
        return Err(EvalError::Nothing("texts need a tokenizer, and the model has none".into()));
    };
    let tokens = |tokenizer: &Tokenizer| -> Vec<(u32, Option<String>)> {
        tokenizer.ids().into_iter().map(|id| (id, tokenizer.token(id))).collect()
    };
    if tokens(tokenizer) != tokens(index.tokenizer()) {
        let what = "the model's tokenizer is not the one that the index was made with";
        return Err(EvalError::Nothing(what.into()));
    }
    let context = pipeline.engine.config().max_position_embeddings;
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let longest = settings.prompt_tokens.iter().copied().max().unwrap_or_default();
    if longest + settings.continuation > context {
        let (need, has) = (longest + settings.continuation, context);
        return Err(EvalError::Nothing(format!(
            "prompt and continuation take {need} tokens, and the context has {has}"
        )));
    }
    let places = places(index, &mut rng, longest, settings.continuation, settings.samples)?;
    let total = (settings.prompt_tokens.len() * places.len() + settings.texts) as u64;
    let mut trials = Vec::new();
    let mut continuations = Vec::new();
    let mut stopped = false;
    for (round, &k) in settings.prompt_tokens.iter().enumerate() {
        let documents: Vec<Vec<u32>> = places.iter().map(|p| index.document_tokens(p.document)).collect();
        let span = |n: usize, from: usize, to: usize| {
            documents.get(n).and_then(|d| d.get(from..to)).unwrap_or_default()
        };
        let prompts: Vec<Vec<u32>> =
            places.iter().enumerate().map(|(n, p)| span(n, p.token - k, p.token).to_vec()).collect();
        let options = GreedyOptions { max_new_tokens: settings.continuation, batch: 8, end: &[] };
        let before = (round * places.len()) as u64;
        let progress = |done, _| (watch.progress)(before + done, total);
        let answers =
            greedy(&pipeline.engine, &prompts, options, Watch { progress: &progress, stop: watch.stop })?;
        let (mut verbatim, mut matched, mut licenses) = (Vec::new(), Vec::new(), BTreeMap::new());
        for ((n, place), answer) in places.iter().enumerate().zip(answers) {
            let Some(answer) = answer else {
                stopped = true;
                continue;
            };
            let expected = span(n, place.token, place.token + settings.continuation);
            let same = expected.iter().zip(&answer.ids).take_while(|(a, b)| a == b).count();
            let all = same == settings.continuation;
            verbatim.push(f64::from(u8::from(all)));
            matched.push(same as f64 / settings.continuation as f64);
            let document = index.document(place.document)?;
            if all {
                *licenses.entry(document.license.clone()).or_default() += 1;
            }
            trials.push(Trial::Continuation {
                document,
                token: place.token,
                prompt_tokens: k,
                matched: same,
                verbatim: all,
                expected: tokenizer.decode(expected, true),
                made: tokenizer.decode(&answer.ids, true),
            });
        }
        if !verbatim.is_empty() {
            continuations.push(Continuations {
                prompt_tokens: k,
                samples: verbatim.len() as u64,
                verbatim: settings.bootstrap.mean(&verbatim),
                matched: settings.bootstrap.mean(&matched),
                licenses,
            });
        }
    }
    let before = (settings.prompt_tokens.len() * places.len()) as u64;
    let free = free_texts(pipeline, index, settings, (before, total), watch, &mut trials)?;
    let result = MemorizationResult {
        evaluation: "memorization".into(),
        model,
        corpus: index.manifest().corpus.clone(),
        settings: settings.clone(),
        stopped: stopped || (watch.stop)(),
        continuations,
        free,
    };
    Ok((result, trials))
}

/// Random places in random documents that have `before` tokens before them and `after` after; a document is drawn as often as
/// its length makes it likely.
fn places(
    index: &Index,
    rng: &mut ChaCha8Rng,
    before: usize,
    after: usize,
    samples: usize,
) -> Result<Vec<Place>, EvalError> {
    let mut ends = Vec::new();
    let mut sum = 0;
    for number in 0..index.documents() {
        sum += (index.document_len(number) + 1).saturating_sub(before + after);
        ends.push(sum);
    }
    if sum == 0 && samples > 0 {
        let need = before + after;
        return Err(EvalError::Nothing(format!("no document of the index has {need} tokens")));
    }
    Ok((0..samples)
        .map(|_| {
            let drawn = rng.random_range(0..sum);
            let document = ends.partition_point(|&end| end <= drawn);
            let start = document.checked_sub(1).and_then(|n| ends.get(n)).copied().unwrap_or(0);
            Place { document, token: before + (drawn - start) }
        })
        .collect())
}

fn free_texts(
    pipeline: &Pipeline,
    index: &Index,
    settings: &MemorizationSettings,
    (before, total): (u64, u64),
    watch: Watch<'_>,
    trials: &mut Vec<Trial>,
) -> Result<Option<FreeTexts>, EvalError> {
    let start = pipeline.prompt(String::new(), blackletter_tokenizer::SpecialTokens::AsText)?;
    let (mut longest, mut covered, mut near) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    while done < settings.texts && !(watch.stop)() {
        (watch.progress)(before + done as u64, total);
        let some = (settings.texts - done).min(8);
        let options = GenerationOptions {
            max_new_tokens: settings.text_tokens,
            num_return_sequences: some,
            sampling: SamplingOptions {
                temperature: settings.temperature,
                top_k: 0,
                ..SamplingOptions::default()
            },
            seed: settings.seed.wrapping_add(done as u64),
            stop: Vec::new(),
            eos_token_id: pipeline.eos_token_id(),
        };
        let stop = watch.stop;
        let made = generate(&pipeline.engine, None, &start.ids, &options, &mut |_, _| {
            if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        done += some;
        if (watch.stop)() {
            break;
        }
        for one in made {
            let Some(tokenizer) = pipeline.tokenizer() else { continue };
            let ids: Vec<u32> = one.ids.into_iter().filter(|&id| !tokenizer.is_special(id)).collect();
            if ids.is_empty() {
                continue;
            }
            let found = index.trace_ids(&ids, SpanOptions { min_tokens: SPAN, documents: DOCUMENTS })?;
            // How long the longest span is, if it is shorter than what counts.
            let most =
                (0..ids.len()).map(|from| index.longest_prefix(ids.get(from..).unwrap_or_default()).0).max();
            let share = one_document(&found);
            longest.push(most.unwrap_or(0) as f64);
            covered.push(found.covered as f64 / ids.len() as f64);
            near.push(f64::from(u8::from(share >= NEARLY)));
            trials.push(Trial::Text { text: tokenizer.decode(&ids, true), found, one_document: share });
        }
    }
    if longest.is_empty() {
        return Ok(None);
    }
    let most = longest.iter().copied().fold(0.0, f64::max);
    Ok(Some(FreeTexts {
        texts: longest.len() as u64,
        longest: settings.bootstrap.mean(&longest),
        longest_of_all: most as usize,
        covered: settings.bootstrap.mean(&covered),
        near_duplicates: settings.bootstrap.mean(&near),
    }))
}

/// The greatest share of a text's tokens that is in spans of one document.
fn one_document(found: &Found) -> f64 {
    let mut spans: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for span in &found.spans {
        for one in &span.documents {
            spans.entry(&one.document.id).or_default().push((span.token, span.token + span.tokens));
        }
    }
    let most = spans.values().map(|spans| {
        let (mut sum, mut end) = (0, 0);
        for &(from, to) in spans {
            sum += to.saturating_sub(end.max(from));
            end = end.max(to);
        }
        sum
    });
    most.max().unwrap_or(0) as f64 / found.tokens.max(1) as f64
}

impl MemorizationResult {
    /// The result for people.
    pub fn to_markdown(&self) -> String {
        let percent = |e: &Estimate| markdown::estimate(&e.map(|x| 100.0 * x), 1);
        let rows: Vec<Vec<String>> = self
            .continuations
            .iter()
            .map(|c| {
                let licenses: Vec<String> = c.licenses.iter().map(|(l, n)| format!("{l}: {n}")).collect();
                vec![
                    c.prompt_tokens.to_string(),
                    whole(c.samples),
                    percent(&c.verbatim),
                    percent(&c.matched),
                    licenses.join(", "),
                ]
            })
            .collect();
        let head = [
            "prompt tokens",
            "prompts",
            "continued verbatim %",
            "matched before the first difference %",
            "verbatim by licence",
        ];
        let mut out = format!(
            "## Memorization of {}\n\n{}\nMost likely continuations of {} from random places of training documents.\n",
            markdown::text(&self.model.title()),
            table(&head, &rows),
            counted(self.settings.continuation as u64, "token")
        );
        if let Some(free) = &self.free {
            let rows = [
                ("longest span in the training data, mean tokens", markdown::estimate(&free.longest, 1)),
                ("longest of all, tokens", free.longest_of_all.to_string()),
                ("tokens in spans of at least 16, %", percent(&free.covered)),
                ("near duplicates of one document, %", percent(&free.near_duplicates)),
            ];
            let rows: Vec<Vec<String>> = rows.into_iter().map(|(a, b)| vec![a.to_owned(), b]).collect();
            out.push_str(&format!(
                "\n{} of at most {}, temperature {}:\n\n{}",
                counted(free.texts, "free text"),
                counted(self.settings.text_tokens as u64, "token"),
                self.settings.temperature,
                table(&["", ""], &rows)
            ));
        }
        if self.stopped {
            out.push_str("\nStopped before its end.\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blackletter_trace::{Match, Span};

    #[test]
    fn one_is_told_as_one() {
        let none = Estimate { value: 0.0, low: None, high: None };
        let result = MemorizationResult {
            evaluation: "memorization".into(),
            model: Subject { name: "nano".into(), dtype: Some("q4".into()), ..Subject::default() },
            corpus: String::new(),
            settings: MemorizationSettings {
                continuation: 1,
                text_tokens: 1,
                ..MemorizationSettings::default()
            },
            stopped: false,
            continuations: vec![],
            free: Some(FreeTexts {
                texts: 1,
                longest: none,
                longest_of_all: 0,
                covered: none,
                near_duplicates: none,
            }),
        };
        let text = result.to_markdown();
        for part in [
            "of nano, q4\n",
            "continuations of 1 token from",
            "\n1 free text of at most 1 token, temperature",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_lies_in_one_document_is_counted_once() {
        let of = |id: &str| Match {
            document: DocumentRecord {
                id: id.into(),
                dataset: "d".into(),
                title: None,
                license: "CC0-1.0".into(),
                license_basis: None,
                url: None,
            },
            offset: 0,
        };
        let span = |token: usize, tokens: usize, documents: Vec<Match>| Span {
            token,
            tokens,
            byte: 0,
            text: String::new(),
            occurrences: 1,
            documents,
        };
        let spans = vec![
            span(0, 20, vec![of("a")]),
            span(10, 20, vec![of("a"), of("b")]),
            span(50, 25, vec![of("b")]),
        ];
        let found = Found { tokens: 100, covered: 55, spans };
        assert!((one_document(&found) - 0.45).abs() < 1e-12);
    }
}
