//! `blackletter sign` and `blackletter verify`

use super::model;
use crate::{failure::Failure, output};
use blackletter_provenance::{SIGNATURE_FILE, sign, verify};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Sign a model with a private key
///
/// Writes a signature over every file of the directory in the form of OpenSSF Model Signing, which Python's `model_signing verify
/// key` checks, too. Make a key with: openssl ecparam -genkey -name prime256v1 -noout -out key.pem
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter sign ./nano --key key.pem")]
pub struct SignArgs {
    /// The model's directory.
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// The private key, PEM, on P-256, P-384 or P-521.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The signature's file, which lies elsewhere [default: model.sig in the directory].
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl SignArgs {
    pub fn run(self) -> Result<(), Failure> {
        let path = self.signature.unwrap_or_else(|| self.model.join(SIGNATURE_FILE));
        // Every other file of the directory is signed, so that a signature among them would break itself.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let (Ok(parent), Ok(folder)) = (parent.canonicalize(), self.model.canonicalize())
            && parent.starts_with(&folder)
            && !(parent == folder && path.file_name().is_some_and(|name| name == SIGNATURE_FILE))
        {
            return Err(Failure::usage(format!(
                "--signature {} lies in the directory that it is to sign: only {SIGNATURE_FILE} may; name a file elsewhere",
                path.display()
            )));
        }
        let bundle = sign(&self.model, &read(&self.key)?)?;
        fs::write(&path, bundle)
            .map_err(|e| Failure::failed(format!("cannot write {}: {e}", path.display())))?;
        eprintln!("wrote {}", path.display());
        Ok(())
    }
}

/// Check a model's signature with a public key
///
/// Says whether the directory is, file by file, the one that was signed with the private key that belongs to this public key;
/// names every file that differs, and then fails. Reads signatures of Python's `model_signing sign key`, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter verify ./nano --key key.pub")]
pub struct VerifyArgs {
    /// The model: a directory, or owner/name[@revision] on the Hugging Face Hub.
    #[arg(value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The public key, PEM, as `openssl ec -in key.pem -pubout` writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The signature's file [default: model.sig in the directory].
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl VerifyArgs {
    pub fn run(self) -> Result<(), Failure> {
        let folder = model::directory(&self.model)?;
        let path = self.signature.unwrap_or_else(|| folder.join(SIGNATURE_FILE));
        let verified = verify(&folder, read(&path)?.as_bytes(), &read(&self.key)?)?;
        output::print(serde_json::to_string_pretty(&verified)? + "\n")
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure::failed(format!("cannot read {}: {e}", path.display())))
}
