//! Many requests at once.

use crate::client::{Server, long};
use blackletter_server::Settings;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A request of a crowd: of many kinds, each a function of its number.
fn request(number: usize) -> (&'static str, Value) {
    let prompts = ["Under this", "The court", "Under this Agreement, the", "No person shall", "a"];
    let mut body = json!({ "max_tokens": 1 + number * 7 % 40, "seed": number, "temperature": 0.3 + (number % 7) as f64 / 4.0 });
    let party = json!({ "type": "object", "properties": { "party": { "type": "string", "maxLength": 12 }, "year": { "enum": [1999, 2024] } },
        "required": ["party"], "additionalProperties": false });
    let extra = match number % 7 {
        0 => json!({ "n": 2 }),
        1 => json!({ "stop": [" the", "e t"] }),
        2 => json!({ "top_p": 0.8, "presence_penalty": 0.5 }),
        3 => json!({ "guided_regex": "[A-Z][a-z]{2,9}( [a-z]{1,8}){0,4}\\." }),
        4 => json!({ "top_k": 5, "repetition_penalty": 1.2 }),
        5 => json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": party } } }),
        _ => json!({}),
    };
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let prompt = prompts[number % 5];
    if number % 4 == 3 {
        body["messages"] = json!([{ "role": "user", "content": prompt }]);
        return ("/v1/chat/completions", body);
    }
    body["prompt"] = json!(prompt);
    ("/v1/completions", body)
}

/// The texts of an answer, streamed or whole.
fn texts(server: &Server, number: usize, streamed: bool) -> Vec<String> {
    let (path, mut body) = request(number);
    body["stream"] = json!(streamed);
    let reply = server.post(path, &body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    let events = if streamed { reply.events() } else { vec![reply.json()] };
    let mut texts = vec![String::new(); body["n"].as_u64().unwrap_or(1) as usize];
    for choice in events.iter().flat_map(|e| e["choices"].as_array().unwrap()) {
        let text = [&choice["text"], &choice["message"]["content"], &choice["delta"]["content"]];
        let text = text.into_iter().find_map(Value::as_str).unwrap_or_default();
        texts[choice["index"].as_u64().unwrap() as usize] += text;
    }
    texts
}

fn soak(requests: usize, clients: usize) {
    let server = Server::with(Settings { max_concurrent: 8, ..Settings::default() });
    let alone: Vec<_> = (0..requests).map(|number| texts(&server, number, false)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..clients {
            let (server, alone, next) = (&server, &alone, &next);
            scope.spawn(move || {
                loop {
                    // From both ends, so that neighbours differ from those of the first time.
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= requests {
                        return;
                    }
                    let number = if turn % 2 == 0 { turn / 2 } else { requests - 1 - turn / 2 };
                    assert_eq!(texts(server, number, client % 2 == 0), alone[number], "request {number}");
                }
            });
        }
    });
    assert_eq!(server.health("running") + server.health("waiting"), 0);
}

#[test]
fn every_reply_in_a_crowd_is_the_reply_alone() {
    soak(240, 12);
}

#[test]
#[ignore = "takes minutes: thousands of requests"]
fn every_reply_of_thousands_is_the_reply_alone() {
    soak(4000, 250);
}

#[test]
fn beyond_the_queue_clients_are_told_to_come_again() {
    let server = Server::with(Settings { max_concurrent: 1, queue: 2, ..Settings::default() });
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|i| {
                scope.spawn({
                    let server = &server;
                    move || {
                        let reply = server.post("/v1/completions", &long(i));
                        if reply.status == 429 {
                            assert_eq!(reply.refused(429)["code"], "queue_full");
                            assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
                        }
                        reply.status
                    }
                })
            })
            .collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|s| [200, 429].contains(s)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    // More prompts than may wait are refused at once, and leave no trace.
    server.post("/v1/completions", &json!({ "prompt": ["a", "b", "c"], "max_tokens": 1 })).refused(429);
    assert_eq!(
        server.complete(&json!({ "prompt": ["a", "b"], "max_tokens": 1 }))["choices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_server_that_ends_lets_answers_finish_and_takes_no_more() {
    let mut server = Server::with(Settings { drain: Duration::from_secs(60), ..Settings::default() });
    let mut body = long(3);
    body["max_tokens"] = json!(300);
    let whole = server.text(&body);
    let address = server.address;
    let asking = thread::scope(|scope| {
        let shared = &server;
        let asking = scope.spawn({
            let body = body.clone();
            move || shared.text(&body)
        });
        let start = Instant::now();
        while server.health("running") == 0
            && start.elapsed() < Duration::from_secs(10)
            && !asking.is_finished()
        {}
        asking.join()
    });
    assert_eq!(asking.unwrap(), whole);
    // Now with the end in the middle.
    let stream = std::net::TcpStream::connect(address).unwrap();
    let text = body.to_string();
    use std::io::{Read, Write};
    let mut stream = stream;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(20));
    server.end();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
    if answer.starts_with("HTTP/1.1 200") {
        let json: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(json["choices"][0]["text"], whole);
    }
    let start = Instant::now();
    while !server.has_ended() {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn answers_that_take_longer_than_the_drain_are_told_why_they_end() {
    let mut server = Server::with(Settings {
        drain: Duration::from_millis(200),
        max_concurrent: 2,
        ..Settings::default()
    });
    use std::io::{Read, Write};
    let mut body = long(4);
    body["max_tokens"] = json!(1000);
    body["n"] = json!(2);
    body["stream"] = json!(true);
    let text = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 32]).unwrap();
    server.end();
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
    // A fast machine is done before; then nothing had to be told.
    assert!(rest.contains("shutting_down") || rest.contains("finish_reason\":\"length"), "{rest}");
}
