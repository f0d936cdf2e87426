//! Devices by name: this machine's processor, or a GPU where the build has it.

use burn::{
    backend::DispatchDevice,
    tensor::{Device, Tensor},
};
use std::time::Instant;

/// Where tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This machine's processor, with the fused bodies.
    Cpu,
    /// A GPU by Vulkan, Metal or DirectX, with the plain bodies; in builds with the feature `wgpu`.
    Wgpu,
}

/// A device cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("device = \"wgpu\" cannot be used: {0}")]
pub struct DeviceError(String);

impl Place {
    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Wgpu => cfg!(feature = "wgpu"),
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
        }
    }
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, DeviceError> {
    use std::sync::{Mutex, PoisonError};
    // It may be opened once in a process.
    static OPEN: Mutex<Option<Device>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = &*open {
        return Ok(device.clone());
    }
    let device = Device::wgpu_options().init().map_err(|e| DeviceError(e.to_string()))?;
    Ok(open.insert(device).clone())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device, DeviceError> {
    Err(DeviceError("this program was built without the feature wgpu".into()))
}

/// Whether the fused bodies can run there.
pub(super) fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// Floating-point operations per second of the device's own matrix product, measured.
pub fn product_rate(device: &Device) -> f64 {
    let device = device.clone().without_autodiff();
    let mut best = 0.0f64;
    for n in [512usize, 1024, 2048, 4096, 8192] {
        let x = Tensor::<2>::ones([n, n], &device);
        let run = || {
            let start = Instant::now();
            // Reading a number waits for the device.
            let read = x.clone().matmul(x.clone()).slice([0..1, 0..1]).try_into_data();
            read.ok().map(|_| start.elapsed().as_secs_f64())
        };
        // The first one compiles. A device need not have room for all sizes.
        let (Some(_), Some(one), Some(two)) = (run(), run(), run()) else { break };
        let seconds = one.min(two);
        best = best.max(2.0 * (n as f64).powi(3) / seconds);
        if seconds > 0.2 {
            break;
        }
    }
    // Where nothing could be measured, shares of it are large, and numbers still.
    best.max(1.0)
}
