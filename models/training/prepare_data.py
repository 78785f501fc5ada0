"""Gathers everything that training reads into one file.

usage: prepare_data.py SLABS DICOM CT_ICH TEACHER_LABELS PHANTOM_SLABS PAIRS.csv OUT.pkl
"""

import pickle
import sys
from pathlib import Path

from data import load_patients, load_phantoms


def main():
    slabs, dicom, ct_ich, teacher, phantom_slabs, pairs, out = map(Path, sys.argv[1:8])
    heads, contract = load_patients(slabs, dicom, ct_ich, teacher)
    phantoms = load_phantoms(phantom_slabs, pairs)
    out.write_bytes(pickle.dumps((heads, phantoms, contract)))
    print(f"{len(heads)} patients, {len(phantoms)} phantoms")


if __name__ == "__main__":
    main()
