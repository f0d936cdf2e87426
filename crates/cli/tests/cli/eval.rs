//! `eval`

use crate::support::{model, run, succeed};
use serde_json::{Value, json};
use std::fs;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn perplexity_is_that_of_score_added_up_by_dataset() {
    let model = model(64);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("part.jsonl");
    let long = "The Governing Law of this Agreement ".repeat(5);
    let rows = [("a", "Under this Act"), ("a", long.as_str()), ("b", "x y")];
    let lines: String =
        rows.iter().map(|(d, t)| json!({ "dataset": d, "text": t }).to_string() + "\n").collect();
    fs::write(&data, lines).unwrap();
    let out = dir.path().join("evals");
    let (data, folder) = (data.to_str().unwrap(), out.to_str().unwrap());
    let result = json_of(&succeed(&model, &["eval", "perplexity", data, "--out", folder]));
    let score = |text: &str| {
        json_of(&succeed(&model, &["score", "--start", "--text", text]))["nll"].as_f64().unwrap()
    };
    let scores: Vec<f64> = rows.iter().map(|(_, text)| score(text)).collect();
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9 * expected, "{value} {expected}");
    };
    let bytes = [rows[0].1.len() + rows[1].1.len(), rows[2].1.len()];
    near(&result["groups"][0]["nll"], scores[0] + scores[1]);
    near(&result["groups"][1]["bits_per_byte"]["value"], scores[2] / 2f64.ln() / bytes[1] as f64);
    near(
        &result["overall"]["bits_per_byte"]["value"],
        scores.iter().sum::<f64>() / 2f64.ln() / (bytes[0] + bytes[1]) as f64,
    );
    near(&result["groups"][1]["word_perplexity"]["value"], (scores[2] / 2.0).exp());
    // What is written is what is printed, and every document is there.
    assert_eq!(json_of(&fs::read_to_string(out.join("perplexity.json")).unwrap()), result);
    assert_eq!(fs::read_to_string(out.join("perplexity.jsonl")).unwrap().lines().count(), 3);
    let markdown = succeed(
        &model,
        &[
            "eval",
            "perplexity",
            data,
            "--format",
            "markdown",
            "--by",
            "file",
            "--limit-documents",
            "1",
            "--limit-characters",
            "5",
        ],
    );
    assert!(markdown.contains("| part | 1 | 5 | 5 |"), "{markdown}");
}

#[test]
fn answers_are_scored_by_kind() {
    let model = model(64);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.jsonl");
    let lines = [
        json!({ "instruction": "Say", "input": "x", "output": "y", "kind": "qa" }),
        json!({ "instruction": "Extract", "input": "x", "output": "{\"a\":1}", "kind": "fields" }),
    ];
    fs::write(&path, lines.map(|l| l.to_string()).join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let result = json_of(&succeed(&model, &["eval", "sft", path, "--max-new-tokens", "8"]));
    let kinds: Vec<&str> =
        result["kinds"].as_array().unwrap().iter().map(|k| k["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["qa", "fields"]);
    assert_eq!(result["kinds"][1]["fields"][0]["field"], "a");
    assert_eq!((&result["stopped"], &result["exact"]["value"]), (&json!(false), &json!(0.0)));
    fs::write(path, "{\"instruction\":1}").unwrap();
    let ended = run(&model, &["eval", "sft", path]);
    assert!(ended.code == 1 && ended.stderr.contains("e.jsonl, line 1"), "{}", ended.stderr);
}

#[test]
fn data_that_is_not_there_is_said() {
    let ended = run(&model(64), &["eval", "perplexity", "nowhere.jsonl"]);
    assert!(ended.code == 1 && ended.stderr.contains("nowhere.jsonl"), "{}", ended.stderr);
}

#[test]
fn tasks_bias_and_toxicity_come_to_results_that_a_report_puts_together() {
    let model = model(128);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (evals, out) = (at("evals"), at("report"));
    fs::write(at("own.jsonl"), "{\"query\":\"1+1=\",\"choices\":[\"2\",\"3\"],\"gold\":0}\n").unwrap();
    fs::write(at("prompts.txt"), "You are\n").unwrap();
    let pair = json!({ "category": "c", "stereotyped": "a b", "other": "a c" });
    fs::write(at("pairs.jsonl"), pair.to_string()).unwrap();
    for arguments in [
        vec!["eval", "tasks", &at("own.jsonl"), "--out", &evals],
        vec!["eval", "bias", "--pairs", &at("pairs.jsonl"), "--out", &evals],
        vec![
            "eval",
            "toxicity",
            "--experiment",
            "1",
            "--prompts",
            &at("prompts.txt"),
            "--max-new-tokens",
            "5",
            "--out",
            &evals,
        ],
    ] {
        let ended = run(&model, &arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(fs::read_to_string(at("evals/toxicity-1.csv")).unwrap().lines().count(), 1 + 3);
    let ended = run(&model, &["report", "--evals", &evals, "--out", &out]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let page = fs::read_to_string(at("report/report.html")).unwrap();
    for part in ["Tasks:", "Toxicity of", "Bias of", "<svg", "acc_norm"] {
        assert!(page.contains(part), "{part}");
    }
    for figure in ["bias", "bad-words"] {
        let (svg, png) =
            (at(&format!("report/figures/{figure}.svg")), at(&format!("report/figures/{figure}.png")));
        assert!(fs::read_to_string(svg).unwrap().starts_with("<svg"));
        assert!(fs::read(png).unwrap().starts_with(b"\x89PNG\r\n"));
    }
    // Without a judge, --judge-model means nothing.
    let ended = run(&model, &["eval", "toxicity", "--experiment", "1", "--judge-model", "x"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
}
