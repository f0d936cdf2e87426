//! Clauses of agreements by the heading that says what they are about.

use super::text::{self, patterns};
use regex::Regex;
use std::sync::LazyLock;

patterns! {
    INLINE = r"^(?:(?:Section|SECTION|Article|ARTICLE)\s+)?(?:\(?[0-9]{1,2}(?:\.[0-9]{1,2}){0,2}[.)]*|\([a-z]{1,4}\)|[A-Z]\.|[IVX]{1,5}\.)?\s*([A-Z][A-Za-z,;&/'’ -]{2,60}?)[.:]\s*(?:[—–-]\s*)?([A-Z“].*)$";
    ALONE = r"^(?:(?:Section|SECTION|Article|ARTICLE)\s+)?(?:\(?[0-9]{1,2}(?:\.[0-9]{1,2}){0,2}[.)]*|\([a-z]{1,4}\)|[A-Z]\.|[IVX]{1,5}\.)?\s*([A-Z][A-Za-z,;&/'’ -]{2,60}?)[.:]?$";
    LAWS = r"\blaws? of (?:the )?((?:State|Commonwealth|Province) of [A-Z][a-z]+(?: [A-Z][a-z]+)?|Delaware|New York|California|Texas|Florida|Ohio|Illinois|Pennsylvania|Nevada|England)";
}

/// Headings that name a clause, in lower case. `of`, `and` and the like stay.
const TYPES: [&str; 108] = [
    "governing law",
    "applicable law",
    "choice of law",
    "governing law and jurisdiction",
    "governing law; jurisdiction",
    "jurisdiction",
    "venue",
    "counterparts",
    "execution in counterparts",
    "severability",
    "separability",
    "severability of provisions",
    "entire agreement",
    "complete agreement",
    "integration",
    "notices",
    "notice",
    "assignment",
    "no assignment",
    "assignability",
    "successors and assigns",
    "successors",
    "binding effect",
    "binding agreement",
    "headings",
    "captions",
    "section headings",
    "term",
    "term of agreement",
    "term of employment",
    "confidentiality",
    "confidential information",
    "nondisclosure",
    "non-disclosure",
    "amendment",
    "amendments",
    "modification",
    "amendment and waiver",
    "amendments and waivers",
    "waiver",
    "no waiver",
    "waivers",
    "waiver of jury trial",
    "termination",
    "termination for cause",
    "termination without cause",
    "termination by the company",
    "effect of termination",
    "expenses",
    "reimbursement of expenses",
    "business expenses",
    "fees and expenses",
    "insurance",
    "indemnification",
    "indemnity",
    "remedies",
    "arbitration",
    "dispute resolution",
    "mediation",
    "taxes",
    "withholding",
    "tax withholding",
    "survival",
    "benefits",
    "other benefits",
    "employee benefits",
    "employment",
    "duties",
    "position and duties",
    "compensation",
    "base salary",
    "salary",
    "bonus",
    "annual bonus",
    "stock options",
    "vacation",
    "vacations",
    "disability",
    "death",
    "severance",
    "severance pay",
    "change in control",
    "change of control",
    "compliance with laws",
    "use of proceeds",
    "construction",
    "interpretation",
    "force majeure",
    "further assurances",
    "validity",
    "release",
    "non-competition",
    "noncompetition",
    "covenant not to compete",
    "non-solicitation",
    "nonsolicitation",
    "non-disparagement",
    "limitation of liability",
    "warranty",
    "disclaimer of warranties",
    "ownership",
    "license",
    "grant of license",
    "payment",
    "prepayment",
    "interest",
    "late charges",
    "no third party beneficiaries",
];

/// Kinds of agreements as titles name them, the longer before what they contain.
const AGREEMENTS: [&str; 24] = [
    "employment agreement",
    "severance agreement",
    "software license agreement",
    "license agreement",
    "credit agreement",
    "loan agreement",
    "construction agreement",
    "construction contract",
    "retirement agreement",
    "retirement plan",
    "consulting agreement",
    "change in control agreement",
    "change of control agreement",
    "separation agreement",
    "security agreement",
    "purchase agreement",
    "services agreement",
    "service agreement",
    "promissory note",
    "lease",
    "option agreement",
    "indemnification agreement",
    "guaranty",
    "non-disclosure agreement",
];

/// A clause with its heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// The heading as it stands.
    pub(super) heading: String,
    /// What stands under it.
    pub(super) text: String,
    /// The law that governs, where the clause is about that and says so.
    pub(super) law: Option<String>,
}

/// The kind of agreement that a title names.
pub(super) fn agreement(title: &str) -> Option<&'static str> {
    let title = title.to_lowercase();
    AGREEMENTS.into_iter().find(|kind| title.contains(kind))
}

/// The clauses of an agreement that are from 60 to `most` bytes long and whole.
pub(super) fn clauses(paragraphs: &[String], most: usize) -> Vec<Clause> {
    let mut found: Vec<Clause> = Vec::new();
    for (number, paragraph) in paragraphs.iter().enumerate() {
        let inline = INLINE.as_ref().and_then(|pattern| pattern.captures(paragraph));
        let parts =
            match inline.as_ref().and_then(|parts| Some((parts.get(1)?.as_str(), parts.get(2)?.as_str()))) {
                Some(parts) => parts,
                None => {
                    let alone = ALONE.as_ref().and_then(|pattern| pattern.captures(paragraph));
                    let Some(heading) = alone.as_ref().and_then(|parts| parts.get(1)) else { continue };
                    let Some(next) = paragraphs.get(number + 1) else { continue };
                    (heading.as_str(), next.as_str())
                }
            };
        if let Some(clause) = clause(parts.0, parts.1, most)
            && !found.iter().any(|other| other.heading == clause.heading)
        {
            found.push(clause);
        }
    }
    found
}

/// The heading and the text of a paragraph that begins with a heading, whatever it is about.
pub(super) fn headed(paragraph: &str) -> Option<(&str, &str)> {
    let parts = INLINE.as_ref()?.captures(paragraph)?;
    let (heading, text) = (parts.get(1)?.as_str().trim(), parts.get(2)?.as_str());
    // Words that are all small but for the first are a sentence more often than a heading.
    let words: Vec<&str> = heading.split(' ').collect();
    let capitals = words.iter().filter(|word| word.starts_with(char::is_uppercase)).count();
    (capitals * 2 > words.len() && heading.len() <= 50 && words.len() <= 7).then_some((heading, text))
}

fn clause(heading: &str, text: &str, most: usize) -> Option<Clause> {
    let kind = heading.trim().to_lowercase();
    if !TYPES.contains(&kind.as_str()) || !(60..=most).contains(&text.len()) {
        return None;
    }
    // A clause ends where its sentence does; what goes on with a list is not whole.
    let whole = text.ends_with(['.', '”', '"'])
        && text::is_prose(text)
        && text.starts_with(|c: char| c.is_uppercase());
    let furniture = ["Exhibit", "EXHIBIT", "Page ", "[Signature", "IN WITNESS", "/s/"];
    if !whole || furniture.iter().any(|mark| text.contains(mark)) {
        return None;
    }
    let about_law = kind.contains("law") || kind.contains("jurisdiction");
    let law = about_law.then(|| Some(LAWS.as_ref()?.captures(text)?.get(1)?.as_str().to_owned())).flatten();
    let heading = heading.trim();
    Some(Clause { heading: heading.to_owned(), text: text.to_owned(), law })
}

/// A heading as a person writes it in a request: `Governing Law`, also where it is in capitals.
pub(super) fn as_title(heading: &str) -> String {
    if heading.chars().any(char::is_lowercase) {
        return heading.to_owned();
    }
    let small = ["of", "and", "the", "in", "to", "for", "by", "with", "not"];
    let words = heading.split(' ').enumerate().map(|(number, word)| {
        let word = word.to_lowercase();
        let mut chars = word.chars();
        match chars.next() {
            Some(first) if number == 0 || !small.contains(&word.as_str()) => {
                first.to_uppercase().chain(chars).collect::<String>()
            }
            _ => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_found_by_their_headings() {
        let paragraphs = [
            "12. Governing Law. This Agreement shall be governed by the laws of the State of Delaware, without regard to conflicts.",
            "13.2 COUNTERPARTS",
            "This Agreement may be executed in two or more counterparts, each of which is an original.",
            "Dear Mr. Smith: We are pleased to offer you this position with the company and its many affiliates.",
            "(c) Notices. All notices shall be sent to the following addresses, which may be changed from time to time:",
            "Severability. Short.",
        ]
        .map(str::to_owned);
        let found = clauses(&paragraphs, 400);
        assert_eq!(
            found.iter().map(|c| c.heading.as_str()).collect::<Vec<_>>(),
            ["Governing Law", "COUNTERPARTS"]
        );
        assert_eq!(found[0].law.as_deref(), Some("State of Delaware"));
        assert!(found[1].text.starts_with("This Agreement may be executed"));
        assert_eq!(as_title("WAIVER OF JURY TRIAL"), "Waiver of Jury Trial");
        assert_eq!(agreement("Software License Agreement, dated May 1"), Some("software license agreement"));
    }

    #[test]
    fn types_are_each_named_once() {
        let mut types = TYPES.to_vec();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), TYPES.len());
    }
}
