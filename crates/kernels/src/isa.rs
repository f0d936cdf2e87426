//! Which instruction set the kernels use, chosen once at run time.

use std::{env, fmt, sync::OnceLock};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable Rust that compilers vectorise for the build target; the oracle of the other two.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and DQ, and VNNI.
    Avx512,
}

/// `BLACKLETTER_SIMD` names something that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IsaError {
    /// Not one of the known names.
    #[error("BLACKLETTER_SIMD={0:?} is not known: use scalar, avx2 or avx512")]
    Unknown(String),
    /// Known, but this CPU lacks it.
    #[error("BLACKLETTER_SIMD={0} asks for instructions that this CPU does not have; its best is {1}")]
    Unsupported(Isa, Isa),
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl Isa {
    /// The best instruction set of this CPU.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The instruction set to use: `BLACKLETTER_SIMD` if it is set, else the best of this CPU.
    ///
    /// # Errors
    /// When the variable holds an unknown name or one that this CPU cannot run.
    pub fn from_env() -> Result<Self, IsaError> {
        match env::var("BLACKLETTER_SIMD") {
            Ok(name) if !name.is_empty() => {
                let isa = match name.as_str() {
                    "scalar" => Self::Scalar,
                    "avx2" => Self::Avx2,
                    "avx512" => Self::Avx512,
                    _ => return Err(IsaError::Unknown(name)),
                };
                if isa > Self::best() { Err(IsaError::Unsupported(isa, Self::best())) } else { Ok(isa) }
            }
            _ => Ok(Self::best()),
        }
    }

    /// Every instruction set that this CPU can run, the scalar twin first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().filter(|&isa| isa <= Self::best())
    }

    /// Whether this instruction set, on this CPU, multiplies pairs of bf16 values (`VDPBF16PS`).
    pub fn has_bf16_dot(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            self == Self::Avx512 && is_x86_feature_detected!("avx512bf16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

fn detect() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni");
        if avx2 && avx512 {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    Isa::Scalar
}
