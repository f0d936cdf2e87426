//! The forward pass: prompts in chunks, generated tokens in steps.

use crate::{
    cache::{PageTable, Pages},
    engine::{Engine, EngineError},
    weights::{Expert, LayerWeights, Weight},
};
use blackletter_kernels::{
    Buffer, GemmScratch, GemvInput, Matrix, Routing, add_scaled, decode_attention, gemm, gemm_swiglu, gemv,
    gemv_swiglu, gemv_weighted_sum, prefill_attention, rms_norm, rope, route,
};

/// Prompt tokens that go through the layers together: enough to make packing weights cheap, few enough to
/// keep the activations in cache.
const CHUNK: usize = 512;

/// Prompt positions whose logits are made at a time.
const LOGIT_ROWS: usize = 64;

/// A text in progress: how far it is, and its part of the KV cache. Made and given back by a [`Runner`].
pub struct Sequence {
    table: PageTable,
    len: usize,
}

impl Sequence {
    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Runs an [`Engine`]: its own buffers and KV cache, so that an engine can serve several.
pub struct Runner<'e> {
    engine: &'e Engine,
    pages: Pages,
    prompt: PromptBuffers,
    step: StepBuffers,
    routing: Routing,
    attention: Buffer,
    /// `[rows, vocab]` of the last call.
    logits: Vec<f32>,
    /// Experts, summed over layers, that the last step went to.
    active_experts: usize,
}

#[derive(Default)]
struct PromptBuffers {
    /// The residual stream `[tokens, hidden]`.
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    /// Rows of one expert, and what it makes of them.
    rows: Vec<f32>,
    inner: Vec<f32>,
    out: Vec<f32>,
    scratch: GemmScratch,
}

struct StepBuffers {
    x: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    positions: Vec<usize>,
    /// Inputs of width `hidden`, of attention's output, and of `intermediate`.
    hidden: GemvInput,
    attended: GemvInput,
    inner: GemvInput,
}

impl<'e> Runner<'e> {
    /// Buffers for an engine; they grow with use.
    pub fn new(engine: &'e Engine) -> Self {
        let c = &engine.config;
        let (quantised, arithmetic) = (engine.weights.any_quantised(), engine.arithmetic);
        let step = StepBuffers {
            x: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            positions: Vec::new(),
            hidden: GemvInput::new(1, c.hidden_size, quantised, arithmetic),
            attended: GemvInput::new(1, c.num_attention_heads * c.head_dim, quantised, arithmetic),
            inner: GemvInput::new(c.num_experts_per_tok, c.intermediate_size, quantised, arithmetic),
        };
        Self {
            engine,
            pages: Pages::new(engine.attention_shape(), c.num_hidden_layers),
            prompt: PromptBuffers::default(),
            step,
            routing: Routing::default(),
            attention: Buffer::default(),
            logits: Vec::new(),
            active_experts: 0,
        }
    }

    /// The engine that is run.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// A sequence without tokens.
    pub fn start(&self) -> Sequence {
        Sequence { table: PageTable::default(), len: 0 }
    }

    /// A second sequence that goes on from the same tokens; what they have in common is stored once.
    pub fn fork(&mut self, sequence: &Sequence) -> Sequence {
        Sequence { table: self.pages.share(&sequence.table), len: sequence.len }
    }

    /// Gives a sequence's pages back.
    pub fn finish(&mut self, sequence: Sequence) {
        self.pages.release(sequence.table);
    }

    /// KV-cache pages of 32 positions that sequences hold.
    pub fn pages_in_use(&self) -> usize {
        self.pages.used()
    }

    /// Bytes of weights that the last [`Self::decode`] read: every expert that any sequence went to counts once.
    pub fn last_step_bytes(&self) -> u64 {
        let weights = &self.engine.weights;
        let layers = weights.layers.len().max(1) as u64;
        weights.bytes_per_token(0) + weights.expert_bytes() * self.active_experts as u64 / layers
    }

    /// The logits `[vocab]` of row `row` of the last call: [`Self::prefill`] makes one row, [`Self::decode`] one a
    /// sequence. They may be changed in place.
    ///
    /// # Panics
    /// When the last call made no such row.
    pub fn logits_mut(&mut self, row: usize) -> &mut [f32] {
        let vocab = self.engine.config.vocab_size;
        &mut self.logits[row * vocab..(row + 1) * vocab]
    }

    /// Runs prompt tokens and makes the logits of what follows the last.
    ///
    /// # Errors
    /// When an id is out of range, there are none, or they do not fit the context.
    pub fn prefill(&mut self, sequence: &mut Sequence, ids: &[u32]) -> Result<(), EngineError> {
        if ids.is_empty() {
            return Err(EngineError::Empty(
                "the prompt has no tokens: a model needs at least one to go on from",
            ));
        }
        let hidden = self.engine.config.hidden_size;
        self.prompt_chunks(sequence, ids, |runner, _, _, last| {
            if !last {
                return Ok(());
            }
            // What is sampled from always comes from the step kernels, whatever made the hidden state.
            let x = &runner.prompt.x[runner.prompt.x.len() - hidden..];
            let epsilon = runner.epsilon();
            runner.step.hidden.resize(1);
            let normed = runner.step.hidden.row_mut(0);
            rms_norm(runner.engine.isa, x, &runner.engine.weights.final_norm, epsilon, normed);
            runner.head(1)
        })
    }

    /// Runs a part of a prompt that is not its last, without logits.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn prefill_part(&mut self, sequence: &mut Sequence, ids: &[u32]) -> Result<(), EngineError> {
        self.prompt_chunks(sequence, ids, |_, _, _, _| Ok(()))
    }

    /// Runs prompt tokens and hands `(index, logits)` of every one of them to `each`, in order.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn prefill_all(
        &mut self,
        sequence: &mut Sequence,
        ids: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let (hidden, vocab) = (self.engine.config.hidden_size, self.engine.config.vocab_size);
        self.prompt_chunks(sequence, ids, |runner, first, tokens, _| {
            let head = runner.engine.weights.head().matrix()?;
            let epsilon = runner.epsilon();
            for start in (0..tokens).step_by(LOGIT_ROWS) {
                let rows = (tokens - start).min(LOGIT_ROWS);
                runner.logits.resize(LOGIT_ROWS.max(1) * vocab, 0.0);
                let p = &mut runner.prompt;
                for row in 0..rows {
                    let x = &p.x[(start + row) * hidden..(start + row + 1) * hidden];
                    let out = &mut p.normed[row * hidden..(row + 1) * hidden];
                    rms_norm(runner.engine.isa, x, &runner.engine.weights.final_norm, epsilon, out);
                }
                let (pool, isa) = (&runner.engine.pool, runner.engine.isa);
                let (x, y) = (&p.normed[..rows * hidden], &mut runner.logits[..rows * vocab]);
                gemm(pool, isa, runner.engine.arithmetic, x, rows, &head, y, false, &mut p.scratch);
                for (row, logits) in y.chunks_exact(vocab).enumerate() {
                    each(first + start + row, logits);
                }
            }
            Ok(())
        })
    }

    /// Runs chunks of a prompt through the layers; calls `then(runner, first index, tokens, is last)` after each.
    fn prompt_chunks(
        &mut self,
        sequence: &mut Sequence,
        ids: &[u32],
        mut then: impl FnMut(&mut Self, usize, usize, bool) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.engine.check_ids(ids)?;
        self.check_room(sequence.len + ids.len())?;
        let mut done = 0;
        while done < ids.len() {
            // Chunks end where pages do, so that a page's queries stay together.
            let end = ((sequence.len + CHUNK) / 32 * 32 - sequence.len).min(ids.len() - done);
            let chunk = &ids[done..done + end];
            self.prompt_chunk(sequence, chunk)?;
            let last = done + chunk.len() == ids.len();
            then(self, done, chunk.len(), last)?;
            done += chunk.len();
        }
        Ok(())
    }

    fn check_room(&self, len: usize) -> Result<(), EngineError> {
        let context = self.engine.config.max_position_embeddings;
        if len > context { Err(EngineError::ContextFull { position: len - 1, context }) } else { Ok(()) }
    }

    fn epsilon(&self) -> f32 {
        self.engine.config.rms_norm_eps as f32
    }

    fn prompt_chunk(&mut self, sequence: &mut Sequence, ids: &[u32]) -> Result<(), EngineError> {
        let engine = self.engine;
        let c = &engine.config;
        let (tokens, hidden) = (ids.len(), c.hidden_size);
        let (q_width, kv_width) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let p = &mut self.prompt;
        p.x.resize(tokens * hidden, 0.0);
        p.normed.resize((tokens * hidden).max(LOGIT_ROWS * hidden), 0.0);
        p.q.resize(tokens * q_width, 0.0);
        p.k.resize(tokens * kv_width, 0.0);
        p.v.resize(tokens * kv_width, 0.0);
        p.attended.resize(tokens * q_width, 0.0);
        let embedding = engine.weights.embedding.matrix()?;
        for (&id, x) in ids.iter().zip(p.x.chunks_exact_mut(hidden)) {
            embedding.row_to_f32(id as usize, x);
        }
        for position in sequence.len..sequence.len + tokens {
            self.pages.prepare(&mut sequence.table, position);
        }
        for (layer, weights) in engine.weights.layers.iter().enumerate() {
            self.prompt_attention(sequence, layer, weights, tokens)?;
            self.prompt_experts(weights, tokens)?;
        }
        sequence.len += tokens;
        self.pages.release_hidden(&mut sequence.table, sequence.len);
        Ok(())
    }

    fn prompt_attention(
        &mut self,
        sequence: &Sequence,
        layer: usize,
        weights: &LayerWeights,
        tokens: usize,
    ) -> Result<(), EngineError> {
        let (engine, hidden, epsilon) = (self.engine, self.engine.config.hidden_size, self.epsilon());
        let (pool, isa, arithmetic) = (&engine.pool, engine.isa, engine.arithmetic);
        let p = &mut self.prompt;
        let normed = &mut p.normed[..tokens * hidden];
        for (x, out) in p.x.chunks_exact(hidden).zip(normed.chunks_exact_mut(hidden)) {
            rms_norm(isa, x, &weights.attention_norm, epsilon, out);
        }
        for (weight, out) in weights.qkv.iter().zip([&mut p.q, &mut p.k, &mut p.v]) {
            gemm(pool, isa, arithmetic, normed, tokens, &weight.matrix()?, out, false, &mut p.scratch);
        }
        let (q_width, kv_width) = (p.q.len() / tokens, p.k.len() / tokens);
        for t in 0..tokens {
            let position = sequence.len + t;
            rope(&engine.weights.rope, position, &mut p.q[t * q_width..(t + 1) * q_width]);
            let (key, value) =
                (&mut p.k[t * kv_width..(t + 1) * kv_width], &p.v[t * kv_width..(t + 1) * kv_width]);
            rope(&engine.weights.rope, position, key);
            self.pages.write(&sequence.table, layer, position, key, value);
        }
        let pages = &self.pages;
        let page = |index| pages.page(&sequence.table, layer, index);
        let (shape, out) = (pages.shape(), &mut p.attended);
        prefill_attention(pool, isa, shape, &p.q, sequence.len, page, out, &mut self.attention);
        let output = weights.output.matrix()?;
        gemm(pool, isa, arithmetic, &p.attended, tokens, &output, &mut p.x, true, &mut p.scratch);
        Ok(())
    }

    fn prompt_experts(&mut self, weights: &LayerWeights, tokens: usize) -> Result<(), EngineError> {
        let (engine, epsilon) = (self.engine, self.epsilon());
        let (hidden, intermediate) = (engine.config.hidden_size, engine.config.intermediate_size);
        let (pool, isa, arithmetic) = (&engine.pool, engine.isa, engine.arithmetic);
        let p = &mut self.prompt;
        let normed = &mut p.normed[..tokens * hidden];
        for (x, out) in p.x.chunks_exact(hidden).zip(normed.chunks_exact_mut(hidden)) {
            rms_norm(isa, x, &weights.expert_norm, epsilon, out);
        }
        route(isa, normed, &weights.router, hidden, engine.config.num_experts_per_tok, &mut self.routing);
        for (e, expert) in weights.experts.iter().enumerate() {
            let rows = self.routing.rows_of(e);
            if rows.is_empty() {
                continue;
            }
            p.rows.clear();
            for &(token, _) in rows {
                p.rows.extend_from_slice(&normed[token * hidden..(token + 1) * hidden]);
            }
            p.inner.resize(rows.len() * intermediate, 0.0);
            p.out.resize(rows.len() * hidden, 0.0);
            let [w1, w2, w3] = expert.matrices()?;
            gemm_swiglu(pool, isa, arithmetic, &p.rows, rows.len(), &w1, &w3, &mut p.inner, &mut p.scratch);
            gemm(pool, isa, arithmetic, &p.inner, rows.len(), &w2, &mut p.out, false, &mut p.scratch);
            for (&(token, weight), out) in rows.iter().zip(p.out.chunks_exact(hidden)) {
                add_scaled(out, weight, &mut p.x[token * hidden..(token + 1) * hidden]);
            }
        }
        Ok(())
    }

    /// Runs one generated token for each sequence and makes the logits of what follows: row `i` is `sequences[i]`'s.
    ///
    /// # Errors
    /// When an id is out of range or a sequence is at the end of the context.
    pub fn decode(&mut self, sequences: &mut [&mut Sequence], ids: &[u32]) -> Result<(), EngineError> {
        let engine = self.engine;
        let (c, batch) = (&engine.config, sequences.len());
        assert_eq!(batch, ids.len());
        engine.check_ids(ids)?;
        for sequence in sequences.iter() {
            self.check_room(sequence.len + 1)?;
        }
        if batch == 0 {
            return Ok(());
        }
        let hidden = c.hidden_size;
        let s = &mut self.step;
        s.x.resize(batch * hidden, 0.0);
        s.q.resize(batch * c.num_attention_heads * c.head_dim, 0.0);
        s.k.resize(batch * c.num_key_value_heads * c.head_dim, 0.0);
        s.v.resize(batch * c.num_key_value_heads * c.head_dim, 0.0);
        s.positions.clear();
        s.positions.extend(sequences.iter().map(|sequence| sequence.len));
        s.hidden.resize(batch);
        s.attended.resize(batch);
        s.inner.resize(batch * c.num_experts_per_tok);
        self.routing.reserve(batch, c.num_local_experts, c.num_experts_per_tok);
        self.active_experts = 0;
        let embedding = engine.weights.embedding.matrix()?;
        for (&id, x) in ids.iter().zip(s.x.chunks_exact_mut(hidden)) {
            embedding.row_to_f32(id as usize, x);
        }
        for sequence in sequences.iter_mut() {
            self.pages.prepare(&mut sequence.table, sequence.len);
        }
        for (layer, weights) in engine.weights.layers.iter().enumerate() {
            self.step_attention(sequences, layer, weights)?;
            self.step_experts(weights)?;
        }
        for sequence in sequences.iter_mut() {
            sequence.len += 1;
            self.pages.release_hidden(&mut sequence.table, sequence.len);
        }
        let epsilon = self.epsilon();
        let s = &mut self.step;
        for (row, x) in s.x.chunks_exact(hidden).enumerate() {
            rms_norm(engine.isa, x, &engine.weights.final_norm, epsilon, s.hidden.row_mut(row));
        }
        self.head(batch)
    }

    /// Logits of the `rows` rows in the step's input buffer.
    fn head(&mut self, rows: usize) -> Result<(), EngineError> {
        let engine = self.engine;
        let vocab = engine.config.vocab_size;
        self.logits.resize(rows * vocab, 0.0);
        let input = &mut self.step.hidden;
        input.finish(&engine.pool, engine.isa);
        let head = engine.weights.head().matrix()?;
        gemv(&engine.pool, engine.isa, &[head], input, &mut [&mut self.logits]);
        Ok(())
    }

    fn step_attention(
        &mut self,
        sequences: &[&mut Sequence],
        layer: usize,
        weights: &LayerWeights,
    ) -> Result<(), EngineError> {
        let (engine, hidden, epsilon) = (self.engine, self.engine.config.hidden_size, self.epsilon());
        let (pool, isa) = (&engine.pool, engine.isa);
        let s = &mut self.step;
        for (row, x) in s.x.chunks_exact(hidden).enumerate() {
            rms_norm(isa, x, &weights.attention_norm, epsilon, s.hidden.row_mut(row));
        }
        s.hidden.finish(pool, isa);
        let [q, k, v] = &weights.qkv;
        let qkv = [q.matrix()?, k.matrix()?, v.matrix()?];
        gemv(pool, isa, &qkv, &s.hidden, &mut [&mut s.q, &mut s.k, &mut s.v]);
        let (batch, q_width, kv_width) =
            (sequences.len(), s.q.len() / sequences.len(), s.k.len() / sequences.len());
        for (i, sequence) in sequences.iter().enumerate() {
            rope(&engine.weights.rope, sequence.len, &mut s.q[i * q_width..(i + 1) * q_width]);
            let (key, value) =
                (&mut s.k[i * kv_width..(i + 1) * kv_width], &s.v[i * kv_width..(i + 1) * kv_width]);
            rope(&engine.weights.rope, sequence.len, key);
            self.pages.write(&sequence.table, layer, sequence.len, key, value);
        }
        let pages = &self.pages;
        let page = |i: usize, index| pages.page(&sequences[i].table, layer, index);
        let out = s.attended.rows_mut();
        decode_attention(pool, isa, pages.shape(), &s.q, &s.positions, page, out, &mut self.attention);
        s.attended.finish(pool, isa);
        // Queries are done with; their buffer takes the projection where it is wide enough.
        s.q.resize(batch * q_width.max(hidden), 0.0);
        let projected = &mut s.q[..batch * hidden];
        gemv(pool, isa, &[weights.output.matrix()?], &s.attended, &mut [projected]);
        add_scaled(projected, 1.0, &mut s.x);
        s.q.resize(batch * q_width, 0.0);
        Ok(())
    }

    fn step_experts(&mut self, weights: &LayerWeights) -> Result<(), EngineError> {
        let (engine, hidden, epsilon) = (self.engine, self.engine.config.hidden_size, self.epsilon());
        let (pool, isa) = (&engine.pool, engine.isa);
        let s = &mut self.step;
        for (row, x) in s.x.chunks_exact(hidden).enumerate() {
            rms_norm(isa, x, &weights.expert_norm, epsilon, s.hidden.row_mut(row));
        }
        s.hidden.finish(pool, isa);
        let top_k = engine.config.num_experts_per_tok;
        route(isa, s.hidden.rows_mut(), &weights.router, hidden, top_k, &mut self.routing);
        self.active_experts +=
            (0..self.routing.experts()).filter(|&e| !self.routing.rows_of(e).is_empty()).count();
        let experts = &weights.experts;
        let first = |e: usize| (experts[e].w1.checked(), experts[e].w3.checked());
        gemv_swiglu(pool, isa, first, &self.routing, &s.hidden, s.inner.rows_mut());
        s.inner.finish(pool, isa);
        gemv_weighted_sum(pool, isa, |e| experts[e].w2.checked(), &self.routing, &s.inner, &mut s.x);
        Ok(())
    }
}

impl Expert {
    fn matrices(&self) -> Result<[Matrix<'_>; 3], EngineError> {
        Ok([self.w1.matrix()?, self.w2.matrix()?, self.w3.matrix()?])
    }
}

impl Weight {
    /// [`Weight::matrix`] of a weight that [`crate::Weights`] has checked at load.
    fn checked(&self) -> Matrix<'_> {
        match self.matrix() {
            Ok(matrix) => matrix,
            Err(_) => unreachable!("every matrix is checked when the model is loaded"),
        }
    }
}
