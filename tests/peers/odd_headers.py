"""Writes slices with headers of odd forms, and what pydicom reads in them. usage: odd_headers.py FOLDER OUT

OUT gets one folder a form: its files, and beside each `.dcm` a `.raw` with the pixel data that pydicom finds. For
each file one line of JSON is printed: the form, the file, and what pydicom reads. A form that pydicom cannot read ends
the script with an error.
"""

import json
import struct
import sys
from io import BytesIO
from pathlib import Path

import pydicom

UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
PRIVATE = struct.pack("<HH", 0x0019, 0x1050)
CREATOR = struct.pack("<HH2sH", 0x0019, 0x0010, b"LO", 8) + b"TEZ TEST"


def implicit(group, element, value):
    return struct.pack("<HHI", group, element, len(value)) + value


def explicit(group, element, vr, value):
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def sequence(vr, content):
    head = PRIVATE + vr + b"\0\0" + UNDEFINED
    return CREATOR + head + ITEM + UNDEFINED + content + ITEM_END + SEQUENCE_END


# Name of the form: (implicit VR, before which tag it is put, its bytes).
FORMS = {
    "text_for_sequence": (True, (0x0020, 0x000D), implicit(0x0018, 0x9346, b"no sequence here")),
    "unknown_holds_explicit": (False, (0x0020, 0x000D), sequence(b"UN", explicit(8, 0x100, b"SH", b"CODE"))),
    "unknown_holds_implicit": (False, (0x0020, 0x000D), sequence(b"UN", implicit(8, 0x100, b"CODE"))),
    "implicit_items": (False, (0x0020, 0x000D), sequence(b"SQ", implicit(8, 0x100, b"CODE"))),
    "odd_length": (False, (0x0020, 0x000D), explicit(0x0019, 0x0010, b"LO", b"ODD")),
    "wrong_group_length": (False, (0x0020, 0x000D), explicit(0x0020, 0x0000, b"UL", b"\x01\0\0\0")),
}
PREAMBLE_BYTES = 132


def encoded(dataset, is_implicit):
    """File head and data set of the slice, apart."""
    syntax = pydicom.uid.ImplicitVRLittleEndian if is_implicit else pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=is_implicit, little_endian=True, enforce_file_format=True)
    whole = buffer.getvalue()
    (meta_bytes,) = struct.unpack_from("<I", whole, PREAMBLE_BYTES + 8)
    end = PREAMBLE_BYTES + 12 + meta_bytes
    return whole[:end], whole[end:]


def forms(source):
    for name, (is_implicit, before, odd) in FORMS.items():
        head, body = encoded(pydicom.dcmread(source), is_implicit)
        at = body.index(struct.pack("<HH", *before))
        yield name, head + body[:at] + odd + body[at:]
    head, body = encoded(pydicom.dcmread(source), False)
    yield "no_preamble", head[PREAMBLE_BYTES:] + body
    yield "no_head", body


def main():
    for source in sorted(Path(sys.argv[1]).iterdir())[:3]:
        for name, content in forms(source):
            folder = Path(sys.argv[2]) / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / source.name
            path.write_bytes(content)
            read = pydicom.dcmread(path, force=True)
            path.with_suffix(".raw").write_bytes(read.PixelData)
            says = {
                "form": name,
                "file": str(path),
                "sop": read.SOPInstanceUID,
                "study": read.StudyInstanceUID,
                "series": read.SeriesInstanceUID,
                "position": [float(value) for value in read.ImagePositionPatient],
                "rows": read.Rows,
                "name": str(read.PatientName),
            }
            print(json.dumps(says))


main()
