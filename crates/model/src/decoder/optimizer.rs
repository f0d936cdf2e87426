//! What the optimiser needs of gradients and parameters: sums, and one step of AdamW in place.

use super::{
    cpu::Cpu,
    network::floats,
    profile::{Block, Direction, timed},
};
use blackletter_kernels::train::{
    self, AdamW, Compute, Muon, MuonScratch, Product, ProductScratch, adamw_step, muon_step,
};
use burn::{
    backend::{Flex, TensorMetadata},
    tensor::{Tensor, TensorData},
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
/// Computed on the CPU, in place for tensors that are there and that nobody else holds. All have one shape and record no
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

/// A tensor's numbers, without a copy when nobody else holds them.
fn into_floats(tensor: Tensor<2>) -> Vec<f32> {
    let data = tensor.into_data();
    let count = data.num_elements();
    data.try_into_vec::<f32>().unwrap_or_else(|_| vec![0.0; count])
}
