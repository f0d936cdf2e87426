//! What values may be, and what ties them together.

use super::{
    DtypeKind, RunConfig, ScheduleKind,
    overlay::{ConfigError, refused},
};
use blackletter_model::decoder::Place;
use std::path::Path;

impl RunConfig {
    /// Checks all values.
    ///
    /// # Errors
    /// Names the first key that cannot be used, its value and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        if self.run.as_os_str().is_empty() {
            return Err(refused("run", quoted(&self.run), "the directory that the run is written to"));
        }
        self.check_device()?;
        self.check_data()?;
        let model = &self.model;
        match (model.geometry.is_empty(), model.from.is_empty()) {
            (true, true) => {
                return Err(refused(
                    "model.geometry",
                    "\"\"",
                    "a config.json or a published geometry, or model.from a model directory",
                ));
            }
            (false, false) => {
                return Err(refused(
                    "model.from",
                    format!("{:?}", model.from),
                    format!("left out when model.geometry ({:?}) is given", model.geometry),
                ));
            }
            _ => {}
        }
        self.check_numbers()?;
        self.check_adapter()?;
        let (rows, micro) = (self.data.rows, self.data.micro_batch_rows);
        if rows == 0 || rows > 1 << 20 {
            return Err(refused("data.rows", rows, format!("from 1 to {}", 1 << 20)));
        }
        if micro == 0 || !rows.is_multiple_of(micro) {
            return Err(refused("data.micro_batch_rows", micro, format!("a divisor of data.rows = {rows}")));
        }
        let schedule = &self.schedule;
        let ramps = match schedule.kind {
            ScheduleKind::Cosine => schedule.warmup,
            _ => schedule.warmup.saturating_add(schedule.cooldown),
        };
        if ramps > schedule.steps {
            return Err(refused(
                "schedule.warmup",
                schedule.warmup,
                format!(
                    "such that warm-up and cool-down ({ramps} steps) fit into schedule.steps = {}",
                    schedule.steps
                ),
            ));
        }
        if let Some((name, weight)) = self.stream.weights.iter().find(|(_, w)| !(0.0..=1000.0).contains(*w)) {
            return Err(refused(&format!("stream.weights.{name}"), weight, "a number from 0 to 1000"));
        }
        Ok(())
    }

    fn check_device(&self) -> Result<(), ConfigError> {
        if !self.device.is_built() {
            let device = self.device;
            let allowed = format!(
                "a device that is in this program, which was built without --features {device}: \"cpu\""
            );
            return Err(refused("device", format!("\"{device}\""), allowed));
        }
        if self.device != Place::Cpu && self.dtype == DtypeKind::Bf16 {
            return Err(refused(
                "dtype",
                "\"bf16\"",
                "\"f32\" on a GPU, which computes with plain tensors in f32",
            ));
        }
        Ok(())
    }

    fn check_data(&self) -> Result<(), ConfigError> {
        let data = &self.data;
        let store = format!("{:?}", data.store.display().to_string());
        let (texts, examples) = (!data.texts.is_empty(), !data.examples.is_empty());
        match (data.store.as_os_str().is_empty(), texts || examples) {
            (true, false) => {
                let allowed = "the directory of a token store, or data.texts or data.examples your own files";
                Err(refused("data.store", store, allowed))
            }
            (false, true) => {
                Err(refused("data.store", store, "left out when data.texts or data.examples are given"))
            }
            (true, true) if self.model.from.is_empty() => Err(refused(
                "model.from",
                "\"\"",
                "a model directory, whose tokenizer data.texts and data.examples are encoded with; for a new model make a token store with `blackletter dataset build`",
            )),
            (true, true) if texts && examples && self.stream.sft_weight == 0.0 => {
                Err(refused("stream.sft_weight", 0, "above 0, so that rows hold data.examples"))
            }
            _ => Ok(()),
        }
    }

    fn check_adapter(&self) -> Result<(), ConfigError> {
        const TARGETS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let adapter = &self.adapter;
        if let Some(other) = adapter.targets.iter().find(|t| !TARGETS.contains(&t.as_str())) {
            return Err(refused(
                "adapter.targets",
                format!("{other:?}"),
                format!("of {}", TARGETS.join(", ")),
            ));
        }
        if adapter.rank > 0 && self.model.from.is_empty() {
            return Err(refused(
                "adapter.rank",
                adapter.rank,
                "0 unless model.from names the model that the adapter is for",
            ));
        }
        if adapter.rank > 4096 || (adapter.rank > 0 && adapter.targets.is_empty()) {
            return Err(refused(
                "adapter.rank",
                adapter.rank,
                "from 0 to 4096, with adapter.targets not empty",
            ));
        }
        if adapter.rank > 0 && self.averaging.decay > 0.0 {
            return Err(refused("averaging.decay", self.averaging.decay, "0 when an adapter is trained"));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("schedule.steps", self.schedule.steps),
            ("checkpoints.every", self.checkpoints.every),
            ("checkpoints.keep", self.checkpoints.keep as u64),
            ("averaging.every", self.averaging.every),
            ("clip.history", self.clip.history as u64),
            ("samples.tokens", self.samples.tokens as u64),
            ("evaluation.tokens", self.evaluation.tokens as u64),
        ] {
            if !(1..=1 << 40).contains(&value) {
                return Err(refused(key, value, "at least 1"));
            }
        }
        if !(2..=1 << 20).contains(&self.stream.context) {
            return Err(refused("stream.context", self.stream.context, format!("from 2 to {}", 1 << 20)));
        }
        if self.threads > 1024 {
            return Err(refused("threads", self.threads, "from 0 (one per core) to 1024"));
        }
        for (key, value) in [
            ("model.deviation", self.model.deviation),
            ("schedule.peak", self.schedule.peak),
            ("optimizer.epsilon", self.optimizer.epsilon),
            ("adapter.alpha", self.adapter.alpha),
        ] {
            if !(value > 0.0 && value <= 1e6) {
                return Err(refused(key, value, "above 0"));
            }
        }
        if !(1e-3..=1e3).contains(&self.samples.temperature) {
            return Err(refused("samples.temperature", self.samples.temperature, "from 0.001 to 1000"));
        }
        if self.loss.load_balancing > 1e6 {
            return Err(refused("loss.load_balancing", self.loss.load_balancing, "at most 1000000"));
        }
        for (key, value) in [
            ("schedule.end", self.schedule.end),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("clip.norm", self.clip.norm),
            ("loss.z_loss", self.loss.z_loss),
        ] {
            if !(0.0..=1e6).contains(&value) {
                return Err(refused(key, value, "at least 0"));
            }
        }
        for (key, value) in [
            ("optimizer.beta1", self.optimizer.beta1),
            ("optimizer.beta2", self.optimizer.beta2),
            ("optimizer.momentum", self.optimizer.momentum),
            ("averaging.decay", self.averaging.decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(refused(key, value, "at least 0 and below 1"));
            }
        }
        if !(0.0..=100.0).contains(&self.clip.percentile) {
            return Err(refused("clip.percentile", self.clip.percentile, "from 0 to 100"));
        }
        if !(0.0..=1.0).contains(&self.stream.sft_weight) {
            return Err(refused("stream.sft_weight", self.stream.sft_weight, "from 0 to 1"));
        }
        Ok(())
    }
}
