//! Small synthetic stacks for tests: bare pixel files with headers made by hand.

use std::path::Path;

use ndarray::Array2;
use tempfile::TempDir;

use crate::instance::{FrameHeader, Instance, PixelHeader, SeriesHeader, StudyHeader};
use crate::series::Slice;
use crate::uid::Uid;

/// Unsigned values in the file are Hounsfield units plus this.
const STORED_OFFSET: f64 = 1024.0;

/// Slices to be written: where they lie and how large they are.
#[derive(Clone, Debug)]
pub(crate) struct StackPlan {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) spacing_mm: [f64; 2],
    pub(crate) orientation: [[f64; 3]; 2],
    pub(crate) positions_mm: Vec<[f64; 3]>,
    pub(crate) thickness_mm: Option<f64>,
}

/// Slices that were written; the files go when it is dropped.
pub(crate) struct TestStack {
    pub(crate) instances: Vec<Instance>,
    _folder: TempDir,
}

impl StackPlan {
    /// Axial slices of `side` × `side` pixels of `pixel_mm`, centred on the z axis, at heights `z`.
    pub(crate) fn axial(side: u32, pixel_mm: f64, heights_mm: &[f64]) -> Self {
        let corner = -(f64::from(side) - 1.0) / 2.0 * pixel_mm;
        Self {
            rows: side,
            columns: side,
            spacing_mm: [pixel_mm; 2],
            orientation: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
            positions_mm: heights_mm.iter().map(|z| [corner, corner, *z]).collect(),
            thickness_mm: None,
        }
    }

    /// Tilts the gantry about the x axis: slices turn, the table still moves along z.
    pub(crate) fn tilted(mut self, tilt_deg: f64) -> Self {
        let (sine, cosine) = tilt_deg.to_radians().sin_cos();
        self.orientation[1] = [0.0, cosine, -sine];
        let half_mm = (f64::from(self.rows) - 1.0) / 2.0 * self.spacing_mm[1];
        for position in &mut self.positions_mm {
            position[1] = -half_mm * cosine;
            position[2] += half_mm * sine;
        }
        self
    }

    /// Writes the slices of a patient with `hounsfield` at each point, one object each.
    pub(crate) fn write(&self, hounsfield: impl Fn([f64; 3]) -> f64) -> TestStack {
        let folder = TempDir::new().unwrap();
        let instances = (0..self.positions_mm.len())
            .map(|index| {
                let pixels = self.sample(index, &hounsfield);
                let path = folder.path().join(format!("{index}.raw"));
                write_stored(&path, &pixels);
                self.instance(index, &path)
            })
            .collect();
        TestStack {
            instances,
            _folder: folder,
        }
    }

    fn sample(&self, index: usize, hounsfield: &impl Fn([f64; 3]) -> f64) -> Array2<f64> {
        let origin = self.positions_mm[index];
        let [row, column] = self.orientation;
        Array2::from_shape_fn((self.rows as usize, self.columns as usize), |(y, x)| {
            hounsfield(std::array::from_fn(|axis| {
                origin[axis]
                    + row[axis] * x as f64 * self.spacing_mm[0]
                    + column[axis] * y as f64 * self.spacing_mm[1]
            }))
        })
    }

    fn instance(&self, index: usize, path: &Path) -> Instance {
        let mut instance = instance(&format!("1.2.3.{}", index + 1), self.rows, self.columns);
        instance.path = path.to_owned();
        instance.frames = vec![FrameHeader {
            position_mm: Some(self.positions_mm[index]),
            orientation: Some(self.orientation),
            spacing_mm: Some(self.spacing_mm),
            thickness_mm: self.thickness_mm,
            rescale_slope: Some(1.0),
            rescale_intercept: Some(-STORED_OFFSET),
            instance_number: Some(i64::try_from(index).unwrap() + 1),
            ..FrameHeader::default()
        }];
        instance
    }
}

impl TestStack {
    /// Every frame of every object, in the order of writing.
    pub(crate) fn slices(&self) -> Vec<Slice<'_>> {
        self.instances
            .iter()
            .flat_map(|instance| {
                (0..instance.frames.len()).map(move |frame_index| Slice::of(instance, frame_index))
            })
            .collect()
    }
}

/// An object with 16-bit unsigned pixels at the very beginning of its file.
pub(crate) fn instance(sop_instance_uid: &str, rows: u32, columns: u32) -> Instance {
    let uid = |text: &str| Uid::new(text).unwrap();
    Instance {
        sop_instance_uid: uid(sop_instance_uid),
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2"),
        study_uid: uid("1.2.1"),
        series_uid: uid("1.2.2"),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
        content: None,
        path: std::path::PathBuf::new(),
        instance_number: None,
        study: StudyHeader::default(),
        series: SeriesHeader::default(),
        pixels: Some(PixelHeader {
            rows,
            columns,
            frame_count: 1,
            samples_per_pixel: 1,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: false,
            photometric: "MONOCHROME2".to_owned(),
            padding_value: None,
            padding_limit: None,
            native_offset: Some(0),
            native_length: Some(u64::from(rows) * u64::from(columns) * 2),
            lossy: false,
        }),
        frames: Vec::new(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test values lie within 16 bits"
)]
fn write_stored(path: &Path, hounsfield: &Array2<f64>) {
    let bytes: Vec<u8> = hounsfield
        .iter()
        .flat_map(|value| ((value + STORED_OFFSET).round().max(0.0) as u16).to_le_bytes())
        .collect();
    std::fs::write(path, bytes).unwrap();
}

/// A head at `point`, its middle at the origin: scalp, skull, brain with a grey and a white part,
/// 150 × 185 × 170 mm when `scale` is one.
pub(crate) fn head_hounsfield(point: [f64; 3], scale: f64) -> f64 {
    let radius = |axes: [f64; 3]| {
        (0..3)
            .map(|axis| (point[axis] / (axes[axis] * scale)).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    if radius([66.0, 84.0, 76.0]) < 1.0 {
        let white = radius([50.0, 68.0, 58.0]) < 1.0;
        if white { 29.0 } else { 38.0 }
    } else if radius([73.0, 91.0, 83.0]) < 1.0 {
        1000.0
    } else if radius([78.0, 96.0, 88.0]) < 1.0 {
        40.0
    } else {
        -1000.0
    }
}
