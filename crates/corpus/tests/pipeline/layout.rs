//! A corpus written in kl3m-data's layout, or as the Hub's Parquet, is read back by a recipe as the same documents.

use crate::support::Kitchen;
use blackletter_corpus::{
    build::{BuildError, Plan, build},
    kl3m_data::{
        Stage, Store, StoreOptions, index_key,
        records::Index,
        transfer::{Encoder, Transfer, export, export_tokens, fetch},
    },
    recipe::Recipe,
    source::{Buckets, Decoder, Means},
    steps::Watch,
};
use std::{fs, path::Path, sync::Arc};

const SILENT: Transfer<'_> = Transfer { progress: &|_, _| (), stop: &|| false };

/// An id for each byte; 7 stands for nothing.
fn decoder() -> Decoder {
    let decode = |ids: &[u32]| {
        let bytes: Option<Vec<u8>> = ids.iter().map(|&id| id.checked_sub(8)?.try_into().ok()).collect();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| "no such id".to_owned())
    };
    Decoder { blake3: "bytes".into(), decode: Arc::new(decode) }
}

fn encode(text: &str) -> Result<Vec<u32>, String> {
    Ok(text.bytes().map(|byte| u32::from(byte) + 8).collect())
}

const ENCODER: Encoder<'_> = Encoder { name: "bytes", encode: &encode };

fn folder(path: &Path) -> Store {
    Store::open(path.to_str().unwrap(), &StoreOptions::default()).unwrap()
}

/// Builds by a recipe of one source, whose texts stay as they are.
fn try_read(kitchen: &Kitchen, source: &str, out: &str) -> Result<(), BuildError> {
    let plain = "[filter]\nenabled = false\n[dedup]\nenabled = false\n[split]\nheldout = 0.0\n[licenses.accept]\nLicenseRef-filed = \"x\"\n\
                 [clean]\ntypesetting = false\npage_marks = false\npage_numbers = false\nrunning_heads = false\nhtml_tags = false\n\
                 control_characters = false\nwrapped_lines = false\nspacing = false\n";
    kitchen.write("read.toml", format!("[[source]]\n{source}\n{plain}"));
    let recipe = Recipe::read(&kitchen.path("read.toml"))?;
    let open = |path: &Path| {
        if path.ends_with("bytes") { Ok(decoder()) } else { Err("no tokenizer".to_owned()) }
    };
    let cache = Buckets::beside(&kitchen.path(out)).unwrap();
    let buckets = Buckets { cache, options: StoreOptions::default(), transfer: SILENT };
    let means = Means { buckets: Some(&buckets), tokenizer: Some(&open) };
    let plan = Plan::of_recipe_with(&recipe, kitchen.dir.path(), means)?;
    build(&plan, &kitchen.path(out), Watch::SILENT).map(|_| ())
}

/// Id, dataset and text of all documents, and what else they hold where `whole`.
fn documents(kitchen: &Kitchen, out: &str, whole: bool) -> Vec<String> {
    let all = kitchen.documents(out).into_values().filter(|(part, _)| part != "heldout");
    all.map(|(_, mut d)| {
        d.extras.remove("original_uri");
        let rest =
            format!("{:?}", (&d.source, &d.title, &d.url, &d.date, &d.license, &d.mime_type, &d.extras));
        format!("{} {} {:?} {}", d.id, d.dataset, d.text, if whole { &rest } else { "" })
    })
    .collect()
}

#[test]
fn every_stage_is_read_back_as_the_same_documents_without_the_held_out() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let to = folder(&kitchen.path("layout"));
    export(&kitchen.path("out"), &to, Some(ENCODER), SILENT).unwrap();
    export_tokens(&kitchen.path("out"), &folder(&kitchen.path("hub")), ENCODER, SILENT).unwrap();
    let expected = documents(&kitchen, "out", true);
    assert!(expected.len() > 20, "{}", expected.len());

    try_read(&kitchen, "path = \"layout\"", "parsed").unwrap();
    assert_eq!(documents(&kitchen, "parsed", true), expected);
    let dropped = &kitchen.report("parsed")["steps"][0]["dropped"];
    assert_eq!(dropped["held out"], kitchen.documents("out").len() - expected.len());

    // Ids alone: what they are of is not known, and their licence is what the source says.
    let licensed = "tokenizer = \"bytes\"\nlicense = \"CC0-1.0\"";
    let expected = documents(&kitchen, "out", false);
    try_read(&kitchen, &format!("path = \"hub\"\n{licensed}"), "from-hub").unwrap();
    assert_eq!(documents(&kitchen, "from-hub", false), expected);
    // By whatever way: a pattern, another name of the folder.
    fs::create_dir(kitchen.path("z")).unwrap();
    for entry in fs::read_dir(kitchen.path("hub/data")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), kitchen.path("z").join(entry.file_name())).unwrap();
    }
    for (n, path) in ["hub/data/*.parquet", "hub/*/*.parquet", "z"].into_iter().enumerate() {
        try_read(&kitchen, &format!("path = \"{path}\"\n{licensed}"), &format!("way-{n}")).unwrap();
        assert_eq!(documents(&kitchen, &format!("way-{n}"), false), expected, "{path}");
    }
    let stage = kitchen.path("tokens");
    fetch(&to, &folder(&stage), &[Stage::Parquet], &[], None, SILENT).unwrap();
    try_read(&kitchen, &format!("path = \"tokens\"\n{licensed}"), "from-tokens").unwrap();
    let mut tokens = documents(&kitchen, "from-tokens", false);
    tokens.retain(|text| expected.contains(text));
    assert_eq!(tokens, expected);
    // An address is read as a folder is.
    assert!(!kitchen.path("from-hub.fetched").exists());

    for path in ["hub/data/*.parquet", "tokens", "tokens/parquet"] {
        let error = try_read(&kitchen, &format!("path = \"{path}\""), "none").unwrap_err().to_string();
        assert!(error.contains("name the directory of their tokenizer"), "{error}");
    }
    let error = try_read(&kitchen, "path = \"hub\"\ntokenizer = \"gone\"", "none").unwrap_err().to_string();
    assert!(error.contains("gone cannot be used: no tokenizer"), "{error}");
}

#[test]
fn ids_of_another_tokenizer_are_counted_and_the_others_read() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let odd = |text: &str| if text.contains("§ 7.") { Ok(vec![3]) } else { encode(text) };
    let encoder = Encoder { name: "odd", encode: &odd };
    export_tokens(&kitchen.path("out"), &folder(&kitchen.path("hub")), encoder, SILENT).unwrap();
    try_read(&kitchen, "path = \"hub\"\ntokenizer = \"bytes\"\nlicense = \"CC0-1.0\"", "read").unwrap();
    let step = &kitchen.report("read")["steps"][0];
    assert_eq!(step["dropped"]["unreadable token ids"], 1, "{step}");
    assert_eq!(step["in"].as_u64().unwrap(), step["kept"].as_u64().unwrap() + 1);
}

#[test]
fn what_an_index_names_and_is_not_there_is_counted_until_it_is() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let (all, some) = (folder(&kitchen.path("layout")), kitchen.path("some"));
    export(&kitchen.path("out"), &all, None, SILENT).unwrap();
    let index = Index::from_bytes(&all.get(&index_key("usc")).unwrap()).unwrap();
    let usc = ["usc".to_owned()];
    let stages = [Stage::Representations, Stage::Index];
    fetch(&all, &folder(&some), &stages, &usc, Some(5), SILENT).unwrap();
    assert_eq!(fs::read_dir(some.join("index")).unwrap().count(), 1);
    let read = || {
        try_read(&kitchen, "path = \"some\"", "read").unwrap();
        let step = kitchen.report("read")["steps"][0].clone();
        (step["in"].as_u64().unwrap(), step["dropped"]["missing object"].as_u64().unwrap_or(0))
    };
    let whole = index.objects.len() as u64;
    assert_eq!(read(), (whole, whole - 5));
    fetch(&all, &folder(&some), &stages, &usc, None, SILENT).unwrap();
    assert_eq!(read(), (whole, 0));
    fs::write(some.join("index/usc.json.gz"), "none").unwrap();
    let error = try_read(&kitchen, "path = \"some\"", "read").unwrap_err().to_string();
    assert!(error.contains("usc.json.gz is no index of a dataset"), "{error}");
}

#[test]
fn files_of_one_name_have_ids_of_their_own() {
    let kitchen = Kitchen::new();
    for (name, text) in
        [("a/1.txt", "The first law."), ("b/1.txt", "The second law."), ("1.txt", "The third.")]
    {
        kitchen.write(&format!("in/{name}"), text);
        kitchen.write(&format!("other/{name}"), format!("{text} Again."));
    }
    let ids = |source: &str, out: &str| {
        try_read(&kitchen, &format!("{source}\nlicense = \"CC0-1.0\"\ndataset = \"law\""), out).unwrap();
        kitchen.documents(out).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(ids("path = \"in\"", "one"), ["law:1.txt", "law:a/1.txt", "law:b/1.txt"]);
    assert_eq!(ids("path = [\"in/a/1.txt\", \"in/b/1.txt\"]", "two"), ["law:1.txt", "law:b/1.txt"]);
    let both = "path = [\"in\", \"other\"]";
    let expected = [
        "law:1.txt",
        "law:a/1.txt",
        "law:b/1.txt",
        "law:other/1.txt",
        "law:other/a/1.txt",
        "law:other/b/1.txt",
    ];
    assert_eq!(ids(both, "three"), expected);
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_bucket_in_a_recipe_names_the_feature_that_reads_it() {
    let kitchen = Kitchen::new();
    let error = try_read(&kitchen, "path = \"s3://bucket/prefix\"", "out").unwrap_err().to_string();
    assert!(error.contains("s3://bucket/prefix") && error.contains("--features s3"), "{error}");
    let error = try_read(&kitchen, "path = \"gs://bucket\"", "out").unwrap_err().to_string();
    assert!(error.contains("write s3://BUCKET"), "{error}");
}
