//! Requests that mean no good, or come from broken clients.

use crate::client::{Server, long};
use blackletter_server::Settings;
use serde_json::json;
use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

const JSON: &str = "content-type: application/json\r\n";

#[test]
fn bodies_that_are_no_requests_are_refused_and_the_server_goes_on() {
    let server = Server::with(Settings { max_body: 100_000, ..Settings::default() });
    let deep = "[".repeat(50_000);
    let deep_schema = format!(
        "{{\"prompt\":\"a\",\"response_format\":{{\"type\":\"json_schema\",\"json_schema\":{{\"schema\":{}1{}}}}}}}",
        "{\"items\":".repeat(100),
        "}".repeat(100)
    );
    let huge = format!("{{\"prompt\":\"a\",\"max_tokens\":{}}}", "9".repeat(5000));
    let cases: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"text\"",
        b"{\"prompt\":\"a\"} trailing",
        b"{\"prompt\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
        deep.as_bytes(),
        deep_schema.as_bytes(),
        huge.as_bytes(),
        b"{\"prompt\":\"a\",\"temperature\":1e999}",
    ];
    for body in cases {
        for path in ["/v1/completions", "/v1/chat/completions"] {
            server.send("POST", path, JSON, body).refused(400);
        }
    }
    server.send("POST", "/v1/completions", JSON, &vec![b' '; 100_001]).refused(413);
    // The same without a length in front.
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n";
    server.raw(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).refused(413);
    server.send("POST", "/v1/completions", "", b"{\"prompt\":\"a\"}").refused(415);
    server
        .send("POST", "/v1/completions", "content-type: text/plain\r\n", b"{\"prompt\":\"a\"}")
        .refused(415);
    // A lone half of a character is a character that replaces it, or refused; never a crash.
    let half = server.send("POST", "/v1/completions", JSON, b"{\"prompt\":\"\\ud800\",\"max_tokens\":1}");
    assert!([200, 400].contains(&half.status));
    assert_eq!(server.text(&json!({ "prompt": "a\u{0}b", "max_tokens": 0 })), "");
}

#[test]
fn paths_that_lead_nowhere_are_refused_in_the_same_shape() {
    let server = Server::new();
    for path in [
        "/nothing",
        "/v1",
        "/v1/completions/",
        "/../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/page.js/../../Cargo.toml",
        "/%ff",
        "//",
    ] {
        assert_eq!(server.get(path).refused(404)["code"], "not_found", "{path}");
    }
    for (method, path) in
        [("GET", "/v1/completions"), ("DELETE", "/v1/chat/completions"), ("POST", "/health"), ("PATCH", "/")]
    {
        let reply = server.send(method, path, "", b"");
        reply.refused(405);
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
}

#[test]
fn slow_and_flooding_clients_are_cut_off_and_others_are_served() {
    let server = Server::with(Settings { read_timeout: Duration::from_millis(400), ..Settings::default() });
    // A head that never ends.
    let mut slow = server.connect();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n").unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) && slow.write_all(b"x: y\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "the connection is cut off");
    // A body that never comes.
    let mut slow = server.connect();
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{").unwrap();
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Headers without number or end.
    let many: String = (0..5000).map(|i| format!("x-{i}: y\r\n")).collect();
    let flooded = server.raw(format!("GET /health HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes());
    if flooded.status != 0 {
        flooded.refused(431);
    }
    let long = server
        .raw(format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes());
    assert!([0, 400, 431].contains(&long.status), "{}", long.status);
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let reply = server.raw(nonsense);
        if reply.status != 0 {
            reply.refused(400);
        }
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn who_hangs_up_frees_the_place() {
    let server = Server::with(Settings { max_concurrent: 1, ..Settings::default() });
    for streamed in [true, false] {
        let mut body = long(1);
        body["stream"] = json!(streamed);
        body["max_tokens"] = json!(1000);
        let text = body.to_string();
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: a\r\n{JSON}content-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        if streamed {
            // Something has come, and is not waited for any more.
            stream.read_exact(&mut [0; 64]).unwrap();
        }
        stream.shutdown(Shutdown::Both).unwrap();
        drop(stream);
        let start = Instant::now();
        while server.health("running") + server.health("waiting") > 0 {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(
        server.complete(&json!({ "prompt": "a", "max_tokens": 2 }))["choices"].as_array().unwrap().len(),
        1
    );
}
