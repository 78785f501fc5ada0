//! Data sets written element by element, as tests want them.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::header::walk::{self, Encoding};
use crate::header::*;

pub(super) const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(super) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(super) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(super) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub(super) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(super) const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// Writes elements one by one, in any of the encodings.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) encoding: Encoding,
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            bytes: Vec::new(),
        }
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes.extend(match self.encoding {
            Encoding::ExplicitBig => value.to_be_bytes(),
            Encoding::ImplicitLittle | Encoding::ExplicitLittle => value.to_le_bytes(),
        });
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend(match self.encoding {
            Encoding::ExplicitBig => value.to_be_bytes(),
            Encoding::ImplicitLittle | Encoding::ExplicitLittle => value.to_le_bytes(),
        });
    }

    pub(super) fn head(&mut self, group: u16, element: u16, vr: &str, length: u32) {
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

    pub(super) fn raw(&mut self, group: u16, element: u16, vr: &str, value: &[u8]) -> &mut Self {
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

    pub(super) fn text(&mut self, group: u16, element: u16, vr: &str, value: &str) -> &mut Self {
        self.raw(group, element, vr, value.as_bytes())
    }

    pub(super) fn short(&mut self, group: u16, element: u16, value: u16) -> &mut Self {
        self.head(group, element, "US", 2);
        self.u16(value);
        self
    }

    /// A sequence of undefined length with one item per entry of `items`.
    pub(super) fn sequence(&mut self, group: u16, element: u16, items: &[Vec<u8>]) -> &mut Self {
        self.head(group, element, "SQ", u32::MAX);
        for item in items {
            self.delimiter(0xE000, u32::MAX);
            self.bytes.extend(item);
            self.delimiter(0xE00D, 0);
        }
        self.delimiter(0xE0DD, 0);
        self
    }

    pub(super) fn delimiter(&mut self, element: u16, length: u32) {
        self.u16(0xFFFE);
        self.u16(element);
        self.u32(length);
    }
}

/// Everything of a CT slice that comes before its rows and columns.
pub(super) fn identifiers(encoding: Encoding) -> Writer {
    let mut writer = Writer::new(encoding);
    writer
        .text(0x0008, 0x0005, "CS", "ISO_IR 144")
        .text(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL")
        .text(0x0008, 0x0016, "UI", CT_IMAGE)
        .text(0x0008, 0x0018, "UI", "1.2.3.4")
        .text(0x0008, 0x0060, "CS", "CT");
    writer
}

pub(super) fn patient_to_series(writer: &mut Writer) {
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

pub(super) fn layout(writer: &mut Writer) {
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

pub(super) fn slice(encoding: Encoding) -> Writer {
    let mut writer = identifiers(encoding);
    patient_to_series(&mut writer);
    layout(&mut writer);
    writer
}

pub(super) fn slice_with_pixels(encoding: Encoding) -> Vec<u8> {
    let mut writer = slice(encoding);
    writer.raw(0x7FE0, 0x0010, "OW", &[7; 24]);
    writer.bytes
}

pub(super) fn part10(transfer_syntax: &str, dataset: &[u8]) -> Vec<u8> {
    let uid = |text: &str| Uid::new(text).unwrap();
    let mut file = part10_head(&uid(CT_IMAGE), &uid("1.2.3.4"), &uid(transfer_syntax));
    file.extend_from_slice(dataset);
    file
}

pub(super) fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("object.dcm");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub(super) fn read_with(bytes: &[u8], limits: &Limits) -> Result<Instance, Refusal> {
    let (_folder, path) = written(bytes);
    read_instance(&path, limits)
}

pub(super) fn read(transfer_syntax: &str, dataset: &[u8]) -> Result<Instance, Refusal> {
    read_with(&part10(transfer_syntax, dataset), &Limits::default())
}

pub(super) fn refused(transfer_syntax: &str, dataset: &[u8]) -> Reason {
    read(transfer_syntax, dataset).unwrap_err().reason
}

pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
