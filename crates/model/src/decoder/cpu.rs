//! The bodies of [`DecoderOps`] on the CPU, forward and backward, on the kernels.
//!
//! Each operation is a [`Fused`]: a forward pass that returns what its backward pass needs, and a backward pass that
//! returns the gradients of all inputs. One step of Burn's graph carries any of them ([`record`]).

use super::{
    blocks::{AttentionBlock, ExpertBlock, HeadBlock},
    ops::DecoderOps,
    profile::{Block, Direction, count, timed},
    shelf::Shelf,
};
use blackletter_kernels::{
    Isa, Pool, keep_freed_memory,
    train::{
        AttentionBlockScratch, AttentionGradients, AttentionPlace, AttentionSaved, AttentionWeights, Compute,
        ExpertGradients, ExpertSaved, ExpertScratch, ExpertWeights, HeadScratch, Product, ProductScratch,
        add_rows_of, attention_block_backward, attention_block_forward, copy, experts_backward,
        experts_forward, fill, gather_rows, head_loss, rms_norm_backward, rms_norm_rows, router_backward,
        router_forward,
    },
};
use burn::{
    backend::{
        Autodiff, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        tensor::FloatTensor,
    },
    tensor::TensorData,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(super) type Primitive = FloatTensor<Flex>;
type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

/// How many threads were asked for; 0 is one per core.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads the fused bodies use, the calling one included. It takes effect before the first operation only;
/// results do not depend on it.
pub fn use_threads(threads: usize) {
    THREADS.store(threads, Ordering::Relaxed);
}

/// Threads and buffers, which all operations of the process share.
pub(super) struct Cpu {
    pub(super) pool: Pool,
    pub(super) isa: Isa,
    pub(super) products: ProductScratch,
    attention: AttentionBlockScratch,
    experts: ExpertScratch,
    head: HeadScratch,
    pub(super) shelf: Shelf,
    /// What backward passes have used up.
    attended: Vec<AttentionSaved>,
    projections: Vec<ExpertSaved>,
}

impl Cpu {
    pub(super) fn lock() -> MutexGuard<'static, Self> {
        static CPU: OnceLock<Mutex<Cpu>> = OnceLock::new();
        let cpu = CPU.get_or_init(|| {
            let threads = match THREADS.load(Ordering::Relaxed) {
                0 => thread::available_parallelism().map_or(1, usize::from),
                asked => asked,
            };
            keep_freed_memory();
            Mutex::new(Cpu {
                pool: Pool::new(threads),
                // A bad name in the environment is refused where the program starts.
                isa: Isa::from_env().unwrap_or_else(|_| Isa::best()),
                products: ProductScratch::default(),
                attention: AttentionBlockScratch::default(),
                experts: ExpertScratch::default(),
                head: HeadScratch::default(),
                shelf: Shelf::default(),
                attended: Vec::new(),
                projections: Vec::new(),
            })
        });
        // Buffers hold nothing between operations that a panic could have left half done.
        cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of `x` in memory of an earlier step.
    fn copy(&mut self, x: &[f32]) -> Vec<f32> {
        let mut out = self.shelf.take(x.len());
        copy(&self.pool, x, &mut out);
        out
    }
}

/// An operation with `N` inputs whose gradient is derived by hand.
trait Fused<const N: usize>: fmt::Debug + Clone + Send + Sync + 'static {
    type Saved: Clone + Send + Sync + 'static;
    /// What its time is counted as.
    const BLOCK: Block;

    /// The output, and what the backward pass needs when it is `tracked`.
    fn forward(
        &self,
        inputs: [&[f32]; N],
        shapes: [[usize; 2]; N],
        tracked: bool,
    ) -> (TensorData, Self::Saved);

    /// The gradients of the inputs, from that of the output.
    fn backward(&self, inputs: [&[f32]; N], saved: Self::Saved, dout: &[f32]) -> [Vec<f32>; N];
}

/// The numbers of a tensor, in order.
fn contiguous(tensor: &Primitive) -> Primitive {
    tensor.to_contiguous()
}

fn numbers(tensor: &Primitive) -> &[f32] {
    // Made contiguous before; an `f32` tensor by the decoder's contract.
    tensor.as_slice::<f32>().unwrap_or_default()
}

fn shape2(tensor: &Primitive) -> [usize; 2] {
    let shape = tensor.shape();
    let dims = shape.as_slice();
    match dims {
        [rows, cols] => [*rows, *cols],
        other => [1, other.iter().product()],
    }
}

/// Runs a part of an operation, and counts its time and its products.
fn measured<const N: usize, F: Fused<N>, R>(direction: Direction, part: impl FnOnce() -> R) -> R {
    let out = timed(F::BLOCK, direction, part);
    count(F::BLOCK, direction, Cpu::lock().products.take_operations());
    out
}

/// Runs an operation outside of any graph.
fn run<const N: usize, F: Fused<N>>(op: &F, inputs: [Primitive; N]) -> Primitive {
    let inputs = inputs.each_ref().map(contiguous);
    let shapes = inputs.each_ref().map(shape2);
    let forward = || op.forward(inputs.each_ref().map(numbers), shapes, false).0;
    Primitive::from_data(measured::<N, F, _>(Direction::Forward, forward))
}

/// The step of the graph.
#[derive(Debug)]
struct Step<F>(F);

struct State<F: Fused<N>, const N: usize> {
    inputs: [Primitive; N],
    saved: Arc<F::Saved>,
}

impl<F: Fused<N>, const N: usize> Clone for State<F, N> {
    fn clone(&self) -> Self {
        Self { inputs: self.inputs.clone(), saved: Arc::clone(&self.saved) }
    }
}

impl<F: Fused<N>, const N: usize> fmt::Debug for State<F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl<F: Fused<N>, const N: usize> Backward<Flex, N> for Step<F> {
    type State = State<F, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = contiguous(&grads.consume::<Flex>(&ops.node));
        let State { inputs, saved } = ops.state;
        // Nobody else holds it, unless a graph was cloned.
        let saved = Arc::try_unwrap(saved).unwrap_or_else(|shared| F::Saved::clone(&shared));
        let backward = || self.0.backward(inputs.each_ref().map(numbers), saved, numbers(&dout));
        let gradients = measured::<N, F, _>(Direction::Backward, backward);
        Cpu::lock().shelf.give_tensor(dout);
        for ((parent, gradient), input) in ops.parents.into_iter().zip(gradients).zip(inputs) {
            if let Some(node) = parent {
                let gradient = Primitive::from_data(TensorData::new(gradient, input.shape()));
                grads.register::<Flex>(node.id, gradient);
            } else {
                Cpu::lock().shelf.give(gradient);
            }
            Cpu::lock().shelf.give_tensor(input);
        }
    }
}

/// Runs an operation and records its step.
fn record<const N: usize, F: Fused<N>, C: CheckpointStrategy>(op: F, inputs: [Tracked<C>; N]) -> Tracked<C> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.each_ref().map(|input| contiguous(input.primitive()));
    let shapes = inputs.each_ref().map(shape2);
    let prepared = Step(op.clone()).prepare::<C>(nodes).compute_bound().stateful();
    let tracked = matches!(prepared, OpsKind::Tracked(_));
    let forward = || op.forward(inputs.each_ref().map(numbers), shapes, tracked);
    let (out, saved) = measured::<N, F, _>(Direction::Forward, forward);
    let out = Primitive::from_data(out);
    match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(State { inputs, saved: Arc::new(saved) }, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    }
}

#[derive(Clone, Debug)]
struct Embed {
    ids: Arc<[u32]>,
    padding: Option<u32>,
}

impl Fused<1> for Embed {
    type Saved = usize;
    const BLOCK: Block = Block::Embedding;

    fn forward(&self, [table]: [&[f32]; 1], [[_, hidden]]: [[usize; 2]; 1], _: bool) -> (TensorData, usize) {
        let cpu = &mut *Cpu::lock();
        let mut out = cpu.shelf.take(self.ids.len() * hidden);
        gather_rows(&cpu.pool, table, hidden, &self.ids, &mut out);
        (TensorData::new(out, [self.ids.len(), hidden]), hidden)
    }

    fn backward(&self, [table]: [&[f32]; 1], hidden: usize, dout: &[f32]) -> [Vec<f32>; 1] {
        let cpu = &mut *Cpu::lock();
        let mut dtable = cpu.shelf.take(table.len());
        fill(&cpu.pool, &mut dtable, 0.0);
        add_rows_of(&cpu.pool, dout, hidden, &self.ids, self.padding, &mut dtable);
        [dtable]
    }
}

#[derive(Clone, Debug)]
struct Norm {
    epsilon: f32,
}

impl Fused<2> for Norm {
    type Saved = ();
    const BLOCK: Block = Block::Norm;

    fn forward(&self, [x, weight]: [&[f32]; 2], shapes: [[usize; 2]; 2], _: bool) -> (TensorData, ()) {
        let cpu = &mut *Cpu::lock();
        let mut out = cpu.shelf.take(x.len());
        rms_norm_rows(&cpu.pool, cpu.isa, x, weight, self.epsilon, &mut out);
        (TensorData::new(out, shapes[0]), ())
    }

    fn backward(&self, [x, weight]: [&[f32]; 2], (): (), dout: &[f32]) -> [Vec<f32>; 2] {
        let cpu = &mut *Cpu::lock();
        let [mut dx, mut dweight] = [x, weight].map(|input| cpu.shelf.take(input.len()));
        rms_norm_backward(&cpu.pool, cpu.isa, x, weight, self.epsilon, dout, None, &mut dx, &mut dweight);
        [dx, dweight]
    }
}

#[derive(Clone, Debug)]
struct Router {
    epsilon: f32,
}

impl Fused<3> for Router {
    /// The probabilities.
    type Saved = Vec<f32>;
    const BLOCK: Block = Block::Router;

    fn forward(
        &self,
        [x, norm, gate]: [&[f32]; 3],
        [[tokens, _], _, [experts, _]]: [[usize; 2]; 3],
        tracked: bool,
    ) -> (TensorData, Vec<f32>) {
        let mut out = vec![0.0; tokens * experts];
        let cpu = &mut *Cpu::lock();
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: Compute::F32 };
        router_forward(&on, x, norm, self.epsilon, gate, &mut out);
        let saved = if tracked { out.clone() } else { Vec::new() };
        (TensorData::new(out, [tokens, experts]), saved)
    }

    fn backward(&self, [x, norm, gate]: [&[f32]; 3], saved: Vec<f32>, dout: &[f32]) -> [Vec<f32>; 3] {
        let cpu = &mut *Cpu::lock();
        let mut gradients = [x, norm, gate].map(|input| cpu.shelf.take(input.len()));
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: Compute::F32 };
        let parts = gradients.each_mut().map(Vec::as_mut_slice);
        router_backward(&on, x, norm, self.epsilon, gate, &saved, dout, parts);
        gradients
    }
}

impl AttentionBlock {
    fn place(&self) -> AttentionPlace<'_> {
        let layout = self.layout();
        AttentionPlace { shape: self.geometry, layout, rope: &self.rope, epsilon: self.epsilon }
    }

    fn attend(
        &self,
        cpu: &mut Cpu,
        x: &[f32],
        weights: &AttentionWeights<'_>,
        out: &mut [f32],
    ) -> AttentionSaved {
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: self.compute };
        let mut saved = cpu.attended.pop().unwrap_or_default();
        let (products, scratch) = (&mut cpu.products, &mut cpu.attention);
        attention_block_forward(&on, &self.place(), x, weights, out, &mut saved, products, scratch);
        saved
    }
}

impl Fused<6> for AttentionBlock {
    type Saved = Option<AttentionSaved>;
    const BLOCK: Block = Block::Attention;

    fn forward(
        &self,
        [x, norm, query, key, value, output]: [&[f32]; 6],
        shapes: [[usize; 2]; 6],
        tracked: bool,
    ) -> (TensorData, Option<AttentionSaved>) {
        let cpu = &mut *Cpu::lock();
        let mut out = cpu.shelf.take(x.len());
        let saved = self.attend(cpu, x, &AttentionWeights { norm, query, key, value, output }, &mut out);
        let out = TensorData::new(out, shapes[0]);
        if tracked && !self.recompute {
            return (out, Some(saved));
        }
        cpu.attended.push(saved);
        (out, None)
    }

    fn backward(&self, inputs: [&[f32]; 6], saved: Option<AttentionSaved>, dout: &[f32]) -> [Vec<f32>; 6] {
        let [x, norm, query, key, value, output] = inputs;
        let weights = AttentionWeights { norm, query, key, value, output };
        let cpu = &mut *Cpu::lock();
        let saved = saved.unwrap_or_else(|| {
            let mut out = cpu.shelf.take(x.len());
            let saved = self.attend(cpu, x, &weights, &mut out);
            cpu.shelf.give(out);
            saved
        });
        let mut all = inputs.map(|input| cpu.shelf.take(input.len()));
        let [dx, norm, query, key, value, output] = &mut all;
        let mut gradients = AttentionGradients { norm, query, key, value, output };
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: self.compute };
        let (products, scratch) = (&mut cpu.products, &mut cpu.attention);
        let place = self.place();
        attention_block_backward(
            &on,
            &place,
            x,
            &weights,
            &saved,
            dout,
            dx,
            &mut gradients,
            products,
            scratch,
        );
        cpu.attended.push(saved);
        all
    }
}

impl ExpertBlock {
    fn weights<'a>(&self, [norm, w1, w2, w3]: [&'a [f32]; 4]) -> ExpertWeights<'a> {
        ExpertWeights { norm, epsilon: self.epsilon, w1, w2, w3, experts: self.experts }
    }

    /// Adds the experts' results to `out`.
    fn mix(&self, cpu: &mut Cpu, x: &[f32], weights: &ExpertWeights<'_>, out: &mut [f32]) -> ExpertSaved {
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: self.compute };
        let mut saved = cpu.projections.pop().unwrap_or_default();
        let (products, scratch) = (&mut cpu.products, &mut cpu.experts);
        experts_forward(&on, x, &self.assignment, weights, out, &mut saved, products, scratch);
        saved
    }
}

impl Fused<6> for ExpertBlock {
    type Saved = Option<ExpertSaved>;
    const BLOCK: Block = Block::Experts;

    fn forward(
        &self,
        [x, _, norm, w1, w2, w3]: [&[f32]; 6],
        shapes: [[usize; 2]; 6],
        tracked: bool,
    ) -> (TensorData, Option<ExpertSaved>) {
        let cpu = &mut *Cpu::lock();
        let mut out = cpu.copy(x);
        let saved = self.mix(cpu, x, &self.weights([norm, w1, w2, w3]), &mut out);
        let out = TensorData::new(out, shapes[0]);
        if tracked && !self.recompute {
            return (out, Some(saved));
        }
        cpu.projections.push(saved);
        (out, None)
    }

    fn backward(&self, inputs: [&[f32]; 6], saved: Option<ExpertSaved>, dout: &[f32]) -> [Vec<f32>; 6] {
        let cpu = &mut *Cpu::lock();
        let [x, _, norm, w1, w2, w3] = inputs;
        let weights = self.weights([norm, w1, w2, w3]);
        let saved = saved.unwrap_or_else(|| {
            let mut out = cpu.shelf.take(x.len());
            let saved = self.mix(cpu, x, &weights, &mut out);
            cpu.shelf.give(out);
            saved
        });
        let [mut dx, mut dprobabilities, mut dnorm, mut dw1, mut dw2, mut dw3] =
            inputs.map(|input| cpu.shelf.take(input.len()));
        let mut gradients = ExpertGradients { norm: &mut dnorm, w1: &mut dw1, w2: &mut dw2, w3: &mut dw3 };
        experts_backward(
            &Product { pool: &cpu.pool, isa: cpu.isa, compute: self.compute },
            x,
            inputs[1],
            &self.assignment,
            &weights,
            &saved,
            dout,
            &mut dx,
            &mut dprobabilities,
            &mut gradients,
            &mut cpu.products,
            &mut cpu.experts,
        );
        cpu.projections.push(saved);
        [dx, dprobabilities, dnorm, dw1, dw2, dw3]
    }
}

impl Fused<2> for HeadBlock {
    /// The gradients, made with the loss: a chunk of logits exists only once.
    type Saved = Option<[Vec<f32>; 2]>;
    const BLOCK: Block = Block::Head;

    fn forward(
        &self,
        [x, weight]: [&[f32]; 2],
        [[_, hidden], _]: [[usize; 2]; 2],
        tracked: bool,
    ) -> (TensorData, Self::Saved) {
        let cpu = &mut *Cpu::lock();
        let mut saved = tracked.then(|| [x, weight].map(|input| cpu.shelf.take(input.len())));
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute: self.compute };
        let gradients = saved.as_mut().map(|saved| saved.each_mut().map(Vec::as_mut_slice));
        let (products, scratch) = (&mut cpu.products, &mut cpu.head);
        let loss =
            head_loss(&on, x, weight, hidden, &self.targets, &self.options, gradients, products, scratch);
        let parts = [loss.cross_entropy + loss.z_loss, loss.cross_entropy, loss.z_loss];
        (TensorData::new(parts.map(|x| x as f32).to_vec(), [3]), saved)
    }

    fn backward(&self, [x, weight]: [&[f32]; 2], saved: Self::Saved, dout: &[f32]) -> [Vec<f32>; 2] {
        let scale = dout.first().copied().unwrap_or(0.0);
        match saved {
            Some(mut gradients) => {
                if scale != 1.0 {
                    gradients.iter_mut().flatten().for_each(|g| *g *= scale);
                }
                gradients
            }
            None => [vec![0.0; x.len()], vec![0.0; weight.len()]],
        }
    }
}

impl DecoderOps for Flex {
    fn embed(table: Primitive, ids: Arc<[u32]>, padding: Option<u32>) -> Primitive {
        run(&Embed { ids, padding }, [table])
    }

    fn attention_block(
        x: Primitive,
        norm: Primitive,
        query: Primitive,
        key: Primitive,
        value: Primitive,
        output: Primitive,
        block: AttentionBlock,
    ) -> Primitive {
        run(&block, [x, norm, query, key, value, output])
    }

    fn router(x: Primitive, norm: Primitive, gate: Primitive, epsilon: f32) -> Primitive {
        run(&Router { epsilon }, [x, norm, gate])
    }

    fn expert_block(
        x: Primitive,
        probabilities: Primitive,
        norm: Primitive,
        w1: Primitive,
        w2: Primitive,
        w3: Primitive,
        block: ExpertBlock,
    ) -> Primitive {
        run(&block, [x, probabilities, norm, w1, w2, w3])
    }

    fn rms_norm(x: Primitive, weight: Primitive, epsilon: f32) -> Primitive {
        run(&Norm { epsilon }, [x, weight])
    }

    fn head_loss(x: Primitive, weight: Primitive, block: HeadBlock) -> Primitive {
        run(&block, [x, weight])
    }
}

impl<C: CheckpointStrategy> DecoderOps for Autodiff<Flex, C> {
    fn embed(table: Tracked<C>, ids: Arc<[u32]>, padding: Option<u32>) -> Tracked<C> {
        record::<1, _, C>(Embed { ids, padding }, [table])
    }

    fn attention_block(
        x: Tracked<C>,
        norm: Tracked<C>,
        query: Tracked<C>,
        key: Tracked<C>,
        value: Tracked<C>,
        output: Tracked<C>,
        block: AttentionBlock,
    ) -> Tracked<C> {
        record::<6, _, C>(block, [x, norm, query, key, value, output])
    }

    fn router(x: Tracked<C>, norm: Tracked<C>, gate: Tracked<C>, epsilon: f32) -> Tracked<C> {
        record::<3, _, C>(Router { epsilon }, [x, norm, gate])
    }

    fn expert_block(
        x: Tracked<C>,
        probabilities: Tracked<C>,
        norm: Tracked<C>,
        w1: Tracked<C>,
        w2: Tracked<C>,
        w3: Tracked<C>,
        block: ExpertBlock,
    ) -> Tracked<C> {
        record::<6, _, C>(block, [x, probabilities, norm, w1, w2, w3])
    }

    fn rms_norm(x: Tracked<C>, weight: Tracked<C>, epsilon: f32) -> Tracked<C> {
        record::<2, _, C>(Norm { epsilon }, [x, weight])
    }

    fn head_loss(x: Tracked<C>, weight: Tracked<C>, block: HeadBlock) -> Tracked<C> {
        record::<2, _, C>(block, [x, weight])
    }
}
