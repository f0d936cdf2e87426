//! The model card: `README.md` with the metadata that the Hugging Face Hub reads, made from a model's record and its
//! evaluations. Nothing in it is typed by hand.

use crate::{
    markdown::{code, counted, table, text, whole},
    report::{Results, told_apart},
};
use blackletter_provenance::{Accepted, ModelRecord, SampleText, SourceUse};
use serde_json::Value;
use std::fmt::Write;

/// Licences that the Hub knows by their SPDX id in lower case.
const HUB_LICENSES: [&str; 9] = [
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "odc-by",
    "unlicense",
];

/// What a card says beyond the record.
#[derive(Clone, Debug, Default)]
pub struct CardOptions {
    /// The name that the model is used by, such as `owner/name` or a directory.
    pub name: Option<String>,
    /// Sentences that the makers want to say in front of everything else.
    pub introduction: Option<String>,
}

/// The card of a model. Its metadata have the results that are of this model alone ([`Results::of`]); those of others stand beside its
/// own under their titles.
pub fn card(record: &ModelRecord, results: &[Results], options: &CardOptions) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = front_matter(&mut out, record, results);
    let _ = body(&mut out, record, results, options);
    out
}

/// A string in YAML; JSON strings are.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn front_matter(out: &mut String, record: &ModelRecord, results: &[Results]) -> std::fmt::Result {
    writeln!(out, "---")?;
    if let Some(license) = &record.model.license {
        let id = license.to_lowercase();
        if HUB_LICENSES.contains(&id.as_str()) {
            writeln!(out, "license: {id}")?;
        } else {
            writeln!(out, "license: other\nlicense_name: {}", quoted(license))?;
        }
    }
    writeln!(out, "language:\n- en\nlibrary_name: transformers\npipeline_tag: text-generation")?;
    writeln!(out, "tags:\n- legal\n- mixtral\n- blackletter")?;
    // Other models may be measured beside it, some of them under its name.
    let own = results.iter().map(|result| result.of(record));
    let metrics: Vec<_> = own.flat_map(|result| result.metrics()).filter(|m| m.value.is_finite()).collect();
    if !metrics.is_empty() {
        writeln!(out, "model-index:\n- name: {}\n  results:", quoted(&record.model.name))?;
        for metric in metrics {
            writeln!(out, "  - task:\n      type: text-generation\n    dataset:")?;
            writeln!(out, "      name: {}\n      type: {}", quoted(&metric.slice), quoted(&metric.slice))?;
            writeln!(out, "    metrics:\n    - type: {}", quoted(&metric.name.replace(' ', "_")))?;
            writeln!(out, "      value: {:.4}", metric.value)?;
        }
    }
    writeln!(out, "---")
}

fn body(
    out: &mut String,
    record: &ModelRecord,
    results: &[Results],
    options: &CardOptions,
) -> std::fmt::Result {
    let model = &record.model;
    let name = options.name.as_deref().unwrap_or(&model.name).replace(char::is_control, " ");
    writeln!(out, "# {}\n\n{}\n", text(&model.name), model.description)?;
    if let Some(introduction) = &options.introduction {
        writeln!(out, "{introduction}\n")?;
    }
    let active = model
        .active_parameters
        .map(|n| format!(", {} of them active for a token", whole(n)))
        .unwrap_or_default();
    writeln!(
        out,
        "{} with {} parameters{active}. This card was made by {} {} from `provenance.json` and the results of its evaluations.\n",
        text(&model.architecture),
        whole(model.parameters),
        text(&record.generator.name),
        text(&record.generator.version)
    )?;
    writeln!(
        out,
        "## Use\n\n```sh\nblackletter generate \"Governing Law.\" --model {name} --max-new-tokens 64\n```\n"
    )?;
    writeln!(
        out,
        "```python\nfrom transformers import pipeline\np = pipeline(\"text-generation\", model=\"{name}\")\n\
         print(p(\"Governing Law.\", do_sample=True, temperature=0.5, max_new_tokens=64))\n```\n"
    )?;
    writeln!(
        out,
        "Intended: continuing and drafting legal text, and as a base for fine-tuning on tasks of law. Not intended: legal advice, \
         decisions about people, or statements of what the law is."
    )?;
    if !record.supervised.is_empty() {
        let mut kinds: Vec<&str> = record.supervised.iter().map(|s| s.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        writeln!(
            out,
            " It was also trained on examples of tasks ({}), which are asked with the chat template of its tokenizer.",
            text(&kinds.join(", "))
        )?;
    }
    data(out, record)?;
    training(out, record)?;
    writeln!(out, "\n## Evaluation\n")?;
    if results.is_empty() {
        writeln!(out, "Not evaluated yet.")?;
    }
    for result in told_apart(results, Some(record)) {
        for part in result.markdown() {
            // One level down.
            let part = part
                .lines()
                .map(|line| if line.starts_with('#') { format!("#{line}") } else { line.to_owned() });
            writeln!(out, "{}\n", part.collect::<Vec<_>>().join("\n"))?;
        }
    }
    writeln!(out, "## Limits\n")?;
    writeln!(
        out,
        "What the model writes sounds like law and may be wrong; sections, cases and parties that it names may not exist. It knows \
         the texts above, in English, as they were when its corpus was made. It repeats some passages of its training data word for \
         word, and carries the views that those texts hold about people."
    )?;
    writeln!(out, "\n## Check what went in\n")?;
    writeln!(
        out,
        "```sh\nblackletter audit {name} --corpus CORPUS\nblackletter bom --model {name} --format cyclonedx\n```\n"
    )?;
    writeln!(
        out,
        "`documents.parquet` names every document with its licence, address and hash; their root is {}. The record's seal is {}.",
        code(&record.corpus.root),
        code(&record.seal)
    )
}

fn data(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    writeln!(out, "\n## Training data\n")?;
    let accepted = |source: &&SourceUse| record.accepted.iter().any(|a| a.license == source.license);
    let (apart, open): (Vec<_>, Vec<_>) = record.sources.iter().partition(accepted);
    writeln!(out, "{}", sources(&open))?;
    writeln!(
        out,
        "Documents count all parts of the corpus; held-out ones were not trained on. Tokens count each as often as it was seen."
    )?;
    for Accepted { license, reason, documents } in &record.accepted {
        let of: Vec<_> = apart.iter().copied().filter(|source| source.license == *license).collect();
        writeln!(
            out,
            "\n{} is no open licence. {} under it {} accepted by name because: {}\n\n{}",
            code(license),
            counted(*documents, "document"),
            if *documents == 1 { "was" } else { "were" },
            text(reason),
            sources(&of)
        )?;
    }
    examples(out, record)?;
    for base in record.bases() {
        writeln!(
            out,
            "\n### Before that\n\nThe training began with the weights of {}.\n",
            text(&base.sentence())
        )?;
        if let Some(record) = &base.record {
            writeln!(out, "{}", sources(&record.sources.iter().collect::<Vec<_>>()))?;
            examples(out, record)?;
        }
    }
    Ok(())
}

fn examples(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    if !record.supervised.is_empty() {
        let rows: Vec<Vec<String>> = record
            .supervised
            .iter()
            .map(|s| {
                vec![s.kind.clone(), s.dataset.clone(), s.license.clone(), whole(s.examples), whole(s.tokens)]
            })
            .collect();
        writeln!(
            out,
            "\nExamples of tasks:\n\n{}",
            table(&["kind", "dataset", "licence", "examples", "tokens"], &rows)
        )?;
    }
    Ok(())
}

/// A table of sources, with their sum.
fn sources(of: &[&SourceUse]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut sum = (0, 0, 0);
    for SourceUse { dataset, source, license, license_basis, documents, text_bytes, tokens } in of {
        sum = (sum.0 + documents, sum.1 + text_bytes, sum.2 + tokens);
        rows.push(vec![
            dataset.clone(),
            source.clone().unwrap_or_default(),
            license.clone(),
            license_basis.clone().unwrap_or_default(),
            whole(*documents),
            whole(*text_bytes),
            whole(*tokens),
        ]);
    }
    let all = ["all", "", "", ""].map(String::from).into_iter();
    rows.push(all.chain([sum.0, sum.1, sum.2].map(whole)).collect());
    let head = ["dataset", "source", "licence", "basis", "documents", "bytes of text", "tokens trained on"];
    table(&head, &rows)
}

fn training(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    let training = &record.training;
    writeln!(out, "\n## Training procedure\n")?;
    let mut rows = vec![
        vec!["optimiser steps".into(), whole(training.steps)],
        vec!["tokens".into(), whole(training.tokens)],
    ];
    if let Some(seconds) = training.seconds {
        rows.push(vec!["duration".into(), format!("{:.0} min", seconds / 60.0)]);
    }
    if let Some(hardware) = &training.hardware {
        rows.push(vec!["machine".into(), hardware.clone()]);
    }
    if let Some(loss) = training.final_loss {
        rows.push(vec!["loss at the end (nats per token)".into(), format!("{loss:.3}")]);
    }
    if let Some(commit) = &training.commit {
        rows.push(vec!["commit of the program".into(), commit.clone()]);
    }
    writeln!(out, "{}", table(&["", ""], &rows))?;
    if !record.derivations.is_empty() {
        writeln!(out, "What was done to the weights after that:\n")?;
        for step in &record.derivations {
            writeln!(out, "1. {}", text(&step.sentence()))?;
        }
        writeln!(out)?;
    }
    let file = |name: &str| record.files.iter().any(|file| file.path == name);
    if file("curves.svg") {
        writeln!(
            out,
            "![Loss, held-out bits per byte, learning rate and gradient norm over the steps](curves.svg)\n"
        )?;
    }
    if !training.heldout.is_empty() {
        let rows: Vec<Vec<String>> = training
            .heldout
            .iter()
            .map(|h| {
                vec![
                    h.dataset.clone(),
                    format!("{:.3}", h.loss),
                    format!("{:.3}", h.bits_per_byte),
                    whole(h.tokens),
                ]
            })
            .collect();
        writeln!(
            out,
            "Held-out documents of the corpus at the end, in windows of the context that do not overlap:\n\n{}",
            table(&["dataset", "loss (nats per token)", "bits per byte", "tokens scored"], &rows)
        )?;
    }
    writeln!(out, "The energy that training took was not metered.\n")?;
    samples(out, record)?;
    let recipe = serde_json::to_string_pretty(&training.recipe).unwrap_or_default();
    writeln!(
        out,
        "<details><summary>Settings, as they were run</summary>\n\n```json\n{recipe}\n```\n\n</details>"
    )
}

/// All samples of the last step, good or bad.
fn samples(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    let samples = &record.training.samples;
    if samples.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "What the model wrote at the end of its training from each of the run's prompts, not picked:\n"
    )?;
    for SampleText { prompt, text } in samples {
        // As a block, whatever stands in it; a carriage return ends a line, too.
        let whole = format!("{prompt}{text}").replace("\r\n", "\n").replace('\r', "\n");
        for line in whole.lines() {
            writeln!(out, "    {line}")?;
        }
        writeln!(out, "\n<!-- -->\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::measured;
    use blackletter_provenance::{
        BaseModel, CorpusUse, DocumentList, Generator, HeldOut, MODEL_RECORD_VERSION, ModelFile,
        ModelIdentity, RecordKind, Training,
    };
    use std::path::Path;

    pub(crate) fn record() -> ModelRecord {
        ModelRecord {
            version: MODEL_RECORD_VERSION,
            kind: RecordKind::Model,
            model: ModelIdentity {
                name: "nano".into(),
                description: "A small legal model.".into(),
                architecture: "MixtralForCausalLM".into(),
                parameters: 12_723_456,
                license: Some("CC-BY-4.0".into()),
                ..ModelIdentity::default()
            },
            generator: Generator { name: "blackletter".into(), version: "0.1.0".into() },
            corpus: CorpusUse { root: "ab".into(), record: None },
            tokenizer: String::new(),
            training: Training { steps: 1000, tokens: 9000, seconds: Some(600.0), ..Training::default() },
            sources: vec![SourceUse {
                dataset: "usc".into(),
                license: "CC0-1.0".into(),
                documents: 1234,
                text_bytes: 5,
                tokens: 6,
                ..SourceUse::default()
            }],
            supervised: vec![],
            accepted: vec![],
            documents: DocumentList::default(),
            base: None,
            derivations: vec![],
            files: vec![],
            seal: "cd".into(),
        }
    }

    #[test]
    fn a_card_has_the_hubs_metadata_and_the_records_figures() {
        let text = card(&record(), &[], &CardOptions { name: Some("owner/nano".into()), introduction: None });
        let (front, body) = text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
        assert!(
            front.contains("license: cc-by-4.0\n") && front.contains("pipeline_tag: text-generation"),
            "{front}"
        );
        for fact in [
            "12,723,456 parameters",
            "| usc |  | CC0-1.0 |  | 1,234 | 5 | 6 |",
            "| duration | 10 min |",
            "--model owner/nano",
            "Not evaluated yet.",
        ] {
            assert!(body.contains(fact), "{fact}\n{body}");
        }
    }

    #[test]
    fn accepted_licences_stand_apart_and_samples_stand_whole() {
        let mut record = record();
        record.sources.push(SourceUse {
            dataset: "edgar".into(),
            license: "LicenseRef-SEC-EDGAR".into(),
            documents: 9,
            ..SourceUse::default()
        });
        record.accepted =
            vec![Accepted { license: "LicenseRef-SEC-EDGAR".into(), reason: "filed".into(), documents: 9 }];
        record.training.heldout =
            vec![HeldOut { dataset: "usc".into(), loss: 1.5, bits_per_byte: 0.9, tokens: 1234 }];
        record.training.samples =
            vec![SampleText { prompt: "Under".into(), text: " this\n\n# title".into() }];
        let text = card(&record, &[], &CardOptions::default());
        let (open, apart) = text.split_once("is no open licence").unwrap();
        assert!(open.contains("| usc |") && !open.contains("| edgar |"), "{text}");
        assert!(apart.contains("because: filed") && apart.contains("| edgar |"), "{text}");
        assert!(text.contains("| usc | 1.500 | 0.900 | 1,234 |"), "{text}");
        assert!(text.contains("    Under this\n    \n    # title\n"), "{text}");
    }

    #[test]
    fn only_what_was_measured_of_these_weights_as_they_are_is_the_models() {
        let mut record = record();
        record.files = vec![ModelFile {
            path: "model.safetensors".into(),
            blake3: "aaaaaaaaaa".into(),
            ..ModelFile::default()
        }];
        let results = [
            measured("nano", "aaaaaaaaaa", Some("q4"), "usc", 0.1234),
            measured("nano", "bbbbbbbbbb", None, "usc", 0.2345),
            measured("nano", "bbbbbbbbbb", Some("q4"), "usc", 0.3456),
            measured("owner/other-name", "aaaaaaaaaa", None, "usc", 0.4567),
        ];
        let text = card(&record, &results, &CardOptions::default());
        let (front, body) = text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
        let values: Vec<&str> = front.lines().filter(|line| line.contains("value:")).collect();
        // Two measures, of the dataset and of all.
        assert_eq!(values, ["      value: 0.4567"; 4], "{front}");
        let tables: Vec<&str> = body.lines().filter(|line| line.starts_with("### ")).collect();
        let titles = ["nano, q4", "nano (bbbbbbbb)", "nano (bbbbbbbb), q4", "nano"];
        assert_eq!(tables, titles.map(|title| format!("### Perplexity of {title}")), "{body}");
        let told: Vec<String> = results.iter().flat_map(|result| result.not_of(&record)).collect();
        assert_eq!(
            told,
            ["nano, q4", "nano (other weights)", "nano, q4"].map(|title| format!("perplexity of {title}"))
        );
    }

    #[test]
    fn a_model_trained_further_tells_what_it_began_with() {
        let mut further = record();
        assert!(!card(&further, &[], &CardOptions::default()).contains("Before that"));
        let base = BaseModel { record: Some(Box::new(record())), ..BaseModel::named(Path::new("first")) };
        further.base = Some(Box::new(base));
        further.sources[0].dataset = "mine".into();
        let text = card(&further, &[], &CardOptions::default());
        let (own, before) = text.split_once("### Before that").unwrap();
        assert!(own.contains("| mine |") && !own.contains("| usc |"), "{own}");
        assert!(before.contains("began with the weights of first") && before.contains("| usc |"), "{before}");
    }

    #[test]
    fn names_in_a_record_are_text_and_one_document_is_one() {
        let mut record = record();
        let trap = "![x](http://tracker.example/x.png)";
        record.model.name = trap.into();
        record.sources[0].dataset = trap.into();
        record.sources[0].license = "a`b".into();
        record.accepted = vec![Accepted { license: "a`b".into(), reason: trap.into(), documents: 1 }];
        record.training.samples =
            vec![SampleText { prompt: "Under".into(), text: " this\r# title\r\n<b>".into() }];
        let text = card(&record, &[], &CardOptions { name: Some("nano".into()), introduction: None });
        let body = text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap().1;
        assert!(!body.contains(trap) && body.contains("# !\\[x\\](http:"), "{body}");
        assert!(body.contains("a\\`b is no open licence. 1 document under it was accepted"), "{body}");
        assert!(body.contains("    Under this\n    # title\n    <b>\n"), "{body}");
    }

    #[test]
    fn a_licence_that_the_hub_does_not_know_is_named() {
        let mut record = record();
        record.model.license = Some("LicenseRef-ours".into());
        let text = card(&record, &[], &CardOptions::default());
        assert!(text.contains("license: other\nlicense_name: \"LicenseRef-ours\""), "{text}");
    }
}
