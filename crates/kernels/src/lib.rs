//! CPU arithmetic for transformer models: SIMD with run-time dispatch, scalar twins
