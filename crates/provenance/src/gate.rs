//! The licence gate: which documents may be used, and by what right.

use crate::license::{License, LicenseError};
use std::{borrow::Cow, collections::BTreeMap};

const PUBLIC_DOMAIN: &str = "LicenseRef-public-domain-";

/// What is allowed where nothing else is asked for: the public domain (with its basis stated), dedications to it, and
/// licences that allow any use of text against attribution. `*` stands for any ending.
pub const DEFAULT_ALLOW: [&str; 25] = [
    "LicenseRef-public-domain-*",
    "CC0-1.0",
    "CC-PDDC",
    "PDDL-1.0",
    "CC-BY-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-2.5-AU",
    "CC-BY-3.0",
    "CC-BY-3.0-AT",
    "CC-BY-3.0-AU",
    "CC-BY-3.0-DE",
    "CC-BY-3.0-IGO",
    "CC-BY-3.0-NL",
    "CC-BY-3.0-US",
    "CC-BY-4.0",
    "OGL-UK-1.0",
    "OGL-UK-2.0",
    "OGL-UK-3.0",
    "OGL-Canada-2.0",
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
];

/// Decides by what documents state.
#[derive(Clone, Debug)]
pub struct Gate {
    allow: Vec<String>,
    accept: BTreeMap<String, String>,
}

/// A gate that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// An entry of the allow-list that is no licence.
    #[error(
        "`{entry}` is no SPDX licence id and no LicenseRef-…; an entry is one licence, or one with `*` at the end of a LicenseRef"
    )]
    Allow {
        /// The entry.
        entry: String,
    },
    /// An accepted licence that is not a reference.
    #[error("`{reference}` cannot be accepted: only LicenseRef-… can; put SPDX ids on the allow-list")]
    Accept {
        /// What was to be accepted.
        reference: String,
    },
    /// An acceptance without a reason.
    #[error("`{reference}` is accepted without a reason; say why the text may be used")]
    Reason {
        /// What was to be accepted.
        reference: String,
    },
}

/// Why a document may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The licence as it is recorded.
    pub license: String,
    /// The basis, as stated, or the rule of law that was stated as the licence.
    pub basis: Option<String>,
    /// The accepted references that were needed.
    pub accepted: Vec<String>,
}

/// Why a document may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No licence, or none that can be understood.
    #[error(transparent)]
    License(#[from] LicenseError),
    /// A licence that is not on the list.
    #[error("{license} is neither allowed nor accepted")]
    NotAllowed {
        /// The licence.
        license: String,
    },
    /// The public domain is claimed, but not why.
    #[error("{license} is stated without its basis (`license_basis`)")]
    NoBasis {
        /// The licence.
        license: String,
    },
}

impl Default for Gate {
    fn default() -> Self {
        Self { allow: DEFAULT_ALLOW.map(str::to_owned).to_vec(), accept: BTreeMap::new() }
    }
}

impl Gate {
    /// A gate with this allow-list ([`DEFAULT_ALLOW`] where there is none) that also accepts the named `LicenseRef-…`, each
    /// for the reason given.
    ///
    /// # Errors
    /// When an entry is no licence, or an acceptance names something else than a reference or gives no reason.
    pub fn new(allow: Option<&[String]>, accept: &BTreeMap<String, String>) -> Result<Self, GateError> {
        for entry in allow.unwrap_or_default() {
            let name = entry.strip_suffix('*').map_or(Cow::Borrowed(entry.as_str()), |start| {
                // `LicenseRef-` alone would let everything in, and `CC-BY-*` lets CC-BY-NC in.
                if start.len() > "LicenseRef-".len() { format!("{start}x").into() } else { "".into() }
            });
            let glob = entry.ends_with('*');
            let one =
                License::parse(&name).is_ok_and(|l| l.basis().is_none() && l.names() == [name.as_ref()]);
            if !one || glob && !name.starts_with("LicenseRef-") {
                return Err(GateError::Allow { entry: entry.clone() });
            }
        }
        for (reference, reason) in accept {
            let parsed = License::parse(reference);
            if !reference.starts_with("LicenseRef-")
                || !parsed.is_ok_and(|l| l.names() == [reference.as_str()])
            {
                return Err(GateError::Accept { reference: reference.clone() });
            }
            if reason.trim().is_empty() {
                return Err(GateError::Reason { reference: reference.clone() });
            }
        }
        let allow = allow.map_or_else(|| Self::default().allow, <[String]>::to_vec);
        Ok(Self { allow, accept: accept.clone() })
    }

    /// The allow-list.
    pub fn allow(&self) -> &[String] {
        &self.allow
    }

    /// The accepted references and the reasons.
    pub fn accept(&self) -> &BTreeMap<String, String> {
        &self.accept
    }

    /// Decides by the licence and the basis that a document states.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn judge(&self, license: Option<&str>, basis: Option<&str>) -> Result<Right, Refusal> {
        let license = License::parse(license.unwrap_or_default())?;
        let basis = basis.map(str::trim).filter(|basis| !basis.is_empty()).or(license.basis());
        let (mut unfounded, mut accepted) = (false, Vec::new());
        let right = license.evaluate(|name| {
            if self.allow.iter().any(|entry| matches(entry, name)) {
                if name.starts_with(PUBLIC_DOMAIN) && basis.is_none() {
                    unfounded = true;
                    return false;
                }
                return true;
            }
            let reason = self.accept.contains_key(name);
            if reason {
                accepted.push(name.to_owned());
            }
            reason
        });
        let name = license.as_str().to_owned();
        match right {
            true => Ok(Right { license: name, basis: basis.map(str::to_owned), accepted }),
            false if unfounded => Err(Refusal::NoBasis { license: name }),
            false => Err(Refusal::NotAllowed { license: name }),
        }
    }
}

fn matches(entry: &str, name: &str) -> bool {
    entry.strip_suffix('*').map_or(entry == name, |start| name.len() > start.len() && name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(reference: &str, reason: &str) -> BTreeMap<String, String> {
        [(reference.to_owned(), reason.to_owned())].into()
    }

    #[test]
    fn every_default_is_one_licence() {
        let gate = Gate::new(Some(&DEFAULT_ALLOW.map(str::to_owned)), &BTreeMap::new()).unwrap();
        assert_eq!(gate.allow(), Gate::default().allow());
    }

    #[test]
    fn the_public_domain_needs_its_basis() {
        let gate = Gate::default();
        let license = Some("LicenseRef-public-domain-edict-of-government");
        assert_eq!(gate.judge(license, Some("D.C. Code")).unwrap().basis.as_deref(), Some("D.C. Code"));
        for basis in [None, Some("  ")] {
            assert!(matches!(gate.judge(license, basis), Err(Refusal::NoBasis { .. })));
        }
        let by_law = gate.judge(Some("17 U.S.C. 105"), None).unwrap();
        assert_eq!(by_law.license, "LicenseRef-public-domain-17-USC-105");
        assert_eq!(by_law.basis.as_deref(), Some("17 U.S.C. 105"));
    }

    #[test]
    fn other_licences_are_refused_by_name() {
        let gate = Gate::default();
        for license in
            ["CC-BY-NC-4.0", "CC-BY-SA-4.0", "GPL-3.0-only", "LicenseRef-SEC-EDGAR", "MIT AND CC-BY-ND-4.0"]
        {
            let refusal = gate.judge(Some(license), Some("x")).unwrap_err();
            assert_eq!(refusal, Refusal::NotAllowed { license: license.into() });
        }
        assert_eq!(gate.judge(None, Some("x")).unwrap_err(), Refusal::License(LicenseError::Missing));
        assert!(gate.judge(Some("CC-BY-SA-4.0 OR CC-BY-4.0"), None).is_ok());
    }

    #[test]
    fn a_reference_is_accepted_by_name_and_with_a_reason() {
        let gate = Gate::new(None, &accept("LicenseRef-SEC-EDGAR", "filed with the SEC")).unwrap();
        let right = gate.judge(Some("LicenseRef-SEC-EDGAR"), None).unwrap();
        assert_eq!(right.accepted, ["LicenseRef-SEC-EDGAR"]);
        assert!(gate.judge(Some("MIT"), None).unwrap().accepted.is_empty());
        assert!(matches!(Gate::new(None, &accept("LicenseRef-x", " ")), Err(GateError::Reason { .. })));
        for reference in ["CC-BY-NC-4.0", "LicenseRef-a OR LicenseRef-b", "LicenseRef-*", "x"] {
            assert!(
                matches!(Gate::new(None, &accept(reference, "y")), Err(GateError::Accept { .. })),
                "{reference}"
            );
        }
    }

    #[test]
    fn an_allow_list_cannot_open_the_gate_to_everything() {
        for entry in ["*", "LicenseRef-*", "CC-BY-*", "free", "", "MIT OR ISC", "17 U.S.C. 105"] {
            let result = Gate::new(Some(&[entry.to_owned()]), &BTreeMap::new());
            assert_eq!(result.unwrap_err(), GateError::Allow { entry: entry.into() });
        }
        let gate = Gate::new(Some(&["LicenseRef-our-*".to_owned()]), &BTreeMap::new()).unwrap();
        assert!(gate.judge(Some("LicenseRef-our-forms"), None).is_ok());
        assert!(gate.judge(Some("MIT"), None).is_err());
    }
}
