//! `blackletter report`

use super::model::{self, Unpacked};
use crate::failure::Failure;
use blackletter_evals::{
    card::{CardOptions, card},
    report::{Results, report},
};
use blackletter_provenance::{FILE_NAME, ModelRecord};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Put evaluations together as one page, and write a model's card
///
/// Reads the results that `blackletter eval … --out DIR` wrote, of one model or of several side by side. Writes report.html (one page
/// that needs nothing else), REPORT.md and figures, as SVG and PNG; and for a model with a provenance.json CARD.md, its card with the metadata of the
/// Hugging Face Hub: use, data by source and licence, training, evaluation, limits.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter report --model ./nano --evals evals/ --out report/")]
pub struct Args {
    /// Directories of results.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    evals: Vec<PathBuf>,
    /// The directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model that the card is of: a directory, owner/name[@revision] on the Hugging Face Hub, or nano, the model inside the
    /// program.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: Option<String>,
    /// What the card's examples call the model [default: its name in the record].
    #[arg(long, value_name = "NAME", requires = "model")]
    name: Option<String>,
    /// Markdown that stands in front of report and card.
    #[arg(long, value_name = "FILE")]
    introduction: Option<PathBuf>,
    /// Also put the card into the model's directory, as README.md. The model has to be named by its directory.
    #[arg(long, requires = "model")]
    update_card: bool,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let results = self.evals.iter().map(|dir| Results::read(dir)).collect::<Result<Vec<_>, _>>()?;
        let model = self.model.as_deref().map(model::unpacked).transpose()?;
        // A model without a record has a report all the same.
        let recorded = model.as_ref().map(Unpacked::path).filter(|folder| folder.join(FILE_NAME).is_file());
        let record = recorded.map(ModelRecord::read).transpose()?;
        let introduction = match &self.introduction {
            Some(path) => Some(super::text::read_text(path)?.trim().to_owned()),
            None => None,
        };
        let readme = match (self.update_card, &model) {
            (true, Some(model)) => Some(readme(self.model.as_deref().unwrap_or_default(), model)?),
            _ => None,
        };
        if readme.is_some() && record.is_none() {
            let why = "there is no card to put there: the model has no provenance.json";
            return Err(Failure::failed(why));
        }
        let title = record.as_ref().map_or("Evaluation", |record| record.model.name.as_str());
        let made = report(title, introduction.as_deref().unwrap_or_default(), &results)?;
        let mut files = vec![("report.html".to_owned(), made.html), ("REPORT.md".to_owned(), made.markdown)];
        let options = CardOptions { name: self.name, introduction };
        let card = record.as_ref().map(|record| card(record, &results, &options));
        files.extend(card.clone().map(|card| ("CARD.md".to_owned(), card)));
        if let Some(record) = &record {
            let others: Vec<String> = results.iter().flat_map(|result| result.not_of(record)).collect();
            if !others.is_empty() {
                let others = others.join(", ");
                eprintln!(
                    "note: not of these weights as they are, so beside the model's own results and not in the card's metadata: {others}"
                );
            }
        }
        let cannot = |path: &PathBuf, e| Failure::failed(format!("cannot write {}: {e}", path.display()));
        let figures = self.out.join("figures");
        fs::create_dir_all(&figures).map_err(|e| cannot(&figures, e))?;
        for (name, text) in files {
            let path = self.out.join(name);
            fs::write(&path, text).map_err(|e| cannot(&path, e))?;
            eprintln!("wrote {}", path.display());
        }
        for (name, figure) in made.figures {
            let path = figures.join(name);
            figure.write(&path).map_err(|e| cannot(&path, e))?;
            eprintln!("wrote {0}.svg and {0}.png", path.display());
        }
        if let (Some(path), Some(card)) = (readme, card) {
            fs::write(&path, card).map_err(|e| cannot(&path, e))?;
            eprintln!("wrote {}", path.display());
        }
        Ok(())
    }
}

/// Where the card of a model goes, which was asked for by that name. What programs share, such as the cache of the Hub, is left alone.
fn readme(name: &str, model: &Unpacked) -> Result<PathBuf, Failure> {
    let Unpacked::Directory(folder) = model else {
        return Err(Failure::failed("the model inside the program has no directory to put a card into"));
    };
    if !Path::new(name).exists() {
        return Err(Failure::usage(format!(
            "--update-card would change {name} in the cache of the Hub, which all programs share: copy the model's files to a directory and \
             name that with --model"
        )));
    }
    let path = folder.join("README.md");
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => Err(Failure::failed(format!(
            "{} is a symbolic link, and the card would be written to what it leads to: put a file in its place, or copy the model to a \
             directory of files and name that with --model",
            path.display()
        ))),
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("cannot read {}: {e}", path.display())))
        }
        _ => Ok(path),
    }
}
