//! CPU arithmetic below the model: matrix products, attention, normalisation, rotary embedding, routing.
//!
//! In flow slices of `f32` activations (row-major, `[tokens, features]`) and weight matrices in the form in
//! which they are stored ([`Matrix`]); out flow activations. Nothing here knows what a model is.
//!
//! Notable choices:
//! - Every kernel is written once over the [`simd::Simd`] trait and compiled for AVX-512, AVX2 and a portable
//!   scalar twin; [`Isa`] picks one at run time (`BLACKLETTER_SIMD=scalar|avx2|avx512` forces it).
//! - Two families of matrix product. [`gemm()`] (prompt tokens) packs weights and shares them among many tokens;
//!   [`gemv()`] (generated tokens) streams each weight once. In both, the sum of one output element is made in an
//!   order that depends on nothing but its own row and column: not on the other rows, on how a prompt was
//!   cut into chunks, or on the number of threads. So results are the same bits, however work is batched.
//! - Quantised weights (8 and 4 bits) are stored with 16 output rows interleaved, so that a SIMD lane is an
//!   output row and no horizontal sum is needed ([`quant`]).
//! - [`Pool`] threads spin for microseconds between the parts of a step, and sleep when there is none.

mod attention;
mod buffer;
mod ceiling;
mod elementwise;
mod gemm;
mod gemv;
mod isa;
mod matrix;
mod pool;
pub mod quant;
mod router;
pub mod simd;
pub mod train;

pub use attention::{AttentionShape, PAGE, PageRef, decode_attention, prefill_attention, write_kv};
pub use buffer::{Buffer, keep_freed_memory};
pub use ceiling::{ReadCeiling, gemm_rate};
pub use elementwise::{RopeTable, add_scaled, log_softmax_at, rms_norm, rope, silu_mul, softmax};
pub use gemm::{Arithmetic, GemmScratch, gemm, gemm_swiglu};
pub use gemv::{GemvInput, gemv, gemv_swiglu, gemv_weighted_sum};
pub use isa::{Isa, IsaError};
pub use matrix::{Format, Matrix, MatrixError, to_bf16};
pub use pool::Pool;
pub use router::{Routing, route};
