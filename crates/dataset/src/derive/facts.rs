//! Facts that stand in a text word for word: dates, amounts of money, the parties of an agreement.

use super::text::patterns;
use regex::Regex;
use std::sync::LazyLock;

patterns! {
    DATE = r"\b[0-9]{1,2}(?:st|nd|rd|th) day of [A-Z][a-z]{2,8},? (?:1[6-9]|20)[0-9]{2}\b|\b(?:January|February|March|April|May|June|July|August|September|October|November|December|Jan\.|Feb\.|Mar\.|Apr\.|Aug\.|Sept\.|Oct\.|Nov\.|Dec\.) [0-9]{1,2}, (?:1[6-9]|20)[0-9]{2}\b";
    LIKE_A_DATE = r"\b(?:1[6-9]|20)[0-9]{2}\b|\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b|[0-9]/[0-9]";
    AMOUNT = r"(?:US|USD|C|A|HK)?\$ ?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]{1,2})?(?: (?:million|billion))?|(?:US|USD|C|A|HK)?\$ ?[0-9]+(?:\.[0-9]{1,4})?(?: (?:million|billion))?|\b[0-9][0-9,]*(?:\.[0-9]{2})? (?:USD|EUR|GBP)\b";
    LIKE_AN_AMOUNT = r"(?i)[$€£¥]|dollar|\busd\b|\beur\b|\bcents?\b";
    BETWEEN = r"\b(?:by and between|by and among|between|among|BY AND BETWEEN|BETWEEN)[:,]? ";
    PARENTHESES = r"\s*\([^()]*\)";
    NAME = r#"^(?:(?:the|The|THE|Mr\.|Ms\.|Dr\.) )?((?:(?:[A-Z0-9][\w&'’/-]{0,2}\.|Corp\.|Bros\.|[A-Z0-9](?:[\w&'’/-]|\.\w|\.(?:[A-Z]\.)+)*)|[a-z][A-Z][\w]*)(?: (?:of|the|de|van|von|&|–|(?:[A-Z0-9][\w&'’/-]{0,2}\.|Corp\.|Bros\.|[A-Z0-9](?:[\w&'’/-]|\.\w|\.(?:[A-Z]\.)+)*)))*(?:,? (?:Inc|INC|LLC|L\.L\.C|L\.?P|N\.A|Ltd|LTD|Limited|Corp|CORP|LLP|Co|CO|Jr|JR|Sr|II|III|IV|M\.D|MD|Ph\.D|P\.C|S\.A|plc|PLC|National Association|NATIONAL ASSOCIATION|Incorporated|INCORPORATED)\b\.?)*)"#;
    AFTER_FIRST = r#"^,?\s*(?:(?:as|an?|the|hereinafter|hereafter|with|having|its|whose|organized|located|of|individually|formerly|successor|in|on|acting|together|collectively|d/b/a|residing|maintaining|known|herein|referred|incorporated)\b[^;]*?)?,?\s*(?:and|AND) (?:between |among )?"#;
    AFTER_SECOND = r#"^(?:[,.;“"]|\s+(?:as|an?|the|hereinafter|with|having|its|whose|of|who|individually|residing|on|is|for|to|effective|dated)\b|\s*$)"#;
    SHORT = r"\b(?:(?i:inc|ltd|corp|co|llc|plc|jr|sr|bros)|[A-Z]|Ph\.D)\.$";
}

/// Dates, in the order of the text, each once.
pub(super) fn dates(text: &str) -> Vec<&str> {
    all(&DATE, text)
}

/// Whether a text might state a date that [`dates`] does not know.
pub(super) fn may_have_date(text: &str) -> bool {
    LIKE_A_DATE.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// Amounts of money, in the order of the text, each once.
pub(super) fn amounts(text: &str) -> Vec<&str> {
    all(&AMOUNT, text)
}

/// Whether a text might state an amount that [`amounts`] does not know.
pub(super) fn may_have_amount(text: &str) -> bool {
    LIKE_AN_AMOUNT.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

fn all<'t>(pattern: &LazyLock<Option<Regex>>, text: &'t str) -> Vec<&'t str> {
    let mut found: Vec<&str> = Vec::new();
    for one in pattern.as_ref().into_iter().flat_map(|pattern| pattern.find_iter(text)) {
        if !found.contains(&one.as_str()) {
            found.push(one.as_str());
        }
    }
    found
}

/// The two parties of an agreement from the paragraph that names them. Rather none than a wrong one.
pub(super) fn parties(introduction: &str) -> Option<[String; 2]> {
    let start = BETWEEN.as_ref()?.find(introduction)?.end();
    let rest = introduction.get(start..)?;
    // What stands in parentheses is not part of a name, and nested ones are rare.
    let rest = PARENTHESES.as_ref()?.replace_all(rest, "");
    let first = NAME.as_ref()?.captures(&rest)?;
    let one = trimmed(first.get(1)?.as_str(), introduction);
    let rest = rest.get(first.get(0)?.start() + first.get(0)?.as_str().find(one)? + one.len()..)?;
    let gap = AFTER_FIRST.as_ref()?.find(rest)?;
    // Another name between would be a third party.
    if gap.as_str().matches(" and ").count() + gap.as_str().matches(" AND ").count() > 1 {
        return None;
    }
    let rest = rest.get(gap.end()..)?;
    let second = NAME.as_ref()?.captures(rest)?;
    let two = trimmed(second.get(1)?.as_str(), introduction);
    let rest = rest.get(second.get(0)?.as_str().find(two)? + two.len()..)?;
    if !AFTER_SECOND.as_ref()?.is_match(rest) || another(rest) {
        return None;
    }
    let whole = |name: &str| is_name(name) && introduction.contains(name);
    (whole(one) && whole(two) && one != two).then(|| [one.to_owned(), two.to_owned()])
}

/// Whether a third party follows.
fn another(rest: &str) -> bool {
    let near: String = rest.chars().take(60).collect();
    near.starts_with(", and ") || near.starts_with(" and ")
}

/// A name without a point that ends the sentence; one that belongs to `Inc.` stays.
fn trimmed<'n>(name: &'n str, introduction: &str) -> &'n str {
    let name = name.trim();
    match name.strip_suffix('.') {
        Some(short) if !SHORT.as_ref().is_some_and(|pattern| pattern.is_match(name)) => short,
        Some(short) if !introduction.contains(name) => short,
        _ => name,
    }
}

/// Words that stand for a party and do not name it.
const ROLES: [&str; 24] = [
    "company",
    "executive",
    "employee",
    "employer",
    "borrower",
    "lender",
    "seller",
    "buyer",
    "bank",
    "licensor",
    "licensee",
    "contractor",
    "owner",
    "agreement",
    "party",
    "parties",
    "corporation",
    "section",
    "tenant",
    "landlord",
    "undersigned",
    "board",
    "participant",
    "name",
];

fn is_name(name: &str) -> bool {
    let words = name.split(' ').count();
    let role = ROLES.contains(&name.to_lowercase().trim_start_matches("the "));
    let first = name.split(' ').next().unwrap_or_default();
    let date = dates(name).is_empty() && !may_have_date(first);
    (2..=9).contains(&words) && (5..=70).contains(&name.len()) && !role && date && !name.contains("[")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_amounts_are_found_as_they_stand() {
        assert_eq!(
            dates("on May 3, 2001, and Aug. 24, 1966; on May 3, 2001"),
            ["May 3, 2001", "Aug. 24, 1966"]
        );
        assert_eq!(
            amounts("$1,234.50, US$5 million, $75, and 3,000.00 USD"),
            ["$1,234.50", "US$5 million", "$75", "3,000.00 USD"]
        );
        assert_eq!(dates("this 1st day of September, 2016"), ["1st day of September, 2016"]);
        assert!(may_have_date("in 1999") && may_have_date("on May Day") && !may_have_date("at once"));
        assert!(may_have_amount("ten dollars") && !may_have_amount("much money"));
    }

    #[test]
    fn two_parties_are_found_and_doubtful_ones_left_alone() {
        let pair = |text: &str| parties(text).map(|[a, b]| format!("{a}|{b}")).unwrap_or_default();
        let cases = [
            (
                "This Agreement is made on July 10, 2014, between mCig Inc., hereinafter referred to as “The Company”, and Patrick J. Lucey, hereinafter “Employee”.",
                "mCig Inc.|Patrick J. Lucey",
            ),
            (
                "is entered into by and between Acme Widgets, Inc., a Delaware corporation (the “Company”), and John Q. Public (the “Executive”).",
                "Acme Widgets, Inc.|John Q. Public",
            ),
            ("between First Bank of Ohio and Jane Doe.", "First Bank of Ohio|Jane Doe"),
            (
                "by and between KFx Inc. (\"Employer\") and William G. Laughlin (\"Executive\"). This Agreement is effective.",
                "KFx Inc.|William G. Laughlin",
            ),
            (
                "by and between AMBASSADORS GROUP, INC., a Delaware corporation (\"Borrower\"), and WELLS FARGO BANK, NATIONAL ASSOCIATION (\"Bank\").",
                "AMBASSADORS GROUP, INC.|WELLS FARGO BANK, NATIONAL ASSOCIATION",
            ),
            (
                "between WEO – CONCAR, LLC, a company (“Borrower”), and RIVERSIDE COMPANY, L.L.C., a company.",
                "WEO – CONCAR, LLC|RIVERSIDE COMPANY, L.L.C.",
            ),
            ("between the Company and the Executive", ""),
            ("among One Corp, Two Corp and Three Corp, as lenders", ""),
            ("between Alpha Beta and Gamma Delta and Epsilon Zeta", ""),
            ("nothing of the kind", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(pair(text), expected, "{text}");
        }
    }
}
