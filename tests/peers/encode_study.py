"""Writes a study again in every transfer syntax that can be made here. usage: encode_study.py FOLDER OUT

OUT gets one folder a syntax. Each file is read back and must hold the same pixels. The names of the
folders are printed, one a line; a syntax that cannot be made ends the script with an error.
"""

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)


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


def htj2k(source, target):
    data = pydicom.dcmread(source)
    pixels = data.pixel_array.astype(np.uint16)
    data.PixelRepresentation = 0
    data.PixelData = encapsulate([imagecodecs.htj2k_encode(pixels)])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = HTJ2KLossless
    data.save_as(target)


SYNTAXES = {
    "implicit_little_endian": plain(ImplicitVRLittleEndian),
    "deflated": plain(DeflatedExplicitVRLittleEndian),
    "explicit_big_endian": by_program("dcmconv", "+tb"),
    "rle": by_pydicom(RLELossless),
    "jpeg_lossless_sv1": by_program("dcmcjpeg", "+e1"),
    "jpeg_lossless": by_program("dcmcjpeg", "+el"),
    "jpeg_ls": by_pydicom(JPEGLSLossless),
    "jpeg_ls_dcmtk": by_program("dcmcjpls"),
    "jpeg_2000": by_pydicom(JPEG2000Lossless),
    "jpeg_2000_gdcm": by_program("gdcmconv", "--j2k"),
    "htj2k": htj2k,
    "undefined_length_sequences": by_program("dcmconv", "-e"),
}


def main():
    sources = sorted(Path(sys.argv[1]).iterdir())
    for name, write in SYNTAXES.items():
        folder = Path(sys.argv[2]) / name
        folder.mkdir(parents=True)
        for source in sources:
            target = folder / source.name
            write(str(source), str(target))
            if not np.array_equal(pydicom.dcmread(source).pixel_array, pydicom.dcmread(target).pixel_array):
                sys.exit(f"{name}: {source.name} does not read back as it was")
        print(name, flush=True)


if __name__ == "__main__":
    main()
