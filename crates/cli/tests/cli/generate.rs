//! `blackletter generate` as a user meets it.

use crate::support::{END, blackletter, model, run, succeed, write_tokenizer};
use serde_json::Value;
use std::{fs, io::Write, process::Stdio};

fn texts(stdout: &str) -> Vec<String> {
    serde_json::from_str(stdout).unwrap()
}

fn id_lists(stdout: &str) -> Vec<Vec<u64>> {
    serde_json::from_str(stdout).unwrap()
}

#[test]
fn full_texts_are_printed_as_a_json_list_on_standard_output_alone() {
    let model = model(64);
    let out =
        succeed(&model, &["generate", "§ 5 \"x\"", "--max-new-tokens", "4", "--num-return-sequences", "3"]);
    assert!(out.starts_with("[\n  \"\\u00a7 5 \\\"x\\\""), "{out}");
    assert!(out.ends_with("\"\n]\n") && out.is_ascii());
    let texts = texts(&out);
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|t| t.starts_with("§ 5 \"x\"") && t.len() > "§ 5 \"x\"".len()));
    let raw = succeed(&model, &["generate", "§ 5", "--no-ascii", "--max-new-tokens", "1"]);
    assert!(raw.starts_with("[\n  \"§ 5"), "{raw}");
}

#[test]
fn the_same_seed_gives_the_same_texts_whatever_the_threads_and_formats_agree() {
    let model = model(64);
    let of = |extra: &[&str]| {
        let base =
            ["generate", "Under this", "--max-new-tokens", "12", "--num-return-sequences", "2", "--seed"];
        succeed(&model, &[&base, extra].concat())
    };
    let one = of(&["3", "--threads", "1"]);
    assert_eq!(one, of(&["3", "--threads", "3"]));
    assert_ne!(one, of(&["4", "--threads", "1"]));
    let lines = of(&["3", "--format", "jsonl"]);
    let from_lines: Vec<String> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(from_lines, texts(&one));
    assert_eq!(of(&["3", "--format", "text"]), texts(&one).join("\n\n") + "\n");
}

#[test]
fn streamed_text_is_the_text() {
    let model = model(64);
    let base = ["generate", "Under this", "--max-new-tokens", "40", "--format", "text"];
    assert_eq!(succeed(&model, &[&base[..], &["--stream"]].concat()), succeed(&model, &base));
}

#[test]
fn ids_need_no_tokenizer_and_come_with_the_prompt() {
    let model = model(64);
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let lists = id_lists(&succeed(
        &model,
        &["generate", "--ids", "5,6,7", "--format", "ids", "--max-new-tokens", "4"],
    ));
    assert_eq!((lists.len(), lists[0].len(), &lists[0][..3]), (1, 7, &[5, 6, 7][..]));
    let refused = run(&model, &["generate", "text", "--max-new-tokens", "4"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.starts_with("error: text needs a tokenizer"), "{}", refused.stderr);
}

#[test]
fn special_tokens_in_a_prompt_are_characters_unless_asked_for() {
    let model = model(64);
    let ids = |extra: &[&str]| {
        let base = ["generate", "<|end|>", "--format", "ids", "--max-new-tokens", "1"];
        id_lists(&succeed(&model, &[&base, extra].concat())).remove(0)
    };
    assert_eq!(ids(&[]).len(), "<|end|>".len() + 1);
    assert_eq!(ids(&["--parse-special"])[..1], [END]);
}

#[test]
fn an_end_token_ends_the_text_and_stays_in_ids() {
    let model = model(64);
    let base = ["generate", "ab", "--greedy", "--max-new-tokens", "5"];
    let free = id_lists(&succeed(&model, &[&base[..], &["--format", "ids"]].concat())).remove(0);
    // Whatever comes first is declared the end.
    fs::write(model.path().join("generation_config.json"), format!("{{\"eos_token_id\": [{}]}}", free[2]))
        .unwrap();
    let ended = id_lists(&succeed(&model, &[&base[..], &["--format", "ids"]].concat())).remove(0);
    assert_eq!(ended, free[..3]);
}

#[test]
fn special_tokens_are_hidden_in_text() {
    let model = model(64);
    let text =
        texts(&succeed(&model, &["generate", "--ids", "64,257,65", "--max-new-tokens", "1"])).remove(0);
    let shown = texts(&succeed(&model, &["generate", "--ids", "64,65", "--max-new-tokens", "1"])).remove(0);
    assert_eq!(text[..2], shown[..2]);
}

#[test]
fn a_stop_text_ends_the_text_and_stays_in_it() {
    let model = model(256);
    let base = ["generate", "Under this", "--seed", "5", "--max-new-tokens", "60", "--top-k", "0"];
    let full = texts(&succeed(&model, &base)).remove(0);
    let continuation = &full["Under this".len()..];
    let stop: String = continuation.chars().filter(char::is_ascii_graphic).nth(3).unwrap().to_string();
    let cut =
        texts(&succeed(&model, &[&base[..], &["--stop", "never there", "--stop", &stop]].concat())).remove(0);
    let end = continuation.find(&stop).unwrap() + stop.len();
    assert_eq!(cut, format!("Under this{}", &continuation[..end]));
}

#[test]
fn settings_come_from_the_command_line_then_the_models_file() {
    let model = model(64);
    fs::write(model.path().join("generation_config.json"), "{\"max_new_tokens\": 3, \"top_p\": 7}").unwrap();
    let refused = run(&model, &["generate", "x"]);
    assert_eq!(refused.code, 1);
    let sentence = "generation_config.json: top-p = 7 is out of range: it must be from 0 to 1";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    let base = ["generate", "x", "--top-p", "1", "--format", "ids"];
    assert_eq!(id_lists(&succeed(&model, &base))[0].len(), 1 + 3);
    let asked = [&base[..], &["--max-new-tokens", "5"]].concat();
    assert_eq!(id_lists(&succeed(&model, &asked))[0].len(), 1 + 5);
}

#[test]
fn a_prompt_file_loses_one_newline_at_its_end_and_must_be_utf8() {
    let model = model(64);
    let file = model.path().join("prompt.txt");
    let file = file.to_str().unwrap();
    let base = ["generate", "--prompt-file", file, "--max-new-tokens", "1"];
    fs::write(file, "Sec. 5\n\n").unwrap();
    assert!(texts(&succeed(&model, &base))[0].starts_with("Sec. 5\n"));
    assert!(!texts(&succeed(&model, &base))[0].starts_with("Sec. 5\n\n"));
    fs::write(file, b"Sec\xff").unwrap();
    let refused = run(&model, &base);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is not UTF-8 text: byte 4"), "{}", refused.stderr);
}

#[test]
fn a_prompt_can_come_from_standard_input() {
    let model = model(64);
    let mut child = blackletter()
        .args(["generate", "--prompt-file", "-", "--max-new-tokens", "1", "--model"])
        .arg(model.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Piped in\n").unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(texts(&out)[0].starts_with("Piped in"), "{out}");
}

#[test]
fn a_prompt_beyond_the_context_is_refused_unless_it_may_be_cut() {
    let model = model(64);
    let long = "x".repeat(70);
    let base = ["generate", &long, "--max-new-tokens", "4", "--format", "ids"];
    let refused = run(&model, &base);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("70 tokens") && refused.stderr.contains("--truncate-prompt"),
        "{}",
        refused.stderr
    );
    let cut = run(&model, &[&base[..], &["--truncate-prompt"]].concat());
    assert_eq!(
        (cut.code, id_lists(&cut.stdout)[0].len()),
        (0, 64),
        "60 tokens of the prompt, and four new ones"
    );
    assert!(cut.stderr.contains("first 10 tokens"), "{}", cut.stderr);
}

#[test]
fn an_empty_prompt_starts_from_the_start_token() {
    let model = model(64);
    let lists = id_lists(&succeed(&model, &["generate", "", "--max-new-tokens", "2", "--format", "ids"]));
    assert_eq!((lists[0][0], lists[0].len()), (256, 3));
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let model = model(64);
    write_tokenizer(model.path(), &["<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>", "<8>"]);
    let refused = run(&model, &["generate", "x"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("264 tokens and the model's embedding 263 rows"), "{}", refused.stderr);
}

#[test]
fn options_out_of_range_end_with_2_and_name_option_value_and_range() {
    let model = model(64);
    for (option, value, range) in [
        ("--temperature", "0", "above 0"),
        ("--temperature", "NaN", "above 0"),
        ("--temperature", "-1", "above 0"),
        ("--top-p", "1.5", "from 0 to 1"),
        ("--min-p", "-0.1", "from 0 to 1"),
        ("--typical-p", "0", "above 0 and at most 1"),
        ("--repetition-penalty", "0", "above 0"),
        ("--top-k", "-1", "0..=4294967295"),
        ("--max-new-tokens", "0", "1..=4294967295"),
        ("--num-return-sequences", "0", "1..=1024"),
        ("--threads", "0", "1..=1024"),
        ("--dtype", "q3", "f32, bf16, q8, q4"),
    ] {
        let ended = run(&model, &["generate", "x", option, value]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{option} {value}: {}", ended.stderr);
        for part in [option, value, range] {
            assert!(ended.stderr.contains(part), "{option} {value}: no {part:?} in {}", ended.stderr);
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_sentence() {
    let model = model(64);
    for arguments in [
        &["generate"][..],
        &["generate", "x", "--ids", "5"],
        &["generate", "--ids", "5,x"],
        &["generate", "x", "--stream"],
        &["generate", "x", "--stop", ""],
        &["generate", "x", "--no-such-option"],
        &["score"],
        &["score", "--text", "x", "--ids", "5"],
    ] {
        let ended = run(&model, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: "), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn damaged_models_end_with_1_and_a_sentence() {
    let damage: [(&str, fn(&std::path::Path)); 5] = [
        ("config.json", |dir| fs::write(dir.join("config.json"), "{").unwrap()),
        ("config.json", |dir| fs::remove_file(dir.join("config.json")).unwrap()),
        ("model.safetensors", |dir| fs::write(dir.join("model.safetensors"), [0xff; 64]).unwrap()),
        ("tokenizer.json", |dir| fs::write(dir.join("tokenizer.json"), "[]").unwrap()),
        ("generation_config.json", |dir| fs::write(dir.join("generation_config.json"), "7").unwrap()),
    ];
    for (file, damage) in damage {
        let model = model(64);
        damage(model.path());
        let ended = run(&model, &["generate", "x"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{file}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(file),
            "{file}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("panicked"), "{file}: {}", ended.stderr);
    }
}

#[test]
fn ids_out_of_range_are_refused() {
    let ended = run(&model(64), &["generate", "--ids", "1,263"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("token id 263 is out of range") && ended.stderr.contains("0 to 262"),
        "{}",
        ended.stderr
    );
}

#[test]
fn scores_add_up_and_a_start_token_makes_the_first_token_count() {
    let model = model(64);
    let score = |extra: &[&str]| -> Value {
        serde_json::from_str(&succeed(&model, &[&["score", "--text", "§ 5 applies."], extra].concat()))
            .unwrap()
    };
    let plain = score(&[]);
    let logprobs: Vec<f64> =
        plain["token_logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let bytes = "§ 5 applies.".len();
    assert_eq!((plain["tokens"].as_array().unwrap().len(), logprobs.len()), (bytes, bytes - 1));
    let nll = plain["nll"].as_f64().unwrap();
    assert!((nll + logprobs.iter().sum::<f64>()).abs() < 1e-4);
    let bits = nll / std::f64::consts::LN_2 / (bytes - 1) as f64;
    assert!((plain["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);
    let started = score(&["--start"]);
    assert_eq!(
        (&started["tokens"][0], started["token_logprobs"].as_array().unwrap().len()),
        (&Value::from(256), bytes)
    );
    let ids: Value = serde_json::from_str(&succeed(&model, &["score", "--ids", "1,2,3"])).unwrap();
    assert!(ids["bits_per_byte"].is_null() && ids["perplexity"].as_f64().unwrap() > 1.0);
}

#[test]
fn a_document_under_a_schema_parses_at_any_temperature_and_stands_alone() {
    let model = model(512);
    let schema = model.path().join("schema.json");
    let text = r#"{"type":"object","properties":{"court":{"type":"string","maxLength":20},"year":{"type":"integer","minimum":1776,"maximum":2049}},"required":["court","year"],"additionalProperties":false}"#;
    fs::write(&schema, text).unwrap();
    let base = ["generate", "Cite: ", "--json-schema", schema.to_str().unwrap(), "--max-new-tokens", "60"];
    let more = ["--num-return-sequences", "4", "--no-prompt", "--temperature", "9", "--top-k", "0"];
    for text in texts(&succeed(&model, &[&base[..], &more].concat())) {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(
            value["court"].is_string() && (1776..=2049).contains(&value["year"].as_i64().unwrap()),
            "{text}"
        );
        assert!(!text.contains(": ") && value.as_object().unwrap().len() == 2, "{text}");
    }
    let streamed = succeed(&model, &[&base[..], &["--format", "text", "--stream", "--no-prompt"]].concat());
    assert!(serde_json::from_str::<Value>(&streamed).is_ok(), "{streamed}");
}

#[test]
fn a_limit_too_small_for_any_document_is_told() {
    let model = model(512);
    let ended =
        run(&model, &["generate", "a", "--regex", "[a-z]{9}", "--max-new-tokens", "8", "--format", "text"]);
    assert_eq!(ended.code, 0);
    assert!(ended.stderr.starts_with("incomplete: text 1 ends after 8 tokens"), "{}", ended.stderr);
    succeed(&model, &["generate", "a", "--regex", "[a-z]{9}", "--max-new-tokens", "9", "--format", "text"]);
}

#[test]
fn what_a_schema_cannot_ask_for_is_refused_with_its_place() {
    let model = model(64);
    let schema = model.path().join("schema.json");
    fs::write(&schema, r#"{"properties":{"a":{"not":{}}}}"#).unwrap();
    let ended = run(&model, &["generate", "a", "--json-schema", schema.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert_eq!(ended.stderr, "error: unsupported keyword: not at /properties/a/not\n");
    let ended = run(&model, &["generate", "a", "--choice", "x", "--regex", "y"]);
    assert_eq!(ended.code, 2);
    let ended = run(&model, &["generate", "a", "--choice", "x", "--stop", "y"]);
    assert_eq!(ended.code, 2);
}

#[test]
fn one_of_several_choices_is_made() {
    let model = model(64);
    let base = ["generate", "Motion: ", "--choice", "granted", "--choice", "denied in part", "--no-prompt"];
    for seed in ["1", "2", "3", "4"] {
        let text = texts(&succeed(&model, &[&base[..], &["--seed", seed]].concat())).remove(0);
        assert!(["granted", "denied in part"].contains(&text.as_str()), "{text}");
    }
}
