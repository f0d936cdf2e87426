//! Figures for Prometheus.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{sync::OnceLock, time::Duration};

/// One for the process; a second server in it shares it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// From now on, figures are kept.
pub fn install() {
    RECORDER.get_or_init(|| {
        let seconds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds).ok()?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe_counter!("blackletter_requests_total", "Requests answered, by path and status.");
        describe_histogram!("blackletter_request_seconds", "Time from a request to the head of its answer.");
        describe_histogram!(
            "blackletter_first_token_seconds",
            "Time from a prompt's arrival to its first token."
        );
        describe_histogram!("blackletter_token_seconds", "Time between two tokens of a continuation.");
        describe_counter!("blackletter_generated_tokens_total", "Tokens made.");
        describe_counter!("blackletter_prompt_tokens_total", "Prompt tokens read.");
        describe_counter!(
            "blackletter_reused_prompt_tokens_total",
            "Prompt tokens that were not read, because a prompt with the same beginning had been."
        );
        describe_gauge!("blackletter_running", "Continuations that run.");
        describe_gauge!("blackletter_waiting", "Prompts that wait for a place.");
        Some(handle)
    });
}

/// Puts away what has come since the last time: where nobody reads the figures, histograms would grow for ever.
pub fn upkeep() {
    if let Some(Some(handle)) = RECORDER.get() {
        handle.run_upkeep();
    }
}

/// Everything so far, as Prometheus reads it.
pub fn render() -> String {
    match RECORDER.get() {
        Some(Some(handle)) => {
            handle.run_upkeep();
            handle.render()
        }
        _ => String::new(),
    }
}

/// A request has been answered.
pub fn request(path: &str, status: u16, took: Duration) {
    counter!("blackletter_requests_total", "path" => path.to_string(), "status" => status.to_string())
        .increment(1);
    histogram!("blackletter_request_seconds", "path" => path.to_string()).record(took);
}

/// A prompt has its first token.
pub fn first_token(took: Duration) {
    histogram!("blackletter_first_token_seconds").record(took);
}

/// A continuation has another token.
pub fn next_token(took: Duration) {
    histogram!("blackletter_token_seconds").record(took);
}

/// A token has been made.
pub fn token() {
    counter!("blackletter_generated_tokens_total").increment(1);
}

/// Prompt tokens have been read, or reused.
pub fn prompt_tokens(read: u64, reused: u64) {
    counter!("blackletter_prompt_tokens_total").increment(read);
    counter!("blackletter_reused_prompt_tokens_total").increment(reused);
}

/// How full the batch is.
pub fn batch(running: usize, waiting: usize) {
    gauge!("blackletter_running").set(running as f64);
    gauge!("blackletter_waiting").set(waiting as f64);
}
