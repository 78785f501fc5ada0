"""Writes a study again in every transfer syntax, and in many ways of packing.

usage: encode_study.py FOLDER OUT GROUP

OUT gets one folder NAME for each way: the first of each transfer syntax has all slices, other ways every eighth.
For each a line is printed: NAME, the transfer syntax, and how many
Hounsfield units its voxels may differ from what an independent decoder (DCMTK where it has one) makes of it:
a number; "same" where it loses nothing, then also from the study itself; "undecodable" where nobody shall
decode it. What the other decoder made of a lossy one is in NAME.decoded. A way that cannot be made, or that the
other decoder reads otherwise, ends the script with an error.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from jpeg_ls import encode_buffer
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
UNDECODABLE = {"jpeg_xl": "1.2.840.10008.1.2.4.110", "mpeg2": "1.2.840.10008.1.2.4.100"}


def by_program(*command):
    def write(source, target):
        subprocess.run([*command, source, target], check=True, capture_output=True)

    return write


def by_pydicom(syntax):
    def write(source, target):
        data = pydicom.dcmread(source)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(target)

    return write


def plain(syntax):
    def write(source, target):
        data = pydicom.dcmread(source)
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(target, data, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)

    return write


def as_code(syntax, encode, layout=lambda data, stored: stored):
    """`encode` makes the code of stored words; `layout` first changes header and words."""

    def write(source, target):
        data = pydicom.dcmread(source)
        stored = layout(data, data.pixel_array.astype(np.uint16))
        code = encode(stored)
        if code is None:
            data.PixelData = stored.astype("<u2").tobytes()
        else:
            data.PixelData = encapsulate([code])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(target)

    return write


def lossy(write):
    """Says so in the header, as the standard demands of who writes it."""

    def also(source, target):
        write(source, target)
        data = pydicom.dcmread(target)
        data.LossyImageCompression = "01"
        data.save_as(target)

    return also


def silent(write):
    """Says nothing of the loss, as some writers do."""

    def also(source, target):
        write(source, target)
        data = pydicom.dcmread(target)
        data.ImageType = pydicom.dcmread(source).ImageType
        data.SOPInstanceUID = pydicom.dcmread(source).SOPInstanceUID
        for name in [element.keyword for element in data if element.keyword.startswith("LossyImage")]:
            delattr(data, name)
        data.save_as(target)

    return also


def eight_bits(write):
    """With bytes of 8 HU each instead of the 12 bits."""

    def also(source, target):
        data = pydicom.dcmread(source)
        hounsfield = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        data.PixelData = np.clip((hounsfield + 1024) / 8, 0, 255).round().astype(np.uint8).tobytes()
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.RescaleSlope, data.RescaleIntercept = 8, -1024
        with tempfile.NamedTemporaryFile(suffix=".dcm") as between:
            data.save_as(between.name)
            write(between.name, target)

    return also


def high_bit(high):
    def layout(data, stored):
        data.HighBit = high
        return stored << (high - 11)

    return layout


def signed(bits, stored_bits, high=None):
    """Hounsfield units in two's complement of `bits`, in a picture of `stored_bits`."""

    def layout(data, stored):
        hounsfield = stored.astype(np.int32) + int(data.RescaleIntercept)
        data.RescaleIntercept = 0
        data.PixelRepresentation = 1
        data.BitsStored, data.HighBit = stored_bits, high or stored_bits - 1
        shift = data.HighBit + 1 - stored_bits
        return ((hounsfield & ((1 << bits) - 1)) << shift).astype(np.uint16)

    return layout


def jpeg_lossless(precision, predictor=1, restart_rows=None):
    """An encoder of process 14, since none at hand writes restart intervals or chooses the precision."""

    def encode(stored):
        samples = stored.astype(np.int64)
        rows, columns = samples.shape
        interval = restart_rows or rows
        code = bytearray(b"\xff\xd8\xff\xc4" + struct.pack(">HB", 36, 0) + bytes([0, 0, 0, 0, 17] + [0] * 11 + list(range(17))))
        code += b"\xff\xc3" + struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0)
        if restart_rows:
            code += b"\xff\xdd" + struct.pack(">HH", 4, restart_rows * columns)
        code += b"\xff\xda" + struct.pack(">HB5B", 8, 1, 1, 0, predictor, 0, 0)
        for number, first in enumerate(range(0, rows, interval)):
            if number:
                code += bytes([0xFF, 0xD0 + (number - 1) % 8])
            code += entropy_coded(samples[first : first + interval], precision, predictor)
        return bytes(code + b"\xff\xd9")

    return encode


def entropy_coded(samples, precision, predictor):
    left, above = np.roll(samples, 1, axis=1), np.roll(samples, 1, axis=0)
    corner = np.roll(above, 1, axis=1)
    prediction = {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor].copy()
    prediction[0] = left[0]
    prediction[:, 0] = above[:, 0]
    prediction[0, 0] = 1 << (precision - 1)
    difference = ((samples - prediction + 32767) % 65536 - 32767).ravel()
    size = np.array([int(abs(value)).bit_length() for value in difference])
    own = np.where(difference < 0, difference - 1, difference) & ((1 << size) - 1)
    length = 5 + np.where(size == 16, 0, size)
    value = np.where(size == 16, size, (size << size) | own)
    places = np.arange(21)
    bits = (value[:, None] >> (length[:, None] - 1 - places).clip(0)) & 1
    bits = bits[places < length[:, None]].astype(np.uint8)
    bits = np.concatenate([bits, np.ones(-len(bits) % 8, np.uint8)])
    return np.packbits(bits).tobytes().replace(b"\xff", b"\xff\x00")


def jpeg_ls(precision):
    def encode(stored):
        return bytes(encode_buffer(stored.astype("<u2").tobytes(), *stored.shape, 1, precision))

    return encode


def jpeg_2000(stored):
    return imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, codecformat="j2k")


def jpeg_2000_lossy(stored):
    return imagecodecs.jpeg2k_encode(stored, level=70, reversible=False, codecformat="j2k")


def htj2k_lossy(stored):
    return imagecodecs.htj2k_encode(stored, reversible=False, level=0.001)


def htj2k_rpcl(stored):
    code = imagecodecs.htj2k_encode(stored, tlm=True)
    progression = code[code.index(b"\xff\x52") + 5]
    if progression != 2:
        sys.exit(f"the HTJ2K encoder writes progression {progression}, not RPCL (2)")
    return code


NEAR = ("dcmcjpls", "+en", "+md", "2")
EXTENDED = ("dcmcjpeg", "+ee", "+q", "95", "+un")

LOSSLESS = {
    "native": {
        "implicit_little_endian": plain(ImplicitVRLittleEndian),
        "explicit_little_endian": plain(ExplicitVRLittleEndian),
        "deflated": plain(DeflatedExplicitVRLittleEndian),
        "explicit_big_endian": by_program("dcmconv", "+tb"),
        "encapsulated_uncompressed": as_code(ENCAPSULATED_UNCOMPRESSED, lambda stored: stored.astype("<u2").tobytes()),
        "undefined_length_sequences": by_program("dcmconv", "-e"),
        "high_bit_12": as_code(ExplicitVRLittleEndian, lambda stored: None, high_bit(12)),
        "high_bit_15": as_code(ExplicitVRLittleEndian, lambda stored: None, high_bit(15)),
        "high_bit_15_signed": as_code(ExplicitVRLittleEndian, lambda stored: None, signed(12, 12, 15)),
        "rle": by_pydicom(RLELossless),
        "rle_dcmtk": by_program("dcmcrle"),
        "rle_high_bit_15": as_code(RLELossless, lambda stored: rle(stored), high_bit(15)),
    },
    "jpeg_lossless": {
        "jpeg_lossless_sv1": by_program("dcmcjpeg", "+e1"),
        "jpeg_lossless_sv1_restart_1": as_code(JPEGLossless.replace(".57", ".70"), jpeg_lossless(16, 1, 1)),
        "jpeg_lossless_sv1_restart_16": as_code(JPEGLossless.replace(".57", ".70"), jpeg_lossless(12, 1, 16)),
        "jpeg_lossless_fragments": by_program("dcmcjpeg", "+e1", "+fs", "1"),
        **{
            f"jpeg_lossless_predictor_{predictor}_restart_7": as_code(JPEGLossless, jpeg_lossless(16, predictor, 7))
            for predictor in range(1, 8)
        },
        "jpeg_lossless_12_of_16_signed": as_code(JPEGLossless, jpeg_lossless(12), signed(12, 16)),
        "jpeg_lossless_13_of_16_signed": as_code(JPEGLossless, jpeg_lossless(13, 6, 5), signed(13, 16)),
        "jpeg_lossless_12_of_12_signed": as_code(JPEGLossless, jpeg_lossless(12, 4), signed(12, 12)),
        "jpeg_lossless_high_bit_15": as_code(JPEGLossless, jpeg_lossless(16), high_bit(15)),
        "jpeg_lossless_12_high_bit_15": as_code(
            JPEGLossless, lambda stored: jpeg_lossless(12)(stored >> 4), high_bit(15)
        ),
    },
    "jpeg_lossless_predictors": {
        **{
            f"jpeg_lossless_predictor_{predictor}": by_program("dcmcjpeg", "+el", "+sv", str(predictor))
            for predictor in range(1, 8)
        },
    },
    "jpeg_ls": {
        "jpeg_ls": by_pydicom(JPEGLSLossless),
        "jpeg_ls_dcmtk": by_program("dcmcjpls"),
        "jpeg_ls_high_bit_15": as_code(JPEGLSLossless, imagecodecs.jpegls_encode, high_bit(15)),
        "jpeg_ls_12_of_16_signed": as_code(JPEGLSLossless, jpeg_ls(12), signed(12, 16)),
        "jpeg_ls_fragments": by_program("dcmcjpls", "+fs", "1"),
    },
    "jpeg_2000": {
        "jpeg_2000": by_pydicom(JPEG2000Lossless),
        "jpeg_2000_gdcm": by_program("gdcmconv", "--j2k"),
        "jpeg_2000_high_bit_15": as_code(JPEG2000Lossless, jpeg_2000, high_bit(15)),
        "jpeg_2000_12_of_16_signed": as_code(
            JPEG2000Lossless,
            lambda stored: imagecodecs.jpeg2k_encode(
                stored, level=0, reversible=True, codecformat="j2k", bitspersample=12
            ),
            signed(12, 16),
        ),
        "jpeg_2000_not_said_lossless": as_code(JPEG2000, jpeg_2000),
        "htj2k": as_code(HTJ2KLossless, imagecodecs.htj2k_encode),
        "htj2k_rpcl": as_code(HTJ2KLosslessRPCL, htj2k_rpcl),
        "htj2k_high_bit_15": as_code(HTJ2KLossless, imagecodecs.htj2k_encode, high_bit(15)),
    },
}

# How far decoders may part, HU: one step of the stored values, in bytes of 8.03 HU (DCMTK rescales them).
LOSSY_JPEG = {
    "jpeg_extended": (by_program(*EXTENDED), 1),
    "jpeg_extended_not_said": (silent(by_program(*EXTENDED)), 1),
    "jpeg_baseline": (eight_bits(by_program("dcmcjpeg", "+eb", "+q", "95", "+un")), 9),
}
LOSSY = {
    "jpeg_ls_near": (lossy(by_program(*NEAR)), 0),
    "jpeg_2000_lossy": (lossy(as_code(JPEG2000, jpeg_2000_lossy)), 1),
    "htj2k_lossy": (lossy(as_code(HTJ2K, htj2k_lossy)), 1),
}


def rle(stored):
    """Two segments of literal runs, high bytes first (PS3.5 annex G)."""

    def packed(data):
        runs = [data[at : at + 128] for at in range(0, len(data), 128)]
        out = b"".join(bytes([len(run) - 1]) + run for run in runs)
        return out + b"\x80" * (len(out) % 2)

    high = packed((stored >> 8).astype(np.uint8).tobytes())
    low = packed((stored & 255).astype(np.uint8).tobytes())
    return struct.pack("<16I", 2, 64, 64 + len(high), *[0] * 13) + high + low


def syntax_of(path):
    return str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def decoded(path, target):
    """Writes the file again uncompressed, by DCMTK where it can."""
    syntax = syntax_of(path)
    programs = {"1.2.840.10008.1.2.5": "dcmdrle"}
    programs |= {f"1.2.840.10008.1.2.4.{number}": "dcmdjpeg" for number in (50, 51, 57, 70)}
    programs |= {f"1.2.840.10008.1.2.4.{number}": "dcmdjpls" for number in (80, 81)}
    data = pydicom.dcmread(path)
    # DCMTK and GDCM take a narrow JPEG-LS code without its sign, other than with JPEG; pydicom takes it.
    by_dcmtk = not (data.PixelRepresentation and syntax == JPEGLSLossless)
    if syntax in programs and by_dcmtk:
        subprocess.run([f"/usr/bin/{programs[syntax]}", path, target], check=True, capture_output=True)
        return
    if data.file_meta.TransferSyntaxUID.is_encapsulated and syntax != ENCAPSULATED_UNCOMPRESSED:
        data.decompress(generate_instance_uid=False)
    elif syntax == ENCAPSULATED_UNCOMPRESSED:
        data.PixelData = next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1))
        data["PixelData"].is_undefined_length = False
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(target)


def hounsfield(path):
    """The native pixels of a file by the standard's own words (PS3.5 section 8.1.1)."""
    data = pydicom.dcmread(path)
    order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
    words = np.frombuffer(data.PixelData, f"{order}u{data.BitsAllocated // 8}")[: data.Rows * data.Columns]
    samples = (words.astype(np.int64) >> (data.HighBit + 1 - data.BitsStored)) & ((1 << data.BitsStored) - 1)
    if data.PixelRepresentation:
        samples -= (samples >> (data.BitsStored - 1)) << data.BitsStored
    return samples * float(data.RescaleSlope) + float(data.RescaleIntercept)


def write_lossless(name, write, sources, out):
    for source in sources:
        target = out / name / source.name
        write(str(source), str(target))
        with tempfile.NamedTemporaryFile(suffix=".dcm") as native:
            decoded(str(target), native.name)
            if not np.array_equal(hounsfield(source), hounsfield(native.name)):
                sys.exit(f"{name}: {source.name} does not read back as it was")


def write_lossy(name, write, sources, out):
    (out / f"{name}.decoded").mkdir()
    for source in sources:
        target = out / name / source.name
        write(str(source), str(target))
        decoded(str(target), str(out / f"{name}.decoded" / source.name))


def write_undecodable(name, syntax, sources, out):
    for source in sources:
        target = out / name / source.name
        as_code(RLELossless, lambda stored: b"\0" * 64)(str(source), str(target))
        # pydicom writes no syntax that it does not know.
        meta = target.read_bytes()
        short = RLELossless.encode() + b"\0" * (len(RLELossless) % 2)
        long = syntax.encode() + b"\0" * (len(syntax) % 2)
        at = meta.index(struct.pack("<2H2sH", 2, 0x10, b"UI", len(short))) + 8
        meta = meta[: at - 2] + struct.pack("<H", len(long)) + long + meta[at + len(short) :]
        length = meta.index(struct.pack("<2H2sH", 2, 0, b"UL", 4)) + 8
        size = struct.unpack_from("<I", meta, length)[0] + len(long) - len(short)
        target.write_bytes(meta[:length] + struct.pack("<I", size) + meta[length + 4 :])


def main():
    sources = sorted(Path(sys.argv[1]).iterdir())
    out = Path(sys.argv[2])

    whole = set()

    def say(name, tolerance):
        whole.add(syntax_of(next((out / name).iterdir())))
        print(name, syntax_of(next((out / name).iterdir())), tolerance, flush=True)

    group = sys.argv[3]
    ways = LOSSLESS.get(group, {})
    lossy_ways = {"lossy_jpeg": LOSSY_JPEG, "lossy": LOSSY}.get(group, {})
    undecodable = {"undecodable": UNDECODABLE}.get(group, {})
    for name in [*ways, *lossy_ways, *undecodable]:
        (out / name).mkdir(parents=True)
    for name, write in ways.items():
        write_lossless(name, write, sources[3::8], out)
        syntax = syntax_of(next((out / name).iterdir()))
        if syntax not in whole:
            write_lossless(name, write, [source for source in sources if source not in sources[3::8]], out)
        say(name, "same")
    for name, (write, tolerance) in lossy_ways.items():
        write_lossy(name, write, sources, out)
        say(name, tolerance)
    for name, syntax in undecodable.items():
        write_undecodable(name, syntax, sources, out)
        say(name, "undecodable")


if __name__ == "__main__":
    main()
