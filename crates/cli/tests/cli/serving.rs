//! `serve`, started and ended as an operator does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

/// A server that is told to end while an answer is being made finishes the answer and exits with 0.
#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_end_finishes_its_answers_and_exits_with_0() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let mut server = Command::new(env!("CARGO_BIN_EXE_blackletter"))
        .args(["serve", "--port", "0", "--threads", "1", "--model"])
        .arg(model)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address =
        said.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches('/').to_owned())).unwrap();
    let mut client = TcpStream::connect(&address).unwrap();
    let body = r#"{"prompt": "Under this", "max_tokens": 900, "stream": true, "seed": 1, "logit_bias": {"1": -100}}"#;
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json";
    write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    // Until the answer has begun.
    let mut begun = [0; 12];
    client.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let told = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(told.success());
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
