//! What a corpus was made from, and the right to use it.
//!
//! In flow what each document states about its licence and the hashes of its content; out flow the decision whether it may be
//! used ([`Gate`]) and the record of a corpus ([`Provenance`], written as `provenance.json`), which names every source,
//! licence and file and carries one hash over all documents ([`hash::Root`]). [`croissant()`] writes the same record in the
//! form that dataset catalogues read. A model has a record of its own ([`ModelRecord`]), which leads from its weights to the
//! documents, and goes on ([`Lineage`]) in models that are made from it; [`sign`] and [`verify`] put a name behind it, and
//! [`bom`] tells the same in the forms that others read.

mod base;
pub mod bom;
mod croissant;
mod derivation;
mod gate;
pub mod hash;
mod license;
mod model_record;
mod record;
mod signature;

pub use base::BaseModel;
pub use croissant::croissant;
pub use derivation::{Carried, Derivation, DerivedFrom, InputKind, Lineage, Made, folder_name};
pub use gate::{DEFAULT_ALLOW, Gate, GateError, Refusal, Right};
pub use license::{License, LicenseError, PUBLIC_DOMAIN_BASES};
pub use model_record::{
    CorpusUse, DOCUMENTS_FILE, DocumentList, HeldOut, MODEL_RECORD_VERSION, ModelFile, ModelIdentity,
    ModelRecord, ModelRecordError, RecordKind, SampleText, SourceUse, SupervisedUse, Training,
    UNRECORDED_FILES, model_files,
};
pub use record::{
    Accepted, Dataset, Evaluation, FILE_NAME, Generator, InputFile, Part, Provenance, RecordError, Refused,
    Shard, SourceRecord, VERSION,
};
pub use signature::{SIGNATURE_FILE, SignatureError, Verified, sign, verify};
