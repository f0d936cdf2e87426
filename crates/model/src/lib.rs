//! Mixtral configuration and Hugging Face weights, in and out
