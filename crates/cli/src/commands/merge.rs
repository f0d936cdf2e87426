//! `blackletter merge`

use super::{derived, export::Form, model};
use crate::{failure::Failure, output};
use blackletter_model::{
    Adapter, Checkpoint,
    surgery::{copy_companions, merge},
};
use blackletter_provenance::Lineage;
use serde_json::Value;
use std::path::PathBuf;

/// Put a low-rank adapter into a model's weights
///
/// Writes a plain model directory that gives the same logits as the model with its adapter. The model's record, if it has one,
/// goes on with the adapter's hash and, for an adapter that was trained here, the data that it learned from.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter merge --model models/base --adapter runs/agreements/adapter --out models/agreements"
)]
pub struct Args {
    /// The directory of the adapter's model; or owner/name[@revision], from the Hugging Face Hub.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The adapter's directory, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The form of the weights.
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = Form::F32)]
    dtype: Form,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let dir = model::directory(&self.model)?;
        let adapter = Adapter::read(&self.adapter)?;
        let lineage = Lineage::of(&[&dir], Some(&self.adapter))?;
        merge(Checkpoint::open(&dir)?, &adapter, self.dtype.into(), &self.out)?;
        copy_companions(&dir, &self.out)?;
        derived::record(lineage, "merge", Value::Null, "With a low-rank adapter in its weights.", &self.out)?;
        output::print(format!("{}\n", self.out.display()))
    }
}
