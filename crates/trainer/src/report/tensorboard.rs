//! TensorBoard's event files: records of `Event` messages, each framed with masked CRC-32C checksums.
//!
//! Only what scalars need is written of the two formats: `tensorflow/core/lib/io/record_writer.h` and
//! `tensorflow/core/util/event.proto`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

/// An event file that is being written.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file. With `step` above 0, events of later steps in other files of the directory are declared void, as a run
    /// that goes on needs.
    pub fn create(dir: &Path, step: u64) -> io::Result<Self> {
        let now = now();
        // Two files of one process in one second have different names.
        let unique = (now.fract() * 1e9) as u64;
        let name = format!("events.out.tfevents.{}.blackletter.{}.{unique}", now as u64, process::id());
        let path = dir.join(name);
        let mut events = Self { file: File::create(&path)?, path };
        events.event(0, |message| message.bytes(3, b"brain.Event:2"))?;
        if step > 0 {
            // A session log whose status is START.
            let mut log = Message::default();
            log.varint(1, 1);
            events.event(step + 1, |message| message.bytes(7, &log.0))?;
        }
        Ok(events)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes values of a step.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut one = Message::default();
            one.bytes(1, tag.as_bytes());
            one.float(2, *value as f32);
            summary.bytes(1, &one.0);
        }
        self.event(step, |message| message.bytes(5, &summary.0))
    }

    fn event(&mut self, step: u64, what: impl FnOnce(&mut Message)) -> io::Result<()> {
        let mut event = Message::default();
        event.double(1, now());
        event.varint(2, step);
        what(&mut event);
        self.file.write_all(&record(&event.0))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let mut out = len.to_vec();
    out.extend(masked_crc(&len).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message that is being made.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.number(field << 3 | wire);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        // The first record of every event file of TensorFlow, but for its time.
        let mut event = Message::default();
        event.double(1, 0.0);
        event.bytes(3, b"brain.Event:2");
        let record = record(&event.0);
        assert_eq!(record[..8], [24, 0, 0, 0, 0, 0, 0, 0]);
        // The checksum of that length, as files of TensorFlow hold it.
        assert_eq!(record[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(&record[12..21], [9, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&record[21..36], b"\x1a\x0dbrain.Event:2");
        assert_eq!(record.len(), 8 + 4 + 24 + 4);
    }

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        let mut message = Message::default();
        message.varint(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }
}
