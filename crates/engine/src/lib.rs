//! Inference on a CPU: memory-mapped weights, paged KV cache, sampling, pipeline
