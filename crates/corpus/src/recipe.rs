//! The recipe of a corpus: a TOML file that says what goes in and what each step does.

use crate::{
    clean::LineFilters,
    decontaminate::Thresholds,
    pii::Scrub,
    source::{Paths, SourceSpec},
    steps::{DedupSettings, FilterSettings, SplitSettings},
};
use blackletter_provenance::{Dataset, Gate, GateError};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What a recipe says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The corpus' name; the recipe's file name where there is none.
    pub name: String,
    /// A sentence about it.
    pub description: String,
    /// Its page.
    pub url: Option<String>,
    /// Who makes it.
    pub creator: Option<String>,
    /// When it is published, `YYYY-MM-DD`.
    pub published: Option<String>,
    /// What goes in.
    pub source: Vec<SourceSpec>,
    /// By what right.
    pub licenses: Licenses,
    /// Which lines are taken out of texts.
    pub clean: LineFilters,
    /// Which personal data are.
    pub scrub: Scrub,
    /// Which documents are no text worth learning from.
    pub filter: FilterSettings,
    /// Which documents stand there already.
    pub dedup: DedupSettings,
    /// Which documents evaluation texts are in.
    pub decontaminate: Option<DecontaminateSettings>,
    /// How many documents are set aside.
    pub split: SplitSettings,
}

/// The licence gate's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Licenses {
    /// The allow-list; the default one where there is none.
    pub allow: Option<Vec<String>>,
    /// Other `LicenseRef-…` that are accepted, and why.
    pub accept: BTreeMap<String, String>,
}

/// Settings of decontamination.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecontaminateSettings {
    /// Files, globs and folders of evaluation texts.
    pub against: Paths,
    /// From this share of a document's 13-grams on it goes.
    #[serde(default = "of_document")]
    pub of_document: f64,
    /// From this share of an evaluation text's 13-grams on a document goes that has them.
    #[serde(default = "of_evaluation")]
    pub of_evaluation: f64,
}

fn of_document() -> f64 {
    Thresholds::default().of_document
}

fn of_evaluation() -> f64 {
    Thresholds::default().of_evaluation
}

/// A recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, or a key or value that is not known.
    #[error("{path}: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// A value out of its range.
    #[error("`{key}` is {found}, and has to be {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// No sources.
    #[error("the recipe has no [[source]]; each needs a `path`")]
    NoSource,
    /// A gate that cannot be built.
    #[error("`licenses`: {0}")]
    Gate(#[from] GateError),
}

impl Recipe {
    /// Reads a recipe and checks every value.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text =
            fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })?;
        let form = |reason: String| RecipeError::Form { path: path.into(), reason };
        let mut recipe: Self = toml::from_str(&text).map_err(|e| form(with_nearest(&e.to_string())))?;
        if recipe.name.is_empty() {
            recipe.name =
                path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        }
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn check(&self) -> Result<(), RecipeError> {
        if self.source.is_empty() {
            return Err(RecipeError::NoSource);
        }
        check_empty("source.path", self.source.iter().any(|source| source.path.all().is_empty()))?;
        self.gate()?;
        let (expected, share) = ("a number from 0 to 1", |value: f64| (0.0..=1.0).contains(&value));
        if let Some(settings) = &self.decontaminate {
            check_empty("decontaminate.against", settings.against.all().is_empty())?;
            check("decontaminate.of_document", settings.of_document, expected, share)?;
            check("decontaminate.of_evaluation", settings.of_evaluation, expected, share)?;
        }
        check_dedup(&self.dedup)?;
        check_split(&self.split)
    }

    /// The licence gate.
    ///
    /// # Errors
    /// When an entry is no licence or an acceptance has no reason.
    pub fn gate(&self) -> Result<Gate, GateError> {
        Gate::new(self.licenses.allow.as_deref(), &self.licenses.accept)
    }

    /// What the corpus is called.
    pub fn dataset(&self) -> Dataset {
        let described = if self.description.is_empty() {
            format!("The corpus `{}`, made by its recipe.", self.name)
        } else {
            self.description.clone()
        };
        Dataset {
            name: self.name.clone(),
            description: described,
            url: self.url.clone(),
            creator: self.creator.clone(),
            published: self.published.clone(),
        }
    }
}

/// Checks the settings of duplicates.
///
/// # Errors
/// When the similarity is out of range.
pub fn check_dedup(settings: &DedupSettings) -> Result<(), RecipeError> {
    let in_range = |value: f64| value > 0.0 && value <= 1.0;
    check("dedup.similarity", settings.similarity, "a number above 0, and 1 at most", in_range)?;
    // 1 TiB.
    let memory = settings.memory_mib as f64;
    check("dedup.memory_mib", memory, "from 1 to 1048576", |value| (1.0..=1_048_576.0).contains(&value))
}

/// Checks how much is set aside.
///
/// # Errors
/// When the share is out of range.
pub fn check_split(settings: &SplitSettings) -> Result<(), RecipeError> {
    check("split.heldout", settings.heldout, "a number from 0 to below 1", |value| {
        (0.0..1.0).contains(&value)
    })
}

fn check(
    key: &'static str,
    value: f64,
    expected: &'static str,
    fits: impl Fn(f64) -> bool,
) -> Result<(), RecipeError> {
    if fits(value) { Ok(()) } else { Err(RecipeError::Value { key, found: value.to_string(), expected }) }
}

fn check_empty(key: &'static str, empty: bool) -> Result<(), RecipeError> {
    let expected = "a path or a list of paths";
    if empty { Err(RecipeError::Value { key, found: "empty".into(), expected }) } else { Ok(()) }
}

/// Adds the known key that is nearest to an unknown one.
fn with_nearest(message: &str) -> String {
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let message = message.trim_end();
    let Some(at) = message.find("unknown field `") else { return message.to_owned() };
    let names = quoted(&message[at..]);
    let Some((unknown, known)) = names.split_first() else { return message.to_owned() };
    let near = known.iter().min_by_key(|name| strsim::damerau_levenshtein(unknown, name));
    near.map_or_else(|| message.to_owned(), |near| format!("{message}\ndid you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Limit;

    fn read(text: &str) -> Result<Recipe, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("law.toml");
        fs::write(&path, text).unwrap();
        Recipe::read(&path).map_err(|e| e.to_string())
    }

    const SOURCE: &str = "[[source]]\npath = \"a.jsonl\"\n";

    #[test]
    fn what_is_not_said_has_a_default() {
        let recipe = read(SOURCE).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.source[0].path.all()), ("law", &["a.jsonl".to_owned()][..]));
        assert_eq!((recipe.split.heldout, recipe.dedup.similarity), (0.0, 0.8));
        assert_eq!(recipe.gate().unwrap().allow(), Gate::default().allow());
    }

    #[test]
    fn everything_can_be_said() {
        let recipe = read(
            r#"name = "law"
            [[source]]
            path = ["a/*.jsonl", "b"]
            dataset = "usc"
            license = "CC0-1.0"
            license_basis = "notice"
            source = "GPO"
            url = "https://example.org"
            [licenses]
            allow = ["CC0-1.0"]
            accept = { LicenseRef-x = "because" }
            [clean]
            page_marks = false
            [scrub]
            ssn = true
            [filter]
            max_score = false
            rules = { min_words = 3, max_top_4_gram = false }
            [dedup]
            near = false
            [decontaminate]
            against = "validation/*.jsonl"
            of_document = 0.2
            [split]
            heldout = 0.1
            seed = 7"#,
        )
        .unwrap();
        assert_eq!(recipe.filter.max_score, Limit(None));
        assert_eq!(recipe.filter.rules.min_words, Limit(Some(3.0)));
        assert!(
            recipe.scrub.ssn && !recipe.clean.page_marks && recipe.clean.page_numbers && !recipe.dedup.near
        );
        assert_eq!(recipe.decontaminate.unwrap().of_document, 0.2);
        assert_eq!(recipe.licenses.accept["LicenseRef-x"], "because");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        for (text, nearest) in [
            ("[[source]]\npath = \"a\"\nlicence = \"MIT\"\n", "did you mean `license`?"),
            ("[[sources]]\npath = \"a\"\n", "did you mean `source`?"),
            ("[[source]]\npath = \"a\"\n[dedupe]\n", "did you mean `dedup`?"),
            ("[[source]]\npath = \"a\"\n[split]\nheld_out = 0.1\n", "did you mean `heldout`?"),
            ("[[source]]\npath = \"a\"\n[filter.rules]\nmin_word = 1\n", "did you mean `min_words`?"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(nearest) && error.contains("line "), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        for (text, key) in [
            ("", "no [[source]]"),
            ("[[source]]\npath = []\n", "`source.path`"),
            ("[[source]]\n", "path"),
            (&format!("{SOURCE}[split]\nheldout = 1.0\n"), "`split.heldout` is 1"),
            (&format!("{SOURCE}[split]\nheldout = nan\n"), "`split.heldout` is NaN"),
            (&format!("{SOURCE}[dedup]\nsimilarity = 0\n"), "`dedup.similarity`"),
            (&format!("{SOURCE}[licenses]\nallow = [\"*\"]\n"), "`*`"),
            (&format!("{SOURCE}[licenses]\naccept = {{ LicenseRef-x = \"\" }}\n"), "without a reason"),
            (&format!("{SOURCE}[decontaminate]\nagainst = []\n"), "`decontaminate.against`"),
            (&format!("{SOURCE}[filter]\nmax_score = \"x\"\n"), "expected a number"),
            ("x = ", "line 1"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
