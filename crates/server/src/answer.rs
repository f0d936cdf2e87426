//! Tokens to what clients see: text up to a stop text, log-probabilities with their tokens spelled out.

use crate::{
    error::ApiError,
    scheduler::{Event, Stream},
};
use blackletter_engine::{FinishReason, TokenInfo};
use blackletter_tokenizer::{DecodeStream, Tokenizer};
use std::sync::atomic::Ordering;

/// The text of one continuation as it grows.
pub struct Text<'t> {
    decode: Option<DecodeStream<'t>>,
    stop: Vec<String>,
    /// Text that may be the beginning of a stop text.
    held: String,
    /// Characters so far, held ones included.
    characters: usize,
    /// Whether a stop text has come.
    stopped: bool,
}

impl<'t> Text<'t> {
    /// No text yet; `before` characters stand in front of it.
    pub fn new(tokenizer: &'t Tokenizer, stop: &[String], before: usize) -> Self {
        let decode = Some(tokenizer.decode_stream(true));
        Self { decode, stop: stop.to_vec(), held: String::new(), characters: before, stopped: false }
    }

    /// Where the next token begins, in characters.
    pub fn characters(&self) -> usize {
        self.characters
    }

    /// Whether a stop text has come: nothing follows.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a token; gives the text that is certain to be shown now.
    pub fn push(&mut self, id: u32) -> String {
        let piece = self.decode.as_mut().and_then(|decode| decode.push(id)).unwrap_or_default();
        self.add(&piece)
    }

    /// What is left when no more tokens come.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = self.decode.take().map(DecodeStream::finish).unwrap_or_default();
        let shown = self.add(&rest);
        shown + &std::mem::take(&mut self.held)
    }

    fn add(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.characters += piece.chars().count();
        if self.stop.is_empty() {
            return piece.into();
        }
        self.held.push_str(piece);
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        // The longest end that a stop text may begin with has to wait.
        let waits = |at: &usize| {
            let end = self.held.get(*at..);
            end.is_some_and(|end| self.stop.iter().any(|stop| stop.starts_with(end)))
        };
        let from = (0..self.held.len()).find(waits).unwrap_or(self.held.len());
        let held = self.held.split_off(from);
        std::mem::replace(&mut self.held, held)
    }
}

/// A token as text; one that is no text by itself as its bytes.
pub fn spell(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8(tokenizer.token_bytes(id)).unwrap_or_else(|e| {
        let bytes = e.into_bytes();
        bytes.iter().fold("bytes:".to_string(), |text, byte| text + &format!("\\x{byte:02x}"))
    })
}

/// Why a continuation ended, as the API calls it.
pub fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::Stop | FinishReason::Whole => "stop",
        FinishReason::Length | FinishReason::Interrupted => "length",
    }
}

/// A token of a reply.
#[derive(Clone, Debug)]
pub struct ReplyToken {
    /// Its log-probability, when asked for.
    pub info: Option<TokenInfo>,
    /// Where it begins in the text, in characters.
    pub offset: usize,
}

/// Something new of a continuation.
#[derive(Debug)]
pub struct Piece {
    /// Which continuation.
    pub choice: usize,
    /// New text, maybe none.
    pub text: String,
    /// The token, when there is one.
    pub token: Option<ReplyToken>,
    /// Why it ended, when it has.
    pub finished: Option<&'static str>,
}

/// What comes of a prompt, as text.
pub struct Reader<'t> {
    stream: Stream,
    texts: Vec<Text<'t>>,
    open: usize,
    /// The prompt's tokens, when asked for.
    pub prompt: Vec<TokenInfo>,
    /// Tokens made.
    pub tokens: usize,
}

impl<'t> Reader<'t> {
    /// Reads `choices` continuations, which end before a stop text; `before` characters stand in front of their texts.
    pub fn new(stream: Stream, tokenizer: &'t Tokenizer, stop: &[String], before: usize) -> Self {
        let choices = stream.enough.len();
        let texts = (0..choices).map(|_| Text::new(tokenizer, stop, before)).collect();
        Self { stream, texts, open: choices, prompt: Vec::new(), tokens: 0 }
    }

    /// The next piece; none when all continuations have ended.
    ///
    /// # Errors
    /// When the engine has failed.
    pub async fn next(&mut self) -> Result<Option<Piece>, ApiError> {
        while self.open > 0 {
            let event = self.stream.events.recv().await;
            let event = event.ok_or_else(|| ApiError::internal("the engine has ended"))?;
            match event {
                Event::Prompt(tokens) => self.prompt = tokens,
                Event::Failed(error) => return Err(error),
                Event::Token { choice, id, info } => {
                    let Some(text) = self.texts.get_mut(choice).filter(|text| !text.is_stopped()) else {
                        continue;
                    };
                    let offset = text.characters();
                    self.tokens += 1;
                    let shown = text.push(id);
                    let finished = text.is_stopped().then_some("stop");
                    if finished.is_some() {
                        self.open -= 1;
                        if let Some(enough) = self.stream.enough.get(choice) {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                    let token = Some(ReplyToken { info, offset });
                    return Ok(Some(Piece { choice, text: shown, token, finished }));
                }
                Event::Finished { choice, reason: why } => {
                    let Some(text) = self.texts.get_mut(choice).filter(|text| !text.is_stopped()) else {
                        continue;
                    };
                    self.open -= 1;
                    let shown = text.finish();
                    let why = if text.is_stopped() { "stop" } else { reason(why) };
                    return Ok(Some(Piece { choice, text: shown, token: None, finished: Some(why) }));
                }
            }
        }
        Ok(None)
    }
}

/// A continuation, whole.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<ReplyToken>,
    /// Why it ended.
    pub finish_reason: &'static str,
}

impl Reply {
    /// The mean log-probability of its tokens, by which the best of several are chosen.
    pub fn mean_logprob(&self) -> f32 {
        let sum: f32 = self.tokens.iter().filter_map(|t| t.info.as_ref()).map(|i| i.logprob).sum();
        sum / self.tokens.len().max(1) as f32
    }
}

/// Reads all continuations of a prompt to their ends.
///
/// # Errors
/// When the engine has failed.
pub async fn collect(reader: &mut Reader<'_>) -> Result<Vec<Reply>, ApiError> {
    let mut replies = vec![Reply::default(); reader.texts.len()];
    while let Some(piece) = reader.next().await? {
        let Some(reply) = replies.get_mut(piece.choice) else { continue };
        reply.text.push_str(&piece.text);
        reply.tokens.extend(piece.token);
        if let Some(reason) = piece.finished {
            reply.finish_reason = reason;
        }
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blackletter_tokenizer::SpecialTokens;
    use proptest::prelude::*;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")).unwrap()
    }

    fn shown(text: &str, stop: &[&str]) -> (String, bool) {
        let tokenizer = tokenizer();
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut out = Text::new(&tokenizer, &stop, 0);
        let mut all = String::new();
        for id in tokenizer.encode(text, SpecialTokens::AsText).unwrap() {
            all += &out.push(id);
        }
        all += &out.finish();
        (all, out.is_stopped())
    }

    #[test]
    fn text_ends_before_the_first_stop_text_and_never_shows_a_part_of_it() {
        assert_eq!(shown("one. two. three", &[". t", "three"]), ("one".into(), true));
        assert_eq!(shown("one. five", &[". t"]), ("one. five".into(), false));
        assert_eq!(shown("aaab", &["aab"]), ("a".into(), true));
        assert_eq!(shown("§§ 5", &["§ "]), ("§".into(), true));
    }

    #[test]
    fn a_token_that_is_no_text_is_spelled_as_bytes() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("é", SpecialTokens::AsText).unwrap();
        if ids.len() == 2 {
            assert_eq!(spell(&tokenizer, ids[0]), "bytes:\\xc3");
        }
        assert_eq!(spell(&tokenizer, 1), "<|end|>");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text_before_the_first_stop_text(text in "[ab§ ]{0,30}", stop in proptest::collection::vec("[ab§ ]{1,4}", 0..3)) {
            let stop: Vec<&str> = stop.iter().map(String::as_str).collect();
            let (shown, stopped) = shown(&text, &stop);
            // Of all ends of stop texts the first counts: up to there, the text is looked through token by token.
            prop_assert!(text.starts_with(&shown));
            prop_assert_eq!(stopped, stop.iter().any(|s| text.contains(s)));
            prop_assert!(!stop.iter().any(|s| shown.contains(s)));
        }
    }
}
