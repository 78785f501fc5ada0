//! One received object, as far as its header tells.

mod bytes;

use std::path::PathBuf;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;
use crate::uid::Uid;

/// A received object: identifiers, facts from its header, and where its bytes lie.
///
/// What was read once can be kept beside the object ([`Instance::to_bytes`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Uid,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: Uid,
    /// Study Instance UID (0020,000D).
    pub study_uid: Uid,
    /// Series Instance UID (0020,000E).
    pub series_uid: Uid,
    /// Transfer syntax of the stored bytes.
    pub transfer_syntax_uid: Uid,
    /// What the bytes are, where that is known: the server hashes while it receives, a header
    /// scan does not read the pixels. `study` hashes the file itself where two objects claim
    /// the same SOP Instance UID.
    pub content: Option<ContentHash>,
    /// The Part 10 file. Not written with the rest: whoever reads it back knows where the file is.
    #[serde(skip)]
    pub path: PathBuf,
    /// Instance Number (0020,0013) of the object.
    pub instance_number: Option<i64>,
    /// Who and what: for the worklist, never for a model.
    pub study: StudyHeader,
    /// What kind of series this object says it belongs to.
    pub series: SeriesHeader,
    /// Size and layout of the pixels; `None` for objects without an image.
    pub pixels: Option<PixelHeader>,
    /// One entry a frame, in the order of the pixel data. Empty for objects without an image.
    pub frames: Vec<FrameHeader>,
}

impl Instance {
    /// What it takes of [`Limits::study_instances_max`](crate::limits::Limits::study_instances_max):
    /// one for each frame, at least one.
    pub fn counted(&self) -> usize {
        self.frames.len().max(1)
    }
}

/// Facts of the patient and study levels. All may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyHeader {
    /// Patient's Name (0010,0010), decoded by its character set.
    pub patient_name: String,
    /// Patient ID (0010,0020).
    pub patient_id: String,
    /// Issuer of Patient ID (0010,0021): within which the ID is one patient's.
    pub issuer_of_patient_id: String,
    /// Patient's Birth Date (0010,0030), as received.
    pub patient_birth_date: String,
    /// Patient's Sex (0010,0040).
    pub patient_sex: String,
    /// Patient's Age (0010,1010), as received, such as `076Y`.
    pub patient_age: String,
    /// Accession Number (0008,0050).
    pub accession_number: String,
    /// Study ID (0020,0010).
    pub study_id: String,
    /// Referring Physician's Name (0008,0090).
    pub referring_physician: String,
    /// Study Date (0008,0020), as received.
    pub study_date: String,
    /// Study Time (0008,0030), as received.
    pub study_time: String,
    /// Timezone Offset From UTC (0008,0201) of the object's dates and times, such as `+0100`.
    pub timezone: String,
    /// Study Description (0008,1030).
    pub study_description: String,
    /// Institution Name (0008,0080).
    pub institution_name: String,
}

impl StudyHeader {
    /// Whom it speaks of: the same text for the same patient. For telling apart, not for showing.
    pub fn whom(&self) -> String {
        format!("{}\\{}", self.patient_id, self.patient_name)
    }
}

/// Facts of the series and equipment levels, as one instance states them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesHeader {
    /// Modality (0008,0060).
    pub modality: String,
    /// Series Number (0020,0011).
    pub series_number: Option<i64>,
    /// Series Date (0008,0021), as received.
    pub series_date: String,
    /// Series Time (0008,0031), as received.
    pub series_time: String,
    /// Series Description (0008,103E).
    pub series_description: String,
    /// Protocol Name (0018,1030).
    pub protocol_name: String,
    /// Body Part Examined (0018,0015).
    pub body_part: String,
    /// Image Type (0008,0008), its values in order.
    pub image_type: Vec<String>,
    /// Convolution Kernel (0018,1210), its values joined by a backslash.
    pub kernel: String,
    /// Contrast/Bolus Agent (0018,0010) or the agent sequence's meaning.
    pub contrast_agent: String,
    /// Manufacturer (0008,0070).
    pub manufacturer: String,
    /// Manufacturer's Model Name (0008,1090).
    pub model_name: String,
    /// Station Name (0008,1010).
    pub station_name: String,
    /// Device Serial Number (0018,1000).
    pub device_serial_number: String,
    /// Software Versions (0018,1020), joined by a backslash.
    pub software_versions: String,
    /// Patient Position (0018,5100), such as `HFS`.
    pub patient_position: String,
    /// Gantry/Detector Tilt (0018,1120), degrees: nominal, its sign differs by maker.
    pub nominal_tilt_deg: Option<f64>,
    /// Burned In Annotation (0028,0301) is YES.
    pub burned_in_annotation: bool,
    /// Frame of Reference UID (0020,0052): positions can be compared within one only.
    pub frame_of_reference_uid: String,
    /// Position Reference Indicator (0020,1040): what the frame of reference is fixed to.
    pub position_reference: String,
    /// Irradiation Event UID (0008,3010): one run of the tube.
    pub irradiation_event_uid: String,
}

/// Layout of an instance's pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelHeader {
    /// Rows (0028,0010).
    pub rows: u32,
    /// Columns (0028,0011).
    pub columns: u32,
    /// Number of Frames (0028,0008); 1 where absent.
    pub frame_count: u32,
    /// Samples per Pixel (0028,0002).
    pub samples_per_pixel: u16,
    /// Bits Allocated (0028,0100).
    pub bits_allocated: u16,
    /// Bits Stored (0028,0101).
    pub bits_stored: u16,
    /// High Bit (0028,0102): where the sample ends in its word; Bits Stored − 1 where absent.
    pub high_bit: u16,
    /// Pixel Representation (0028,0103) is 1.
    pub signed: bool,
    /// Photometric Interpretation (0028,0004).
    pub photometric: String,
    /// Pixel Padding Value (0028,0120), read with the pixels' signedness.
    pub padding_value: Option<i32>,
    /// Pixel Padding Range Limit (0028,0121).
    pub padding_limit: Option<i32>,
    /// Where the pixel data's value begins in the file, if it is native (not encapsulated) and not
    /// inside a deflated data set.
    pub native_offset: Option<u64>,
    /// Length of that value, bytes.
    pub native_length: Option<u64>,
    /// Lossy Image Compression (0028,2110) is 01, or the transfer syntax is one that always loses.
    pub lossy: bool,
}

/// Geometry and scale of one frame. What is missing or is not finite is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// Image Position (Patient) (0020,0032), mm: centre of the first voxel.
    pub position_mm: Option<[f64; 3]>,
    /// Image Orientation (Patient) (0020,0037): direction along a row, then down a column.
    pub orientation: Option<[[f64; 3]; 2]>,
    /// Pixel Spacing (0028,0030) turned into x (between columns), y (between rows), mm.
    pub spacing_mm: Option<[f64; 2]>,
    /// Slice Thickness (0018,0050), mm.
    pub thickness_mm: Option<f64>,
    /// Rescale Slope (0028,1053).
    pub rescale_slope: Option<f64>,
    /// Rescale Intercept (0028,1052).
    pub rescale_intercept: Option<f64>,
    /// Rescale Type (0028,1054), empty where absent.
    pub rescale_type: String,
    /// Instance Number (0020,0013).
    pub instance_number: Option<i64>,
    /// Acquisition Number (0020,0012).
    pub acquisition_number: Option<i64>,
    /// Temporal Position Index (0020,9128) or Identifier (0020,0100).
    pub temporal_position: Option<i64>,
    /// When it was scanned, by the scanner's clock: by (0018,9074) of the frame, by (0008,002A), or
    /// by Acquisition Date (0008,0022) and Acquisition Time (0008,0032).
    pub acquired: Option<DateTime>,
    /// When the image was made: Content Date and Time (0008,0023), (0008,0033).
    pub content_made: Option<DateTime>,
    /// KVP (0018,0060), kilovolts.
    pub tube_voltage_kv: Option<f64>,
    /// Exposure (0018,1152), mAs.
    pub exposure_mas: Option<f64>,
    /// Convolution Kernel (0018,1210) of the frame, its values joined by a backslash; empty where
    /// only the object states one.
    pub kernel: String,
    /// Contrast/Bolus Agent Administered (0018,9342) of the frame (Enhanced CT): whether contrast
    /// was in when it was scanned, whatever the object says.
    pub contrast_administered: Option<bool>,
    /// Image Type of the frame where it differs from the instance's (Enhanced CT).
    pub image_type: Vec<String>,
}
