//! Models named `owner/name`: what the environment says is followed.

use crate::support::{Ended, blackletter, model};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn offline_a_model_in_hf_home_runs_by_its_name() {
    let (made, home) = (model(64), TempDir::new().unwrap());
    let repository = home.path().join("hub/models--owner--model");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(made.path().join(file), snapshot.join(file)).unwrap();
    }
    let run = |name: &str| -> Ended {
        let arguments = ["generate", "Under this", "--max-new-tokens", "3", "--model", name];
        blackletter().env("HF_HOME", home.path()).args(arguments).output().unwrap().into()
    };
    let ended = run("owner/model");
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("Under this"));
    let other = run("owner/other");
    assert_eq!((other.code, other.stdout.as_str()), (1, ""));
    assert!(
        other.stderr.contains("owner/other") && other.stderr.contains("HF_HUB_OFFLINE"),
        "{}",
        other.stderr
    );
}

#[test]
fn the_hub_of_hf_endpoint_is_asked_with_the_token_of_hf_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        head
    });
    let home = TempDir::new().unwrap();
    let ended: Ended = blackletter()
        .env("HF_ENDPOINT", &address)
        .env("HF_TOKEN", "secret")
        .env("HF_HOME", home.path())
        .env("HF_HUB_OFFLINE", "0")
        .args(["inspect", "owner/model@v1"])
        .output()
        .unwrap()
        .into();
    let head = server.join().unwrap();
    assert!(head[0].contains("/api/models/owner/model/revision/v1"), "{head:?}");
    assert!(head.iter().any(|line| line.eq_ignore_ascii_case("authorization: bearer secret")), "{head:?}");
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains("set HF_TOKEN") && !ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[test]
fn a_push_of_one_file_says_one_file() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            reader.take(length).read_to_end(&mut Vec::new()).unwrap();
            let body = if head.contains("/commit/") { "{\"commitOid\":\"abc\"}" } else { "{}" };
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    let model = TempDir::new().unwrap();
    fs::write(model.path().join("config.json"), "{").unwrap();
    let arguments = ["push", "owner/model", "--model", model.path().to_str().unwrap()];
    let push = |more: &[&str]| -> Ended {
        let mut command = blackletter();
        command.env("HF_ENDPOINT", &address).env("HF_TOKEN", "secret").env("HF_HUB_OFFLINE", "0");
        command.args(arguments).args(more).output().unwrap().into()
    };
    assert!(push(&[]).stdout.contains("  config.json (1 byte)\n"));
    let ended = push(&["--publish"]);
    let expected = "committed 1 file to owner/model as abc; 0 bytes of large files sent\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (0, expected), "{}", ended.stderr);
}
