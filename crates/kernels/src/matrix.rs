//! A weight matrix in the form in which it is stored.

use crate::{
    pool::{Pool, SharedMut},
    quant::{BLOCK, GROUP},
};

/// How the numbers of a weight matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats, row-major.
    F32,
    /// IEEE half floats, row-major.
    F16,
    /// bfloat16, row-major.
    Bf16,
    /// 8-bit blocks of 32 with an f16 scale, 16 rows interleaved (see [`crate::quant`]).
    Q8,
    /// 4-bit blocks of 32 with an f16 scale, 16 rows interleaved (see [`crate::quant`]).
    Q4,
}

impl Format {
    /// Whether the numbers are integers with a scale per block.
    pub fn is_quantised(self) -> bool {
        matches!(self, Self::Q8 | Self::Q4)
    }

    /// Bytes of data and bytes of scales of a `[rows, cols]` matrix.
    pub fn byte_lengths(self, rows: usize, cols: usize) -> (usize, usize) {
        let blocks = rows.div_ceil(GROUP) * cols.div_ceil(BLOCK);
        match self {
            Self::F32 => (rows * cols * 4, 0),
            Self::F16 | Self::Bf16 => (rows * cols * 2, 0),
            Self::Q8 => (blocks * GROUP * BLOCK, blocks * GROUP * 2),
            Self::Q4 => (blocks * GROUP * BLOCK / 2, blocks * GROUP * 2),
        }
    }
}

/// The bytes do not make a matrix of that shape.
#[derive(Debug, thiserror::Error)]
#[error("a {format:?} matrix [{rows}, {cols}] takes {expected:?} bytes (data, scales), found {found:?}")]
pub struct MatrixError {
    format: Format,
    rows: usize,
    cols: usize,
    expected: (usize, usize),
    found: (usize, usize),
}

/// A borrowed `[rows, cols]` weight matrix; `y = W x` has `rows` outputs.
///
/// The bytes are little-endian and need no alignment, as in a memory-mapped file.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    data: &'a [u8],
    scales: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// A matrix over stored bytes; `scales` is empty unless the format is quantised.
    ///
    /// # Errors
    /// When the lengths are not those of the shape.
    pub fn new(
        format: Format,
        rows: usize,
        cols: usize,
        data: &'a [u8],
        scales: &'a [u8],
    ) -> Result<Self, MatrixError> {
        let expected = format.byte_lengths(rows, cols);
        let found = (data.len(), scales.len());
        if expected != found {
            return Err(MatrixError { format, rows, cols, expected, found });
        }
        Ok(Self { format, rows, cols, data, scales })
    }

    /// How the numbers are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.scales.len()
    }

    pub(crate) fn parts(&self) -> (&'a [u8], &'a [u8]) {
        (self.data, self.scales)
    }

    pub(crate) fn data(&self) -> *const u8 {
        self.data.as_ptr()
    }

    pub(crate) fn scales(&self) -> *const u8 {
        self.scales.as_ptr()
    }

    /// Bytes of one number in a float format.
    pub(crate) fn element_bytes(&self) -> usize {
        if self.format == Format::F32 { 4 } else { 2 }
    }

    /// Copies row `row` into `out` as `f32`.
    ///
    /// # Panics
    /// When `row` is not a row, `out` is not `cols` long, or the format is quantised.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols && !self.format.is_quantised());
        let size = self.element_bytes();
        let bytes = &self.data[row * self.cols * size..(row + 1) * self.cols * size];
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(size)) {
            *out = match self.format {
                Format::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                Format::F16 => half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                _ => half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            };
        }
    }
}

/// Rounds a float matrix to bf16, row-major, into `out` (two bytes a number).
///
/// # Panics
/// When the matrix is quantised or `out` has another length.
pub fn to_bf16(pool: &Pool, matrix: &Matrix<'_>, out: &mut [u8]) {
    let cols = matrix.cols();
    assert!(!matrix.format().is_quantised() && out.len() == matrix.rows() * cols * 2);
    let out = SharedMut::new(out);
    pool.for_ranges(matrix.rows(), 16, |_, range| {
        let mut row = vec![0.0f32; cols];
        for r in range {
            matrix.row_to_f32(r, &mut row);
            // SAFETY: each row has its own bytes.
            let out = unsafe { out.slice(r * cols * 2, cols * 2) };
            for (out, &x) in out.as_chunks_mut().0.iter_mut().zip(&row) {
                *out = half::bf16::from_f32(x).to_le_bytes();
            }
        }
    });
}
