//! A section of a code: `§ 21-525. Hearing by court.`, its text, and where it was enacted.

use super::text::{self, Lines, patterns};
use regex::Regex;
use std::sync::LazyLock;

patterns! {
    HEAD = r"^(§+ ?[0-9][0-9A-Za-z.:–-]*[0-9A-Za-z]|§+ ?[0-9])\.? +(.+)$";
    CODE = r"^[0-9]+a? U\.S\.C\. § [0-9][0-9A-Za-z.–-]*[0-9A-Za-z]";
    CREDIT = r"^\((?:Added |As added |Pub\. L\. |R\.S\. |Aug|Sept|[A-Z][a-z]{2,8}\.? [0-9]{1,2}, [0-9]{4}, ch\. )|^\[[0-9]+ FR [0-9]+|^(?:Jan\.|Feb\.|Mar\.|Apr\.|May|June|July|Aug\.|Sept\.|Oct\.|Nov\.|Dec\.) [0-9]{1,2}, [0-9]{4}, ";
    LAW = r"\b(?:Pub\. L\. [0-9]+[–-][0-9]+|D\.C\. Law [0-9]+-[0-9]+)";
    STATUTES = r"\b[0-9]+ Stat\. [0-9]+";
    REGISTER = r"\b[0-9]+ FR [0-9]+";
    REPEALED = r"(?i)^\[|repealed|omitted|transferred|reserved|abolished|expired|eliminated|terminated";
}

/// A section taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// `§ 21-525`.
    pub(super) number: String,
    /// `Hearing by court`.
    pub(super) heading: String,
    /// Its paragraphs.
    pub(super) body: Vec<String>,
    /// Where it was enacted, the first line of it.
    pub(super) credit: Option<String>,
    /// `54 U.S.C. § 103101`, where the document's title says so.
    pub(super) code: Option<String>,
    /// What the section is called in a question.
    pub(super) name: String,
}

impl Section {
    /// Takes a document apart; nothing if it is no section with text.
    pub(super) fn of(title: Option<&str>, dataset: &str, document: &str) -> Option<Self> {
        let start = document.trim_start();
        if !start.trim_start_matches(['#', ' ']).starts_with('§') {
            return None;
        }
        let mut paragraphs = text::paragraphs(document, Lines::Paragraphs).into_iter();
        let head = paragraphs.next()?;
        let head = HEAD.as_ref()?.captures(&head)?;
        let number = head.get(1)?.as_str().to_owned();
        let heading = head.get(2)?.as_str().trim_end_matches('.').trim().to_owned();
        if REPEALED.as_ref()?.is_match(&heading)
            || !(4..=140).contains(&heading.len())
            || !text::is_prose(&heading)
        {
            return None;
        }
        let mut body = Vec::new();
        let mut credit = None;
        let mut notes = document.lines().filter(|line| is_note(line)).map(note_heading);
        let first_note = notes.next();
        for paragraph in paragraphs {
            if CREDIT.as_ref()?.is_match(&paragraph) {
                credit = Some(paragraph);
                break;
            }
            if first_note.as_ref() == Some(&paragraph) {
                break;
            }
            body.push(paragraph);
        }
        if body.is_empty() || REPEALED.as_ref()?.is_match(body.first()?) && body.first()?.len() < 80 {
            return None;
        }
        let code = title.and_then(|title| Some(CODE.as_ref()?.find(title)?.as_str().to_owned()));
        let name = match (&code, title) {
            (Some(code), _) => code.clone(),
            (None, _) if dataset == "dc" => format!("D.C. Code {number}"),
            (None, Some(title)) if title.contains(" CFR ") => {
                format!("{} CFR {number}", title.split(' ').next().unwrap_or_default())
            }
            _ => number.clone(),
        };
        Some(Self { number, heading, body, credit, code, name })
    }

    /// The line that it begins with.
    pub(super) fn head(&self) -> String {
        format!("{}. {}", self.number, self.heading)
    }

    /// The law that it was first enacted by.
    pub(super) fn law(&self) -> Option<&str> {
        self.found(&LAW)
    }

    /// Where in the Statutes at Large it was first enacted.
    pub(super) fn statutes(&self) -> Option<&str> {
        self.found(&STATUTES)
    }

    /// Where in the Federal Register it was published.
    pub(super) fn register(&self) -> Option<&str> {
        self.found(&REGISTER)
    }

    fn found(&self, pattern: &LazyLock<Option<Regex>>) -> Option<&str> {
        Some(pattern.as_ref()?.find(self.credit.as_deref()?)?.as_str())
    }
}

/// Whether a line of Markdown is the heading of a note: bold as a whole, without the enumerator of a subsection.
fn is_note(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("**") && line.ends_with("**") && !line.contains(".—") && line.len() > 8
}

fn note_heading(line: &str) -> String {
    line.trim().replace("**", "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_the_united_states_code_is_taken_apart() {
        let text = "## § 2135. Time period for disposal of dogs or cats\n\n    No dealer shall sell any dog.\n\n(Pub. L. 89–544, § 5, Aug. 24, 1966, 80 Stat. 351; Pub. L. 91–579.)\n\n**Amendments** \n\n    1970—Pub. L.";
        let section =
            Section::of(Some("7 U.S.C. § 2135. Time period for disposal of dogs or cats"), "usc", text)
                .unwrap();
        assert_eq!(section.head(), "§ 2135. Time period for disposal of dogs or cats");
        assert_eq!(section.body, ["No dealer shall sell any dog."]);
        assert_eq!((section.law(), section.statutes()), (Some("Pub. L. 89–544"), Some("80 Stat. 351")));
        assert_eq!(
            (section.code.as_deref(), section.name.as_str()),
            (Some("7 U.S.C. § 2135"), "7 U.S.C. § 2135")
        );
    }

    #[test]
    fn notes_end_the_text_and_sections_without_text_are_none() {
        let text = "## § 1. Words\n\n    In this Act—\n\n    (a) **Meaning.—** \n\n    It means.\n\n**Effective Date** \n\n    Later.";
        let section = Section::of(None, "usc", text).unwrap();
        assert_eq!(section.body, ["In this Act—", "(a) Meaning.—", "It means."]);
        assert!(Section::of(None, "dc", "§ 24-401. Powers; transfer. Abolished\nAbolished.\n").is_none());
        assert!(Section::of(None, "dc", "§ 1. Heading only\n").is_none());
        assert!(Section::of(None, "dc", "Some other text").is_none());
        let dc = Section::of(None, "dc", "§ 21-525. Hearing by court.\nThe court shall hear.\n\nSept. 14, 1965, 79 Stat. 754, Pub. L. 89-183, § 1").unwrap();
        assert_eq!(
            (dc.name.as_str(), dc.law(), dc.statutes()),
            ("D.C. Code § 21-525", Some("Pub. L. 89-183"), Some("79 Stat. 754"))
        );
    }
}
