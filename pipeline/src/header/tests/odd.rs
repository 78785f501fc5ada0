//! Headers that break their own form, as writers make them, and any bytes at all.

use proptest::prelude::*;

use super::writer::*;
use crate::header::*;

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
