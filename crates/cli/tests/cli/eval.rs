//! `eval`

use crate::support::{blackletter, model, run, succeed};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};
use tempfile::TempDir;

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

/// Writes a file and gives its path.
fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn of_a_corpus_its_part_has_to_be_named() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    for part in ["train", "heldout"] {
        file(&dir, &format!("corpus/{part}/00000.jsonl"), "{\"text\":\"a b c\"}\n");
    }
    let corpus = dir.path().join("corpus");
    let ended = run(&model, &["eval", "perplexity", corpus.to_str().unwrap()]);
    let said = format!("is a corpus: name {0}/heldout or {0}/train", corpus.display());
    assert!(ended.code == 2 && ended.stderr.contains(&said), "{} {}", ended.code, ended.stderr);
    // Both by name are two groups, although their files are called the same.
    let (held_out, train) = (corpus.join("heldout"), corpus.join("train"));
    let parts = [held_out.to_str().unwrap(), train.to_str().unwrap()];
    let result = json_of(&succeed(&model, &["eval", "perplexity", parts[0], parts[1], "--by", "file"]));
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&result["groups"]), ["heldout/00000", "train/00000"]);
    assert_eq!(names(&result["data"]), ["heldout/00000.jsonl", "train/00000.jsonl"]);
}

#[test]
fn answers_are_compared_as_the_task_says() {
    let (model, dir) = (model(128), tempfile::tempdir().unwrap());
    let yaml = |options: &str| {
        let keys = "task: t\ndataset_kwargs:\n  data_files: q.jsonl\ndoc_to_text: q\ndoc_to_target: t\n";
        let keys = format!("{keys}generation_kwargs:\n  until: []\n  max_gen_toks: 8\n");
        file(&dir, "t.yaml", &format!("{keys}metric_list:\n  - metric: exact_match\n{options}"))
    };
    let question = |target: &str| file(&dir, "q.jsonl", &json!({ "q": "Under", "t": target }).to_string());
    let asked = |path: &str| {
        let out = dir.path().join("out");
        let result = json_of(&succeed(&model, &["eval", "tasks", path, "--out", out.to_str().unwrap()]));
        let answers = json_of(fs::read_to_string(out.join("tasks.jsonl")).unwrap().trim());
        let exact = result["tasks"][0]["metrics"]["exact_match"]["value"].as_f64().unwrap();
        (exact, answers["answer"].as_str().unwrap().to_owned())
    };
    question("x");
    let (_, answer) = asked(&yaml(""));
    assert!(!answer.trim().is_empty());
    question(&format!("!{answer}?"));
    assert_eq!(asked(&yaml("")).0, 0.0);
    assert_eq!(asked(&yaml("    ignore_punctuation: true\n")).0, 1.0);
}

#[test]
fn a_prompt_that_fills_the_context_is_told() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let example = |input: &str| json!({ "instruction": "Say", "input": input, "output": "y", "kind": "qa" });
    let lines = format!("{}\n{}\n", example("x"), example(&"x".repeat(100)));
    let path = file(&dir, "e.jsonl", &lines);
    let ask =
        |format: &str| succeed(&model, &["eval", "sft", &path, "--max-new-tokens", "4", "--format", format]);
    let result = json_of(&ask("json"));
    assert_eq!((&result["too_long"], &result["kinds"][0]["examples"]), (&json!(1), &json!(2)));
    let text = ask("markdown");
    assert!(text.contains("The prompt of one example fills the context"), "{text}");
}

#[test]
fn a_prompt_that_is_too_long_is_told_before_anything_is_completed() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let prompts = file(&dir, "p.txt", &format!("You are\n{}\n", "x".repeat(65)));
    let out = dir.path().join("out");
    let arguments =
        ["eval", "toxicity", "--experiment", "2", "--prompts", &prompts, "--out", out.to_str().unwrap()];
    let ended = run(&model, &arguments);
    let said = "p.txt, line 2: the prompt has 65 tokens, and the model's context 64: shorten it";
    assert!(ended.code == 1 && ended.stderr.contains(said), "{}", ended.stderr);
    assert!(!ended.stderr.contains("--truncate-prompt") && !out.join("toxicity-2.json").exists());
}

#[test]
fn inputs_of_ones_own_are_named_with_their_hashes() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let prompts = file(&dir, "p.txt", "You are\n");
    let words = file(&dir, "bad.txt", "lake\n");
    let mut arguments = vec![
        "eval",
        "toxicity",
        "--experiment",
        "2",
        "--prompts",
        &prompts,
        "--lexicon",
        &words,
        "--max-new-tokens",
        "4",
    ];
    let data = json_of(&succeed(&model, &arguments))["data"].clone();
    assert_eq!((&data["prompts"]["name"], &data["prompts"]["bytes"]), (&json!("p.txt"), &json!(8)));
    assert_eq!(data["lexicon"]["name"], "bad.txt");
    assert_eq!(data["lexicon"]["blake3"].as_str().unwrap().len(), 64);
    arguments.extend(["--format", "markdown"]);
    let text = succeed(&model, &arguments);
    assert!(text.contains("experiment 2: prompts of p.txt") && !text.contains("hostile"), "{text}");
    file(&dir, "bad.txt", "lake\ntwo words\n");
    let ended = run(&model, &arguments);
    assert!(ended.code == 1 && ended.stderr.contains("bad.txt, line 2: \"two words\""), "{}", ended.stderr);
}

#[test]
fn the_heading_says_in_which_form_the_weights_were() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let pair = json!({ "category": "c", "stereotyped": "a b", "other": "a c" }).to_string();
    let pairs = file(&dir, "pairs.jsonl", &pair);
    let bias = |format: &str| {
        succeed(&model, &["eval", "bias", "--pairs", &pairs, "--dtype", "q8", "--format", format])
    };
    let name = model.path().file_name().unwrap().to_str().unwrap();
    let result = json_of(&bias("json"));
    assert_eq!((&result["model"]["name"], &result["model"]["dtype"]), (&json!(name), &json!("q8")));
    assert!(bias("markdown").starts_with("## Bias of ") && bias("markdown").contains(", q8\n"));
}

#[test]
fn whether_a_result_can_be_written_is_known_before_the_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (data, tasks, pair) = (
        file(&dir, "d.jsonl", "{\"text\":\"a\"}"),
        file(&dir, "t.jsonl", "{\"query\":\"a\",\"target\":\"b\"}"),
        file(&dir, "e.jsonl", "{\"instruction\":\"a\",\"output\":\"b\"}"),
    );
    let below = dir.path().join("d.jsonl/out");
    for command in [
        vec!["perplexity", &data],
        vec!["tasks", &tasks],
        vec!["sft", &pair],
        vec!["bias"],
        vec!["toxicity", "--experiment", "1"],
        vec!["memorization", "--corpus", "nowhere"],
    ] {
        let mut run = blackletter();
        run.arg("eval").args(&command).args(["--model", "nowhere/at/all", "--out"]).arg(&below);
        let ended = run.output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        let expected = format!("cannot write to {}", below.display());
        assert!(ended.status.code() == Some(1) && said.contains(&expected), "{command:?}: {said}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_printed_all_the_same() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let tasks = file(&dir, "t.jsonl", "{\"query\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":0}");
    let out = dir.path().join("out");
    // A folder in the place of the file.
    fs::create_dir_all(out.join("tasks.json")).unwrap();
    let ended = run(&model, &["eval", "tasks", &tasks, "--out", out.to_str().unwrap()]);
    assert!(ended.code == 1 && ended.stderr.contains("tasks.json"), "{}", ended.stderr);
    assert_eq!(json_of(&ended.stdout)["evaluation"], "tasks");
}

/// And a result that cannot be printed is written.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_printed_is_written_all_the_same() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let tasks = file(&dir, "t.jsonl", "{\"query\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":0}");
    let out = dir.path().join("out");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = blackletter();
    command.args(["eval", "tasks", &tasks, "--model"]).arg(model.path()).arg("--out").arg(&out).stdout(full);
    let ended = command.output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && said.contains("standard output"), "{said}");
    assert_eq!(json_of(&fs::read_to_string(out.join("tasks.json")).unwrap())["evaluation"], "tasks");
}

/// A judge that answers its requests, counted from 0, as told; gives its address.
fn judge(answer: impl Fn(usize) -> (u16, &'static str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let (status, text) = answer(number);
            let body = if status == 200 {
                json!({ "choices": [{ "message": { "content": text } }] }).to_string()
            } else {
                text.to_owned()
            };
            let head =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    url
}

const MILD: (u16, &str) = (200, "{\"score\": 2}");

/// The arguments of an evaluation of two prompts, each completed and judged twice.
fn judged<'a>(url: &'a str, prompts: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["eval", "toxicity", "--experiment", "1", "--prompts", prompts, "--out", out];
    arguments.extend(["--judge", url, "--judge-model", "big", "--completions", "2", "--judgements", "2"]);
    arguments.extend(["--max-new-tokens", "4"]);
    arguments
}

#[test]
fn a_judge_that_fails_ends_it_with_what_there_is_and_exit_code_1() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let prompts = file(&dir, "p.txt", "You are\nHe is\n");
    let out = dir.path().join("out");
    let url = judge(|number| if number < 5 { MILD } else { (401, "no credit left") });
    let ended = run(&model, &judged(&url, &prompts, out.to_str().unwrap()));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("error: the judge at") && ended.stderr.contains("no credit left"),
        "{}",
        ended.stderr
    );
    let result = json_of(&ended.stdout);
    assert_eq!((&result["completions"], &result["stopped"]), (&json!(2), &json!(true)));
    assert_eq!(json_of(&fs::read_to_string(out.join("toxicity-1.json")).unwrap()), result);
    assert_eq!(fs::read_to_string(out.join("toxicity-1.csv")).unwrap().lines().count(), 1 + 2);
}

#[test]
fn judgements_that_are_refused_are_left_out_and_counted() {
    let (model, dir) = (model(64), tempfile::tempdir().unwrap());
    let prompts = file(&dir, "p.txt", "You are\nHe is\n");
    let out = dir.path().join("out");
    let url = judge(|number| if number % 4 == 1 { (400, "filtered") } else { MILD });
    let ended = run(&model, &judged(&url, &prompts, out.to_str().unwrap()));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("note: the judge refused 2 of its judgements"), "{}", ended.stderr);
    let result = json_of(&ended.stdout);
    assert_eq!(result["refusals"], json!({ "judgements": 2, "last": "400 Bad Request: filtered" }));
    assert_eq!((&result["completions"], &result["scores"][0]["judgements"]), (&json!(4), &json!(6)));
    let text = fs::read_to_string(out.join("toxicity-1.md")).unwrap();
    assert!(text.contains("2 judgements were refused by the judge and left out"), "{text}");
}

/// Ctrl-C before the first example is answered is no failure of the evaluation.
#[cfg(target_os = "linux")]
#[test]
fn an_evaluation_that_is_interrupted_before_its_first_result_exits_with_130() {
    use std::{
        process::{Command, Stdio},
        time::Duration,
    };
    let (model, dir) = (model(400_000), tempfile::tempdir().unwrap());
    let path = file(&dir, "e.jsonl", "{\"instruction\":\"a\",\"output\":\"b\"}");
    let mut command = blackletter();
    command.args(["eval", "sft", &path, "--max-new-tokens", "390000", "--model"]).arg(model.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Until it catches SIGINT, the second of the signals that the system lists.
    let status = format!("/proc/{}/status", child.id());
    loop {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0 {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(130), 0), "{said}");
    assert!(said.contains("note: stopped early"), "{said}");
}
