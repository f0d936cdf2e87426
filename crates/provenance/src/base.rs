//! The model whose weights a training began with: what it was made from belongs to what the new model was made from.

use crate::{DerivedFrom, InputKind, ModelRecord, ModelRecordError, derivation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A model whose weights a training began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Its name, its files with their hashes, and the seal of its record.
    pub model: DerivedFrom,
    /// Its own record, if it had one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<Box<ModelRecord>>,
}

impl BaseModel {
    /// Reads the record of the model in `folder`, and hashes its configuration and weights.
    ///
    /// # Errors
    /// When a file cannot be read or the record is none.
    pub fn of(folder: &Path) -> Result<Self, ModelRecordError> {
        let record = ModelRecord::read_if_there(folder)?;
        Ok(Self { model: DerivedFrom::of(folder, record.as_ref())?, record: record.map(Box::new) })
    }

    /// A model of which no more is known than its name.
    pub fn named(folder: &Path) -> Self {
        let (seal, files, data) = (None, vec![], Value::Null);
        let name = derivation::folder_name(folder);
        Self { model: DerivedFrom { name, kind: InputKind::Model, seal, files, data }, record: None }
    }

    /// What the model is, and what is known of what it was made from.
    pub fn sentence(&self) -> String {
        let known = self.record.as_ref().map(|record| {
            let before = record.base.as_ref().map(|base| format!(", after {}", base.sentence()));
            format!(
                ", which was trained on {} documents of the corpus with the root {}{}",
                record.documents.consumed,
                record.corpus.root,
                before.unwrap_or_default()
            )
        });
        format!("{}{}", self.model.sentence(), known.unwrap_or_default())
    }
}

impl ModelRecord {
    /// The models that this one's weights came from, the last first.
    pub fn bases(&self) -> Vec<&BaseModel> {
        fn next<'b>(base: &&'b BaseModel) -> Option<&'b BaseModel> {
            base.record.as_ref()?.base.as_deref()
        }
        std::iter::successors(self.base.as_deref(), next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CorpusUse, DocumentList};
    use std::fs;
    use tempfile::TempDir;

    fn model(root: &str, base: Option<BaseModel>) -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("model.safetensors"), root).unwrap();
        let corpus = CorpusUse { root: root.into(), record: None };
        let documents = DocumentList { consumed: 7, ..DocumentList::default() };
        ModelRecord { version: 1, corpus, documents, base: base.map(Box::new), ..ModelRecord::default() }
            .write(dir.path())
            .unwrap();
        dir
    }

    #[test]
    fn a_model_trained_further_leads_back_to_the_first() {
        let first = model("ab", None);
        let second = model("cd", Some(BaseModel::of(first.path()).unwrap()));
        let third = model("ef", Some(BaseModel::of(second.path()).unwrap()));
        let record = ModelRecord::read(third.path()).unwrap();
        assert_eq!(record.seal, record.expected_seal().unwrap());
        let roots: Vec<&str> =
            record.bases().iter().map(|base| base.record.as_ref().unwrap().corpus.root.as_str()).collect();
        assert_eq!(roots, ["cd", "ab"]);
        let said = record.base.unwrap().sentence();
        assert!(said.contains("7 documents of the corpus with the root cd, after "), "{said}");
        assert!(said.ends_with("with the root ab"), "{said}");
    }

    #[test]
    fn what_is_not_known_of_a_base_is_said() {
        let bare = TempDir::new().unwrap();
        fs::write(bare.path().join("model.safetensors"), "x").unwrap();
        let base = BaseModel::of(bare.path()).unwrap();
        assert_eq!((base.model.files.len(), &base.record), (1, &None));
        assert!(
            base.sentence().ends_with("which has no record of what it was made from"),
            "{}",
            base.sentence()
        );
        assert_eq!(BaseModel::named(Path::new("somewhere/old")).model.name, "old");
    }
}
