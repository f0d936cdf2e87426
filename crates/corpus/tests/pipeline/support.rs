//! Texts, recipes and looks at what came of them.

use blackletter_corpus::{
    build::{BuildError, Plan, build},
    document::{Document, Rows},
    recipe::Recipe,
    shards::ShardReader,
    steps::Watch,
};
use blackletter_provenance::Provenance;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};
use tempfile::TempDir;

pub const PUBLIC: &str = "LicenseRef-public-domain-17-USC-105";

/// A text of law of its own for each number: distinct from the others, and fit to learn from.
pub fn law(number: usize) -> String {
    let word = |at: usize| {
        const WORDS: [&str; 24] = [
            "lake",
            "river",
            "licence",
            "holder",
            "agency",
            "permit",
            "fee",
            "record",
            "notice",
            "hearing",
            "owner",
            "vessel",
            "harbour",
            "inspector",
            "report",
            "penalty",
            "appeal",
            "order",
            "county",
            "water",
            "fishery",
            "season",
            "limit",
            "quota",
        ];
        let mut mixed = (number * 7919 + at * 104_729 + 17) as u64;
        mixed ^= mixed >> 7;
        mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        WORDS[(mixed >> 40) as usize % WORDS.len()]
    };
    let paragraph = |p: usize| {
        let words: Vec<&str> = (0..24).map(|n| word(p * 31 + n)).collect();
        format!(
            "({}) The {} shall file a {number} with the {} of the {}.",
            p + 1,
            words[..8].join(" and the "),
            words[8..20].join(" or the "),
            words[20]
        )
    };
    let text: Vec<String> = (0..4).map(paragraph).collect();
    format!("§ {number}. Of the {} and the {}.\n\n{}", word(900), word(901), text.join("\n\n"))
}

/// A line of a JSON lines file.
pub fn line(id: &str, dataset: &str, license: &str, text: &str) -> String {
    let value = json!({ "id": id, "dataset": dataset, "source": "Press", "title": format!("Title of {id}"), "license": license,
        "license_basis": "17 U.S.C. 105", "url": format!("https://example.org/{id}"), "date": "2024-01-02",
        "format": "text/plain", "upstream": format!("git {id}"), "text": text });
    format!("{value}\n")
}

/// A folder with sources in it and a recipe over them.
pub struct Kitchen {
    pub dir: TempDir,
}

impl Kitchen {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Forty sections, one of them twice word for word and one nearly; an empty one, one without a right, a broken line; an
    /// original file; and a recipe over all.
    pub fn stocked() -> Self {
        let kitchen = Self::new();
        let mut usc: String = (0..40).map(|n| line(&format!("usc/{n}"), "usc", PUBLIC, &law(n))).collect();
        usc += &line("usc/copy", "usc", PUBLIC, &law(3).to_uppercase());
        usc += &line("usc/near", "usc", PUBLIC, &law(4).replace("§ 4.", "§ 4. As amended."));
        usc += &line("usc/empty", "usc", PUBLIC, " \n");
        usc += &line(
            "usc/paged",
            "usc",
            PUBLIC,
            &format!("{}\n[[Page 7]]\nIt ends here with a few more words of law.", law(60)),
        );
        usc += "{\"id\": \"broken\"\n";
        kitchen.write("in/usc.jsonl", usc);
        let mut forms = line("forms/1", "forms", "CC-BY-4.0", &law(100));
        forms += &line("forms/2", "forms", "CC-BY-NC-4.0", &law(101));
        forms += &line("forms/3", "forms", "LicenseRef-filed", &law(102));
        forms += &line("forms/4", "forms", "", &law(103));
        let packed = zstd::encode_all(forms.as_bytes(), 1).unwrap();
        kitchen.write("in/forms.jsonl.zst", packed);
        kitchen.write("in/pages/note.html", format!("<html><body><p>{}</p></body></html>", law(110)));
        kitchen.write("in/pages/broken.pdf", "%PDF-1.4 nothing else");
        kitchen.write("eval/v.jsonl", line("eval/1", "usc", PUBLIC, &law(5)));
        kitchen.recipe("");
        kitchen
    }

    pub fn recipe(&self, more: &str) {
        let recipe = format!(
            "description = \"Texts made for a test.\"\n\
             [[source]]\npath = \"in/*.jsonl*\"\n\
             [[source]]\npath = \"in/pages\"\ndataset = \"pages\"\nlicense = \"17 U.S.C. 105\"\nsource = \"Office\"\n\
             [licenses.accept]\nLicenseRef-filed = \"filed for all to read\"\n\
             [decontaminate]\nagainst = \"eval/*.jsonl\"\n\
             [split]\nheldout = 0.2\nseed = 1\n{more}"
        );
        self.write("law.toml", recipe);
    }

    pub fn try_build(&self, out: &str) -> Result<Provenance, BuildError> {
        let plan = Plan::of_recipe(
            &Recipe::read(&self.path("law.toml")).map_err(BuildError::from)?,
            self.dir.path(),
        )?;
        build(&plan, &self.path(out), Watch::SILENT)
    }

    pub fn build(&self, out: &str) -> Provenance {
        self.try_build(out).unwrap()
    }

    pub fn report(&self, out: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(out).join("report.json")).unwrap()).unwrap()
    }

    /// Documents by id, with the part that each is in.
    pub fn documents(&self, out: &str) -> BTreeMap<String, (String, Document)> {
        let record =
            Provenance::from_json(&fs::read(self.path(out).join("provenance.json")).unwrap()).unwrap();
        let mut all = BTreeMap::new();
        for shard in &record.shards {
            for batch in ShardReader::open(&self.path(out).join(&shard.path)).unwrap() {
                let batch = batch.unwrap();
                let rows = Rows::of(&batch).unwrap();
                for row in 0..rows.len() {
                    let document = rows.document(row);
                    assert!(all.insert(document.id.clone(), (shard.part.clone(), document)).is_none());
                }
            }
        }
        all
    }
}

/// All files of a folder but those of the store: bytes and times.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == ".steps" {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                all.insert(
                    name,
                    (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()),
                );
            }
        }
    }
    all
}

/// The bytes of a folder's files.
pub fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|(name, (bytes, _))| (name, bytes)).collect()
}

/// Compares what two folders hold, and names the files that differ.
pub fn assert_same<T: PartialEq>(found: &BTreeMap<PathBuf, T>, expected: &BTreeMap<PathBuf, T>) {
    let names = |files: &BTreeMap<PathBuf, T>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    let different: Vec<_> =
        found.iter().filter(|(name, file)| expected.get(*name) != Some(*file)).map(|(n, _)| n).collect();
    assert!(different.is_empty(), "{different:?} differ");
}
