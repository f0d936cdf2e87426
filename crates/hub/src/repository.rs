//! Names of repositories.

use std::{fmt, str::FromStr};

/// A model repository at a revision, written `owner/name` or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// User or organisation.
    pub owner: String,
    /// Name of the model.
    pub name: String,
    /// Branch, tag or commit; `main` when none is given.
    pub revision: String,
}

/// A name is not one of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a repository: write owner/name or owner/name@revision, of letters, digits, '-', '_' and '.'"
)]
pub struct RepositoryError(String);

impl FromStr for Repository {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        match repository.split_once('/') {
            Some((owner, name)) if is_name(owner) && is_name(name) && revision.split('/').all(is_name) => {
                Ok(Self { owner: owner.into(), name: name.into(), revision: revision.into() })
            }
            _ => Err(RepositoryError(text.into())),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether `text` can be one component of a path, on the Hub and on the disk.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && !text.starts_with('.') && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_name_and_revision_are_read_and_written() {
        for text in ["alea-institute/kl3m-002-520m", "a/b.c_d@refs/pr/1", "a/b@v1.0"] {
            assert_eq!(text.parse::<Repository>().unwrap().to_string(), text);
        }
        assert_eq!("a/b".parse::<Repository>().unwrap().revision, "main");
    }

    #[test]
    fn names_that_would_leave_the_cache_or_the_url_are_refused() {
        for text in [
            "",
            "a",
            "/b",
            "a/",
            "a/b/c",
            "../b",
            "a/..",
            "a/b@",
            "a/b@../../x",
            "a/b@/x",
            "a b/c",
            "a/b?c",
            "a/b@x%2f",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text:?}");
        }
    }
}
