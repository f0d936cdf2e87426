//! What a task's `metric_list` asks for.

use super::OutputType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How an answer is compared with the right one, as `exact_match` has it in lm-evaluation-harness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matching {
    /// Capital letters are small ones.
    pub ignore_case: bool,
    /// The punctuation of ASCII is not there.
    pub ignore_punctuation: bool,
    /// The digits of ASCII are not there.
    pub ignore_numbers: bool,
}

impl Matching {
    /// Whether an answer is the right one, but for whitespace at the ends.
    pub fn same(self, answer: &str, target: &str) -> bool {
        self.compared(answer) == self.compared(target)
    }

    fn compared(self, text: &str) -> String {
        let kept = text.trim().chars().filter(|c| {
            !(self.ignore_punctuation && c.is_ascii_punctuation()
                || self.ignore_numbers && c.is_ascii_digit())
        });
        let kept: String = kept.collect();
        let kept = if self.ignore_case { kept.to_lowercase() } else { kept };
        kept.trim().to_owned()
    }

    /// Whether all of a text counts.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// What does not count, such as `case and digits`.
    pub(super) fn ignored(self) -> String {
        let all = [
            (self.ignore_case, "case"),
            (self.ignore_punctuation, "punctuation"),
            (self.ignore_numbers, "digits"),
        ];
        let ignored: Vec<&str> = all.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
        ignored.join(" and ")
    }
}

/// How answers are compared, and what of the list is passed over, by key.
///
/// # Errors
/// When an option would change a metric and cannot be followed.
pub(super) fn asked(
    list: &[Map<String, Value>],
    output_type: OutputType,
) -> Result<(Matching, Vec<String>), String> {
    let known: &[&str] = match output_type {
        OutputType::MultipleChoice => &["acc", "acc_norm"],
        OutputType::Loglikelihood => &["acc", "perplexity"],
        OutputType::GenerateUntil => &["exact_match"],
    };
    let (mut matching, mut unknown) = (Matching::default(), Vec::new());
    for entry in list {
        let name = entry.get("metric").and_then(Value::as_str).unwrap_or_default();
        if !known.contains(&name) {
            unknown.push(format!("metric_list.{name}"));
            continue;
        }
        for (option, value) in entry {
            let truth =
                || value.as_bool().ok_or_else(|| format!("{name}: {option} is neither true nor false"));
            let mean = if name == "perplexity" { "perplexity" } else { "mean" };
            match (name, option.as_str()) {
                (_, "metric" | "higher_is_better") => {}
                (_, "aggregation") if value == mean => {}
                ("exact_match", "ignore_case") => matching.ignore_case = truth()?,
                ("exact_match", "ignore_punctuation") => matching.ignore_punctuation = truth()?,
                ("exact_match", "ignore_numbers") => matching.ignore_numbers = truth()?,
                ("exact_match", "regexes_to_ignore")
                    if value.as_array().is_none_or(|list| !list.is_empty()) =>
                {
                    return Err(
                        "exact_match: regexes_to_ignore cannot be followed, and the metric would be another without it"
                            .into(),
                    );
                }
                ("exact_match", "regexes_to_ignore") => {}
                (_, option) => unknown.push(format!("metric_list.{name}.{option}")),
            }
        }
    }
    Ok((matching, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_without_what_is_ignored() {
        let plain = Matching::default();
        let case = Matching { ignore_case: true, ..plain };
        let punctuation = Matching { ignore_punctuation: true, ..plain };
        let numbers = Matching { ignore_numbers: true, ..plain };
        for (matching, answer, target, same) in [
            (plain, " Paris\n", "Paris", true),
            (plain, "Paris.", "Paris", false),
            (case, "PÂRIS", "pâris", true),
            (case, "paris.", "Paris", false),
            (punctuation, "\"Par-is\" !", "Paris", true),
            (punctuation, "paris", "Paris", false),
            (numbers, "Paris 12", "Paris", true),
            (numbers, "Paris 12.", "Paris", false),
        ] {
            assert_eq!(matching.same(answer, target), same, "{matching:?} {answer:?}");
        }
        assert_eq!(Matching { ignore_case: true, ..numbers }.ignored(), "case and digits");
    }
}
