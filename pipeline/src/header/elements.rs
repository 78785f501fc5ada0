//! Elements → [`Instance`]: which attributes matter, where they may stand, what they mean.
//!
//! Classic objects state geometry and scale at the top. Enhanced multi-frame objects state them
//! in functional groups, shared by all frames or per frame (PS3.3 C.7.6.16); a frame's own group
//! goes before the shared one, and that before the top.

use std::path::Path;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use jiff::civil::DateTime;

use crate::instance::{FrameHeader, Instance, PixelHeader, SeriesHeader, StudyHeader};
use crate::limits::Limits;
use crate::reason::ReasonCode;
use crate::uid::Uid;
use crate::unread::UnreadObject;

use super::Refusal;
use super::moment;
use super::part10::checked_uid;
use super::text::{FallbackCharset, TextReader};
use super::walk::{Level, Value, Visitor, WalkEnd};

/// Attributes read at the top of the data set, in order.
const TOP_TAGS: [Tag; 70] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::STUDY_DATE,
    tags::SERIES_DATE,
    tags::ACQUISITION_DATE,
    tags::CONTENT_DATE,
    tags::ACQUISITION_DATE_TIME,
    tags::STUDY_TIME,
    tags::SERIES_TIME,
    tags::ACQUISITION_TIME,
    tags::CONTENT_TIME,
    tags::ACCESSION_NUMBER,
    tags::MODALITY,
    tags::MANUFACTURER,
    tags::INSTITUTION_NAME,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::STATION_NAME,
    tags::STUDY_DESCRIPTION,
    tags::SERIES_DESCRIPTION,
    tags::MANUFACTURER_MODEL_NAME,
    tags::IRRADIATION_EVENT_UID,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::PATIENT_AGE,
    tags::CONTRAST_BOLUS_AGENT,
    tags::BODY_PART_EXAMINED,
    tags::SLICE_THICKNESS,
    tags::KVP,
    tags::DEVICE_SERIAL_NUMBER,
    tags::SOFTWARE_VERSIONS,
    tags::PROTOCOL_NAME,
    tags::GANTRY_DETECTOR_TILT,
    tags::EXPOSURE,
    tags::CONVOLUTION_KERNEL,
    tags::PATIENT_POSITION,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::STUDY_ID,
    tags::SERIES_NUMBER,
    tags::ACQUISITION_NUMBER,
    tags::INSTANCE_NUMBER,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::FRAME_OF_REFERENCE_UID,
    tags::TEMPORAL_POSITION_IDENTIFIER,
    tags::POSITION_REFERENCE_INDICATOR,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::PIXEL_SPACING,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::BURNED_IN_ANNOTATION,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::RESCALE_TYPE,
    tags::LOSSY_IMAGE_COMPRESSION,
    tags::FRAME_TYPE,
];

/// Attributes read inside a functional group's sequence.
const FRAME_TAGS: [Tag; 20] = [
    tags::FRAME_TYPE,
    tags::FRAME_ACQUISITION_DATE_TIME,
    tags::TEMPORAL_POSITION_INDEX,
    tags::EXPOSURE_INM_AS,
    tags::CONTRAST_BOLUS_AGENT_ADMINISTERED,
    tags::CONTRAST_BOLUS_AGENT,
    tags::SLICE_THICKNESS,
    tags::KVP,
    tags::GANTRY_DETECTOR_TILT,
    tags::CONVOLUTION_KERNEL,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::IN_STACK_POSITION_NUMBER,
    tags::FRAME_ACQUISITION_NUMBER,
    tags::PIXEL_SPACING,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::RESCALE_TYPE,
    tags::BODY_PART_EXAMINED,
    tags::ACQUISITION_NUMBER,
];

/// Coded attributes whose first Code Meaning (0008,0104) is kept under the sequence's own tag.
const CODED_TAGS: [Tag; 2] = [
    tags::CONTRAST_BOLUS_AGENT_SEQUENCE,
    tags::ANATOMIC_REGION_SEQUENCE,
];

/// Attributes that hold text of people, by which its character set is told where none is declared.
const TEXT_TAGS: [Tag; 12] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ACCESSION_NUMBER,
    tags::STUDY_DESCRIPTION,
    tags::SERIES_DESCRIPTION,
    tags::PROTOCOL_NAME,
    tags::INSTITUTION_NAME,
    tags::BODY_PART_EXAMINED,
    tags::ANATOMIC_REGION_SEQUENCE,
    tags::CONTRAST_BOLUS_AGENT,
    tags::CONTRAST_BOLUS_AGENT_SEQUENCE,
    tags::MANUFACTURER,
];

/// The elements kept of one level. Few, so a scan beats a map.
type Record = Vec<(Tag, Value)>;

/// Whom an element speaks of.
#[derive(Clone, Copy, Debug)]
enum Scope {
    Object,
    AllFrames,
    Frame(usize),
}

/// The elements that matter, gathered during the walk.
#[derive(Debug)]
pub(super) struct Header {
    object: Record,
    all_frames: Record,
    frames: Vec<Record>,
    /// Functional groups beyond are passed over: they may be many and small.
    frames_max: usize,
    fallback: FallbackCharset,
}

impl Header {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            object: Record::new(),
            all_frames: Record::new(),
            frames: Vec::new(),
            frames_max: limits.study_instances_max,
            fallback: limits.fallback_charset,
        }
    }
}

impl Visitor for Header {
    fn wants(&self, path: &[Level], tag: Tag) -> bool {
        destination(path, tag).is_some()
    }

    fn take(&mut self, path: &[Level], tag: Tag, value: Value) {
        let Some((scope, key)) = destination(path, tag) else {
            return;
        };
        let record = match scope {
            Scope::Object => &mut self.object,
            Scope::AllFrames => &mut self.all_frames,
            Scope::Frame(index) if index >= self.frames_max => return,
            Scope::Frame(index) => {
                if self.frames.len() <= index {
                    self.frames.resize_with(index + 1, Record::new);
                }
                &mut self.frames[index]
            }
        };
        // The first statement counts: a second is against PS3.5 section 7.1, or a later item.
        if record.iter().all(|(known, _)| *known != key) {
            record.push((key, value));
        }
    }
}

/// Where the value of `tag` below `path` belongs; `None` if it does not matter.
fn destination(path: &[Level], tag: Tag) -> Option<(Scope, Tag)> {
    let (scope, rest) = match path.split_first() {
        None => return TOP_TAGS.contains(&tag).then_some((Scope::Object, tag)),
        Some((level, rest)) => match level.tag {
            tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE => (Scope::AllFrames, rest),
            tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE => (Scope::Frame(level.item_index), rest),
            _ => (Scope::Object, path),
        },
    };
    if tag == tags::CODE_MEANING {
        let sequence = rest.last()?.tag;
        return (rest.len() <= 2 && CODED_TAGS.contains(&sequence)).then_some((scope, sequence));
    }
    let in_group = rest.len() == 1 && !matches!(scope, Scope::Object);
    (in_group && FRAME_TAGS.contains(&tag)).then_some((scope, tag))
}

/// Records to look through in order; the first that has an attribute wins.
struct Lookup<'a>(Vec<&'a Record>);

impl<'a> Lookup<'a> {
    fn value(&self, tag: Tag) -> Option<&'a Value> {
        self.0
            .iter()
            .find_map(|record| record.iter().find(|(known, _)| *known == tag))
            .map(|(_, value)| value)
            .filter(|value| !value.bytes.is_empty())
    }

    /// The value as ASCII text, padding taken off; empty where absent.
    fn code(&self, tag: Tag) -> String {
        self.value(tag).map(Value::ascii).unwrap_or_default()
    }

    fn codes(&self, tag: Tag) -> Vec<String> {
        let text = self.code(tag);
        if text.is_empty() {
            return Vec::new();
        }
        text.split('\\')
            .map(|part| part.trim().to_owned())
            .collect()
    }

    fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let numbers = self.value(tag)?.numbers();
        let first: Vec<f64> = numbers.into_iter().take(N).collect::<Option<_>>()?;
        first.try_into().ok()
    }

    fn number(&self, tag: Tag) -> Option<f64> {
        self.numbers::<1>(tag).map(|[number]| number)
    }

    /// A length, mm: not a number, zero and below count as missing.
    fn length_mm(&self, tag: Tag) -> Option<f64> {
        self.number(tag).filter(|length| *length > 0.0)
    }

    fn integer(&self, tag: Tag) -> Option<i64> {
        let number = self.number(tag)?;
        let whole = number.abs() < 1e15 && number.fract() == 0.0;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 1e15")]
        whole.then_some(number as i64)
    }

    fn unsigned<T: TryFrom<i64>>(&self, tag: Tag) -> Option<T> {
        T::try_from(self.integer(tag)?).ok()
    }
}

impl Value {
    fn ascii(&self) -> String {
        String::from_utf8_lossy(&self.bytes)
            .trim_matches(['\0', ' '])
            .to_owned()
    }

    /// The values as finite numbers; `None` for each that is not one.
    fn numbers(&self) -> Vec<Option<f64>> {
        let little = self.encoding != super::walk::Encoding::ExplicitBig;
        let words = |size: usize| self.bytes.chunks_exact(size);
        let finite = |number: f64| number.is_finite().then_some(number);
        match self.vr {
            VR::US => words(2)
                .map(|word| Some(f64::from(short(word, little))))
                .collect(),
            VR::SS => words(2)
                .map(|word| Some(f64::from(short(word, little).cast_signed())))
                .collect(),
            VR::UL => words(4)
                .map(|word| Some(f64::from(long(word, little))))
                .collect(),
            VR::SL => words(4)
                .map(|word| Some(f64::from(long(word, little).cast_signed())))
                .collect(),
            VR::FL => words(4)
                .map(|word| finite(f64::from(f32::from_bits(long(word, little)))))
                .collect(),
            VR::FD => words(8).map(|word| finite(double(word, little))).collect(),
            _ => self
                .ascii()
                .split('\\')
                .map(|part| part.trim().parse().ok().and_then(finite))
                .collect(),
        }
    }
}

fn short(word: &[u8], little: bool) -> u16 {
    let bytes = [word[0], word[1]];
    if little {
        u16::from_le_bytes(bytes)
    } else {
        u16::from_be_bytes(bytes)
    }
}

fn long(word: &[u8], little: bool) -> u32 {
    let bytes = [word[0], word[1], word[2], word[3]];
    if little {
        u32::from_le_bytes(bytes)
    } else {
        u32::from_be_bytes(bytes)
    }
}

fn double(word: &[u8], little: bool) -> f64 {
    let (first, second) = (
        u64::from(long(&word[..4], little)),
        u64::from(long(&word[4..], little)),
    );
    f64::from_bits(if little {
        second << 32 | first
    } else {
        first << 32 | second
    })
}

/// What the walk does not see: names from the file meta group and where things lie.
pub(super) struct Origin<'a> {
    pub(super) path: &'a Path,
    pub(super) transfer_syntax: Uid,
    /// SOP class of the file meta group, for data sets that lack theirs.
    pub(super) sop_class: Uid,
    /// SOP instance of the file meta group, for data sets that end before theirs.
    pub(super) sop_instance: Uid,
    /// Where the data set begins in the file, if its offsets are the file's.
    pub(super) native_base: Option<u64>,
    /// Whether the transfer syntax encapsulates pixel data.
    pub(super) encapsulated: bool,
}

impl Header {
    /// Makes the instance of what was gathered.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for identifiers that are missing or no UIDs, more frames than the limit, and
    /// images that end before their pixel data.
    pub(super) fn instance(&self, origin: &Origin<'_>, end: WalkEnd) -> Result<Instance, Refusal> {
        let top = Lookup(vec![&self.object, &self.all_frames]);
        let uid = |name: &str, tag: Tag| checked_uid(name, top.value(tag).map(Value::ascii));
        let sop_class_uid = match top.value(tags::SOP_CLASS_UID) {
            Some(_) => uid("SOP Class UID (0008,0016)", tags::SOP_CLASS_UID)?,
            None => origin.sop_class.clone(),
        };
        let pixels = pixel_header(&top, origin, &sop_class_uid, end)?;
        let frame_count = pixels.as_ref().map_or(0, |pixels| pixels.frame_count);
        let frames = self.frame_headers(frame_count)?;
        let text = Text::of(&top, self.fallback);
        Ok(Instance {
            sop_instance_uid: uid("SOP Instance UID (0008,0018)", tags::SOP_INSTANCE_UID)?,
            sop_class_uid,
            study_uid: uid("Study Instance UID (0020,000D)", tags::STUDY_INSTANCE_UID)?,
            series_uid: uid("Series Instance UID (0020,000E)", tags::SERIES_INSTANCE_UID)?,
            transfer_syntax_uid: origin.transfer_syntax.clone(),
            content: None,
            path: origin.path.to_path_buf(),
            instance_number: top.integer(tags::INSTANCE_NUMBER),
            study: study_header(&text),
            series: series_header(&text),
            pixels,
            frames,
        })
    }

    /// What was gathered of an object before the fault that `refusal` names.
    pub(super) fn unread(&self, origin: &Origin<'_>, refusal: Refusal) -> UnreadObject {
        let top = Lookup(vec![&self.object, &self.all_frames]);
        let uid = |tag: Tag| Uid::new(&top.value(tag)?.ascii()).ok();
        let or_of_meta = |tag: Tag, of_meta: &Uid| uid(tag).unwrap_or_else(|| of_meta.clone());
        UnreadObject {
            sop_instance_uid: Some(or_of_meta(tags::SOP_INSTANCE_UID, &origin.sop_instance)),
            sop_class_uid: Some(or_of_meta(tags::SOP_CLASS_UID, &origin.sop_class)),
            transfer_syntax_uid: Some(origin.transfer_syntax.clone()),
            study_uid: uid(tags::STUDY_INSTANCE_UID),
            series_uid: uid(tags::SERIES_INSTANCE_UID),
            path: origin.path.to_path_buf(),
            study: study_header(&Text::of(&top, self.fallback)),
            position_mm: top.numbers(tags::IMAGE_POSITION_PATIENT),
            instance_number: top.integer(tags::INSTANCE_NUMBER),
            reason: refusal.reason,
        }
    }

    fn frame_headers(&self, count: u32) -> Result<Vec<FrameHeader>, Refusal> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.frames_max {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "The object has {count} frames; {} are read (limits.study_instances_max).",
                    self.frames_max
                ),
            ));
        }
        let empty = Record::new();
        Ok((0..count)
            .map(|index| {
                let own = self.frames.get(index).unwrap_or(&empty);
                frame_header(&Lookup(vec![own, &self.all_frames, &self.object]))
            })
            .collect())
    }
}

/// The texts of an object.
struct Text<'a, 'b> {
    top: &'b Lookup<'a>,
    reader: TextReader,
}

impl<'a, 'b> Text<'a, 'b> {
    fn of(top: &'b Lookup<'a>, fallback: FallbackCharset) -> Self {
        let codes = top.codes(tags::SPECIFIC_CHARACTER_SET);
        let values = TEXT_TAGS.iter().filter_map(|tag| top.value(*tag));
        let bytes = values.map(|value| value.bytes.as_slice());
        Self {
            top,
            reader: TextReader::new(&codes, bytes, fallback),
        }
    }

    /// The text of `tag`; empty where absent.
    fn read(&self, tag: Tag) -> String {
        let value = self.top.value(tag);
        value.map_or_else(String::new, |value| self.reader.read(&value.bytes))
    }

    fn either(&self, first: Tag, second: Tag) -> String {
        let stated = self.read(first);
        if stated.is_empty() {
            self.read(second)
        } else {
            stated
        }
    }
}

fn study_header(text: &Text<'_, '_>) -> StudyHeader {
    let top = text.top;
    StudyHeader {
        patient_name: text.read(tags::PATIENT_NAME),
        patient_id: text.read(tags::PATIENT_ID),
        issuer_of_patient_id: text.read(tags::ISSUER_OF_PATIENT_ID),
        patient_birth_date: top.code(tags::PATIENT_BIRTH_DATE),
        patient_sex: top.code(tags::PATIENT_SEX),
        patient_age: top.code(tags::PATIENT_AGE),
        accession_number: text.read(tags::ACCESSION_NUMBER),
        study_id: text.read(tags::STUDY_ID),
        referring_physician: text.read(tags::REFERRING_PHYSICIAN_NAME),
        timezone: top.code(tags::TIMEZONE_OFFSET_FROM_UTC),
        study_date: top.code(tags::STUDY_DATE),
        study_time: top.code(tags::STUDY_TIME),
        study_description: text.read(tags::STUDY_DESCRIPTION),
        institution_name: text.read(tags::INSTITUTION_NAME),
    }
}

fn series_header(text: &Text<'_, '_>) -> SeriesHeader {
    let top = text.top;
    SeriesHeader {
        modality: top.code(tags::MODALITY),
        series_number: top.integer(tags::SERIES_NUMBER),
        series_date: top.code(tags::SERIES_DATE),
        series_time: top.code(tags::SERIES_TIME),
        series_description: text.read(tags::SERIES_DESCRIPTION),
        protocol_name: text.read(tags::PROTOCOL_NAME),
        body_part: text.either(tags::BODY_PART_EXAMINED, tags::ANATOMIC_REGION_SEQUENCE),
        image_type: top.codes(tags::IMAGE_TYPE),
        kernel: top.codes(tags::CONVOLUTION_KERNEL).join("\\"),
        contrast_agent: text.either(
            tags::CONTRAST_BOLUS_AGENT,
            tags::CONTRAST_BOLUS_AGENT_SEQUENCE,
        ),
        manufacturer: text.read(tags::MANUFACTURER),
        model_name: text.read(tags::MANUFACTURER_MODEL_NAME),
        station_name: text.read(tags::STATION_NAME),
        device_serial_number: text.read(tags::DEVICE_SERIAL_NUMBER),
        software_versions: text.read(tags::SOFTWARE_VERSIONS),
        patient_position: top.code(tags::PATIENT_POSITION),
        nominal_tilt_deg: top.number(tags::GANTRY_DETECTOR_TILT),
        burned_in_annotation: top.code(tags::BURNED_IN_ANNOTATION) == "YES",
        frame_of_reference_uid: top.code(tags::FRAME_OF_REFERENCE_UID),
        position_reference: text.read(tags::POSITION_REFERENCE_INDICATOR),
        irradiation_event_uid: top.code(tags::IRRADIATION_EVENT_UID),
    }
}

fn frame_header(frame: &Lookup<'_>) -> FrameHeader {
    let orientation = frame.numbers::<6>(tags::IMAGE_ORIENTATION_PATIENT);
    let first_integer =
        |first: Tag, second: Tag| frame.integer(first).or_else(|| frame.integer(second));
    FrameHeader {
        position_mm: frame.numbers(tags::IMAGE_POSITION_PATIENT),
        orientation: orientation.map(|[a, b, c, d, e, f]| [[a, b, c], [d, e, f]]),
        // PS3.3 10.7.1.3: the first value is the distance between rows, which is along y.
        spacing_mm: frame
            .numbers(tags::PIXEL_SPACING)
            .map(|[rows, columns]| [columns, rows])
            .filter(|spacing| spacing.iter().all(|length| *length > 0.0)),
        thickness_mm: frame.length_mm(tags::SLICE_THICKNESS),
        rescale_slope: frame.number(tags::RESCALE_SLOPE),
        rescale_intercept: frame.number(tags::RESCALE_INTERCEPT),
        rescale_type: frame.code(tags::RESCALE_TYPE),
        instance_number: first_integer(tags::IN_STACK_POSITION_NUMBER, tags::INSTANCE_NUMBER),
        acquisition_number: first_integer(tags::FRAME_ACQUISITION_NUMBER, tags::ACQUISITION_NUMBER),
        temporal_position: first_integer(
            tags::TEMPORAL_POSITION_INDEX,
            tags::TEMPORAL_POSITION_IDENTIFIER,
        ),
        acquired: acquired(frame),
        content_made: moment::of_date_and_time(
            &first_code(frame, &[tags::CONTENT_DATE, tags::STUDY_DATE]),
            &frame.code(tags::CONTENT_TIME),
        ),
        tube_voltage_kv: frame.number(tags::KVP),
        exposure_mas: frame
            .number(tags::EXPOSURE_INM_AS)
            .or_else(|| frame.number(tags::EXPOSURE)),
        kernel: frame.codes(tags::CONVOLUTION_KERNEL).join("\\"),
        contrast_administered: match frame.code(tags::CONTRAST_BOLUS_AGENT_ADMINISTERED).as_str() {
            "YES" => Some(true),
            "NO" => Some(false),
            _ => None,
        },
        image_type: frame.codes(tags::FRAME_TYPE),
    }
}

fn acquired(frame: &Lookup<'_>) -> Option<DateTime> {
    [
        tags::FRAME_ACQUISITION_DATE_TIME,
        tags::ACQUISITION_DATE_TIME,
    ]
    .into_iter()
    .find_map(|tag| moment::of_date_time(&frame.code(tag)))
    .or_else(|| {
        moment::of_date_and_time(
            &first_code(frame, &[tags::ACQUISITION_DATE, tags::STUDY_DATE]),
            &frame.code(tags::ACQUISITION_TIME),
        )
    })
}

/// The first of `attributes` that is stated; empty if none is.
fn first_code(frame: &Lookup<'_>, attributes: &[Tag]) -> String {
    attributes
        .iter()
        .map(|tag| frame.code(*tag))
        .find(|code| !code.is_empty())
        .unwrap_or_default()
}

/// CT Image, Enhanced CT Image and Legacy Converted Enhanced CT Image Storage (PS3.4 table B.5-1).
pub(crate) fn is_ct_image(sop_class: &Uid) -> bool {
    matches!(
        sop_class.as_str(),
        "1.2.840.10008.5.1.4.1.1.2" | "1.2.840.10008.5.1.4.1.1.2.1" | "1.2.840.10008.5.1.4.1.1.2.2"
    )
}

/// JPEG Baseline and Extended (PS3.5 annex A.4.1): whatever their header says, they lose.
const ALWAYS_LOSSY: [&str; 2] = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"];

/// The pixels' layout; `None` for objects without an image.
fn pixel_header(
    top: &Lookup<'_>,
    origin: &Origin<'_>,
    sop_class: &Uid,
    end: WalkEnd,
) -> Result<Option<PixelHeader>, Refusal> {
    let (offset, length) = match end {
        WalkEnd::PixelData { offset, length } => (offset, length),
        WalkEnd::EndOfData if top.value(tags::ROWS).is_some() || is_ct_image(sop_class) => {
            return Err(Refusal::new(
                ReasonCode::Truncated,
                "The object is an image, but the file ends before its pixel data. Send it again.",
            ));
        }
        WalkEnd::EndOfData => return Ok(None),
    };
    let native = origin
        .native_base
        .filter(|_| !origin.encapsulated)
        .zip(length);
    let signed = top.integer(tags::PIXEL_REPRESENTATION) == Some(1);
    let bits_allocated = top.unsigned(tags::BITS_ALLOCATED).unwrap_or(0);
    let bits_stored: u16 = top.unsigned(tags::BITS_STORED).unwrap_or(bits_allocated);
    let right_justified = bits_stored.saturating_sub(1);
    let padding = |tag: Tag| padding_value(top.value(tag)?, signed);
    Ok(Some(PixelHeader {
        rows: top.unsigned(tags::ROWS).unwrap_or(0),
        columns: top.unsigned(tags::COLUMNS).unwrap_or(0),
        frame_count: top.unsigned(tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1),
        samples_per_pixel: top.unsigned(tags::SAMPLES_PER_PIXEL).unwrap_or(1),
        bits_allocated,
        bits_stored,
        high_bit: top.unsigned(tags::HIGH_BIT).unwrap_or(right_justified),
        signed,
        photometric: top.code(tags::PHOTOMETRIC_INTERPRETATION),
        padding_value: padding(tags::PIXEL_PADDING_VALUE),
        padding_limit: padding(tags::PIXEL_PADDING_RANGE_LIMIT),
        native_offset: native.map(|(base, _)| base + offset),
        native_length: native.map(|(_, length)| u64::from(length)),
        lossy: top.code(tags::LOSSY_IMAGE_COMPRESSION) == "01"
            || ALWAYS_LOSSY.contains(&origin.transfer_syntax.as_str()),
    }))
}

/// A padding value has the pixels' signedness, whatever VR its writer chose (PS3.3 C.7.5.1.1.2).
fn padding_value(value: &Value, signed: bool) -> Option<i32> {
    let word = value.bytes.get(..2)?;
    let bits = short(word, value.encoding != super::walk::Encoding::ExplicitBig);
    Some(if signed {
        i32::from(bits.cast_signed())
    } else {
        i32::from(bits)
    })
}
