//! `report`: whose results stand where, and what is left alone

use crate::support::{Ended, blackletter, model};
use blackletter_provenance::{MODEL_RECORD_VERSION, ModelIdentity, ModelRecord};
use serde_json::json;
use std::{fs, path::Path};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Ended {
    blackletter().args(arguments).output().unwrap().into()
}

/// A model of that name with a record.
fn recorded(name: &str) -> TempDir {
    let model = model(64);
    ModelRecord {
        version: MODEL_RECORD_VERSION,
        model: ModelIdentity { name: name.into(), ..ModelIdentity::default() },
        ..ModelRecord::default()
    }
    .write(model.path())
    .unwrap();
    model
}

/// Measures perplexity on one text of a dataset of that name; gives the directory of the result.
fn measured(dir: &Path, out: &str, dataset: &str, options: &[&str]) -> String {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let data = at("part.jsonl");
    fs::write(&data, json!({ "dataset": dataset, "text": "Under this Act" }).to_string()).unwrap();
    let ended = run(&[&["eval", "perplexity", &data, "--out", &at(out)], options].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    at(out)
}

#[test]
fn a_card_has_only_its_models_own_results_in_its_metadata_and_the_others_are_named() {
    let dir = TempDir::new().unwrap();
    let model = recorded("test");
    let folder = model.path().to_str().unwrap();
    let own = measured(dir.path(), "own", "usc", &["--model", folder]);
    let small = measured(dir.path(), "small", "cfr", &["--model", folder, "--dtype", "q4"]);
    let out = dir.path().join("report");
    let ended = run(&["report", "--model", folder, "--evals", &own, &small, "--out", out.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let name = model.path().file_name().unwrap().to_str().unwrap();
    let note = format!("not in the card's metadata: perplexity of {name}, q4\n");
    assert!(ended.stderr.contains(&note), "{}", ended.stderr);
    let card = fs::read_to_string(out.join("CARD.md")).unwrap();
    let (front, body) = card.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
    assert!(front.contains("\"usc\"") && !front.contains("\"cfr\""), "{front}");
    assert!(body.contains("### Perplexity of test\n") && body.contains("| cfr |"), "{body}");
    let figure = fs::read_to_string(out.join("figures/bits-per-byte.svg")).unwrap();
    assert!(figure.contains(&format!("{name}, q4")), "{figure}");
}

#[test]
fn a_page_loads_nothing_from_elsewhere_whatever_a_dataset_is_called() {
    let dir = TempDir::new().unwrap();
    let model = model(64);
    let name = "![x](http://tracker.example/x.png) <script>f()</script>";
    let evals = measured(dir.path(), "evals", name, &["--model", model.path().to_str().unwrap()]);
    let out = dir.path().join("report");
    assert_eq!(run(&["report", "--evals", &evals, "--out", out.to_str().unwrap()]).code, 0);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in ["<img", "<script", "src=\"http", "url("] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    assert!(page.contains("<td>![x](http://tracker.example/x.png) &lt;script"), "{page}");
    assert!(!fs::read_to_string(out.join("REPORT.md")).unwrap().contains("![x]"));
}

#[cfg(all(unix, feature = "hub"))]
#[test]
fn what_the_cache_of_the_hub_holds_is_not_written_over() {
    let (dir, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = recorded("test");
    fs::write(made.path().join("README.md"), "its own card").unwrap();
    let repository = home.path().join("hub/models--owner--model");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let (snapshot, blobs) = (repository.join("snapshots").join(commit), repository.join("blobs"));
    for folder in [&snapshot, &blobs, &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), commit).unwrap();
    for entry in fs::read_dir(made.path()).unwrap() {
        let name = entry.unwrap().file_name();
        fs::copy(made.path().join(&name), blobs.join(&name)).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(&name), snapshot.join(&name)).unwrap();
    }
    let evals = measured(dir.path(), "evals", "usc", &["--model", made.path().to_str().unwrap()]);
    let out = dir.path().join("report");
    let report = |model: &str| -> Ended {
        let arguments =
            ["report", "--evals", &evals, "--out", out.to_str().unwrap(), "--update-card", "--model", model];
        blackletter().env("HF_HOME", home.path()).args(arguments).output().unwrap().into()
    };
    for (name, code, hint) in
        [("owner/model", 2, "copy the model's files"), (snapshot.to_str().unwrap(), 1, "symbolic link")]
    {
        let ended = report(name);
        assert!(ended.code == code && ended.stderr.contains(hint), "{} {}", ended.code, ended.stderr);
        assert_eq!(fs::read_to_string(blobs.join("README.md")).unwrap(), "its own card");
        assert!(!out.exists(), "nothing is written when the whole cannot be done");
    }
    let ended = report(made.path().to_str().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let card = fs::read_to_string(made.path().join("README.md")).unwrap();
    assert!(card.contains("# test\n") && card.contains("value:"), "{card}");
}
