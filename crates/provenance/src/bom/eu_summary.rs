//! The template of the European Commission (24 July 2025) for the public summary of the content used for training, Article
//! 53(1)(d) of Regulation (EU) 2024/1689, filled in with what a model's record says.

use super::{BomOptions, learned_from, timestamp, version};
use crate::{InputKind, ModelRecord, SourceUse};
use std::{collections::BTreeMap, fmt::Write};

/// Domains that are listed; the template asks providers that are small for the top 5 % or 1,000 of them.
const DOMAINS: usize = 1000;
/// What stands where a record cannot know.
const FILL: &str = "*to be filled in by the provider*";

/// The summary in Markdown. What a record cannot know is marked for the provider to fill in.
pub fn eu_summary(record: &ModelRecord, options: &BomOptions) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = general(&mut out, record, options);
    let _ = sources(&mut out, record, options);
    let _ = processing(&mut out, record);
    out
}

/// A cell of a table: what documents say cannot break it.
fn cell(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}

/// The template's ranges of size for text.
fn range(tokens: u64) -> &'static str {
    match tokens {
        0..1_000_000_000 => "less than 1 billion tokens",
        1_000_000_000..=10_000_000_000_000 => "1 billion to 10 trillion tokens",
        _ => "more than 10 trillion tokens",
    }
}

fn general(out: &mut String, record: &ModelRecord, options: &BomOptions) -> std::fmt::Result {
    let model = &record.model;
    let creator = model.creator.as_deref().unwrap_or(FILL);
    let published = model.published.as_deref().unwrap_or(FILL);
    let corpus = record.corpus.record.as_deref();
    let acquired = corpus.and_then(|c| c.dataset.published.as_deref()).unwrap_or(FILL);
    let records =
        || std::iter::once(record).chain(record.bases().into_iter().filter_map(|b| b.record.as_deref()));
    let bytes: u64 = records().flat_map(|r| &r.sources).map(|s| s.text_bytes).sum();
    let tokens: u64 = records().map(|r| r.training.tokens).sum();
    writeln!(out, "# Public summary of training content: {}\n", model.name)?;
    writeln!(
        out,
        "After the European Commission's template of 24 July 2025 (Regulation (EU) 2024/1689, Article 53(1)(d)). Made on {} by {} {} from the \
         model's own record, `provenance.json` (seal `{}`), which `blackletter audit` checks against weights and documents.\n",
        timestamp(options.time).get(..10).unwrap_or_default(),
        record.generator.name,
        record.generator.version,
        record.seal
    )?;
    writeln!(out, "## 1. General information\n\n### 1.1 Provider\n")?;
    writeln!(out, "- Name and contact details: {creator}")?;
    writeln!(out, "- Authorised representative: {FILL}, where there is one\n")?;
    writeln!(out, "### 1.2 Model\n")?;
    writeln!(out, "- Versioned model name: {} {}", model.name, version(record))?;
    // Records of programs that kept nothing of the base have its name in their settings.
    let from = record.training.recipe.pointer("/model/from").and_then(|from| from.as_str());
    match (&record.base, from.filter(|from| !from.is_empty())) {
        (Some(base), _) => writeln!(
            out,
            "- Model dependencies: this training began with the weights of {}",
            base.sentence()
        )?,
        (None, Some(from)) => {
            writeln!(out, "- Model dependencies: `{from}`, whose weights this training began with")?
        }
        (None, None) => {
            writeln!(out, "- Model dependencies: none; its weights were made from scratch by this training")?
        }
    }
    for step in &record.derivations {
        writeln!(out, "- Change after the training: {}", step.sentence())?;
    }
    writeln!(out, "- Date of placement on the Union market: {published}\n")?;
    writeln!(out, "### 1.3 Modalities, overall training data size and other characteristics\n")?;
    writeln!(out, "| modality | size | types of content |\n|---|---|---|")?;
    writeln!(
        out,
        "| text | {} (exactly {} tokens went through the model; the documents have {} bytes of text) | law and legal documents |\n",
        range(tokens),
        tokens,
        bytes
    )?;
    writeln!(out, "- Image, audio, video, other: none")?;
    let further = if record.derivations.is_empty() { "the record knows of no later training" } else { FILL };
    writeln!(out, "- Latest date of data acquisition: {acquired}; training after it: {further}")?;
    writeln!(out, "- Linguistic characteristics: English legal language, as the sources below state\n")
}

fn sources(out: &mut String, record: &ModelRecord, options: &BomOptions) -> std::fmt::Result {
    writeln!(out, "## 2. List of data sources\n\n### 2.1 Publicly available datasets\n")?;
    writeln!(
        out,
        "Documents of these datasets are in the public domain or under open licences. Each is named, with title, licence, basis, address and hash, in \
         `{}` beside the model.\n",
        record.documents.path
    )?;
    datasets(out, record)?;
    for base in record.bases() {
        let name = cell(&base.model.name);
        match &base.record {
            Some(record) => {
                writeln!(
                    out,
                    "\nThe weights that the training began with, those of {name}, come from these:\n"
                )?;
                datasets(out, record)?;
            }
            None => {
                writeln!(out, "\nWhat {name} was trained on, whose weights the training began with: {FILL}")?
            }
        }
    }
    for adapter in
        record.derivations.iter().flat_map(|step| &step.inputs).filter(|i| i.kind == InputKind::Adapter)
    {
        let name = cell(&adapter.name);
        if adapter.data.is_null() {
            writeln!(out, "\nWhat the adapter {name} learned from, which is part of the weights: {FILL}")?;
            continue;
        }
        writeln!(out, "\nThe adapter {name}, which is part of the weights, learned from these:\n")?;
        writeln!(out, "| data | licence | facts |\n|---|---|---|")?;
        for (name, license, facts) in learned_from(&adapter.data) {
            let facts: Vec<String> = facts.iter().map(|(key, value)| format!("{key} {value}")).collect();
            writeln!(out, "| {} | {} | {} |", cell(&name), cell(license), cell(&facts.join(", ")))?;
        }
    }
    writeln!(out, "\n### 2.2 Private non-publicly available datasets obtained from third parties\n")?;
    writeln!(
        out,
        "- 2.2.1 Datasets commercially licensed by rightsholders or their representatives: none in the record"
    )?;
    writeln!(out, "- 2.2.2 Private datasets obtained from other third parties: none in the record")?;
    writeln!(out, "\n### 2.3 Data crawled and scraped from online sources\n")?;
    writeln!(
        out,
        "No crawler took part: the program reads files. The addresses that documents state lie in these domains:\n"
    )?;
    if options.domains.is_empty() {
        writeln!(out, "(no document states an address)")?;
    } else {
        writeln!(out, "| domain | documents |\n|---|--:|")?;
        for (domain, documents) in options.domains.iter().take(DOMAINS) {
            writeln!(out, "| {} | {documents} |", cell(domain))?;
        }
    }
    writeln!(out, "\n### 2.4 User data\n\nNone in the record.\n\n### 2.5 Synthetic data\n")?;
    if record.supervised.is_empty() {
        writeln!(out, "None in the record.")?;
    } else {
        writeln!(
            out,
            "Examples of tasks, as the files that they were read from state task, dataset and licence (`blackletter dataset sft` makes such files by \
             rules from documents, without another model; how others were made: {FILL}):\n"
        )?;
        writeln!(out, "| task | dataset | licence | examples | tokens |\n|---|---|---|--:|--:|")?;
        for e in &record.supervised {
            let [kind, dataset, license] = [&e.kind, &e.dataset, &e.license].map(|text| cell(text));
            writeln!(out, "| {kind} | {dataset} | {license} | {} | {} |", e.examples, e.tokens)?;
        }
    }
    writeln!(out, "\n### 2.6 Other sources of data\n\nNone in the record.\n")
}

/// What a model was trained on, by dataset and licence: what is open, and apart what was let in by name.
fn datasets(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    let by_name = |source: &&SourceUse| record.accepted.iter().any(|a| a.license == source.license);
    let (accepted, open): (Vec<&SourceUse>, Vec<&SourceUse>) = record.sources.iter().partition(by_name);
    rows(out, &open)?;
    if !accepted.is_empty() {
        writeln!(
            out,
            "\nThese are under licences that are not open and were accepted by name (whether they are publicly available: {FILL}):\n"
        )?;
        rows(out, &accepted)?;
    }
    for accepted in &record.accepted {
        let documents = match accepted.documents {
            1 => "one document".into(),
            n => format!("{n} documents"),
        };
        writeln!(out, "\n`{}` was accepted for {documents} because: {}", accepted.license, accepted.reason)?;
    }
    Ok(())
}

fn rows(out: &mut String, sources: &[&SourceUse]) -> std::fmt::Result {
    if sources.is_empty() {
        return writeln!(out, "(none)");
    }
    writeln!(
        out,
        "| dataset | collected from | licence | basis | documents | bytes of text | tokens |\n|---|---|---|---|--:|--:|--:|"
    )?;
    for SourceUse { dataset, source, license, license_basis, documents, text_bytes, tokens } in sources {
        let stated = |text: &Option<String>| cell(text.as_deref().unwrap_or("–"));
        let (source, basis) = (stated(source), stated(license_basis));
        let (dataset, license) = (cell(dataset), cell(license));
        writeln!(
            out,
            "| {dataset} | {source} | {license} | {basis} | {documents} | {text_bytes} | {tokens} |"
        )?;
    }
    Ok(())
}

fn processing(out: &mut String, record: &ModelRecord) -> std::fmt::Result {
    writeln!(
        out,
        "## 3. Data processing aspects\n\n### 3.1 Respect of reservation of rights from the text and data mining exception or limitation\n"
    )?;
    writeln!(
        out,
        "Documents pass a licence gate before anything else is done with them: what states no licence, or one that is not on the list, does not \
         become a token. The exception for text and data mining is not relied on. What the gate refused:\n"
    )?;
    match record.corpus.record.as_deref() {
        None => {
            writeln!(out, "(the record of the corpus was not at hand when this model's record was made)")?
        }
        Some(corpus) if corpus.refused.is_empty() => writeln!(out, "(nothing)")?,
        Some(corpus) => {
            let mut reasons: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for refused in &corpus.refused {
                *reasons.entry((&refused.dataset, &refused.reason)).or_default() += refused.documents;
            }
            writeln!(out, "| dataset | reason | documents |\n|---|---|--:|")?;
            for ((dataset, reason), documents) in reasons {
                writeln!(out, "| {} | {} | {documents} |", cell(dataset), cell(reason))?;
            }
        }
    }
    writeln!(out, "\n### 3.2 Removal of illegal content\n")?;
    writeln!(
        out,
        "Measures against illegal content: {FILL}. Documents are cleaned, scored for quality and freed of duplicates; the settings of every step are in \
         the record of the corpus.\n"
    )?;
    writeln!(out, "### 3.3 Other information\n")?;
    writeln!(
        out,
        "The hash over all documents is `{}`. With the corpus at hand, anyone can compute it anew: `blackletter audit MODEL --corpus DIR`.",
        record.corpus.root
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{derivations, options, record, trained_further};
    use super::*;

    #[test]
    fn every_section_of_the_template_is_there_with_the_records_figures() {
        let text = eu_summary(&record(), &options());
        for heading in [
            "## 1. General",
            "### 1.1",
            "### 1.2",
            "### 1.3",
            "## 2. List",
            "### 2.1",
            "### 2.2",
            "### 2.3",
            "### 2.4",
            "### 2.5",
            "### 2.6",
            "## 3. Data",
            "### 3.1",
            "### 3.2",
            "### 3.3",
        ] {
            assert!(text.contains(heading), "{heading}");
        }
        for fact in [
            "less than 1 billion tokens (exactly 3600",
            "| usc | GPO | LicenseRef-public-domain-17-USC-105 | 17 U.S.C. 105 | 10 | 10000 | 3000 |",
            "publicly filed",
            "| www.govinfo.gov | 10 |",
            "| qa | usc | CC0-1.0 | 5 | 50 |",
        ] {
            assert!(text.contains(fact), "{fact}\n{text}");
        }
    }

    #[test]
    fn a_model_that_was_trained_further_names_the_one_it_began_with() {
        let mut record = record();
        assert!(eu_summary(&record, &options()).contains("- Model dependencies: none"));
        record.training.recipe = serde_json::json!({ "model": { "from": "nano" } });
        assert!(eu_summary(&record, &options()).contains("- Model dependencies: `nano`"));
        let generator = crate::Generator { name: "blackletter".into(), version: "0".into() };
        let (settings, inputs) = (serde_json::Value::Null, vec![]);
        record.derivations =
            vec![crate::Derivation { operation: "average".into(), settings, generator, inputs }];
        assert!(eu_summary(&record, &options()).contains("- Change after the training: average of"));
    }

    #[test]
    fn what_a_base_and_an_adapter_learned_from_is_in_the_summary() {
        let mut record = trained_further();
        record.derivations = derivations();
        let text = eu_summary(&record, &options());
        for fact in [
            "this training began with the weights of nano",
            "exactly 7200 tokens",
            "those of nano, come from these:",
            "| edgar | GPO | LicenseRef-SEC-EDGAR |",
            "`LicenseRef-SEC-EDGAR` was accepted for 2 documents because: publicly filed",
            "The adapter letters, which is part of the weights, learned from these:",
            "| letters | CC0-1.0 | documents 7, part documents |",
        ] {
            assert!(text.contains(fact), "{fact}\n{text}");
        }
        let open = text.split("accepted by name (whether").next().unwrap();
        assert!(!open.contains("| edgar |"), "{open}");
    }

    #[test]
    fn sizes_fall_into_the_templates_ranges() {
        assert_eq!(range(999_999_999), "less than 1 billion tokens");
        assert_eq!(range(1_000_000_000), "1 billion to 10 trillion tokens");
        assert_eq!(range(20_000_000_000_000), "more than 10 trillion tokens");
    }
}
