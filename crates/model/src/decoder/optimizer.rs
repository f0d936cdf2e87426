//! What the optimiser needs of gradients and parameters: sums, and one step of AdamW in place.

use super::{
    cpu::Cpu,
    device::is_cpu,
    network::floats,
    profile::{Block, Direction, timed},
};
use blackletter_kernels::train::{
    self, AdamW, Compute, Muon, MuonScratch, Product, ProductScratch, adamw_step, muon_step,
};
use burn::{
    backend::{Flex, TensorMetadata},
    tensor::{DType, Tensor, TensorData},
};
use std::sync::{Mutex, PoisonError};

/// AdamW (Loshchilov and Hutter 2019): the new parameter, mean and mean square. On the CPU all are updated in one pass, in
/// place where nobody else holds them.
///
/// All tensors have one shape and record no gradients.
pub fn adamw(
    options: &AdamW,
    parameter: Tensor<2>,
    gradient: Tensor<2>,
    mean: Tensor<2>,
    square: Tensor<2>,
) -> [Tensor<2>; 3] {
    let on_cpu = |tensor: &Tensor<2>| tensor.clone().try_into_primitive::<Flex>().is_ok();
    if [&parameter, &gradient, &mean, &square].into_iter().all(on_cpu)
        && let (Ok(p), Ok(g), Ok(m), Ok(v)) = (
            parameter.clone().try_into_primitive::<Flex>(),
            gradient.clone().try_into_primitive::<Flex>(),
            mean.clone().try_into_primitive::<Flex>(),
            square.clone().try_into_primitive::<Flex>(),
        )
    {
        drop((parameter, gradient, mean, square));
        // Not a second reference to the same memory: it goes back to the shelf.
        let [g, mut p, mut m, mut v] =
            [g, p, m, v].map(|t| if t.is_contiguous() { t } else { t.to_contiguous() });
        debug_assert_eq!(p.shape(), g.shape());
        {
            let cpu = &mut *Cpu::lock();
            let gradient = g.as_slice::<f32>().unwrap_or_default();
            let (p, m, v) = (p.storage_mut::<f32>(), m.storage_mut::<f32>(), v.storage_mut::<f32>());
            timed(Block::Optimiser, Direction::Forward, || {
                adamw_step(&cpu.pool, cpu.isa, options, gradient, p, m, v);
            });
            cpu.shelf.give_tensor(g);
        }
        return [p, m, v].map(Tensor::from_primitive::<Flex>);
    }
    let AdamW { rate, beta1, beta2, epsilon, decay, gradient_scale, step } = *options;
    let correction = |beta: f32| 1.0 / (1.0 - f64::from(beta).powi(step.max(1) as i32));
    let gradient = gradient.mul_scalar(gradient_scale);
    let mean = mean.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
    let square = square.mul_scalar(beta2) + (gradient.clone() * gradient).mul_scalar(1.0 - beta2);
    let denominator = square.clone().mul_scalar(correction(beta2)).sqrt().add_scalar(epsilon);
    let step = mean.clone().mul_scalar(f64::from(rate) * correction(beta1)) / denominator;
    let parameter = parameter.mul_scalar(1.0 - rate * decay) - step;
    [parameter, mean, square]
}

/// `Σ x²` in double precision; on the CPU the same bits for any number of threads.
pub fn sum_of_squares(tensor: &Tensor<2>) -> f64 {
    if let Ok(tensor) = tensor.clone().try_into_primitive::<Flex>() {
        let tensor = tensor.to_contiguous();
        return train::sum_of_squares(&Cpu::lock().pool, tensor.as_slice::<f32>().unwrap_or_default());
    }
    let sum = (tensor.clone() * tensor.clone()).sum();
    floats(sum).first().copied().map_or(f64::NAN, f64::from)
}

/// `sum + more`; on the CPU in the memory of `sum` where nobody else holds it.
///
/// Both tensors have one shape and record no gradients.
pub fn add_gradients(sum: Tensor<2>, more: Tensor<2>) -> Tensor<2> {
    let on_cpu = |tensor: &Tensor<2>| tensor.clone().try_into_primitive::<Flex>().is_ok();
    if on_cpu(&sum)
        && on_cpu(&more)
        && let (Ok(s), Ok(m)) =
            (sum.clone().try_into_primitive::<Flex>(), more.clone().try_into_primitive::<Flex>())
    {
        drop((sum, more));
        let [mut s, m] = [s, m].map(|t| if t.is_contiguous() { t } else { t.to_contiguous() });
        debug_assert_eq!(s.shape(), m.shape());
        let cpu = &mut *Cpu::lock();
        train::add_to(&cpu.pool, m.as_slice::<f32>().unwrap_or_default(), s.storage_mut::<f32>());
        cpu.shelf.give_tensor(m);
        return Tensor::from_primitive::<Flex>(s);
    }
    sum + more
}

/// One step of Muon (Jordan et al. 2024) on `count` matrices that lie one below the other: the new parameter and momentum.
///
/// `compute` is for the products of the Newton–Schulz iteration, which bf16 is enough for.
/// On the CPU in place for tensors that nobody else holds; elsewhere in f32, whatever `compute`. All have one shape and record no
/// gradients.
pub fn muon(
    options: &Muon,
    count: usize,
    compute: Compute,
    parameter: Tensor<2>,
    gradient: Tensor<2>,
    momentum: Tensor<2>,
) -> [Tensor<2>; 2] {
    static SCRATCH: Mutex<Option<(ProductScratch, MuonScratch)>> = Mutex::new(None);
    if !is_cpu(&parameter.device()) {
        return plain_muon(options, count, parameter, gradient, momentum);
    }
    let (shape, device) = (parameter.dims(), parameter.device());
    let [mut p, mut g, mut m] = [parameter, gradient, momentum].map(into_floats);
    {
        let cpu = &mut *Cpu::lock();
        let on = Product { pool: &cpu.pool, isa: cpu.isa, compute };
        let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
        let (products, buffers) = scratch.get_or_insert_default();
        let one = [shape[0] / count.max(1), shape[1]];
        timed(Block::Optimiser, Direction::Forward, || {
            muon_step(&on, options, one, &mut g, &mut p, &mut m, products, buffers);
        });
        cpu.shelf.give(g);
    }
    [p, m].map(|values| Tensor::from_data(TensorData::new(values, shape), &device))
}

/// [`muon`] as plain tensor operations: the matrices are a batch.
fn plain_muon(options: &Muon, count: usize, p: Tensor<2>, g: Tensor<2>, m: Tensor<2>) -> [Tensor<2>; 2] {
    let Muon { rate, momentum, decay, gradient_scale } = *options;
    let [all, cols] = p.dims();
    let count = count.max(1);
    let rows = all / count;
    let g = g.mul_scalar(gradient_scale);
    let m = m.mul_scalar(momentum) + g.clone().mul_scalar(1.0 - momentum);
    let ahead = m.clone().mul_scalar(momentum) + g.mul_scalar(1.0 - momentum);
    let mut x: Tensor<3> = ahead.reshape([count, rows, cols]);
    // A matrix of zeros stays one.
    let norm = (x.clone() * x.clone()).sum_dim(2).sum_dim(1).sqrt().clamp_min(1e-30);
    x = x / norm;
    let [a, b, c] = train::MUON_COEFFICIENTS;
    for _ in 0..train::MUON_ITERATIONS {
        let transposed = x.clone().swap_dims(1, 2);
        // The Gram matrix is of the shorter side.
        let next = if rows <= cols {
            let gram = x.clone().matmul(transposed);
            (gram.clone().mul_scalar(b) + gram.clone().matmul(gram).mul_scalar(c)).matmul(x.clone())
        } else {
            let gram = transposed.matmul(x.clone());
            x.clone().matmul(gram.clone().mul_scalar(b) + gram.clone().matmul(gram).mul_scalar(c))
        };
        x = x.mul_scalar(a) + next;
    }
    let step = rate * 0.2 * (rows.max(cols) as f32).sqrt();
    [p.mul_scalar(1.0 - rate * decay) - x.reshape([all, cols]).mul_scalar(step), m]
}

/// A tensor's numbers, without a copy when nobody else holds them.
fn into_floats(tensor: Tensor<2>) -> Vec<f32> {
    let data = tensor.into_data();
    match data.dtype() {
        DType::F32 => data.try_into_vec().unwrap_or_default(),
        _ => data.iter::<f32>().collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn plain_muon_takes_the_steps_of_the_kernels() {
        let device = Device::flex();
        // Wide, tall, and three matrices one below the other; one of them without a gradient.
        for (count, rows, cols) in [(1, 6, 10), (1, 10, 6), (3, 8, 5)] {
            let make = |seed: usize| {
                let value = |i: usize| ((i * 37 + seed * 101 + i * i * 7) % 97) as f32 / 97.0 - 0.5;
                let values =
                    (0..count * rows * cols).map(|i| if i / (rows * cols) == 2 { 0.0 } else { value(i) });
                Tensor::<2>::from_data(
                    TensorData::new(values.collect::<Vec<f32>>(), [count * rows, cols]),
                    &device,
                )
            };
            let options = Muon { rate: 0.02, momentum: 0.9, decay: 0.1, gradient_scale: 0.7 };
            let kernels = muon(&options, count, Compute::F32, make(1), make(2), make(3));
            let plain = plain_muon(&options, count, make(1), make(2), make(3));
            for (a, b) in kernels.into_iter().zip(plain) {
                let (a, b) = (into_floats(a), into_floats(b));
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{count} {rows} {cols}");
            }
        }
    }
}
