//! Loads and runs any Hugging Face tokenizer.json; trains the kl3m-001 recipe
