//! `loss`, `bench train`, and runs that are killed, stopped, or out of room.

use crate::{
    store::{metrics, store, write_config},
    support::{Ended, VOCAB, blackletter, model},
};
use blackletter_model::{Checkpoint, names};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Two rows of eight tokens; the second one begins with padding.
fn write_batch(path: &Path, label: i64) {
    let ids: Vec<i64> = (0..16).map(|i| if (8..10).contains(&i) { 2 } else { (i * 7 % 90) + 40 }).collect();
    let mask: Vec<i64> = (0..16).map(|i| i64::from(!(8..10).contains(&i))).collect();
    let labels: Vec<i64> = ids.iter().zip(&mask).map(|(&id, &m)| if m == 0 { label } else { id }).collect();
    let bytes = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let all =
        [("padded_input_ids", bytes(&ids)), ("attention_mask", bytes(&mask)), ("labels", bytes(&labels))];
    let views = all.iter().map(|(name, b)| (*name, TensorView::new(Dtype::I64, vec![2, 8], b).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn the_loss_of_a_stored_batch_and_the_gradients_of_all_weights_come_out() {
    let (model, dir) = (model(64), TempDir::new().unwrap());
    let (batch, gradients) = (dir.path().join("b.safetensors"), dir.path().join("g.safetensors"));
    write_batch(&batch, -100);
    let run = |more: &[&Path]| {
        let mut command = blackletter();
        command.args(["loss", "--model"]).arg(model.path()).arg("--batch").arg(&batch);
        if let [path] = more {
            command.arg("--gradients").arg(path);
        }
        Ended::from(command.output().unwrap())
    };
    let report = json(&run(&[&gradients]));
    // Random weights know nothing: each of the tokens is about as likely.
    let expected = (VOCAB as f64).ln();
    assert!((report["cross_entropy"].as_f64().unwrap() - expected).abs() < 0.5, "{report}");
    assert_eq!(report["targets"], 7 + 6);
    let whole = report["cross_entropy"].as_f64().unwrap()
        + report["aux_coefficient"].as_f64().unwrap() * report["aux_loss"].as_f64().unwrap();
    assert!((report["loss"].as_f64().unwrap() - whole).abs() < 1e-12);
    assert_eq!(report, json(&run(&[])));
    let bytes = fs::read(&gradients).unwrap();
    let written = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = Checkpoint::open(model.path()).unwrap().config;
    for expected in names::expected(&config) {
        let tensor = written.tensor(&expected.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, expected.shape.as_slice()));
    }
}

#[test]
fn a_batch_that_cannot_be_used_is_refused_by_name() {
    let (model, dir) = (model(64), TempDir::new().unwrap());
    let batch = dir.path().join("b.safetensors");
    write_batch(&batch, 5000);
    let mut command = blackletter();
    command.args(["loss", "--model"]).arg(model.path()).arg("--batch").arg(&batch);
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("labels") && ended.stderr.contains("5000"), "{}", ended.stderr);
}

#[test]
fn bench_constraint_names_the_line_that_is_wrong_and_needs_something_to_measure() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("schemas.jsonl");
    for (text, part) in [
        ("{\"type\":\"string\"}\n\n{\"type\"", "line 3 is not JSON"),
        ("\n", "nothing was measured"),
        ("{\"not\":{}}\n", "1 are refused"),
    ] {
        fs::write(&file, text).unwrap();
        let command = ["bench", "constraint", file.to_str().unwrap(), "--model", "nano"];
        let ended: Ended = blackletter().args(command).output().unwrap().into();
        assert!(ended.code == 1 && ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn bench_train_reports_speed_memory_and_losses_that_threads_do_not_change() {
    let model = model(64);
    let run = |threads: &str| {
        let mut command = blackletter();
        command.args(["bench", "train", "--batch", "2", "--seq", "16", "--steps", "2", "--threads", threads]);
        json(&command.arg("--geometry").arg(model.path().join("config.json")).output().unwrap().into())
    };
    let report = run("2");
    for key in ["tokens_per_s", "mfu", "peak_memory_bytes", "gemm_gflops"] {
        assert!(report[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {report}");
    }
    assert_eq!(report["losses"].as_array().unwrap().len(), 3);
    assert_eq!(report["losses"], run("1")["losses"]);
    let ended: Ended =
        blackletter().args(["bench", "train", "--geometry", "no-such"]).output().unwrap().into();
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("kl3m-002-520m"), "{}", ended.stderr);
}

/// A command that trains `run.toml` of a folder into `run` of it.
fn train(folder: &Path, run: &str, arguments: &[&str]) -> Command {
    let mut command = blackletter();
    command.arg("train").arg(folder.join("run.toml"));
    command.arg("--set").arg(format!("run={}", folder.join(run).display())).args(arguments);
    command
}

/// Waits until a run has done some steps.
fn wait_for(child: &mut Child, run: &Path, lines: usize) {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if text.lines().count() >= lines {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {lines} lines");
        assert!(start.elapsed() < Duration::from_secs(120), "no {lines} lines after two minutes");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_goes_on_to_the_same_losses() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    let steps =
        ["--set", "schedule.steps=60", "--set", "checkpoints.every=3", "--set", "evaluation.every=20"];
    let ended = Ended::from(train(dir.path(), "whole", &steps).output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let expected = metrics(&dir.path().join("whole"));
    let run = dir.path().join("killed");
    for (i, lines) in [4, 17, 31, 44].into_iter().enumerate() {
        let mut command = train(dir.path(), "killed", &steps);
        if i > 0 {
            command.arg("--resume");
        }
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&mut child, &run, lines);
        // SIGKILL: nothing of the program runs any more.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ended = Ended::from(train(dir.path(), "killed", &steps).arg("--resume").output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(metrics(&run), expected);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_saves_first() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    let steps =
        ["--set", "schedule.steps=2000", "--set", "checkpoints.every=1000", "--set", "evaluation.every=0"];
    let run = dir.path().join("run");
    for (signal, lines) in [("-TERM", 5), ("-INT", 12)] {
        let mut command = train(dir.path(), "run", &steps);
        if lines > 5 {
            command.arg("--resume");
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&mut child, &run, lines);
        assert!(Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap().success());
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 130, "{}", ended.stderr);
        assert!(ended.stderr.contains("--resume"), "{}", ended.stderr);
        let last = metrics(&run).len();
        assert!(run.join(format!("checkpoints/step-{last:08}/state.json")).is_file(), "{}", ended.stderr);
    }
}

#[cfg(unix)]
#[test]
fn without_room_for_a_checkpoint_a_run_ends_with_the_last_one_whole() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    let shorter = ["--set", "schedule.steps=6", "--set", "evaluation.every=0"];
    assert_eq!(Ended::from(train(dir.path(), "run", &shorter).output().unwrap()).code, 0);
    // Files may have 1,000 blocks of 512 bytes, fewer than the tensors take.
    let longer = ["--resume", "--set", "schedule.steps=12", "--set", "evaluation.every=0"];
    let command = train(dir.path(), "run", &longer);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    let ended = Ended::from(limited.output().unwrap());
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    for part in ["checkpoint of step 8", "larger than the system allows", "step-00000006", "--resume"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let names: Vec<_> =
        fs::read_dir(dir.path().join("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| n.to_str().unwrap().starts_with("step-")), "{names:?}");
    let ended = Ended::from(train(dir.path(), "run", &longer).output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn a_configuration_that_cannot_be_followed_is_wrong_usage_and_writes_nothing() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    for (arguments, part) in [
        (["--set", "schedule.stepz=5"], "\"schedule.steps\""),
        (["--set", "optimizer.name=sgd"], "muon"),
        (["--set", "data.rows=0"], "data.rows = 0"),
    ] {
        let ended = Ended::from(train(dir.path(), "run", &arguments).output().unwrap());
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert!(!dir.path().join("run").exists());
    let printed = Ended::from(blackletter().args(["train", "--print-config"]).output().unwrap());
    assert_eq!(printed.code, 0);
    assert!(printed.stdout.contains("[schedule]") && printed.stdout.contains("# "));
}

#[test]
fn export_writes_a_directory_that_other_commands_take() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    assert_eq!(Ended::from(train(dir.path(), "run", &[]).output().unwrap()).code, 0);
    let (run, out) = (dir.path().join("run"), dir.path().join("model"));
    let mut command = blackletter();
    command.arg("export").arg("--run").arg(&run).arg("--out").arg(&out);
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut command = blackletter();
    command.args(["generate", "The court", "--seed", "1", "--max-new-tokens", "5", "--model"]).arg(&out);
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut command = blackletter();
    command.arg("export").arg("--run").arg(dir.path()).arg("--out").arg(&out);
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("config.toml"), "{}", ended.stderr);
}
