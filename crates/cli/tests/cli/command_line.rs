//! What every command has in common: exit codes, closed pipes, Ctrl-C, what is made from the definitions.

use crate::support::{Ended, blackletter, model};
use std::{
    fs,
    io::{self, Read},
    process::{Command, Stdio},
};
use tempfile::TempDir;

#[test]
fn nobody_reading_any_more_is_no_failure() {
    let model = model(64);
    for arguments in [
        vec!["completions", "bash"],
        vec!["man"],
        vec!["generate", "x", "--model"],
        vec!["inspect"],
        vec!["--help"],
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = blackletter();
        command.args(&arguments).stdout(writer).stderr(Stdio::piped());
        if matches!(arguments[0], "generate" | "inspect") {
            command.arg(model.path());
        }
        let ended: Ended = command.output().unwrap().into();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended: Ended = blackletter().arg("man").stdout(full).stderr(Stdio::piped()).output().unwrap().into();
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.starts_with("error: cannot write to standard output"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_what_there_is() {
    let model = model(200_000);
    let mut child = blackletter()
        .args([
            "generate",
            "Under this",
            "--max-new-tokens",
            "199000",
            "--format",
            "text",
            "--stream",
            "--model",
        ])
        .arg(model.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 40];
    stdout.read_exact(&mut start).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(start.starts_with(b"Under this") && rest.ends_with(b"\n"));
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.stderr.as_str()), (130, ""));
}

#[test]
fn a_model_that_is_not_there_is_told_with_what_would_do() {
    for name in ["no/such/place", "nowhere"] {
        let ended: Ended = blackletter().args(["inspect", name]).output().unwrap().into();
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(name) && ended.stderr.contains("directory"), "{}", ended.stderr);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help: Ended = blackletter().arg("--help").output().unwrap().into();
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("generate"));
    let version: Ended = blackletter().arg("--version").output().unwrap().into();
    assert_eq!(version.stdout, format!("blackletter {}\n", env!("CARGO_PKG_VERSION")));
    let none: Ended = blackletter().output().unwrap().into();
    assert_eq!((none.code, none.stdout.as_str()), (2, ""));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended: Ended = blackletter().args(["completions", shell]).output().unwrap().into();
        assert_eq!(ended.code, 0);
        assert!(
            ended.stdout.contains("generate") && ended.stdout.contains("num-return-sequences"),
            "{shell}"
        );
    }
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("man1");
    let ended: Ended = blackletter().args(["man", "--out"]).arg(&out).output().unwrap().into();
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
    for page in ["blackletter.1", "blackletter-generate.1", "blackletter-score.1"] {
        assert!(fs::read_to_string(out.join(page)).unwrap().contains(".TH"), "{page}");
    }
}

#[test]
fn a_quantized_model_is_saved_once_and_runs_like_one_quantized_at_load() {
    let model = model(64);
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("q8");
    let quantize =
        || blackletter().arg("quantize").args([model.path(), &out]).args(["--dtype", "q8"]).output().unwrap();
    let ended: Ended = quantize().into();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    let generate = |dir: &std::path::Path, dtype: &[&str]| -> Ended {
        let arguments = ["generate", "Under this", "--max-new-tokens", "20", "--seed", "1"];
        blackletter().args(arguments).args(dtype).arg("--model").arg(dir).output().unwrap().into()
    };
    let (saved, loaded) = (generate(&out, &[]), generate(model.path(), &["--dtype", "q8"]));
    assert_eq!((saved.code, &saved.stdout), (0, &loaded.stdout), "{}", saved.stderr);
    let again: Ended = quantize().into();
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
    let inspected: Ended = blackletter().arg("inspect").arg(&out).arg("--json").output().unwrap().into();
    let description: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert!(description["dtypes"]["q8"].is_u64(), "{}", inspected.stdout);
}
