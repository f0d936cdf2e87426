//! Training the kl3m-001 recipe on a little text of our own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_tokenizer::{
    SpecialTokens, Tokenizer,
    stats::Stats,
    train::{self, SPECIAL_TOKENS, TrainError, TrainOptions, WordCounts},
};

/// Some thousand words of made-up statute, different in each section.
fn texts() -> Vec<String> {
    let (who, what) =
        (["inspector", "licensee", "Secretary", "holder"], ["examine", "mark", "record", "return"]);
    (0..200)
        .map(|n| {
            let (who, what) = (who[n % 4], what[n / 4 % 4]);
            format!(
                "§ {n}.\n{who} shall {what} each barrel, and doesn't owe ${n},000.\n\n  (a) In 19{n:02}.\n"
            )
        })
        .collect()
}

fn trained(texts: &[String], vocab_size: usize) -> train::Trained {
    let mut words = WordCounts::new().unwrap();
    for batch in texts.chunks(7) {
        let batch: Vec<_> = batch.iter().map(|text| ("made up", text)).collect();
        words.add(&batch);
    }
    train::train(words, &TrainOptions { vocab_size, min_frequency: 2 }).unwrap()
}

#[test]
fn the_same_texts_in_any_order_give_the_same_bytes() {
    let texts = texts();
    let mut turned = texts.clone();
    turned.reverse();
    let first = trained(&texts, 2200).json;
    assert!(first == trained(&texts, 2200).json);
    assert!(first == trained(&turned, 2200).json);
}

#[test]
fn the_vocabulary_is_a_power_of_two_with_special_tokens_first_and_white_space_last() {
    let trained = trained(&texts(), 2200);
    let tokenizer = Tokenizer::from_bytes(trained.json.as_bytes()).unwrap();
    assert_eq!((trained.vocab_size, tokenizer.vocab_size()), (2048, 2048));
    assert_eq!(tokenizer.ids().len(), 2048, "every id is taken");
    for (id, token) in (0..).zip(SPECIAL_TOKENS) {
        assert_eq!(tokenizer.token_id(token), Some(id));
        assert!(tokenizer.is_special(id));
    }
    assert_eq!(trained.merges + trained.custom + trained.padding + 7 + 256, 2048);
    let last = tokenizer.token(2047).unwrap();
    assert!(last.chars().all(|c| c == ' ' || c == '\n') && last.len() > 8, "{last:?}");
    // (1)(x) … are custom tokens, learned or added, and the shortest runs come first in the padding.
    let first_padding = 2048 - trained.padding as u32;
    assert_eq!(tokenizer.token(first_padding).as_deref(), Some(" "));
    assert_eq!(tokenizer.token(first_padding + 1).as_deref(), Some("\n"));
    assert!(tokenizer.token_id("(a)").is_some());
}

#[test]
fn every_space_is_a_token_of_its_own() {
    let tokenizer = Tokenizer::from_bytes(trained(&texts(), 2200).json.as_bytes()).unwrap();
    let text = "The inspector shall examine each barrel.";
    let ids = tokenizer.encode(text, SpecialTokens::AsText).unwrap();
    let space = tokenizer.token_id(" ").unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == space).count(), 5);
    for id in ids {
        let bytes = tokenizer.token_bytes(id);
        assert!(bytes == b" " || !bytes.contains(&b' '));
    }
    assert_eq!(
        tokenizer.encode("inspector", SpecialTokens::AsText).unwrap().len(),
        1,
        "a frequent word is learned"
    );
}

#[test]
fn what_cannot_be_trained_is_said() {
    let options = TrainOptions { vocab_size: 1000, min_frequency: 2 };
    let mut words = WordCounts::new().unwrap();
    words.add(&[("d", "text")]);
    assert!(
        matches!(train::train(words, &options), Err(TrainError::VocabularyTooSmall { asked: 1000, least }) if least > 1000)
    );
    let large = TrainOptions { vocab_size: usize::MAX, min_frequency: 2 };
    assert!(matches!(large.check(), Err(TrainError::VocabularyTooLarge { asked: usize::MAX })));
    assert!(TrainOptions::default().check().is_ok());
    assert!(matches!(
        train::train(WordCounts::new().unwrap(), &TrainOptions::default()),
        Err(TrainError::NoText)
    ));
}

#[test]
fn what_is_written_loads_again_and_replaces_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let trained = trained(&texts(), 2200);
    trained.write(dir.path()).unwrap();
    trained.write(dir.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "training.json"]
    );
    assert_eq!(Tokenizer::load(dir.path()).unwrap().vocab_size(), 2048);
    let blocked = dir.path().join("tokenizer.json/deeper");
    assert!(trained.write(&blocked).unwrap_err().to_string().contains("tokenizer.json/deeper"));
}

#[test]
fn what_went_in_is_written_down_whatever_the_batches() {
    let texts = texts();
    let consumed = trained(&texts, 2200).consumed;
    let amount = consumed.datasets["made up"];
    assert_eq!((amount.documents, amount.bytes), (200, texts.iter().map(|t| t.len() as u64).sum()));
    let mut at_once = WordCounts::new().unwrap();
    at_once.add(&texts.iter().map(|text| ("made up", text)).collect::<Vec<_>>());
    assert_eq!(at_once.consumed(), consumed);
    let mut other = WordCounts::new().unwrap();
    other.add(&texts.iter().skip(1).map(|text| ("made up", text)).collect::<Vec<_>>());
    assert_ne!(other.consumed().blake3, consumed.blake3);
}

#[test]
fn stats_add_up() {
    let tokenizer = Tokenizer::from_bytes(trained(&texts(), 2200).json.as_bytes()).unwrap();
    let mut stats = Stats::new(&tokenizer);
    stats.add(&[("a", "inspector inspector"), ("b", "x")]).unwrap();
    stats.add(&[("a", "")]).unwrap();
    let report = stats.report();
    assert_eq!((report.total.documents, report.total.bytes, report.total.tokens), (3, 20, 4));
    assert_eq!(report.total.bytes_per_token, 5.0);
    assert_eq!((report.datasets["a"].tokens, report.datasets["b"].tokens), (3, 1));
    assert_eq!(report.unused, 2048 - 7 - 3);
    assert_eq!(
        (report.longest[0].text.as_str(), report.longest[0].bytes, report.longest[0].count),
        ("inspector", 9, 2)
    );
}
