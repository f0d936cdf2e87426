//! Requests that mean no good, or come from broken clients.

use crate::client::{Server, long};
use blackletter_server::Settings;
use serde_json::{Value, json};
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

#[test]
fn bodies_are_read_as_the_description_has_them_and_in_no_other_way() {
    let server = Server::new();
    let completions = [
        r#"[null, "Under this"]"#,
        r#"{"prompt":"a","max_tokens":1.0}"#,
        r#"{"prompt":"a","max_tokens":"1"}"#,
        r#"{"prompt":"a","max_tokens":true}"#,
        r#"{"prompt":"a","n":1.0}"#,
        r#"{"prompt":[1.0]}"#,
        r#"{"prompt":[true]}"#,
        r#"{"prompt":["a",1]}"#,
        r#"{"prompt":{"Text":"a"}}"#,
        r#"{"prompt":"a","echo":1}"#,
        r#"{"prompt":"a","echo":"true"}"#,
        r#"{"prompt":"a","stream":0}"#,
        r#"{"prompt":"a","temperature":true}"#,
        r#"{"prompt":"a","temperature":"1"}"#,
        r#"{"prompt":"a","seed":"1"}"#,
        r#"{"prompt":"a","stop":5}"#,
        r#"{"prompt":"a","logit_bias":[1]}"#,
        r#"{"prompt":"a","stream_options":[true]}"#,
        r#"{"prompt":"a","suffix":[]}"#,
        r#"{"prompt":"a","suffix":"none"}"#,
        r#"{"prompt":"a","user":5}"#,
        r#"{"prompt":"a","user":"a","user":"b"}"#,
        r#"{"prompt":"a","response_format":"text"}"#,
        r#"{"prompt":"a","response_format":{}}"#,
        r#"{"prompt":"a","response_format":{"type":0}}"#,
        r#"{"prompt":"a","response_format":{"type":1}}"#,
        r#"{"prompt":"a","response_format":{"type":null}}"#,
        r#"{"prompt":"a","response_format":{"type":{"text":null}}}"#,
        r#"{"prompt":"a","response_format":["text"]}"#,
        r#"{"prompt":"a","response_format":["json_object"]}"#,
        r#"{"prompt":"a","response_format":{"type":"text","schema":{}}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_object","schema":true}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_object","schema":{},"value":{}}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_schema"}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_schema","json_schema":["x"]}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_schema","json_schema":{"schema":[]}}}"#,
        r#"{"prompt":"a","response_format":{"type":"json_schema","json_schema":{"strict":1}}}"#,
    ];
    for body in completions {
        let reply = server.send("POST", "/v1/completions", JSON, body.as_bytes());
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        reply.refused(400);
    }
    let message = r#"{"role":"user","content":"a"}"#;
    let messages = [
        r#"["user","a"]"#.to_string(),
        r#"{"role":0,"content":"a"}"#.into(),
        r#"{"role":"User","content":"a"}"#.into(),
        r#"{"role":{"user":null},"content":"a"}"#.into(),
        r#"{"role":"user","content":[{"type":0,"text":"a"}]}"#.into(),
        r#"{"role":"user","content":[{"type":"text","text":5}]}"#.into(),
        r#"{"role":"user","content":[{"type":"text","text":"a","more":1}]}"#.into(),
        r#"{"role":"user","content":[{"text":"a"}]}"#.into(),
        r#"{"role":"user","content":[["text","a"]]}"#.into(),
        r#"{"role":"user","content":["a"]}"#.into(),
        r#"{"role":"user","content":null}"#.into(),
        format!(r#"{message},{{"tools":[]}}"#),
    ];
    let chats = messages.map(|message| format!(r#"{{"messages":[{message}]}}"#)).into_iter();
    let fields = [
        r#""tools":"""#,
        r#""tools":[1]"#,
        r#""tool_choice":[]"#,
        r#""tool_choice":"""#,
        r#""functions":"none""#,
        r#""logprobs":1"#,
        r#""top_logprobs":"0""#,
        r#""metadata":[]"#,
        r#""metadata":{"a":1}"#,
        r#""store":0"#,
    ];
    let with = fields.map(|field| format!(r#"{{"messages":[{message}],{field}}}"#)).into_iter();
    for body in chats.chain(with).chain([format!(r#"[null,[{message}]]"#)]) {
        let reply = server.send("POST", "/v1/chat/completions", JSON, body.as_bytes());
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        reply.refused(400);
    }
    // The same where it is right.
    let chat = json!({
        "messages": [{ "role": "developer", "content": [{ "type": "text", "text": "a" }] }], "max_tokens": 1,
        "response_format": { "type": "text" }, "tools": [], "tool_choice": "none", "functions": null, "stream_options": null,
        "metadata": { "a": "b" }, "store": false, "temperature": 1,
    });
    assert_eq!(server.post("/v1/chat/completions", &chat).status, 200);
    for name in ["schema", "value"] {
        let format = json!({ "type": "json_object", name: { "type": "object", "maxProperties": 0 } });
        assert_eq!(server.text(&json!({ "prompt": "a", "suffix": "", "response_format": format })), "{}");
    }
}

#[test]
fn constraints_that_take_long_are_given_up_and_keep_nobody_else_waiting() {
    let server = Server::with(Settings { compile_timeout: Duration::from_millis(1), ..Settings::default() });
    let schema = |number: usize| {
        let properties: serde_json::Map<String, Value> =
            (0..1500).map(|i| (format!("p{number}_{i}"), json!({ "type": "integer" }))).collect();
        let required: Vec<&String> = properties.keys().collect();
        json!({ "type": "object", "required": required, "properties": properties })
    };
    let ask = |number: usize| {
        let format = json!({ "type": "json_schema", "json_schema": { "schema": schema(number) } });
        server.post("/v1/completions", &json!({ "prompt": "a", "max_tokens": 1, "response_format": format }))
    };
    let crowd = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..crowd).map(|number| scope.spawn(move || ask(number))).collect();
        // Who asks without a constraint is answered all the while.
        while !asking.iter().all(|a| a.is_finished()) {
            server.complete(&json!({ "prompt": "Under this", "max_tokens": 2 }));
        }
        let mut codes = Vec::new();
        for reply in asking.into_iter().map(|a| a.join().unwrap()) {
            match reply.status {
                503 => {
                    assert_eq!(reply.refused(503)["code"], "constraints_busy");
                    assert!(reply.header("retry-after").is_some());
                }
                _ => assert_eq!(reply.refused(400)["param"], "response_format"),
            }
            codes.push(reply.status);
        }
        assert!(codes.contains(&503) && codes.contains(&400), "{codes:?}");
    });
    // What has been compiled meanwhile is there for who asks again.
    let start = Instant::now();
    while ask(0).status != 200 {
        assert!(start.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
}
