//! Ids and texts equal those of Python's `tokenizers`. Goldens: `scripts/make_tokenizer_goldens.py`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock};

#[derive(Deserialize)]
struct Golden {
    text: String,
    parse: Vec<u32>,
    as_text: Vec<u32>,
    decoded: String,
    decoded_skipping: String,
}

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(path).unwrap()
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_bytes(&data(&format!("{name}.json"))).unwrap()
}

static GOLDENS: LazyLock<BTreeMap<String, Vec<Golden>>> =
    LazyLock::new(|| serde_json::from_slice(&data("goldens.json")).unwrap());
static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("byte_level"));

/// The published tokenizer, where it is at hand.
fn kl3m() -> Option<Tokenizer> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kl3m-001-32k");
    if !dir.exists() {
        println!("skipped: {} is not here", dir.display());
        return None;
    }
    Some(Tokenizer::load(&dir).unwrap())
}

fn check(tokenizer: &Tokenizer, goldens: &[Golden]) {
    assert!(goldens.len() > 20);
    for golden in goldens {
        let text = &golden.text;
        for (special, ids) in
            [(SpecialTokens::Parse, &golden.parse), (SpecialTokens::AsText, &golden.as_text)]
        {
            assert_eq!(&tokenizer.encode(text, special).unwrap(), ids, "{special:?} {text:?}");
            assert_eq!(
                &tokenizer.encode_by_parts(text, special).unwrap(),
                ids,
                "by parts {special:?} {text:?}"
            );
        }
        assert_eq!(tokenizer.decode(&golden.parse, false), golden.decoded, "{text:?}");
        assert_eq!(tokenizer.decode(&golden.parse, true), golden.decoded_skipping, "{text:?}");
    }
}

#[test]
fn a_byte_level_tokenizer_gives_the_ids_and_texts_of_python() {
    check(&BYTE_LEVEL, &GOLDENS["byte_level"]);
}

#[test]
fn both_spellings_of_merges_are_one_tokenizer() {
    check(&tokenizer("byte_level_old_merges"), &GOLDENS["byte_level"]);
}

#[test]
fn another_shape_of_tokenizer_gives_the_ids_and_texts_of_python() {
    check(&tokenizer("word_piece"), &GOLDENS["word_piece"]);
}

#[test]
fn the_published_tokenizer_gives_the_ids_it_was_published_with() {
    let Some(tokenizer) = kl3m() else { return };
    let encode = |text| tokenizer.encode(text, SpecialTokens::AsText).unwrap();
    assert_eq!(tokenizer.vocab_size(), 32_768);
    assert_eq!(encode("Under this"), [5549, 31673, 3341]);
    assert_eq!(encode("The Comptroller of the")[..6], [815, 31673, 3546, 14529, 31673, 269]);
    assert_eq!(encode(&" ".repeat(600)), [32_767, 31_673 + 2 * (45 - 8)]);
}

#[test]
fn special_tokens_in_user_text_are_characters_unless_parsing_is_asked_for() {
    let text = "a<|end|>";
    let end = BYTE_LEVEL.token_id("<|end|>").unwrap();
    assert!(BYTE_LEVEL.is_special(end));
    assert_eq!(BYTE_LEVEL.encode(text, SpecialTokens::Parse).unwrap().last(), Some(&end));
    let ids = BYTE_LEVEL.encode(text, SpecialTokens::AsText).unwrap();
    assert!(!ids.iter().any(|&id| BYTE_LEVEL.is_special(id)));
    assert_eq!(BYTE_LEVEL.decode(&ids, true), text);
    // Added tokens that are not special are words like others.
    let added = BYTE_LEVEL.token_id("lamp oil").unwrap();
    assert_eq!(BYTE_LEVEL.encode("lamp oil", SpecialTokens::AsText).unwrap(), [added]);
}

#[test]
fn ids_outside_the_vocabulary_are_passed_over() {
    assert_eq!(BYTE_LEVEL.decode(&[u32::MAX, 1_000_000], false), "");
    assert_eq!(BYTE_LEVEL.token_bytes(u32::MAX), b"");
    assert!(!BYTE_LEVEL.is_special(u32::MAX));
    assert_eq!(BYTE_LEVEL.decode_stream(false).push(u32::MAX), None);
}

#[test]
fn a_stream_holds_half_a_character_back() {
    let ids = BYTE_LEVEL.encode("👩", SpecialTokens::AsText).unwrap();
    assert!(ids.len() > 1, "the test needs a character of several tokens");
    let mut stream = BYTE_LEVEL.decode_stream(true);
    let (last, first) = ids.split_last().unwrap();
    for &id in first {
        assert_eq!(stream.push(id), None);
    }
    assert_eq!(stream.push(*last).as_deref(), Some("👩"));
    let mut stream = BYTE_LEVEL.decode_stream(true);
    stream.push(first[0]);
    assert_eq!(stream.finish(), "\u{fffd}");
}

#[test]
fn a_batch_is_its_texts_in_order() {
    let texts: Vec<&str> = GOLDENS["byte_level"].iter().map(|g| g.text.as_str()).collect();
    let batch = BYTE_LEVEL.encode_batch(&texts, SpecialTokens::Parse).unwrap();
    for (ids, golden) in batch.iter().zip(&GOLDENS["byte_level"]) {
        assert_eq!(ids, &golden.parse);
    }
}

#[test]
fn malformed_files_are_refused_in_words() {
    let file = data("byte_level.json");
    let good: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let edited = |pointer: &str, value: serde_json::Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        serde_json::to_vec(&json).unwrap()
    };
    let cases = [
        Vec::new(),
        b"{}".to_vec(),
        vec![b'['; 100_000],
        file[..file.len() / 2].to_vec(),
        edited("/model/merges", serde_json::json!([["no", "such"]])),
        edited("/model/merges", serde_json::json!([["t", "Ġ"]])),
        edited("/model/merges", serde_json::json!(["a b c"])),
        edited("/model/type", serde_json::json!("Nonesuch")),
        edited("/added_tokens/1/content", serde_json::json!(7)),
        edited("/pre_tokenizer/type", serde_json::json!("Nonesuch")),
    ];
    for case in cases {
        let error = Tokenizer::from_bytes(&case).err().map(|e| e.to_string());
        let start = String::from_utf8_lossy(&case[..case.len().min(60)]).into_owned();
        assert!(error.is_some_and(|e| e.starts_with("tokenizer.json cannot be used")), "{start}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Tokenizer::load("/no/such/place".as_ref()).err().unwrap().to_string();
    assert!(error.contains("/no/such/place/tokenizer.json"), "{error}");
}

/// Text made to hit added tokens, special tokens and the edges of pieces.
fn awkward() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        3 => "[a-zA-Z'’ .,()0-9<|>\t\r\n]{1,8}",
        2 => proptest::sample::select(vec![
            "<|end|>", "<|start|>", "<|en", " ", "  ", "\n", "\r\n", "(a)", "1776", "776", "lamp oil", "</TABLE>",
            " href=", "null", "'s", "'ll", "§", "é", "e\u{301}", "http://", "inspector", "\0", "👩‍👩‍👧",
        ]).prop_map(String::from),
        1 => "\\PC{1,6}",
        1 => proptest::char::any().prop_map(String::from),
        1 => (proptest::sample::select(vec![' ', '\n', 'a', '1', '=']), 1usize..80).prop_map(|(c, n)| String::from(c).repeat(n)),
    ];
    proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn the_fast_path_gives_the_ids_of_the_general_one(text in awkward()) {
        for special in [SpecialTokens::AsText, SpecialTokens::Parse] {
            prop_assert_eq!(
                BYTE_LEVEL.encode(&text, special).unwrap(),
                BYTE_LEVEL.encode_by_parts(&text, special).unwrap()
            );
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself_at_once_and_piece_by_piece(text in awkward()) {
        // Byte-level decoding, Python's too, takes an added token of these letters alone for spelled bytes.
        let text = text.replace(['§', 'é'], "ß");
        let ids = BYTE_LEVEL.encode(&text, SpecialTokens::AsText).unwrap();
        prop_assert_eq!(&BYTE_LEVEL.decode(&ids, false), &text);
        prop_assert_eq!(BYTE_LEVEL.byte_lengths(&ids).iter().sum::<usize>(), text.len());
        let mut stream = BYTE_LEVEL.decode_stream(false);
        let mut pieces: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        pieces += &stream.finish();
        prop_assert_eq!(pieces, text);
    }

    #[test]
    fn a_stream_of_any_ids_is_what_they_decode_to(ids in proptest::collection::vec(0u32..450, 0..40), skip: bool) {
        let mut stream = BYTE_LEVEL.decode_stream(skip);
        let mut pieces: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        pieces += &stream.finish();
        prop_assert_eq!(pieces, BYTE_LEVEL.decode(&ids, skip));
    }

    #[test]
    fn bytes_that_are_no_tokenizer_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_bytes(&bytes).is_err());
    }
}

#[test]
fn the_fast_path_gives_the_ids_of_the_general_one_with_the_published_tokenizer() {
    let Some(tokenizer) = kl3m() else { return };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let ran = runner.run(&awkward(), |text| {
        let special = SpecialTokens::AsText;
        prop_assert_eq!(
            tokenizer.encode(&text, special).unwrap(),
            tokenizer.encode_by_parts(&text, special).unwrap()
        );
        Ok(())
    });
    ran.unwrap();
}
