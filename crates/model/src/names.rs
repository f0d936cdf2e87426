//! The names of Mixtral's tensors, as `transformers` spells them on disk, and their shapes.

use crate::MixtralConfig;

/// The token embedding `[vocab, hidden]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The last normalisation `[hidden]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// The output head `[vocab, hidden]`; absent when it is tied to the embedding.
pub const HEAD: &str = "lm_head.weight";
/// What is appended to a matrix's name for its quantised numbers.
pub const QUANTS: &str = ".quants";
/// What is appended to a matrix's name for the scales of its blocks.
pub const SCALES: &str = ".scales";

/// The tensors of one decoder layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer(pub usize);

impl Layer {
    fn name(self, part: &str) -> String {
        format!("model.layers.{}.{part}.weight", self.0)
    }
    /// Normalisation before attention `[hidden]`.
    pub fn attention_norm(self) -> String {
        self.name("input_layernorm")
    }
    /// Normalisation before the experts `[hidden]`.
    pub fn expert_norm(self) -> String {
        self.name("post_attention_layernorm")
    }
    /// Queries `[heads · head_dim, hidden]`.
    pub fn query(self) -> String {
        self.name("self_attn.q_proj")
    }
    /// Keys `[kv_heads · head_dim, hidden]`.
    pub fn key(self) -> String {
        self.name("self_attn.k_proj")
    }
    /// Values `[kv_heads · head_dim, hidden]`.
    pub fn value(self) -> String {
        self.name("self_attn.v_proj")
    }
    /// Attention output `[hidden, heads · head_dim]`.
    pub fn output(self) -> String {
        self.name("self_attn.o_proj")
    }
    /// Router `[experts, hidden]`.
    pub fn router(self) -> String {
        self.name("block_sparse_moe.gate")
    }
    /// An expert's gate projection `[intermediate, hidden]`.
    pub fn w1(self, expert: usize) -> String {
        self.name(&format!("block_sparse_moe.experts.{expert}.w1"))
    }
    /// An expert's down projection `[hidden, intermediate]`.
    pub fn w2(self, expert: usize) -> String {
        self.name(&format!("block_sparse_moe.experts.{expert}.w2"))
    }
    /// An expert's up projection `[intermediate, hidden]`.
    pub fn w3(self, expert: usize) -> String {
        self.name(&format!("block_sparse_moe.experts.{expert}.w3"))
    }
}

/// A tensor that a configuration calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it may be stored in quantised blocks.
    pub quantisable: bool,
}

/// Every tensor of a checkpoint of this configuration, in the order of the computation.
pub fn expected(config: &MixtralConfig) -> Vec<Expected> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], quantisable| {
        all.push(Expected { name, shape: shape.to_vec(), quantisable });
    };
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    add(EMBEDDING.into(), &[config.vocab_size, hidden], false);
    for layer in (0..config.num_hidden_layers).map(Layer) {
        add(layer.attention_norm(), &[hidden], false);
        add(layer.query(), &[q, hidden], true);
        add(layer.key(), &[kv, hidden], true);
        add(layer.value(), &[kv, hidden], true);
        add(layer.output(), &[hidden, q], true);
        add(layer.expert_norm(), &[hidden], false);
        add(layer.router(), &[config.num_local_experts, hidden], false);
        for e in 0..config.num_local_experts {
            add(layer.w1(e), &[intermediate, hidden], true);
            add(layer.w2(e), &[hidden, intermediate], true);
            add(layer.w3(e), &[intermediate, hidden], true);
        }
    }
    add(FINAL_NORM.into(), &[hidden], false);
    if !config.tie_word_embeddings {
        add(HEAD.into(), &[config.vocab_size, hidden], true);
    }
    all
}
