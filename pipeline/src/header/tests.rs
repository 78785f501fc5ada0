use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// Writes elements one by one, in any of the encodings.
#[derive(Clone)]
struct Writer {
    encoding: Encoding,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            bytes: Vec::new(),
        }
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend(match self.encoding {
            Encoding::ExplicitBig => value.to_be_bytes(),
            Encoding::ImplicitLittle | Encoding::ExplicitLittle => value.to_le_bytes(),
        });
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(match self.encoding {
            Encoding::ExplicitBig => value.to_be_bytes(),
            Encoding::ImplicitLittle | Encoding::ExplicitLittle => value.to_le_bytes(),
        });
    }

    fn head(&mut self, group: u16, element: u16, vr: &str, length: u32) {
        self.u16(group);
        self.u16(element);
        let code: [u8; 2] = vr.as_bytes().try_into().unwrap();
        if self.encoding == Encoding::ImplicitLittle {
            self.u32(length);
        } else if walk::has_short_length(code) {
            self.bytes.extend(code);
            self.u16(u16::try_from(length).unwrap());
        } else {
            self.bytes.extend(code);
            self.u16(0);
            self.u32(length);
        }
    }

    fn raw(&mut self, group: u16, element: u16, vr: &str, value: &[u8]) -> &mut Self {
        let odd = value.len() % 2;
        self.head(
            group,
            element,
            vr,
            u32::try_from(value.len() + odd).unwrap(),
        );
        self.bytes.extend(value);
        self.bytes.extend(&[b' '][..odd]);
        self
    }

    fn text(&mut self, group: u16, element: u16, vr: &str, value: &str) -> &mut Self {
        self.raw(group, element, vr, value.as_bytes())
    }

    fn short(&mut self, group: u16, element: u16, value: u16) -> &mut Self {
        self.head(group, element, "US", 2);
        self.u16(value);
        self
    }

    /// A sequence of undefined length with one item per entry of `items`.
    fn sequence(&mut self, group: u16, element: u16, items: &[Vec<u8>]) -> &mut Self {
        self.head(group, element, "SQ", u32::MAX);
        for item in items {
            self.delimiter(0xE000, u32::MAX);
            self.bytes.extend(item);
            self.delimiter(0xE00D, 0);
        }
        self.delimiter(0xE0DD, 0);
        self
    }

    fn delimiter(&mut self, element: u16, length: u32) {
        self.u16(0xFFFE);
        self.u16(element);
        self.u32(length);
    }
}

/// Everything of a CT slice that comes before its rows and columns.
fn identifiers(encoding: Encoding) -> Writer {
    let mut writer = Writer::new(encoding);
    writer
        .text(0x0008, 0x0005, "CS", "ISO_IR 144")
        .text(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL")
        .text(0x0008, 0x0016, "UI", CT_IMAGE)
        .text(0x0008, 0x0018, "UI", "1.2.3.4")
        .text(0x0008, 0x0060, "CS", "CT");
    writer
}

fn patient_to_series(writer: &mut Writer) {
    writer
        // "Ахметов" in ISO 8859-5.
        .raw(0x0010, 0x0010, "PN", b"\xB0\xE5\xDC\xD5\xE2\xDE\xD2^\xB8")
        .text(0x0018, 0x0050, "DS", "5")
        .text(0x0018, 0x1210, "SH", "H31s")
        .text(0x0020, 0x000D, "UI", "1.2.3")
        .text(0x0020, 0x000E, "UI", "1.2.3.1")
        .text(0x0020, 0x0013, "IS", "7 ")
        .text(0x0020, 0x0032, "DS", "-120.5\\-100\\3.25")
        .text(0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0");
}

fn layout(writer: &mut Writer) {
    writer
        .short(0x0028, 0x0002, 1)
        .text(0x0028, 0x0004, "CS", "MONOCHROME2")
        .short(0x0028, 0x0010, 4)
        .short(0x0028, 0x0011, 3)
        .text(0x0028, 0x0030, "DS", "0.5\\0.25")
        .short(0x0028, 0x0100, 16)
        .short(0x0028, 0x0101, 12)
        .short(0x0028, 0x0103, 1)
        .text(0x0028, 0x1052, "DS", "-1024")
        .text(0x0028, 0x1053, "DS", "1");
}

fn slice(encoding: Encoding) -> Writer {
    let mut writer = identifiers(encoding);
    patient_to_series(&mut writer);
    layout(&mut writer);
    writer
}

fn slice_with_pixels(encoding: Encoding) -> Vec<u8> {
    let mut writer = slice(encoding);
    writer.raw(0x7FE0, 0x0010, "OW", &[7; 24]);
    writer.bytes
}

fn part10(transfer_syntax: &str, dataset: &[u8]) -> Vec<u8> {
    let uid = |text: &str| Uid::new(text).unwrap();
    let mut file = part10_head(&uid(CT_IMAGE), &uid("1.2.3.4"), &uid(transfer_syntax));
    file.extend_from_slice(dataset);
    file
}

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("object.dcm");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read_with(bytes: &[u8], limits: &Limits) -> Result<Instance, Refusal> {
    let (_folder, path) = written(bytes);
    read_instance(&path, limits)
}

fn read(transfer_syntax: &str, dataset: &[u8]) -> Result<Instance, Refusal> {
    read_with(&part10(transfer_syntax, dataset), &Limits::default())
}

fn refused(transfer_syntax: &str, dataset: &[u8]) -> Reason {
    read(transfer_syntax, dataset).unwrap_err().reason
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_same_slice_reads_the_same_in_every_native_encoding() {
    let mut instances = Vec::new();
    for (transfer_syntax, encoding) in [
        (IMPLICIT, Encoding::ImplicitLittle),
        (EXPLICIT, Encoding::ExplicitLittle),
        (BIG_ENDIAN, Encoding::ExplicitBig),
    ] {
        let dataset = slice_with_pixels(encoding);
        let file = part10(transfer_syntax, &dataset);
        let instance = read(transfer_syntax, &dataset).unwrap();
        let pixels = instance.pixels.clone().unwrap();
        assert_eq!(pixels.native_offset, Some(file.len() as u64 - 24));
        assert_eq!(pixels.native_length, Some(24));
        assert_eq!(
            (pixels.rows, pixels.columns, pixels.bits_stored),
            (4, 3, 12)
        );
        assert!(pixels.signed);
        instances.push((instance.study, instance.series, instance.frames));
    }
    let (study, series, frames) = &instances[0];
    assert_eq!(study.patient_name, "Ахметов^И");
    assert_eq!(series.kernel, "H31s");
    assert_eq!(series.image_type, ["ORIGINAL", "PRIMARY", "AXIAL"]);
    assert_eq!(frames[0].position_mm, Some([-120.5, -100.0, 3.25]));
    assert_eq!(
        frames[0].spacing_mm,
        Some([0.25, 0.5]),
        "x is the second value"
    );
    assert_eq!(frames[0].instance_number, Some(7));
    assert!(instances.iter().all(|other| *other == instances[0]));
}

#[test]
fn a_deflated_slice_reads_alike_and_claims_no_place_in_the_file() {
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    let plain = read(EXPLICIT, &dataset).unwrap();
    let deflated = read(DEFLATED, &deflate(&dataset)).unwrap();
    assert_eq!(plain.frames, deflated.frames);
    assert_eq!(deflated.pixels.unwrap().native_offset, None);
}

#[test]
fn a_deflated_slice_that_ends_inside_its_pixels_is_truncated() {
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    let reason = refused(DEFLATED, &deflate(&dataset[..dataset.len() - 4]));
    assert_eq!(reason.code, ReasonCode::Truncated, "{}", reason.text);
}

#[test]
fn implicit_vr_under_an_explicit_transfer_syntax_is_read_all_the_same() {
    let dataset = slice_with_pixels(Encoding::ImplicitLittle);
    assert!(read(EXPLICIT, &dataset).is_ok());
}

fn encapsulated() -> Writer {
    let mut writer = slice(Encoding::ExplicitLittle);
    writer.head(0x7FE0, 0x0010, "OB", u32::MAX);
    writer.delimiter(0xE000, 0);
    writer.delimiter(0xE000, 10);
    writer.bytes.extend([1; 10]);
    writer
}

#[test]
fn encapsulated_pixels_are_stepped_over_with_or_without_their_delimiter() {
    let mut writer = encapsulated();
    assert!(read(JPEG_LS, &writer.bytes).is_ok(), "no delimiter");
    writer.delimiter(0xE0DD, 0);
    let instance = read(JPEG_LS, &writer.bytes).unwrap();
    assert_eq!(instance.pixels.unwrap().native_offset, None);
}

#[test]
fn a_cut_fragment_is_truncated() {
    let bytes = encapsulated().bytes;
    let reason = refused(JPEG_LS, &bytes[..bytes.len() - 1]);
    assert_eq!(reason.code, ReasonCode::Truncated);
    assert!(reason.text.contains("fragment"), "{}", reason.text);
}

#[test]
fn a_cut_header_and_cut_pixels_are_told_apart() {
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    let pixels = refused(EXPLICIT, &dataset[..dataset.len() - 2]);
    assert_eq!(pixels.code, ReasonCode::Truncated);
    assert!(
        pixels.text.contains("24 bytes, 22 are there"),
        "{}",
        pixels.text
    );
    let header = refused(EXPLICIT, &dataset[..60]);
    assert_eq!(header.code, ReasonCode::Truncated);
    assert!(
        header.text.starts_with("The header ends too soon"),
        "{}",
        header.text
    );
}

#[test]
fn a_file_that_ends_between_header_and_pixels_is_truncated() {
    let reason = refused(EXPLICIT, &slice(Encoding::ExplicitLittle).bytes);
    assert_eq!(reason.code, ReasonCode::Truncated);
}

#[test]
fn every_cut_of_a_slice_is_refused_and_none_panics() {
    for (transfer_syntax, encoding) in [
        (IMPLICIT, Encoding::ImplicitLittle),
        (EXPLICIT, Encoding::ExplicitLittle),
        (BIG_ENDIAN, Encoding::ExplicitBig),
    ] {
        let dataset = slice_with_pixels(encoding);
        for length in 0..dataset.len() {
            let reason = refused(transfer_syntax, &dataset[..length]);
            assert!(
                matches!(
                    reason.code,
                    ReasonCode::Truncated | ReasonCode::BadIdentifier
                ),
                "{length} bytes: {reason:?}"
            );
        }
    }
}

#[test]
fn an_object_without_an_image_has_no_frames() {
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer
        .text(0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.88.67")
        .text(0x0008, 0x0018, "UI", "1.2.3.4");
    patient_to_series(&mut writer);
    let instance = read(EXPLICIT, &writer.bytes).unwrap();
    assert_eq!((instance.pixels, instance.frames), (None, Vec::new()));
}

#[test]
fn an_element_that_claims_four_gigabytes_is_refused_without_taking_memory() {
    let mut writer = identifiers(Encoding::ExplicitLittle);
    writer.head(0x0009, 0x1010, "OB", u32::MAX - 1);
    let reason = refused(EXPLICIT, &writer.bytes);
    assert_eq!(reason.code, ReasonCode::Truncated);
    assert!(reason.text.contains("4294967294 bytes"), "{}", reason.text);
}

fn nested(depth: usize, defined: bool) -> Vec<u8> {
    let mut inner: Vec<u8> = Vec::new();
    for _ in 0..depth {
        let mut writer = Writer::new(Encoding::ExplicitLittle);
        if defined {
            let length = u32::try_from(inner.len()).unwrap();
            writer.head(0x0009, 0x1010, "SQ", length + 8);
            writer.delimiter(0xE000, length);
            writer.bytes.extend(&inner);
        } else {
            writer.sequence(0x0009, 0x1010, &[inner]);
        }
        inner = writer.bytes;
    }
    inner
}

#[test]
fn nesting_up_to_the_limit_passes_and_beyond_it_is_refused_wherever_it_stands() {
    for defined in [false, true] {
        for (depth, passes) in [(64, true), (65, false), (2_000, false)] {
            let mut before = identifiers(Encoding::ExplicitLittle);
            before.bytes.extend(nested(depth, defined));
            patient_to_series(&mut before);
            before.raw(0x7FE0, 0x0010, "OW", &[0; 24]);
            assert_eq!(
                read(EXPLICIT, &before.bytes).is_ok(),
                passes,
                "{depth} in the header"
            );

            let mut after = slice_with_pixels(Encoding::ExplicitLittle);
            after.extend(nested(depth, defined));
            assert_eq!(
                read(EXPLICIT, &after).is_ok(),
                passes,
                "{depth} after the pixels"
            );
            assert_eq!(
                read(DEFLATED, &deflate(&after)).is_ok(),
                passes,
                "{depth} deflated"
            );
        }
    }
}

#[test]
fn ten_thousand_nested_sequences_do_not_overflow_the_stack() {
    let mut writer = identifiers(Encoding::ExplicitLittle);
    for _ in 0..10_000 {
        writer.head(0x0009, 0x1010, "SQ", u32::MAX);
        writer.delimiter(0xE000, u32::MAX);
    }
    let reason = refused(EXPLICIT, &writer.bytes);
    assert_eq!(reason.code, ReasonCode::LimitExceeded);
    assert!(
        reason.text.contains("nested more than 64 deep"),
        "{}",
        reason.text
    );
}

#[test]
fn zeros_after_the_pixels_are_padding() {
    let mut dataset = slice_with_pixels(Encoding::ExplicitLittle);
    dataset.extend(vec![0; 300_000]);
    assert!(read(EXPLICIT, &dataset).is_ok());
}

#[test]
fn a_deflate_bomb_is_stopped_at_the_limit() {
    let mut writer = identifiers(Encoding::ExplicitLittle);
    writer.raw(0x0009, 0x1010, "OB", &vec![0; 3 << 20]);
    let limits = Limits {
        header_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let refusal = read_with(&part10(DEFLATED, &deflate(&writer.bytes)), &limits).unwrap_err();
    assert_eq!(refusal.reason.code, ReasonCode::LimitExceeded);
}

#[test]
fn a_number_that_is_none_counts_as_missing() {
    for spacing in [
        "NaN\\0.5", "inf\\0.5", "0\\0.5", "-1\\1", "0,5\\0,5", "0.5", "1e999\\1", "",
    ] {
        let mut writer = identifiers(Encoding::ExplicitLittle);
        patient_to_series(&mut writer);
        writer
            .short(0x0028, 0x0010, 4)
            .short(0x0028, 0x0011, 3)
            .text(0x0028, 0x0030, "DS", spacing)
            .raw(0x7FE0, 0x0010, "OW", &[0; 24]);
        let instance = read(EXPLICIT, &writer.bytes).unwrap();
        assert_eq!(instance.frames[0].spacing_mm, None, "{spacing:?}");
    }
}

#[test]
fn an_identifier_with_slashes_or_missing_is_refused_by_name() {
    let mut slashes = Writer::new(Encoding::ExplicitLittle);
    slashes
        .text(0x0008, 0x0018, "UI", "1.2/../3")
        .text(0x0020, 0x000D, "UI", "1.2")
        .text(0x0020, 0x000E, "UI", "1.3")
        .raw(0x7FE0, 0x0010, "OW", &[0; 24]);
    let reason = refused(EXPLICIT, &slashes.bytes);
    assert_eq!(reason.code, ReasonCode::BadIdentifier);
    assert!(
        reason.text.contains("SOP Instance UID (0008,0018)"),
        "{}",
        reason.text
    );

    let mut missing = Writer::new(Encoding::ExplicitLittle);
    missing
        .text(0x0008, 0x0018, "UI", "1.2.3")
        .text(0x0020, 0x000E, "UI", "1.3");
    missing.raw(0x7FE0, 0x0010, "OW", &[0; 24]);
    let reason = refused(EXPLICIT, &missing.bytes);
    assert_eq!(reason.code, ReasonCode::BadIdentifier);
    assert!(
        reason
            .text
            .contains("Study Instance UID (0020,000D) is missing"),
        "{}",
        reason.text
    );
}

#[test]
fn a_sop_class_missing_in_the_data_set_comes_from_the_file_meta_group() {
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer.text(0x0008, 0x0018, "UI", "1.2.3.4");
    patient_to_series(&mut writer);
    writer.raw(0x7FE0, 0x0010, "OW", &[0; 24]);
    let instance = read(EXPLICIT, &writer.bytes).unwrap();
    assert_eq!(instance.sop_class_uid.as_str(), CT_IMAGE);
}

#[test]
fn text_that_is_no_dicom_and_an_empty_file_are_named_so() {
    for bytes in [&b""[..], b"hello", &[b'x'; 4000]] {
        let refusal = read_with(bytes, &Limits::default()).unwrap_err();
        assert_eq!(refusal.reason.code, ReasonCode::NotDicom, "{refusal}");
    }
}

#[test]
fn a_meta_group_longer_than_the_first_read_is_read_on() {
    let mut file = part10(EXPLICIT, b"");
    // Private information (0002,0102), long form.
    let mut private = b"\x02\x00\x02\x01OB\0\0".to_vec();
    private.extend(20_000_u32.to_le_bytes());
    private.extend(vec![0; 20_000]);
    file.extend(private);
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    file.extend(&dataset);
    let instance = read_with(&file, &Limits::default()).unwrap();
    let offset = instance.pixels.unwrap().native_offset;
    assert_eq!(offset, Some(file.len() as u64 - 24));
}

fn group(tag: (u16, u16), element: impl Fn(&mut Writer)) -> Vec<u8> {
    let mut inner = Writer::new(Encoding::ExplicitLittle);
    element(&mut inner);
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer.sequence(tag.0, tag.1, &[inner.bytes]);
    writer.bytes
}

/// Shared groups for everything but the position and number, which are per frame.
fn enhanced(frame_count: usize, private_elements: u16) -> Vec<u8> {
    let shared = [
        group((0x0028, 0x9110), |item| {
            item.text(0x0018, 0x0050, "DS", "2.5")
                .text(0x0028, 0x0030, "DS", "0.4\\0.3");
        }),
        group((0x0020, 0x9116), |item| {
            item.text(0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0");
        }),
        group((0x0028, 0x9145), |item| {
            item.text(0x0028, 0x1052, "DS", "-1000")
                .text(0x0028, 0x1053, "DS", "2");
        }),
        group((0x0018, 0x9314), |item| {
            item.text(0x0018, 0x1210, "SH", "Hr40");
        }),
    ]
    .concat();
    let frames: Vec<Vec<u8>> = (0..frame_count)
        .map(|frame| {
            [
                group((0x0020, 0x9113), |item| {
                    item.text(0x0020, 0x0032, "DS", &format!("0\\0\\{frame}"));
                }),
                group((0x0018, 0x9329), |item| {
                    item.text(0x0008, 0x9007, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE");
                }),
                group((0x0021, 0x1001), |item| {
                    for element in 0..private_elements {
                        item.short(0x0021, 0x1100 + element, element);
                    }
                }),
            ]
            .concat()
        })
        .collect();
    let mut writer = identifiers(Encoding::ExplicitLittle);
    writer
        .text(0x0020, 0x000D, "UI", "1.2.3")
        .text(0x0020, 0x000E, "UI", "1.2.3.1")
        .short(0x0028, 0x0010, 4)
        .short(0x0028, 0x0011, 3)
        .text(0x0028, 0x0008, "IS", &frame_count.to_string())
        .sequence(0x5200, 0x9229, &[shared])
        .sequence(0x5200, 0x9230, &frames)
        .raw(0x7FE0, 0x0010, "OW", &vec![0; 24 * frame_count]);
    writer.bytes
}

#[test]
fn frames_of_an_enhanced_object_take_from_their_own_groups_then_from_the_shared_ones() {
    let instance = read(EXPLICIT, &enhanced(5, 0)).unwrap();
    assert_eq!(instance.frames.len(), 5);
    assert_eq!(instance.series.kernel, "Hr40");
    for (index, frame) in instance.frames.iter().enumerate() {
        assert_eq!(frame.position_mm, Some([0.0, 0.0, index as f64]));
        assert_eq!(frame.spacing_mm, Some([0.3, 0.4]));
        assert_eq!(frame.orientation, Some([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]));
        assert_eq!(frame.rescale_slope, Some(2.0));
        assert_eq!(frame.thickness_mm, Some(2.5));
        assert_eq!(frame.image_type, ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]);
    }
}

#[test]
fn three_thousand_frames_with_a_hundred_elements_each_are_read() {
    let instance = read(EXPLICIT, &enhanced(3_000, 100)).unwrap();
    assert_eq!(instance.frames.len(), 3_000);
    assert_eq!(instance.counted(), 3_000);
    assert_eq!(
        instance.frames[2_999].position_mm,
        Some([0.0, 0.0, 2_999.0])
    );
}

#[test]
fn a_header_with_more_elements_than_the_limit_is_refused_by_the_name_of_the_limit() {
    let limits = Limits {
        header_elements_max: 200,
        ..Limits::default()
    };
    let few = part10(EXPLICIT, &enhanced(2, 10));
    let many = part10(EXPLICIT, &enhanced(2, 100));
    assert!(read_with(&few, &limits).is_ok());
    let reason = read_with(&many, &limits).unwrap_err().reason;
    assert_eq!(reason.code, ReasonCode::LimitExceeded);
    assert!(reason.text.contains("limits.header_elements_max"));
}

#[test]
fn frames_count_against_the_limit_of_a_study() {
    let limits = Limits {
        study_instances_max: 4,
        ..Limits::default()
    };
    let read = |frames| read_with(&part10(EXPLICIT, &enhanced(frames, 0)), &limits);
    assert_eq!(read(4).unwrap().frames.len(), 4);
    let reason = read(5).unwrap_err().reason;
    assert_eq!(reason.code, ReasonCode::LimitExceeded);
    assert!(reason.text.contains("limits.study_instances_max"));
}

#[test]
fn more_frames_than_the_limit_are_refused_before_memory_is_taken() {
    let mut writer = slice(Encoding::ExplicitLittle);
    let frames = Writer::new(Encoding::ExplicitLittle)
        .text(0x0028, 0x0008, "IS", "2147483647")
        .bytes
        .clone();
    writer.bytes.extend(frames);
    writer.raw(0x7FE0, 0x0010, "OW", &[0; 24]);
    assert_eq!(
        refused(EXPLICIT, &writer.bytes).code,
        ReasonCode::LimitExceeded
    );
}

#[test]
fn escapes_of_iso_2022_do_not_stay_in_a_name() {
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer
        .text(0x0008, 0x0005, "CS", "\\ISO 2022 IR 144")
        .text(0x0008, 0x0018, "UI", "1.2.3.4")
        .raw(
            0x0010,
            0x0010,
            "PN",
            b"Ivanov=\x1B\x2D\x4C\xB8\xD2\xD0\xDD\xDE\xD2",
        )
        .text(0x0020, 0x000D, "UI", "1.2.3")
        .text(0x0020, 0x000E, "UI", "1.2.3.1")
        .raw(0x7FE0, 0x0010, "OW", &[0; 24]);
    let instance = read(EXPLICIT, &writer.bytes).unwrap();
    assert_eq!(instance.study.patient_name, "Ivanov=Иванов");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_data_sets_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        syntax in proptest::sample::select(vec![IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG_LS]),
    ) {
        drop(read(syntax, &bytes));
    }

    #[test]
    fn a_slice_with_one_damaged_byte_never_panics(
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut dataset = enhanced(2, 0);
        let at = at.index(dataset.len());
        dataset[at] = value;
        drop(read(EXPLICIT, &dataset));
    }
}

// Headers that other readers read.

/// A slice with `odd` between its patient and its pixels' layout, behind (0020,0037).
fn slice_with(encoding: Encoding, odd: &[u8]) -> Vec<u8> {
    let mut writer = identifiers(encoding);
    patient_to_series(&mut writer);
    writer.bytes.extend(odd);
    layout(&mut writer);
    writer.raw(0x7FE0, 0x0010, "OW", &[7; 24]);
    writer.bytes
}

/// Reads `dataset`, which must say the same as a slice without anything odd.
fn reads_as_plain(transfer_syntax: &str, encoding: Encoding, dataset: &[u8], name: &str) {
    let plain = read(transfer_syntax, &slice_with_pixels(encoding)).unwrap();
    let odd = read(transfer_syntax, dataset).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    let pixels = odd.pixels.clone().unwrap();
    let file = part10(transfer_syntax, dataset);
    let offset = usize::try_from(pixels.native_offset.unwrap()).unwrap();
    assert_eq!(file[offset..offset + 24], [7; 24], "{name}");
    assert_eq!(odd.study, plain.study, "{name}");
    assert_eq!(odd.series, plain.series, "{name}");
    assert_eq!(odd.frames, plain.frames, "{name}");
}

/// One element in the given encoding.
fn one(encoding: Encoding, tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(encoding);
    writer.raw(tag.0, tag.1, vr, value);
    writer.bytes
}

/// An element with the bytes `code` where its VR should be, and a short length.
fn with_code(code: [u8; 2], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x28, 0, 0x01, 0];
    bytes.extend(code);
    bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value);
    bytes
}

/// A private sequence with the VR `vr`, of undefined length, whose one item holds `item`.
fn private_sequence(vr: &str, item: &[u8], closed: bool) -> Vec<u8> {
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer.bytes.extend([0x21, 0, 0x50, 0x10]);
    writer.bytes.extend(vr.as_bytes());
    writer.bytes.extend([0, 0]);
    writer.u32(u32::MAX);
    writer.delimiter(0xE000, u32::MAX);
    writer.bytes.extend(item);
    if closed {
        writer.delimiter(0xE00D, 0);
    }
    writer.delimiter(0xE0DD, 0);
    writer.bytes
}

const CODE: (u16, u16) = (0x0008, 0x0100);

#[test]
fn a_text_where_the_dictionary_has_a_sequence_is_passed_over() {
    let implicit = Encoding::ImplicitLittle;
    // (0022,0031) is a sequence by the dictionary.
    for text in [&b"Some Header Anonymizer"[..], b"ab", b"\0\0\0\0", b""] {
        let odd = one(implicit, (0x0022, 0x0031), "SQ", text);
        reads_as_plain(IMPLICIT, implicit, &slice_with(implicit, &odd), "text");
    }
    let explicit = Encoding::ExplicitLittle;
    let odd = one(explicit, (0x0022, 0x0031), "SQ", b"no item at all");
    reads_as_plain(EXPLICIT, explicit, &slice_with(explicit, &odd), "explicit");
}

#[test]
fn items_are_read_in_the_encoding_that_they_show() {
    let explicit = Encoding::ExplicitLittle;
    let long = vec![b'x'; 3_000];
    for encoding in [Encoding::ImplicitLittle, Encoding::ExplicitLittle] {
        for value in [&b"CODE"[..], b"", b"ab", &long] {
            for tag in [CODE, (0x0021, 0x1051)] {
                let vr = if value.len() > 1_000 { "LT" } else { "SH" };
                let item = one(encoding, tag, vr, value);
                for (outer, closed) in [("UN", true), ("SQ", true), ("SQ", false), ("UN", false)] {
                    let odd = private_sequence(outer, &item, closed);
                    let name = format!("{outer} {encoding:?} {tag:?} {}", value.len());
                    reads_as_plain(EXPLICIT, explicit, &slice_with(explicit, &odd), &name);
                }
            }
        }
    }
}

#[test]
fn explicit_items_inside_implicit_data_sets_are_read_too() {
    let implicit = Encoding::ImplicitLittle;
    let item = one(Encoding::ExplicitLittle, CODE, "SH", b"CODE");
    let mut writer = Writer::new(implicit);
    writer.sequence(0x0021, 0x1050, &[item]);
    let dataset = slice_with(implicit, &writer.bytes);
    reads_as_plain(IMPLICIT, implicit, &dataset, "explicit in implicit");
}

#[test]
fn an_element_whose_vr_is_none_is_read_by_what_follows_it() {
    let explicit = Encoding::ExplicitLittle;
    for code in [
        *b"  ",
        *b"??",
        *b"\0\0",
        *b"us",
        *b"ZZ",
        *b"U ",
        *b"--",
        [0xFF, 0xFF],
    ] {
        for value in [&b"\x10\0"[..], b"\0\0\0\0", b""] {
            let odd = with_code(code, value);
            let name = format!("{code:?} {value:?}");
            reads_as_plain(EXPLICIT, explicit, &slice_with(explicit, &odd), &name);
        }
        // The same with the form of implicit VR, and of a VR with a long length.
        let mut long = vec![0x28, 0, 0x01, 0];
        long.extend(code);
        long.extend([0, 0, 6, 0, 0, 0]);
        long.extend(b"abcdef");
        let name = format!("{code:?} with a long length");
        reads_as_plain(EXPLICIT, explicit, &slice_with(explicit, &long), &name);
    }
    let implicit = one(Encoding::ImplicitLittle, (0x0028, 0x0001), "US", b"\x10\0");
    let dataset = slice_with(explicit, &implicit);
    reads_as_plain(EXPLICIT, explicit, &dataset, "implicit in between");
}

#[test]
fn sequences_whose_lengths_or_ends_are_wrong_do_not_take_the_rest_with_them() {
    let explicit = Encoding::ExplicitLittle;
    let item = one(explicit, CODE, "SH", b"CODE");
    let item_bytes = u32::try_from(item.len()).unwrap();
    let sequence = |stated: u32, item_stated: u32, delimiters: &[u16]| {
        let mut writer = Writer::new(explicit);
        writer.head(0x0021, 0x1050, "SQ", stated);
        writer.delimiter(0xE000, item_stated);
        writer.bytes.extend(&item);
        for element in delimiters {
            writer.delimiter(*element, 0);
        }
        writer.bytes
    };
    let whole = item_bytes + 8;
    for (name, odd) in [
        ("right", sequence(whole, item_bytes, &[])),
        ("too long", sequence(whole + 10, item_bytes, &[])),
        ("too short", sequence(whole - 2, item_bytes, &[])),
        ("item too short", sequence(u32::MAX, item_bytes, &[])),
        (
            "closed twice",
            sequence(u32::MAX, item_bytes, &[0xE00D, 0xE0DD]),
        ),
        ("item not closed", sequence(u32::MAX, u32::MAX, &[0xE0DD])),
    ] {
        reads_as_plain(EXPLICIT, explicit, &slice_with(explicit, &odd), name);
    }
    let mut two = Writer::new(explicit);
    two.head(0x0021, 0x1050, "SQ", u32::MAX);
    for _ in 0..2 {
        two.delimiter(0xE000, u32::MAX);
        two.bytes.extend(&item);
    }
    two.delimiter(0xE0DD, 0);
    let dataset = slice_with(explicit, &two.bytes);
    reads_as_plain(EXPLICIT, explicit, &dataset, "no item is closed");
}

#[test]
fn odd_lengths_wrong_group_lengths_and_trailing_bytes_do_not_matter() {
    let explicit = Encoding::ExplicitLittle;
    let mut odd = Writer::new(explicit);
    odd.head(0x0021, 0x0010, "LO", 5);
    odd.bytes.extend(b"ACME5");
    odd.head(0x0028, 0x0000, "UL", 4);
    odd.u32(77_777);
    let mut dataset = slice_with(explicit, &odd.bytes);
    reads_as_plain(
        EXPLICIT,
        explicit,
        &dataset,
        "odd length, wrong group length",
    );
    dataset.extend(b"\r\n--boundary--\r\n");
    reads_as_plain(EXPLICIT, explicit, &dataset, "a boundary behind the pixels");

    let mut report = Writer::new(explicit);
    report
        .text(0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.88.67")
        .text(0x0008, 0x0018, "UI", "1.2.3.4");
    patient_to_series(&mut report);
    report.bytes.extend([0; 500]);
    assert!(read(EXPLICIT, &report.bytes).unwrap().pixels.is_none());
}

#[test]
fn a_data_set_in_the_other_order_of_bytes_is_read_and_its_syntax_corrected() {
    for (stated, encoding, seen) in [
        (EXPLICIT, Encoding::ExplicitBig, BIG_ENDIAN),
        (BIG_ENDIAN, Encoding::ExplicitLittle, EXPLICIT),
    ] {
        let instance = read(stated, &slice_with_pixels(encoding)).unwrap();
        assert_eq!(instance.transfer_syntax_uid.as_str(), seen);
        assert_eq!(instance.pixels.unwrap().rows, 4);
    }
}

// Heads of files.

/// The file meta group in implicit VR.
fn implicit_meta() -> Vec<u8> {
    let mut meta = Writer::new(Encoding::ImplicitLittle);
    meta.text(0x0002, 0x0002, "UI", CT_IMAGE)
        .text(0x0002, 0x0003, "UI", "1.2.3.4")
        .text(0x0002, 0x0010, "UI", EXPLICIT);
    meta.bytes
}

#[test]
fn files_without_a_preamble_or_a_head_or_with_an_implicit_one_are_read() {
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    let plain = read(EXPLICIT, &dataset).unwrap();
    let whole = part10(EXPLICIT, &dataset);
    let preamble = &whole[..132];
    let no_class = {
        let mut meta = Writer::new(Encoding::ExplicitLittle);
        meta.text(0x0002, 0x0010, "UI", EXPLICIT);
        meta.bytes
    };
    for (name, file) in [
        ("no preamble", whole[128..].to_vec()),
        ("neither preamble nor DICM", whole[132..].to_vec()),
        ("no head", dataset.clone()),
        (
            "implicit head",
            [preamble, &implicit_meta(), &dataset].concat(),
        ),
        (
            "implicit head alone",
            [&implicit_meta()[..], &dataset].concat(),
        ),
        (
            "head without class",
            [preamble, &no_class, &dataset].concat(),
        ),
        ("no head but the magic", [preamble, &dataset].concat()),
    ] {
        let read = read_with(&file, &Limits::default());
        let instance = read.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(instance.frames, plain.frames, "{name}");
        assert_eq!(
            instance.transfer_syntax_uid, plain.transfer_syntax_uid,
            "{name}"
        );
        let offset = usize::try_from(instance.pixels.unwrap().native_offset.unwrap()).unwrap();
        assert_eq!(file[offset..], [7; 24], "{name}");
    }
    for encoding in [Encoding::ImplicitLittle, Encoding::ExplicitBig] {
        let instance = read_with(&slice_with_pixels(encoding), &Limits::default()).unwrap();
        let syntax = instance.transfer_syntax_uid.as_str();
        assert_eq!(syntax, encoding.transfer_syntax());
        assert_eq!(instance.frames, plain.frames);
    }
}

// What cannot be read.

fn unread(bytes: &[u8], limits: &Limits) -> UnreadObject {
    let (_folder, path) = written(bytes);
    *read_object(&path, limits).unwrap_err()
}

#[test]
fn of_a_cut_object_all_is_told_that_stands_before_the_cut() {
    let dataset = slice_with_pixels(Encoding::ExplicitLittle);
    let file = part10(EXPLICIT, &dataset);
    let cut = unread(&file[..file.len() - 2], &Limits::default());
    let text = |uid: &Option<Uid>| uid.as_ref().map(Uid::to_string);
    assert_eq!(text(&cut.study_uid).as_deref(), Some("1.2.3"));
    assert_eq!(text(&cut.series_uid).as_deref(), Some("1.2.3.1"));
    assert_eq!(text(&cut.sop_instance_uid).as_deref(), Some("1.2.3.4"));
    assert_eq!(cut.study.patient_name, "Ахметов^И");
    assert_eq!(cut.position_mm, Some([-120.5, -100.0, 3.25]));
    assert_eq!(cut.instance_number, Some(7));
    let early = unread(&file[..file.len() - dataset.len() + 60], &Limits::default());
    assert_eq!(early.study_uid, None);
    assert_eq!(text(&early.sop_instance_uid).as_deref(), Some("1.2.3.4"));
    assert_eq!(text(&early.sop_class_uid).as_deref(), Some(CT_IMAGE));
}

#[test]
fn a_study_is_found_behind_a_fault_and_beyond_a_limit() {
    for encoding in [
        Encoding::ImplicitLittle,
        Encoding::ExplicitLittle,
        Encoding::ExplicitBig,
    ] {
        let mut writer = identifiers(encoding);
        // An element that claims more than there is, then all the rest.
        writer.head(0x0009, 0x1010, "OB", 1 << 30);
        patient_to_series(&mut writer);
        layout(&mut writer);
        let cut = unread(
            &part10(encoding.transfer_syntax(), &writer.bytes),
            &Limits::default(),
        );
        let study = cut.study_uid.map(|uid| uid.to_string());
        assert_eq!(study.as_deref(), Some("1.2.3"), "{encoding:?}");
        let series = cut.series_uid.map(|uid| uid.to_string());
        assert_eq!(series.as_deref(), Some("1.2.3.1"), "{encoding:?}");
    }
    let limits = Limits {
        header_elements_max: 3,
        ..Limits::default()
    };
    let file = part10(EXPLICIT, &slice_with_pixels(Encoding::ExplicitLittle));
    let beyond = unread(&file, &limits);
    assert_eq!(beyond.reason.code, ReasonCode::LimitExceeded);
    assert_eq!(beyond.study_uid.unwrap().as_str(), "1.2.3");
    let limits = Limits {
        object_bytes_max: 100,
        ..Limits::default()
    };
    let large = unread(&file, &limits);
    assert_eq!(large.reason.code, ReasonCode::LimitExceeded);
    assert_eq!(large.study.patient_name, "Ахметов^И");
}

/// Well-formed private elements, nested.
fn junk(encoding: Encoding) -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let vr = prop::sample::select(vec!["LO", "OB", "UN", "US", "ST", "UT"]);
    let leaf = (value, vr).prop_map(move |(value, vr)| (vr, value, Vec::<Vec<u8>>::new(), false));
    let element =
        leaf.prop_map(move |(vr, value, _, _)| one(encoding, (0x0021, 0x1001), vr, &value));
    element.prop_recursive(4, 24, 3, move |inner| {
        (
            prop::collection::vec(inner, 0..3),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(move |(items, defined, unknown)| {
                let mut writer = Writer::new(encoding);
                let length: usize = items.iter().map(|item| item.len() + 8).sum();
                let vr = if unknown && !defined && encoding == Encoding::ImplicitLittle {
                    "UN"
                } else {
                    "SQ"
                };
                if defined && encoding != Encoding::ImplicitLittle {
                    writer.head(0x0021, 0x1001, vr, u32::try_from(length).unwrap());
                    for item in &items {
                        writer.delimiter(0xE000, u32::try_from(item.len()).unwrap());
                        writer.bytes.extend(item);
                    }
                } else {
                    writer.sequence(0x0021, 0x1001, &items);
                }
                writer.bytes
            })
    })
}

fn any_encoding() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![
        Encoding::ImplicitLittle,
        Encoding::ExplicitLittle,
        Encoding::ExplicitBig,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn well_formed_private_elements_change_nothing(
        (encoding, odd) in any_encoding().prop_flat_map(|one| (Just(one), junk(one))),
    ) {
        let dataset = slice_with(encoding, &odd);
        reads_as_plain(encoding.transfer_syntax(), encoding, &dataset, "junk");
    }

    #[test]
    fn any_bytes_in_the_header_end_in_a_reading_or_in_an_object_that_is_told_of(
        encoding in any_encoding(),
        odd in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut writer = identifiers(encoding);
        writer.bytes.extend(&odd);
        patient_to_series(&mut writer);
        layout(&mut writer);
        writer.raw(0x7FE0, 0x0010, "OW", &[7; 24]);
        let (_folder, path) = written(&part10(encoding.transfer_syntax(), &writer.bytes));
        if let Err(unread) = read_object(&path, &Limits::default()) {
            prop_assert!(unread.may_hold_slices());
            let named = unread.sop_instance_uid.map(|uid| uid.to_string());
            prop_assert_eq!(named.as_deref(), Some("1.2.3.4"));
            prop_assert!(unread.reason.text.len() > 15);
        }
    }

    #[test]
    fn a_file_cut_anywhere_still_names_its_study_once_that_was_read(cut in any::<prop::sample::Index>()) {
        let dataset = slice_with_pixels(Encoding::ExplicitLittle);
        let file = part10(EXPLICIT, &dataset);
        let named = file.windows(8).position(|at| at == b"\x20\0\x0E\0UI\x08\0").unwrap();
        let cut = named + cut.index(file.len() - named);
        let unread = unread(&file[..cut], &Limits::default());
        let study = unread.study_uid.map(|uid| uid.to_string());
        prop_assert_eq!(study.as_deref(), Some("1.2.3"));
    }
}

/// Each of these stands in the header under its own tag.
#[test]
fn what_later_objects_and_queries_need_of_equipment_and_study_is_read() {
    let mut writer = Writer::new(Encoding::ExplicitLittle);
    writer
        .text(0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.88.67")
        .text(0x0008, 0x0018, "UI", "1.2.3.4")
        .text(0x0008, 0x0021, "DA", "20260115")
        .text(0x0008, 0x0031, "TM", "080010")
        .text(0x0008, 0x0090, "PN", "Doctor^A")
        .text(0x0008, 0x0201, "SH", "+0100")
        .text(0x0008, 0x1010, "SH", "CT01")
        .text(0x0008, 0x1090, "LO", "Maker 64")
        .text(0x0010, 0x0021, "LO", "Hospital")
        .text(0x0018, 0x1000, "LO", "12345")
        .text(0x0018, 0x1020, "LO", "v1\\v2")
        .text(0x0018, 0x5100, "CS", "HFS")
        .text(0x0020, 0x000D, "UI", "1.2.3")
        .text(0x0020, 0x000E, "UI", "1.2.3.1")
        .text(0x0020, 0x0010, "SH", "S7")
        .text(0x0020, 0x0013, "IS", "9")
        .text(0x0020, 0x1040, "LO", "OM");
    let Instance {
        study,
        series,
        instance_number,
        ..
    } = read(EXPLICIT, &writer.bytes).unwrap();
    assert_eq!(instance_number, Some(9));
    assert_eq!(
        [
            study.referring_physician,
            study.timezone,
            study.issuer_of_patient_id,
            study.study_id
        ],
        ["Doctor^A", "+0100", "Hospital", "S7"]
    );
    assert_eq!(
        [
            series.series_date,
            series.series_time,
            series.station_name,
            series.model_name,
            series.device_serial_number,
            series.software_versions,
            series.patient_position,
            series.position_reference
        ],
        [
            "20260115", "080010", "CT01", "Maker 64", "12345", "v1\\v2", "HFS", "OM"
        ]
    );
}
