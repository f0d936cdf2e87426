//! One run after another: what is done again, what is refused, what is left behind.

use crate::support::{Kitchen, PUBLIC, assert_same, bytes, files, law, line};
use blackletter_corpus::{
    build::{Plan, build},
    recipe::Recipe,
    steps::{Event, Watch},
};
use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Builds, and tells for each step how many of its pieces were there before, and how many there are.
fn pieces(kitchen: &Kitchen, out: &str) -> BTreeMap<String, (usize, usize)> {
    let seen = Mutex::new(BTreeMap::new());
    let hear = |event: Event<'_>| {
        if let Event::End { step, again, tasks, .. } = event {
            seen.lock().unwrap().insert(step.to_owned(), (again, tasks));
        }
    };
    let plan =
        Plan::of_recipe(&Recipe::read(&kitchen.path("law.toml")).unwrap(), kitchen.dir.path()).unwrap();
    build(&plan, &kitchen.path(out), Watch { event: &hear, stop: &|| false }).unwrap();
    seen.into_inner().unwrap()
}

#[test]
fn the_same_recipe_gives_the_same_bytes_whatever_the_threads() {
    let kitchen = Kitchen::stocked();
    kitchen.build("one");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| kitchen.build("two"));
    assert_same(&bytes(&kitchen.path("one")), &bytes(&kitchen.path("two")));
}

#[test]
fn a_second_run_touches_nothing() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let before = files(&kitchen.path("out"));
    let store =
        || fs::read_dir(kitchen.path("out/.steps")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let mut finished = store();
    let pieces = pieces(&kitchen, "out");
    assert!(pieces.iter().all(|(step, (again, tasks))| step == "shards" || again == tasks), "{pieces:?}");
    assert_same(&files(&kitchen.path("out")), &before);
    let mut after = store();
    finished.sort();
    after.sort();
    assert_eq!(after, finished);
}

#[test]
fn only_what_changed_is_done_again() {
    let kitchen = Kitchen::stocked();
    let first = pieces(&kitchen, "out");
    // Another limit: ingesting, cleaning and scoring stand.
    kitchen.recipe("[filter]\nmax_score = 399\n");
    let second = pieces(&kitchen, "out");
    for step in ["ingest", "clean", "score"] {
        assert_eq!(second[step].0, first[step].1, "{step}");
    }
    assert_eq!(second["filter"].0, 0);
    // The filter kept the same documents, so that what comes after it stands too.
    assert_eq!(second["split"].0, second["split"].1);
    // Another file: only its pieces are new.
    kitchen.write("in/more.jsonl", line("more/1", "more", PUBLIC, &law(200)));
    let third = pieces(&kitchen, "out");
    assert_eq!((third["ingest"].0, third["ingest"].1), (first["ingest"].1, first["ingest"].1 + 1));
    assert_eq!(kitchen.documents("out")["more/1"].1.text, law(200));
}

#[test]
fn a_shard_that_was_damaged_or_removed_is_written_again() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let whole = bytes(&kitchen.path("out"));
    let path = kitchen.path("out").join(&record.shards[0].path);
    fs::write(&path, "damaged").unwrap();
    kitchen.build("out");
    assert_same(&bytes(&kitchen.path("out")), &whole);
    fs::remove_file(path).unwrap();
    kitchen.build("out");
    assert_same(&bytes(&kitchen.path("out")), &whole);
}

#[test]
fn shards_of_an_earlier_recipe_do_not_stay() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    assert!(kitchen.path("out/heldout").is_dir());
    let recipe = fs::read_to_string(kitchen.path("law.toml")).unwrap();
    kitchen.write("law.toml", recipe.replace("heldout = 0.2", "heldout = 0"));
    let record = kitchen.build("out");
    assert!(!kitchen.path("out/heldout").exists());
    assert_eq!(record.shards.len(), 1);
    blackletter_corpus::audit::audit(&kitchen.path("out")).unwrap();
}

#[test]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes() {
    let kitchen = Kitchen::stocked();
    kitchen.build("whole");
    let whole = bytes(&kitchen.path("whole"));
    let plan =
        Plan::of_recipe(&Recipe::read(&kitchen.path("law.toml")).unwrap(), kitchen.dir.path()).unwrap();
    let mut stopped = 0;
    for after in 0.. {
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= after;
        match build(&plan, &kitchen.path("out"), Watch { event: &|_| {}, stop: &stop }) {
            Ok(_) => break,
            Err(e) => assert!(e.is_stop(), "{e}"),
        }
        stopped += 1;
    }
    assert!(stopped > 5, "stopped {stopped} times");
    assert_same(&bytes(&kitchen.path("out")), &whole);
}

#[test]
fn a_recipe_that_cannot_be_followed_writes_nothing() {
    let kitchen = Kitchen::stocked();
    let refused = |recipe: &str, words: &str| {
        kitchen.write("law.toml", recipe);
        let error = kitchen.try_build("out").unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!kitchen.path("out").exists(), "{recipe}");
    };
    refused("[[source]]\npath = \"gone/*.jsonl\"\n", "`gone/*.jsonl` finds no file");
    refused("[[source]]\npath = \"in\"\nlicens = \"MIT\"\n", "did you mean `license`?");
    refused("[[source]]\npath = \"in\"\n[split]\nheldout = 2\n", "`split.heldout` is 2");
    refused("[[source]]\npath = \"in\"\n[decontaminate]\nagainst = \"gone\"\n", "`gone` finds no file");
}

#[test]
fn a_corpus_is_not_written_over_something_else_nor_over_its_sources() {
    let kitchen = Kitchen::stocked();
    kitchen.write("mine/letter.txt", "dear");
    assert!(kitchen.try_build("mine").unwrap_err().to_string().contains("is not empty and no corpus"));
    assert_eq!(fs::read(kitchen.path("mine/letter.txt")).unwrap(), b"dear");
    let record = kitchen.build("out");
    fs::remove_dir_all(kitchen.path("out/.steps")).unwrap();
    assert_eq!(kitchen.build("out"), record, "finished work may be deleted");
    kitchen.write("law.toml", "[[source]]\npath = \"out\"\n");
    assert!(kitchen.try_build("out").unwrap_err().to_string().contains("write elsewhere"));
}
