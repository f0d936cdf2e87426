use blackletter_engine::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dtype = match a[2].as_str() { "f32" => Some(WeightDtype::F32), "bf16" => Some(WeightDtype::Bf16), "q8" => Some(WeightDtype::Q8), "q4" => Some(WeightDtype::Q4), _ => None };
    let n = |i: usize, d: usize| a.get(i).and_then(|x| x.parse().ok()).unwrap_or(d);
    let o = MeasureOptions { prompt: 512, generate: 64, depth: n(3, 32), batch: n(4, 1), runs: n(5, 3) };
    let m = measure(a[1].as_ref(), &LoadOptions { dtype, threads: Some(2) }, &o).unwrap();
    println!("{} d{} b{}: prefill {:.0} ({:.0}% of {:.0}) decode {:.1} ({:.0}% of {:.1} GB/s) batch {:.1} ({:.0}%) first {:.3}s mem {:.0} MB weights {:.0} MB", m.dtype, m.depth, m.batch, m.prefill_tokens_per_s, 100.0*m.prefill_gemm_fraction, m.gemm_gflops, m.decode_tokens_per_s, 100.0*m.decode_read_fraction, m.read_gb_per_s, m.batch_decode_tokens_per_s, 100.0*m.batch_read_fraction, m.first_token_s, m.peak_memory_bytes as f64/1e6, m.weight_bytes as f64/1e6);
}
