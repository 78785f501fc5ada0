//! A study that things happen to, and what can be done to it.

use std::path::{Path, PathBuf};

use fixtures::random::mix_two;
use jiff::civil::DateTime;
use pipeline::instance::{FrameHeader, Instance};
use pipeline::uid::Uid;

use super::Mishap;

/// A study that things happen to. Its slices are single frames in native little-endian pixels.
#[derive(Debug)]
pub struct Scene {
    /// Its objects, feet to head at first.
    pub instances: Vec<Instance>,
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    drawn: u64,
    pub(super) files: usize,
}

impl Scene {
    /// A scene of `instances`; changed pixels go to `folder`.
    pub fn new(mut instances: Vec<Instance>, folder: &Path, seed: u64) -> Self {
        instances.sort_by(|a, b| height(a).total_cmp(&height(b)));
        Self {
            instances,
            folder: folder.to_owned(),
            seed,
            drawn: 0,
            files: 0,
        }
    }

    /// Lets `mishap` happen.
    pub fn suffer(&mut self, mishap: Mishap) {
        (mishap.apply)(self);
    }

    /// A number below `end`, which is not 0.
    pub(super) fn draw(&mut self, end: usize) -> usize {
        self.drawn += 1;
        let drawn = mix_two(self.seed, self.drawn) % end.max(1) as u64;
        usize::try_from(drawn).expect("less than a length")
    }

    pub(super) fn each_frame(&mut self, change: impl Fn(usize, &mut FrameHeader)) {
        for (index, instance) in self.instances.iter_mut().enumerate() {
            for frame in &mut instance.frames {
                change(index, frame);
            }
        }
    }

    pub(super) fn keep(&mut self, keep: impl Fn(usize) -> bool) {
        let mut index = 0;
        self.instances.retain(|_| {
            index += 1;
            keep(index - 1)
        });
    }

    /// A part of the stack's middle half.
    pub(super) fn middle(&mut self) -> usize {
        let count = self.instances.len();
        count / 4 + self.draw(count / 2)
    }

    /// Writes the object at `index` anew with its pixels changed.
    pub(super) fn change_pixels(&mut self, index: usize, change: impl Fn(&mut Vec<u8>, usize)) {
        let Some(instance) = self.instances.get_mut(index) else {
            return;
        };
        let mut bytes = std::fs::read(&instance.path).expect("the object");
        let pixels = instance.pixels.as_ref().expect("an image");
        let columns = usize::try_from(pixels.columns).expect("few columns");
        let offset = usize::try_from(pixels.native_offset.expect("native pixels")).expect("a file");
        if offset >= bytes.len() {
            return;
        }
        let mut values = bytes.split_off(offset);
        change(&mut values, columns);
        bytes.extend(values);
        let path = self.folder.join(format!("changed-{}", self.files));
        self.files += 1;
        std::fs::write(&path, bytes).expect("written");
        instance.path = path;
        instance.content = None;
    }

    pub(super) fn change_all_pixels(&mut self, change: impl Fn(&mut Vec<u8>, usize)) {
        for index in 0..self.instances.len() {
            self.change_pixels(index, &change);
        }
    }

    /// Adds the study again without blood on either side: each half mirrored onto the other by
    /// turns would keep a bleed, so both halves become the one with less that is dense.
    pub(super) fn add_twin(&mut self, change: impl Fn(usize, &mut Instance)) {
        let first = self.instances.len();
        let copies = self.instances.clone();
        let take_right = self.right_half_is_quiet();
        let number = self.draw(1_000_000);
        for (index, mut copy) in copies.into_iter().enumerate() {
            copy.sop_instance_uid = uid(&format!("1.2.826.{number}.{index}"));
            change(index, &mut copy);
            self.instances.push(copy);
        }
        for index in first..self.instances.len() {
            self.change_pixels(index, |values, columns| {
                mirror_half(values, columns, take_right);
            });
        }
    }

    /// Paints one half of each picture in the middle of the stack over with a stored value.
    pub(super) fn paint_halves(&mut self, stored: u16) {
        let count = self.instances.len();
        let (left, length) = (self.draw(2) == 0, count / 4 + self.draw(count / 4));
        let from = (count - length) / 2;
        for index in from..from + length {
            self.change_pixels(index, |values, columns| {
                let halves = values.chunks_exact_mut(columns / 2 * 2);
                for half in halves.skip(usize::from(!left)).step_by(2) {
                    half.copy_from_slice(&stored.to_le_bytes().repeat(columns / 2));
                }
            });
        }
    }

    /// Whether the half with the lower columns has less that is as dense as blood.
    pub(super) fn right_half_is_quiet(&self) -> bool {
        let mut dense = [0_usize; 2];
        for instance in &self.instances {
            let bytes = std::fs::read(&instance.path).unwrap_or_default();
            let pixels = instance.pixels.as_ref().expect("an image");
            let offset = usize::try_from(pixels.native_offset.unwrap_or(0)).expect("a file");
            let columns = usize::try_from(pixels.columns).expect("few columns");
            for (at, pair) in bytes
                .get(offset..)
                .unwrap_or_default()
                .chunks_exact(2)
                .enumerate()
            {
                let stored = u16::from_le_bytes([pair[0], pair[1]]);
                // 55 to 95 HU above the intercept of -1024.
                let is_dense = (1079..1119).contains(&stored);
                dense[usize::from(at % columns >= columns / 2)] += usize::from(is_dense);
            }
        }
        dense[0] < dense[1]
    }
}

fn height(instance: &Instance) -> f64 {
    instance
        .frames
        .first()
        .and_then(|frame| frame.position_mm)
        .map_or(0.0, |position| position[2])
}

pub(super) fn uid(text: &str) -> Uid {
    Uid::new(text).expect("a UID")
}

pub(super) fn mirror_half(values: &mut [u8], columns: usize, take_low: bool) {
    for row in values.chunks_exact_mut(2 * columns) {
        for column in 0..columns / 2 {
            let (low, high) = (2 * column, 2 * (columns - 1 - column));
            let (from, to) = if take_low { (low, high) } else { (high, low) };
            row.copy_within(from..from + 2, to);
        }
    }
}

pub(super) fn later(moment: Option<DateTime>, seconds: f64) -> Option<DateTime> {
    Some(moment?.saturating_add(jiff::SignedDuration::from_secs_f64(seconds)))
}

pub(super) fn along(frame: &mut FrameHeader, change: impl Fn(f64) -> f64) {
    if let Some(position) = &mut frame.position_mm {
        position[2] = change(position[2]);
    }
}
