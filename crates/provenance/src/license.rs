//! Licences as documents state them: an SPDX expression, or the rule of law that puts a text in the public domain.

use spdx::{Expression, LicenseItem, LicenseReq, ParseMode};
use std::fmt;

/// Statements of licence longer than this are not read.
const LONGEST: usize = 1024;

/// Rules of law that stand in for a licence, each with the SPDX reference that it is recorded under. A document may state
/// either; the left one is its own basis.
pub const PUBLIC_DOMAIN_BASES: [(&str, &str); 7] = [
    // Works of the United States Government.
    ("17 U.S.C. 105", "LicenseRef-public-domain-17-USC-105"),
    // Depository library material; also works of the Government.
    ("44 U.S.C. 1911", "LicenseRef-public-domain-44-USC-1911"),
    // Text of patents, unless the patent bears a notice under 37 CFR 1.71(d).
    ("37 CFR 1.71", "LicenseRef-public-domain-37-CFR-1.71"),
    // Statutes, regulations and judgments have no author: Georgia v. Public.Resource.Org, 590 U.S. 255 (2020).
    ("edict of government", "LicenseRef-public-domain-edict-of-government"),
    ("public domain dedication", "LicenseRef-public-domain-dedication"),
    ("public domain mark", "LicenseRef-public-domain-mark"),
    // Decision on the reuse of Commission documents: a licence to all, with attribution.
    ("2011/833/EU", "LicenseRef-2011-833-EU"),
];

/// A licence that could be understood.
#[derive(Clone, Debug)]
pub struct License {
    expression: Expression,
    canonical: String,
    /// The rule of law, where that is what was stated.
    basis: Option<&'static str>,
}

/// A statement that is no licence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LicenseError {
    /// Nothing is stated.
    #[error("no licence is stated")]
    Missing,
    /// Neither an SPDX expression nor a known rule of law.
    #[error(
        "`{stated}` is neither an SPDX expression ({reason}) nor a known public-domain basis; write the SPDX id, or \
         LicenseRef-NAME for a licence that has none"
    )]
    Unknown {
        /// What is stated, shortened.
        stated: String,
        /// What the expression's reader says.
        reason: String,
    },
}

/// Names that collections give licences, kl3m-data among them, and their SPDX ids.
const ALIASES: [(&str, &str); 3] = [("CC0", "CC0-1.0"), ("OGL-3.0", "OGL-UK-3.0"), ("OGL", "OGL-UK-3.0")];

impl License {
    /// Reads a statement: an SPDX expression in strict form (`MIT OR Apache-2.0`, `LicenseRef-…`), deprecated ids
    /// included; one of [`PUBLIC_DOMAIN_BASES`] in any case; or `CC0` and `OGL-3.0`, as kl3m-data has them.
    ///
    /// # Errors
    /// When it is empty or neither.
    pub fn parse(stated: &str) -> Result<Self, LicenseError> {
        let stated = stated.trim();
        if stated.is_empty() {
            return Err(LicenseError::Missing);
        }
        let unknown =
            |reason: String| LicenseError::Unknown { stated: stated.chars().take(80).collect(), reason };
        if stated.len() > LONGEST {
            return Err(unknown(format!("longer than {LONGEST} bytes")));
        }
        let stated = ALIASES.iter().find(|(alias, _)| *alias == stated).map_or(stated, |(_, id)| id);
        let basis = PUBLIC_DOMAIN_BASES.iter().find(|(basis, _)| basis.eq_ignore_ascii_case(stated));
        let mode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };
        let expression = Expression::parse_mode(basis.map_or(stated, |(_, reference)| reference), mode);
        let expression = expression.map_err(|e| unknown(e.reason.to_string()))?;
        // The reader takes a reference without a name for one.
        if expression.requirements().any(|r| name(&r.req).ends_with("LicenseRef-")) {
            return Err(unknown("a LicenseRef- without a name".into()));
        }
        let canonical = expression.as_ref().trim().to_owned();
        Ok(Self { expression, canonical, basis: basis.map(|(basis, _)| *basis) })
    }

    /// The expression, as it is recorded.
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// The rule of law, where the statement was one.
    pub fn basis(&self) -> Option<&'static str> {
        self.basis
    }

    /// Whether the expression holds when each licence in it holds or not as `holds` says; `WITH` exceptions only add
    /// permissions, so that they are passed over.
    pub fn evaluate(&self, mut holds: impl FnMut(&str) -> bool) -> bool {
        self.expression.evaluate(|requirement| holds(&name(requirement)))
    }

    /// The licences in the expression, in its order.
    pub fn names(&self) -> Vec<String> {
        self.expression.requirements().map(|requirement| name(&requirement.req)).collect()
    }
}

impl fmt::Display for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

fn name(requirement: &LicenseReq) -> String {
    match &requirement.license {
        LicenseItem::Spdx { id, .. } => id.name.to_owned(),
        LicenseItem::Other(reference) => reference.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expressions_and_rules_of_law_are_understood() {
        let licence = License::parse(" MIT OR Apache-2.0 WITH LLVM-exception ").unwrap();
        assert_eq!(licence.names(), ["MIT", "Apache-2.0"]);
        assert!(licence.evaluate(|name| name == "Apache-2.0"));
        assert!(!License::parse("MIT AND Apache-2.0").unwrap().evaluate(|name| name == "MIT"));
        let basis = License::parse("17 u.s.c. 105").unwrap();
        assert_eq!(
            (basis.as_str(), basis.basis()),
            ("LicenseRef-public-domain-17-USC-105", Some("17 U.S.C. 105"))
        );
        assert_eq!(License::parse("GPL-3.0").unwrap().names(), ["GPL-3.0"]);
        assert_eq!(License::parse("CC0").unwrap().as_str(), "CC0-1.0");
        assert_eq!(License::parse("OGL-3.0").unwrap().as_str(), "OGL-UK-3.0");
    }

    #[test]
    fn what_is_no_licence_says_so() {
        assert_eq!(License::parse(" \n").unwrap_err(), LicenseError::Missing);
        for stated in ["free to use", "MIT OR", "mit", "LicenseRef-", "CC-BY", "((MIT"] {
            let message = License::parse(stated).unwrap_err().to_string();
            assert!(message.contains(stated) && message.contains("LicenseRef-NAME"), "{message}");
        }
        assert!(License::parse(&"(".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_statement_is_read_or_refused(stated in "\\PC{0,40}") {
            let _ = License::parse(&stated);
        }
    }
}
