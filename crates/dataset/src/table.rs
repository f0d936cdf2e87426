//! Rows of tokens in Arrow IPC files: written once, then read in place from the memory map.
//!
//! Columns: `id`, `dataset`, `license`, `kind` (of an example; empty for a document), `bytes` of text, `tokens` (a list of 16
//! or 32 bit ids) and `answers` (of an example: pairs of places in `tokens`, from and up to). Any reader of Arrow opens them.

use crate::{
    error::DatasetError,
    manifest::{ShardRecord, Width},
};
use arrow_array::{
    Array, ArrayRef, LargeListArray, ListArray, RecordBatch, StringArray, UInt16Array, UInt32Array,
    UInt64Array,
    builder::{LargeListBuilder, ListBuilder, PrimitiveBuilder, StringBuilder, UInt64Builder},
    cast::AsArray,
    types::{ArrowPrimitiveType, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_buffer::Buffer;
use arrow_ipc::{
    Block, convert::try_fb_to_schema, reader::FileDecoder, reader::read_footer_length, root_as_footer,
    writer::FileWriter,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use memmap2::Mmap;
use rayon::prelude::*;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tempfile::NamedTempFile;

/// Tokens in a record batch, unless one row alone has more.
const BATCH_TOKENS: usize = 4 << 20;
/// Rows in a record batch.
const BATCH_ROWS: usize = 1 << 16;
/// Tokens in a file, unless one batch alone has more.
const SHARD_TOKENS: u64 = 64 << 20;

impl Width {
    fn item(self) -> DataType {
        match self {
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
        }
    }

    fn schema(self) -> SchemaRef {
        let item = |of: DataType| Arc::new(Field::new_list_field(of, true));
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("dataset", DataType::Utf8, false),
            Field::new("license", DataType::Utf8, false),
            Field::new("kind", DataType::Utf8, false),
            Field::new("bytes", DataType::UInt64, false),
            Field::new("tokens", DataType::LargeList(item(self.item())), false),
            Field::new("answers", DataType::List(item(DataType::UInt32)), false),
        ]))
    }
}

/// A row that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewRow<'r> {
    pub(crate) id: &'r str,
    pub(crate) dataset: &'r str,
    pub(crate) license: &'r str,
    pub(crate) kind: &'r str,
    pub(crate) bytes: u64,
    pub(crate) tokens: &'r [u32],
    pub(crate) answers: &'r [Range<usize>],
}

/// Tokens of a batch that is being filled.
enum TokensBuilder {
    U16(LargeListBuilder<PrimitiveBuilder<UInt16Type>>),
    U32(LargeListBuilder<PrimitiveBuilder<UInt32Type>>),
}

/// Writes rows into files `NAME/00000.arrow`, … of a folder.
pub(crate) struct TableWriter {
    folder: PathBuf,
    name: &'static str,
    width: Width,
    texts: [StringBuilder; 4],
    bytes: UInt64Builder,
    tokens: TokensBuilder,
    answers: ListBuilder<PrimitiveBuilder<UInt32Type>>,
    batch_rows: usize,
    batch_tokens: usize,
    current: Option<(FileWriter<HashingFile>, ShardRecord)>,
    shards: Vec<ShardRecord>,
}

/// A file that is not under its name yet, hashed as it is written.
struct HashingFile {
    file: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TableWriter {
    pub(crate) fn new(folder: &Path, name: &'static str, width: Width) -> Self {
        Self {
            folder: folder.into(),
            name,
            width,
            texts: Default::default(),
            bytes: UInt64Builder::new(),
            tokens: match width {
                Width::U16 => TokensBuilder::U16(LargeListBuilder::new(PrimitiveBuilder::new())),
                Width::U32 => TokensBuilder::U32(LargeListBuilder::new(PrimitiveBuilder::new())),
            },
            answers: ListBuilder::new(PrimitiveBuilder::new()),
            batch_rows: 0,
            batch_tokens: 0,
            current: None,
            shards: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written, or an id does not fit the width.
    pub(crate) fn write(&mut self, row: &NewRow<'_>) -> Result<(), DatasetError> {
        let damaged = |reason: String| DatasetError::damaged(&self.folder.join(self.name), reason);
        match &mut self.tokens {
            TokensBuilder::U32(tokens) => {
                tokens.values().append_slice(row.tokens);
                tokens.append(true);
            }
            TokensBuilder::U16(tokens) => {
                for &id in row.tokens {
                    let id = u16::try_from(id)
                        .map_err(|_| damaged(format!("token {id} of {} exceeds 16 bits", row.id)))?;
                    tokens.values().append_value(id);
                }
                tokens.append(true);
            }
        }
        for (builder, text) in self.texts.iter_mut().zip([row.id, row.dataset, row.license, row.kind]) {
            builder.append_value(text);
        }
        self.bytes.append_value(row.bytes);
        for place in row.answers.iter().flat_map(|answer| [answer.start, answer.end]) {
            self.answers.values().append_value(place as u32);
        }
        self.answers.append(true);
        self.batch_rows += 1;
        self.batch_tokens += row.tokens.len();
        if self.batch_tokens >= BATCH_TOKENS || self.batch_rows >= BATCH_ROWS {
            self.end_batch()?;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), DatasetError> {
        if self.batch_rows == 0 {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> =
            self.texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
        columns.push(Arc::new(self.bytes.finish()));
        columns.push(match &mut self.tokens {
            TokensBuilder::U16(tokens) => Arc::new(tokens.finish()),
            TokensBuilder::U32(tokens) => Arc::new(tokens.finish()),
        });
        columns.push(Arc::new(self.answers.finish()));
        let path = format!("{}/{:05}.arrow", self.name, self.shards.len());
        let failed = |e: ArrowError| DatasetError::File {
            action: "write",
            path: self.folder.join(&path),
            source: match e {
                ArrowError::IoError(_, source) => source,
                other => io::Error::other(other),
            },
        };
        let batch = RecordBatch::try_new(self.width.schema(), columns).map_err(failed)?;
        let (writer, record) = match &mut self.current {
            Some(current) => current,
            None => {
                let parent = self.folder.join(self.name);
                fs::create_dir_all(&parent).map_err(DatasetError::file("make", &parent))?;
                let file = tempfile::Builder::new().prefix(".writing-").tempfile_in(&parent);
                let file = file.map_err(DatasetError::file("write in", &parent))?;
                let file = HashingFile {
                    file: BufWriter::with_capacity(1 << 18, file),
                    hasher: blake3::Hasher::new(),
                    bytes: 0,
                };
                let writer = FileWriter::try_new(file, &self.width.schema()).map_err(failed)?;
                let record =
                    ShardRecord { path: path.clone(), rows: 0, tokens: 0, bytes: 0, blake3: String::new() };
                self.current.insert((writer, record))
            }
        };
        writer.write(&batch).map_err(failed)?;
        record.rows += self.batch_rows as u64;
        record.tokens += self.batch_tokens as u64;
        (self.batch_rows, self.batch_tokens) = (0, 0);
        if record.tokens >= SHARD_TOKENS {
            self.end_shard()?;
        }
        Ok(())
    }

    fn end_shard(&mut self) -> Result<(), DatasetError> {
        let Some((writer, mut record)) = self.current.take() else { return Ok(()) };
        let path = self.folder.join(&record.path);
        let failed = |source: io::Error| DatasetError::File { action: "write", path: path.clone(), source };
        let mut writer = writer;
        writer.finish().map_err(|e| failed(io::Error::other(e)))?;
        let HashingFile { file, hasher, bytes } =
            writer.into_inner().map_err(|e| failed(io::Error::other(e)))?;
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        make_readable(file.as_file()).map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        record.bytes = bytes;
        record.blake3 = hasher.finalize().to_hex().to_string();
        self.shards.push(record);
        Ok(())
    }

    /// Ends the last file; all are on disk under their names.
    pub(crate) fn finish(mut self) -> Result<Vec<ShardRecord>, DatasetError> {
        self.end_batch()?;
        self.end_shard()?;
        Ok(self.shards)
    }
}

/// Temporary files are for their owner's eyes; what stays is for all whom the folder lets in.
pub(crate) fn make_readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Token ids in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens<'t> {
    /// 16 bits each.
    U16(&'t [u16]),
    /// 32 bits each.
    U32(&'t [u32]),
}

impl Tokens<'_> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::U16(ids) => ids.len(),
            Self::U32(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The id at a place.
    pub fn get(self, place: usize) -> Option<u32> {
        match self {
            Self::U16(ids) => ids.get(place).map(|&id| id.into()),
            Self::U32(ids) => ids.get(place).copied(),
        }
    }

    /// Appends those in `range`, cut to what there is.
    pub fn extend(self, range: Range<usize>, to: &mut Vec<u32>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        match self {
            Self::U16(ids) => to.extend(ids.get(range).unwrap_or_default().iter().map(|&id| u32::from(id))),
            Self::U32(ids) => to.extend_from_slice(ids.get(range).unwrap_or_default()),
        }
    }

    /// All of them.
    pub fn to_vec(self) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.len());
        self.extend(0..self.len(), &mut ids);
        ids
    }
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'t> {
    /// Name of the document; of the document that an example is from, or nothing.
    pub id: &'t str,
    /// Kind of the example; nothing for a document.
    pub kind: &'t str,
    /// Number of its dataset.
    pub dataset: u16,
    /// Number of its licence.
    pub license: u16,
    /// Bytes of text.
    pub bytes: u64,
    /// Its tokens: of a document without `<|start|>` and `<|end|>`, of an example with all that it has.
    pub tokens: Tokens<'t>,
    /// Of an example: pairs of places in `tokens`, from and up to, where answers stand.
    pub answers: &'t [u32],
}

/// A record batch with its columns found and their types checked.
struct Batch {
    ids: StringArray,
    kinds: StringArray,
    bytes: UInt64Array,
    tokens: LargeListArray,
    values: Values,
    answers: ListArray,
    places: UInt32Array,
}

enum Values {
    U16(UInt16Array),
    U32(UInt32Array),
}

/// The rows of some files, read in place. Memory: 4 bytes a row, and what the system keeps of the files.
pub struct Table {
    batches: Vec<Batch>,
    /// Number of the first row of each batch, and of the row after the last.
    starts: Vec<usize>,
    datasets: Vec<u16>,
    licenses: Vec<u16>,
}

/// Names to numbers.
pub(crate) type Numbers<'n> = HashMap<&'n str, u16>;

impl Table {
    /// Maps the files of `records` in `folder`.
    pub(crate) fn open(
        folder: &Path,
        records: &[ShardRecord],
        width: Width,
        datasets: &Numbers<'_>,
        licenses: &Numbers<'_>,
    ) -> Result<Self, DatasetError> {
        let mut table =
            Self { batches: Vec::new(), starts: vec![0], datasets: Vec::new(), licenses: Vec::new() };
        let read = |record: &ShardRecord| {
            let path = folder.join(&record.path);
            if Path::new(&record.path).components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(DatasetError::damaged(&path, "its path leads out of the store"));
            }
            let batches = catch_unwind(AssertUnwindSafe(|| read_batches(&path, record)));
            batches.unwrap_or_else(|_| Err(DatasetError::damaged(&path, "its parts contradict each other")))
        };
        let all: Vec<Vec<RecordBatch>> = records.par_iter().map(read).collect::<Result<_, _>>()?;
        for (record, batches) in records.iter().zip(all) {
            let path = folder.join(&record.path);
            let (mut rows, mut tokens) = (0, 0);
            for batch in batches {
                rows += batch.num_rows() as u64;
                tokens += table
                    .add(&batch, width, datasets, licenses)
                    .map_err(|e| DatasetError::damaged(&path, e))?;
            }
            if (rows, tokens) != (record.rows, record.tokens) {
                let reason = format!(
                    "it has {rows} rows and {tokens} tokens where the manifest says {} and {}",
                    record.rows, record.tokens
                );
                return Err(DatasetError::damaged(&path, reason));
            }
        }
        if table.len() > u32::MAX as usize {
            let limit = u64::from(u32::MAX);
            return Err(DatasetError::TooMany { what: "documents", found: table.len() as u64, limit });
        }
        Ok(table)
    }

    fn add(
        &mut self,
        batch: &RecordBatch,
        width: Width,
        datasets: &Numbers<'_>,
        licenses: &Numbers<'_>,
    ) -> Result<u64, String> {
        if batch.schema().fields() != width.schema().fields() {
            return Err(format!("its columns are {}", batch.schema()));
        }
        if let Some(column) = batch.columns().iter().position(|column| column.null_count() > 0) {
            return Err(format!("column {column} has rows without a value"));
        }
        let text = |column: usize| batch.column(column).as_string::<i32>().clone();
        let number = |names: &StringArray, numbers: &Numbers<'_>, to: &mut Vec<u16>| {
            for name in names.iter().flatten() {
                to.push(*numbers.get(name).ok_or_else(|| format!("the manifest does not name {name:?}"))?);
            }
            Ok::<_, String>(())
        };
        number(&text(1), datasets, &mut self.datasets)?;
        number(&text(2), licenses, &mut self.licenses)?;
        fn values<T: ArrowPrimitiveType>(list: &dyn Array) -> Result<arrow_array::PrimitiveArray<T>, String> {
            let values = list.as_primitive_opt::<T>().ok_or("its lists hold something else")?;
            if values.null_count() > 0 { Err("a list has gaps".into()) } else { Ok(values.clone()) }
        }
        let tokens = batch.column(5).as_list::<i64>().clone();
        let answers = batch.column(6).as_list::<i32>().clone();
        let batch = Batch {
            ids: text(0),
            kinds: text(3),
            bytes: batch.column(4).as_primitive::<UInt64Type>().clone(),
            values: match width {
                Width::U16 => Values::U16(values::<UInt16Type>(tokens.values())?),
                Width::U32 => Values::U32(values::<UInt32Type>(tokens.values())?),
            },
            places: values::<UInt32Type>(answers.values())?,
            tokens,
            answers,
        };
        let offsets = batch.tokens.value_offsets();
        let count = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as u64);
        self.starts.push(self.len() + batch.ids.len());
        self.batches.push(batch);
        Ok(count)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of this number.
    pub fn get(&self, number: usize) -> Option<Entry<'_>> {
        let at = self.starts.partition_point(|&start| start <= number).checked_sub(1)?;
        let (batch, row) = (self.batches.get(at)?, number - self.starts.get(at)?);
        let span = offsets(batch.tokens.value_offsets(), row)?;
        let places = offsets(batch.answers.value_offsets(), row)?;
        Some(Entry {
            id: batch.ids.value(row),
            kind: batch.kinds.value(row),
            dataset: *self.datasets.get(number)?,
            license: *self.licenses.get(number)?,
            bytes: batch.bytes.value(row),
            tokens: match &batch.values {
                Values::U16(values) => Tokens::U16(values.values().get(span)?),
                Values::U32(values) => Tokens::U32(values.values().get(span)?),
            },
            answers: batch.places.values().get(places)?,
        })
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).filter_map(|number| self.get(number))
    }
}

fn offsets<O: Copy + TryInto<usize>>(offsets: &[O], row: usize) -> Option<Range<usize>> {
    let at = |place: usize| offsets.get(place).and_then(|&offset| offset.try_into().ok());
    Some(at(row)?..at(row + 1)?)
}

/// The batches of a file; their columns lie in its memory map.
fn read_batches(path: &Path, record: &ShardRecord) -> Result<Vec<RecordBatch>, DatasetError> {
    let file = File::open(path).map_err(DatasetError::file("read", path))?;
    let bytes = file.metadata().map_err(DatasetError::file("read", path))?.len();
    if bytes != record.bytes {
        let reason = format!("it has {bytes} bytes where the manifest says {}", record.bytes);
        return Err(DatasetError::damaged(path, reason));
    }
    let buffer = map(&file).map_err(DatasetError::file("map", path))?;
    // Some gigabytes a second: what follows then only meets what was written.
    if blake3::hash(&buffer).to_hex().as_str() != record.blake3 {
        return Err(DatasetError::damaged(path, "its bytes are not those that the manifest names"));
    }
    let damaged = |e: ArrowError| DatasetError::damaged(path, e);
    let wrong = |reason: &str| DatasetError::damaged(path, reason);
    let size = buffer.len();
    let trailer = size.checked_sub(10).ok_or_else(|| wrong("it is cut off"))?;
    let mut end = [0; 10];
    end.copy_from_slice(
        buffer.get(trailer..).filter(|end| end.len() == 10).ok_or_else(|| wrong("it is cut off"))?,
    );
    let footer = read_footer_length(end).map_err(damaged)?;
    let footer = trailer.checked_sub(footer).and_then(|from| buffer.get(from..trailer));
    let footer = root_as_footer(footer.ok_or_else(|| wrong("its footer is cut off"))?);
    let footer = footer.map_err(|e| wrong(&format!("its footer cannot be read: {e}")))?;
    let schema = footer.schema().ok_or_else(|| wrong("it has no schema"))?;
    let decoder = FileDecoder::new(Arc::new(try_fb_to_schema(schema).map_err(damaged)?), footer.version())
        .with_require_alignment(true);
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let range = range(block).filter(|range| range.end <= size);
        let range = range.ok_or_else(|| wrong("a batch lies outside the file"))?;
        let data = buffer.slice_with_length(range.start, range.len());
        batches.extend(decoder.read_record_batch(block, &data).map_err(damaged)?);
    }
    Ok(batches)
}

fn range(block: &Block) -> Option<Range<usize>> {
    let from = usize::try_from(block.offset()).ok()?;
    let body = usize::try_from(block.bodyLength()).ok()?;
    let head = usize::try_from(block.metaDataLength()).ok()?;
    Some(from..from.checked_add(body)?.checked_add(head)?)
}

/// A file as a buffer that lives as long as anything of it is used.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Buffer> {
    // SAFETY: stores are written under temporary names and renamed when whole; nothing here changes one in place. Whoever
    // shortens a file while it is in use must expect what any memory map does then.
    let map = unsafe { Mmap::map(file)? };
    Ok(Buffer::from(bytes::Bytes::from_owner(map)))
}
