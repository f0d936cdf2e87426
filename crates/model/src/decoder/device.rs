//! Devices by name: this machine's processor, or a GPU where the build has it.

use burn::{backend::DispatchDevice, tensor::Device};
use serde::{Deserialize, Serialize};

/// Where tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
