//! Headers in their usual forms, cut ones, and limits.

mod odd;
mod writer;

use proptest::prelude::*;

use super::*;
use writer::*;

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
