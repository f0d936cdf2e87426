//! Supervised examples as JSON lines: `instruction`, `input` and `output`, or `messages`.
//!
//! A line may say what it is from: `kind`, `document`, `dataset`, `license` and `license_basis`. Fields that are not known are passed over.

use blackletter_tokenizer::template::{Message, ask};
use serde::Deserialize;

/// Longest line that is read.
pub const LONGEST_LINE: usize = 16 << 20;

/// The kind of examples that state none.
pub const UNNAMED: &str = "other";

/// An example to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is said; it ends with an answer.
    pub messages: Vec<Message>,
    /// Kind of the example; [`UNNAMED`] where it states none.
    pub kind: String,
    /// The document that it is from.
    pub document: Option<String>,
    /// The dataset of that document.
    pub dataset: Option<String>,
    /// The licence of that document, or the example's own.
    pub license: Option<String>,
    /// Why that licence holds.
    pub license_basis: Option<String>,
}

/// A line that is no example. The texts are the reasons that a manifest counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`LONGEST_LINE`].
    #[error("longer than 16 MiB")]
    TooLong,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// Not JSON.
    #[error("not JSON")]
    Json,
    /// Not of the form.
    #[error("no object with strings `instruction` and `output`, or with `messages` of `role` and `content`")]
    Form,
    /// Both forms at once.
    #[error("both `messages` and `instruction`, `input` or `output`")]
    Both,
    /// Nothing is asked.
    #[error("`instruction` and `input` are empty")]
    NothingAsked,
    /// Nothing is answered.
    #[error("the answer is empty")]
    NoAnswer,
    /// A role that is not known.
    #[error("a message's role is none of system, user, assistant")]
    Role,
    /// The conversation does not end with an answer.
    #[error("the last message is not the assistant's")]
    Unanswered,
    /// An answer to nothing.
    #[error("the assistant speaks with nothing said before")]
    Unasked,
}

#[derive(Deserialize)]
struct Line {
    instruction: Option<String>,
    input: Option<String>,
    output: Option<String>,
    messages: Option<Vec<Message>>,
    kind: Option<String>,
    document: Option<String>,
    dataset: Option<String>,
    license: Option<String>,
    license_basis: Option<String>,
}

impl Example {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is no example; why is always one of a few reasons.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        if line.len() > LONGEST_LINE {
            return Err(LineError::TooLong);
        }
        let text = std::str::from_utf8(line).map_err(|_| LineError::Encoding)?;
        let line: Line = serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => LineError::Form,
            _ => LineError::Json,
        })?;
        let messages = match (line.messages, line.instruction, line.input, line.output) {
            (Some(messages), None, None, None) => messages,
            (Some(_), ..) => return Err(LineError::Both),
            (None, Some(instruction), input, Some(output)) => {
                let asked = match instruction.trim().is_empty() {
                    true => input.unwrap_or_default(),
                    false => ask(&instruction, input.as_deref()),
                };
                if asked.trim().is_empty() {
                    return Err(LineError::NothingAsked);
                }
                vec![Message::user(asked), Message::assistant(output)]
            }
            _ => return Err(LineError::Form),
        };
        let mut asked = false;
        for message in &messages {
            match message.role.as_str() {
                "system" | "user" => asked = true,
                "assistant" if message.content.trim().is_empty() => return Err(LineError::NoAnswer),
                "assistant" if asked => asked = false,
                "assistant" => return Err(LineError::Unasked),
                _ => return Err(LineError::Role),
            }
        }
        if messages.last().is_none_or(|last| last.role != "assistant") {
            return Err(LineError::Unanswered);
        }
        Ok(Self {
            messages,
            kind: line.kind.filter(|kind| !kind.trim().is_empty()).unwrap_or_else(|| UNNAMED.into()),
            document: line.document,
            dataset: line.dataset,
            license: line.license.filter(|license| !license.trim().is_empty()),
            license_basis: line.license_basis,
        })
    }

    /// Bytes of what is said.
    pub fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Example, LineError> {
        Example::parse(line.as_bytes())
    }

    #[test]
    fn both_forms_are_read_and_origins_with_them() {
        let one = parse(
            r#"{"instruction":"Say","input":"it","output":"it","kind":"k","document":"d","dataset":"s","license":"CC0-1.0","x":[1]}"#,
        )
        .unwrap();
        assert_eq!(one.messages, [Message::user("Say\n\nit"), Message::assistant("it")]);
        assert_eq!((one.kind.as_str(), one.document.as_deref(), one.bytes()), ("k", Some("d"), 9));
        let two = parse(
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}]}"#,
        )
        .unwrap();
        assert_eq!((two.messages.len(), two.license), (3, None));
    }

    #[test]
    fn what_states_nothing_is_an_example_without_a_licence() {
        for more in ["", r#","kind":" ","license":"""#] {
            let one = parse(&format!(r#"{{"instruction":"Say","output":"it"{more}}}"#)).unwrap();
            assert_eq!((one.kind.as_str(), one.license), (UNNAMED, None));
        }
    }

    #[test]
    fn what_is_no_example_has_a_reason() {
        let cases = [
            ("", LineError::Json),
            ("{", LineError::Json),
            ("[]", LineError::Form),
            ("null", LineError::Form),
            (r#"{"instruction":"a"}"#, LineError::Form),
            (r#"{"instruction":1,"output":"b"}"#, LineError::Form),
            (r#"{"instruction":"","input":" ","output":"b"}"#, LineError::NothingAsked),
            (r#"{"instruction":"a","output":" "}"#, LineError::NoAnswer),
            (r#"{"instruction":"a","messages":[]}"#, LineError::Both),
            (r#"{"messages":[]}"#, LineError::Unanswered),
            (r#"{"messages":[{"role":"user","content":"u"}]}"#, LineError::Unanswered),
            (r#"{"messages":[{"role":"tool","content":"u"}]}"#, LineError::Role),
            (r#"{"messages":[{"role":"assistant","content":"u"}]}"#, LineError::Unasked),
        ];
        for (line, reason) in cases {
            assert_eq!(parse(line), Err(reason), "{line}");
        }
        assert_eq!(Example::parse(b"{\"instruction\":\"\xff\"}"), Err(LineError::Encoding));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_example_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Example::parse(&bytes);
        }
    }
}
