"""Gathers everything that training reads into one file.

usage: prepare_data.py SLABS DICOM CT_ICH TEACHER_LABELS PHANTOM_SLABS PAIRS.csv CPAISD_IMAGES APART_SLABS OUT.pkl
"""

import pickle
import sys
from pathlib import Path

from data import load_apart, load_others, load_patients, load_phantoms


def main():
    slabs, dicom, ct_ich, teacher, phantom_slabs, pairs, cpaisd, apart_slabs, out = map(Path, sys.argv[1:10])
    heads, contract = load_patients(slabs, dicom, ct_ich, teacher)
    phantoms = load_phantoms(phantom_slabs, pairs)
    others = load_others(cpaisd, contract)
    apart = load_apart(apart_slabs)
    out.write_bytes(pickle.dumps((heads, phantoms, others, apart, contract)))
    print(f"{len(heads)} patients, {len(phantoms)} phantoms, {len(others)} others, {len(apart)} apart")


if __name__ == "__main__":
    main()
