//! Where the limits of the filter rules lie among texts: a Markdown table of each measure's quantiles, the limit, and how many
//! texts break it. `docs/corpus-rules.md` is made of it.
//!
//! ```text
//! cargo run --release -p blackletter-corpus --example fit_rules -- CORPUS…
//! ```

use blackletter_corpus::{
    rules::{NAMES, Rules, measure},
    texts::Texts,
};
use rayon::prelude::*;
use std::{collections::BTreeMap, error::Error, path::PathBuf};

const SHARES: [f64; 7] = [0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999];

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let texts: Vec<_> = Texts::open(&paths)?.collect::<Result<_, _>>()?;
    let measured: Vec<[f64; NAMES.len()]> = texts.par_iter().map(|text| measure(&text.text)).collect();
    let rules = Rules::default();
    let mut broken: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (dataset, failures) in
        texts.par_iter().map(|text| (text.dataset.as_str(), rules.check(&text.text))).collect::<Vec<_>>()
    {
        for failure in failures {
            *broken.entry(failure.rule).or_default().entry(dataset).or_default() += 1;
        }
    }
    let limits = serde_json::to_value(&rules)?;
    println!("{} texts.\n", texts.len());
    println!("| rule | 0.1 % | 1 % | 5 % | 50 % | 95 % | 99 % | 99.9 % | limit | break it |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|---|");
    for (at, rule) in NAMES.iter().enumerate() {
        let mut values: Vec<f64> = measured.iter().map(|row| row[at]).collect();
        values.sort_by(f64::total_cmp);
        let quantile = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        let quantiles: String = SHARES.map(|share| format!(" {:.3} |", quantile(share))).concat();
        let by_dataset =
            broken.get(rule).into_iter().flatten().map(|(dataset, count)| format!("{dataset} {count}"));
        let by_dataset = by_dataset.collect::<Vec<_>>().join(", ");
        println!("| `{rule}` |{quantiles} {} | {by_dataset} |", limits[rule]);
    }
    Ok(())
}
