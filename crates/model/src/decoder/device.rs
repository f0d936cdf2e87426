//! Devices by name: this machine's processor, or a GPU where the build has it.

use burn::{
    backend::DispatchDevice,
    tensor::{Device, Distribution, Tensor},
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Instant};

/// Where tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// This machine's processor, with the fused bodies.
    Cpu,
    /// A GPU by Vulkan, Metal or DirectX, with the plain bodies; in builds with the feature `wgpu`.
    Wgpu,
    /// An NVIDIA card by CUDA, with the plain bodies; in builds with the feature `cuda`.
    Cuda,
}

/// A device cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("device = \"{place}\" cannot be used: {why}")]
pub struct DeviceError {
    place: Place,
    why: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        })
    }
}

impl Place {
    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }

    /// Opens it; again gives the same one.
    ///
    /// # Errors
    /// When the build lacks it, or the machine has none.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Wgpu => wgpu(),
            Self::Cuda => cuda(),
        }
        .map_err(|why| DeviceError { place: self, why })
    }
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, String> {
    use std::sync::{Mutex, PoisonError};
    // It may be opened once in a process.
    static OPEN: Mutex<Option<Device>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = &*open {
        return Ok(device.clone());
    }
    let device = Device::wgpu_options().init().map_err(|e| e.to_string())?;
    Ok(open.insert(device).clone())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device, String> {
    Err("this program was built without the feature wgpu".into())
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Device, String> {
    use burn::tensor::DeviceType;
    // Kernels are compiled as they are first used, where a toolkit that is not there would be met by a panic.
    let toolkit =
        std::env::var_os("CUDA_PATH").map_or_else(|| "/usr/local/cuda".into(), std::path::PathBuf::from);
    if !cfg!(windows) && !toolkit.join("include/cuda_runtime.h").exists() {
        return Err(format!(
            "the CUDA toolkit is not at {}: install it (NVRTC and the headers are used), or say in CUDA_PATH where it is",
            toolkit.display()
        ));
    }
    let cards = Device::enumerate(DeviceType::Cuda).into_vec();
    cards
        .into_iter()
        .next()
        .ok_or_else(|| "no NVIDIA card is seen: is the driver installed (nvidia-smi)?".into())
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device, String> {
    Err("this program was built without the feature cuda".into())
}

/// Whether the fused bodies can run there.
pub(super) fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// Floating-point operations per second of a product of two matrices of f32, as Burn makes it on a GPU: what a share of its rate is
/// a share of. Where the card has tensor cores, CUDA multiplies with them, in TF32.
///
/// Each product needs the one before it, and the last one is read, so that none is left out of the time.
pub fn product_rate(device: &Device) -> Option<f64> {
    const SIZE: usize = 4096;
    let device = device.clone().without_autodiff();
    let random = || Tensor::<2>::random([SIZE, SIZE], Distribution::Uniform(-0.02, 0.02), &device);
    let (mut product, factor) = (random(), random());
    let mut run = |times: usize| {
        let start = Instant::now();
        for _ in 0..times {
            product = product.clone().matmul(factor.clone());
        }
        let corner = product.clone().slice([0..1, 0..1]).try_into_scalar::<f32>().ok()?;
        corner.is_finite().then(|| start.elapsed().as_secs_f64())
    };
    run(2)?;
    let few = run(2)?;
    // Where two take so long (Vulkan in software, say), nobody waits for more.
    if few > 1.0 {
        return Some(2.0 * 2.0 * (SIZE as f64).powi(3) / few);
    }
    // What reading costs is in both.
    let seconds = (run(10)? - few) / 8.0;
    (seconds > 0.0).then(|| 2.0 * (SIZE as f64).powi(3) / seconds)
}
