//! Answers.

use crate::client::{Server, long, pipeline};
use blackletter_engine::{GenerationOptions, generate, sampling::SamplingOptions};
use blackletter_server::{Keys, Settings};
use blackletter_tokenizer::SpecialTokens;
use serde_json::{Value, json};
use std::ops::ControlFlow;

#[test]
fn a_completion_is_what_the_engine_makes_of_the_same_options() {
    let (server, pipeline) = (Server::new(), pipeline());
    let prompt = pipeline.prompt("Under this".into(), SpecialTokens::AsText).unwrap();
    let options = GenerationOptions {
        max_new_tokens: 30,
        num_return_sequences: 3,
        sampling: SamplingOptions { temperature: 0.8, top_k: 0, top_p: 0.9, ..SamplingOptions::default() },
        seed: 7,
        stop: vec![],
        eos_token_id: vec![1],
    };
    let made = generate(&pipeline.engine, None, &prompt.ids, &options, &mut |_, _| ControlFlow::Continue(()))
        .unwrap();
    let answer = server.complete(&json!({
        "model": "tiny", "prompt": "Under this", "max_tokens": 30, "n": 3, "temperature": 0.8, "top_p": 0.9, "seed": 7,
    }));
    let tokenizer = pipeline.tokenizer().unwrap();
    for (choice, made) in answer["choices"].as_array().unwrap().iter().zip(&made) {
        assert_eq!(choice["text"], tokenizer.decode(&made.ids, true));
    }
    let tokens: usize = made.iter().map(|m| m.ids.len()).sum();
    assert_eq!(
        answer["usage"],
        json!({ "prompt_tokens": prompt.ids.len(), "completion_tokens": tokens, "total_tokens": prompt.ids.len() + tokens })
    );
    assert_eq!(
        (answer["object"].as_str(), answer["model"].as_str()),
        (Some("text_completion"), Some("tiny"))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
}

#[test]
fn prompts_may_be_texts_and_ids_alone_and_in_lists() {
    let (server, pipeline) = (Server::new(), pipeline());
    let encode = |text: &str| pipeline.prompt(text.into(), SpecialTokens::AsText).unwrap().ids;
    let ask = |prompt: Value| {
        let answer = server.complete(&json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0, "n": 2 }));
        let choices = answer["choices"].as_array().unwrap().clone();
        assert_eq!(
            choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(),
            (0..choices.len() as u64).collect::<Vec<_>>()
        );
        choices.iter().map(|c| c["text"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let one = ask(json!("Under this"));
    assert_eq!((one.len(), &one[0]), (2, &one[1]));
    assert_eq!(ask(json!(encode("Under this"))), one);
    let other = ask(json!("The court"));
    let both = [one.as_slice(), &other].concat();
    assert_eq!(ask(json!(["Under this", "The court"])), both);
    assert_eq!(ask(json!([encode("Under this"), encode("The court")])), both);
    // Special tokens in a text are characters.
    let answer = server.complete(&json!({ "prompt": "<|end|>", "max_tokens": 0 }));
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 1);
}

#[test]
fn echo_with_log_probabilities_is_what_evaluation_harnesses_ask_for() {
    let (server, pipeline) = (Server::new(), pipeline());
    let ids =
        pipeline.prompt("Under this Agreement, the § 5 tenant".into(), SpecialTokens::AsText).unwrap().ids;
    let expected = blackletter_engine::score(&pipeline.engine, &ids).unwrap();
    for most in [0, 1] {
        let answer = server.complete(&json!({
            "model": "tiny", "prompt": [ids, ids], "max_tokens": most, "echo": true, "logprobs": 1, "temperature": 0, "seed": 1234,
        }));
        for choice in answer["choices"].as_array().unwrap() {
            let logprobs = &choice["logprobs"];
            let values = logprobs["token_logprobs"].as_array().unwrap();
            let top = logprobs["top_logprobs"].as_array().unwrap();
            assert_eq!((values.len(), top.len()), (ids.len() + most, ids.len() + most));
            assert_eq!((&values[0], &top[0]), (&Value::Null, &Value::Null));
            for (i, expected) in expected.iter().enumerate() {
                let value = values[i + 1].as_f64().unwrap();
                assert!((value - f64::from(*expected)).abs() < 1e-4, "{value} {expected}");
                let best = top[i + 1]
                    .as_object()
                    .unwrap()
                    .values()
                    .map(|v| v.as_f64().unwrap())
                    .fold(f64::MIN, f64::max);
                assert!(
                    best >= value
                        && top[i + 1].as_object().unwrap().values().any(|v| v.as_f64() == Some(value))
                );
            }
            // Whatever the generated token is, the last one of the greedy prompt's continuation is the likeliest.
            if most == 1 {
                let last = values.last().unwrap();
                assert!(
                    top.last().unwrap().as_object().unwrap().values().all(|v| v.as_f64() <= last.as_f64())
                );
            }
            let text = choice["text"].as_str().unwrap();
            let offsets: Vec<usize> = logprobs["text_offset"]
                .as_array()
                .unwrap()
                .iter()
                .map(|o| o.as_u64().unwrap() as usize)
                .collect();
            assert!(
                offsets.is_sorted() && offsets[0] == 0 && *offsets.last().unwrap() <= text.chars().count()
            );
            let tokens: Vec<&str> =
                logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            for (at, token) in offsets.iter().zip(&tokens).take(ids.len()) {
                let found: String = text.chars().skip(*at).take(token.chars().count()).collect();
                assert!(*token == found || token.starts_with("bytes:"), "{token:?} {found:?}");
            }
            assert_eq!(
                choice["finish_reason"],
                if most == 0 || tokens.last() != Some(&"<|end|>") { "length" } else { "stop" }
            );
        }
    }
}

#[test]
fn a_streamed_answer_is_the_whole_answer_in_pieces() {
    let server = Server::new();
    let base = json!({ "prompt": ["Under this", "The court"], "n": 2, "max_tokens": 40, "seed": 3, "logprobs": 2, "stop": ["hearing", "zzz"] });
    let whole = server.complete(&base);
    let mut streamed = base.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({ "include_usage": true });
    let events = server.post("/v1/completions", &streamed).events();
    let mut texts = vec![String::new(); 4];
    let mut tokens = vec![Vec::new(); 4];
    let mut reasons = vec![Value::Null; 4];
    for choice in events.iter().flat_map(|e| e["choices"].as_array().unwrap()) {
        let at = choice["index"].as_u64().unwrap() as usize;
        texts[at] += choice["text"].as_str().unwrap();
        tokens[at].extend(choice["logprobs"]["token_logprobs"].as_array().into_iter().flatten().cloned());
        if !choice["finish_reason"].is_null() {
            reasons[at] = choice["finish_reason"].clone();
        }
    }
    for (i, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["text"], texts[i]);
        assert_eq!(choice["logprobs"]["token_logprobs"], json!(tokens[i]));
        assert_eq!(choice["finish_reason"], reasons[i]);
        assert!(!texts[i].contains("hearing"));
    }
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
    assert_eq!(events.last().unwrap()["choices"], json!([]));
}

#[test]
fn the_best_of_several_are_the_likeliest() {
    let server = Server::new();
    let base =
        json!({ "prompt": "Under this", "max_tokens": 10, "seed": 5, "temperature": 1.5, "logprobs": 0 });
    let with = |extra: Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        server.complete(&body)["choices"].as_array().unwrap().clone()
    };
    let mean = |choice: &Value| {
        let values: Vec<f64> = choice["logprobs"]["token_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let all = with(json!({ "n": 8 }));
    let best = with(json!({ "n": 2, "best_of": 8 }));
    let mut means: Vec<f64> = all.iter().map(mean).collect();
    means.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(best.iter().map(mean).collect::<Vec<_>>(), means[..2]);
}

#[test]
fn a_conversation_is_answered_and_streamed_the_same() {
    let server = Server::new();
    let base = json!({
        "model": "tiny", "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": [{ "type": "text", "text": "When is the hearing?" }] }],
        "max_completion_tokens": 20, "seed": 11, "n": 2, "logprobs": true, "top_logprobs": 3,
    });
    let whole = server.post("/v1/chat/completions", &base);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    assert_eq!(whole["object"], "chat.completion");
    let mut streamed = base.clone();
    streamed["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &streamed).events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    for choice in whole["choices"].as_array().unwrap() {
        let own = |e: &&Value| e["index"] == choice["index"];
        let pieces: String = events
            .iter()
            .flat_map(|e| e["choices"].as_array().unwrap())
            .filter(own)
            .filter_map(|c| c["delta"]["content"].as_str())
            .collect();
        assert_eq!(choice["message"]["content"], pieces);
        let first = &choice["logprobs"]["content"][0];
        assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 3);
        assert!(first["bytes"].is_array() && first["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn documents_keep_to_their_schema_and_to_their_limit() {
    let server = Server::new();
    let schema = json!({ "type": "object", "properties": { "party": { "type": "string" }, "year": { "type": "integer", "minimum": 1900, "maximum": 2100 } },
        "required": ["party", "year"], "additionalProperties": false });
    for seed in 0..10 {
        let answer = server.post("/v1/chat/completions", &json!({
            "messages": [{ "role": "user", "content": "Who?" }], "max_tokens": 40, "seed": seed, "temperature": 2,
            "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": true } },
        }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let value: Value =
            serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
        assert!(value["party"].is_string() && (1900..=2100).contains(&value["year"].as_i64().unwrap()));
    }
    let free = server.text(&json!({ "prompt": "{", "max_tokens": 30, "seed": 1, "temperature": 2, "response_format": { "type": "json_object" } }));
    assert!(serde_json::from_str::<Value>(&free).unwrap().is_object());
    let choice = server.text(&json!({ "prompt": "x", "guided_choice": ["granted", "denied"] }));
    assert!(["granted", "denied"].contains(&choice.as_str()));
    let short = server.complete(&json!({ "prompt": "x", "max_tokens": 3, "guided_regex": "[a-z]{40}" }));
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    let schema = json!({ "properties": { "a": { "uniqueItems": true } } });
    let bad = json!({ "prompt": "x", "response_format": { "type": "json_schema", "json_schema": { "schema": schema } } });
    let error = server.post("/v1/completions", &bad).refused(400);
    assert_eq!(
        (error["message"].as_str(), error["param"].as_str()),
        (Some("unsupported keyword: uniqueItems at /properties/a/uniqueItems"), Some("response_format"))
    );
}

#[test]
fn whatever_cannot_be_asked_is_refused_with_its_parameter() {
    let server =
        Server::with(Settings { max_concurrent: 4, max_tokens: 3000, max_prompts: 3, ..Settings::default() });
    let cases = [
        (json!({}), "prompt"),
        (json!({ "prompt": 5 }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": [1, 99999] }), "prompt"),
        (json!({ "prompt": [-1] }), "prompt"),
        (json!({ "prompt": "a ".repeat(2000) }), "prompt"),
        (json!({ "prompt": ["a", "b", "c", "d"] }), "prompt"),
        (json!({ "prompt": "a", "max_tokens": -1 }), "max_tokens"),
        (json!({ "prompt": "a", "max_tokens": 1e30 }), "max_tokens"),
        (json!({ "prompt": "a", "max_tokens": 900, "n": 4 }), "max_tokens"),
        (json!({ "prompt": "a", "n": 0 }), "n"),
        (json!({ "prompt": "a", "n": 5 }), "n"),
        (json!({ "prompt": "a", "n": 2, "best_of": 1 }), "n"),
        (json!({ "prompt": "a", "best_of": 2, "stream": true }), "best_of"),
        (json!({ "prompt": "a", "temperature": 2.5 }), "temperature"),
        (json!({ "prompt": "a", "temperature": "hot" }), "temperature"),
        (json!({ "prompt": "a", "top_p": -0.1 }), "top_p"),
        (json!({ "prompt": "a", "presence_penalty": 3 }), "presence_penalty"),
        (json!({ "prompt": "a", "logit_bias": { "x": 1 } }), "logit_bias"),
        (json!({ "prompt": "a", "logit_bias": { "512": 1 } }), "logit_bias"),
        (json!({ "prompt": "a", "logit_bias": { "5": 101 } }), "logit_bias"),
        (json!({ "prompt": "a", "logprobs": 21 }), "logprobs"),
        (json!({ "prompt": "a", "stop": [""] }), "stop"),
        (json!({ "prompt": "a", "stop": vec!["x"; 17] }), "stop"),
        (json!({ "prompt": "a", "stop": "x", "guided_regex": "y" }), "stop"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix"),
        (json!({ "prompt": "a", "seed": 1.5 }), "seed"),
        (json!({ "prompt": "a", "guided_regex": "(" }), "response_format"),
        (json!({ "prompt": "a", "guided_regex": "a", "guided_choice": ["a"] }), "response_format"),
        (json!({ "prompt": "a", "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "prompt": "a", "stream_options": { "include_usage": 1 } }), "stream_options.include_usage"),
        (json!({ "prompt": "a", "stream_options": [] }), "stream_options"),
        (json!({ "prompt": "a", "top_k": 1_u64 << 31 }), "top_k"),
        (json!({ "prompt": "a", "unknown": 1 }), "unknown"),
    ];
    for (body, param) in cases {
        let error = server.post("/v1/completions", &body).refused(400);
        let shown = body.to_string();
        assert!(
            error["param"] == *param || error["param"] == "response_format",
            "{}: {error}",
            shown.get(..80).unwrap_or(&shown)
        );
    }
    let chat = |body: Value| server.post("/v1/chat/completions", &body).refused(400)["param"].clone();
    assert_eq!(chat(json!({ "messages": [] })), "messages");
    assert_eq!(chat(json!({ "messages": [{ "role": "tool", "content": "x" }] })), "messages[0].role");
    assert_eq!(chat(json!({ "messages": [{ "role": "user", "content": "x" }], "tools": [{}] })), "tools");
    assert_eq!(chat(json!({ "messages": [{ "role": "user", "content": "a ".repeat(2000) }] })), "messages");
    assert_eq!(
        chat(json!({ "messages": [{ "role": "user", "content": "x" }], "top_logprobs": 2 })),
        "top_logprobs"
    );
    let error = server.post("/v1/completions", &json!({ "prompt": "a", "model": "gpt-4" })).refused(404);
    assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some("model_not_found"), Some("model")));
}

#[test]
fn only_who_brings_a_key_is_answered() {
    let server =
        Server::with(Settings { keys: Keys::of(["secret", "other"].into_iter()), ..Settings::default() });
    let with = |header: &str| server.send("GET", "/v1/models", header, b"");
    assert_eq!(with("").refused(401)["code"], "invalid_api_key");
    for wrong in ["Bearer wrong", "Bearer ", "Basic secret", "secret", "Bearer secret2"] {
        with(&format!("authorization: {wrong}\r\n")).refused(401);
    }
    for right in ["Bearer secret", "bearer other"] {
        assert_eq!(with(&format!("authorization: {right}\r\n")).status, 200);
    }
    for path in ["/metrics", "/about"] {
        server.get(path).refused(401);
    }
    server.post("/v1/completions", &json!({ "prompt": "a" })).refused(401);
    for open in ["/health", "/ready", "/openapi.json", "/"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
}

#[test]
fn the_model_its_health_and_its_figures_are_shown() {
    let server = Server::new();
    let models = server.get("/v1/models").json();
    assert_eq!((models["object"].as_str(), models["data"][0]["id"].as_str()), (Some("list"), Some("tiny")));
    assert_eq!(server.get("/v1/models/tiny").json(), models["data"][0]);
    assert_eq!(server.get("/v1/models/a/b").refused(404)["code"], "model_not_found");
    server.complete(&json!({ "prompt": "Under this", "max_tokens": 3 }));
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(server.get("/ready").status, 200);
    let figures = server.get("/metrics");
    for name in [
        "requests_total",
        "request_seconds",
        "first_token_seconds",
        "generated_tokens_total",
        "prompt_tokens_total",
        "running",
        "waiting",
    ] {
        assert!(figures.text().contains(&format!("blackletter_{name}")), "{name}");
    }
    let about = server.get("/about").json();
    assert_eq!((about["model"].as_str(), about["context"].as_u64()), (Some("tiny"), Some(1024)));
    assert_eq!(about["description"]["architecture"], "MixtralForCausalLM");
    let document = server.get("/openapi.json").json();
    for path in [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let choices = server.complete(&long(1))["choices"].clone();
    assert_eq!(choices[0]["finish_reason"], "length");
}
