"""Stores every file of a folder by STOW-RS with dicomweb-client. usage: stow_dicomweb_client.py BASE_URL FOLDER"""

import sys
from pathlib import Path

import pydicom
from dicomweb_client.api import DICOMwebClient

client = DICOMwebClient(url=sys.argv[1])
datasets = [pydicom.dcmread(path) for path in sorted(Path(sys.argv[2]).iterdir())]
answer = client.store_instances(datasets=datasets)
stored = len(answer.get("ReferencedSOPSequence", []))
failed = len(answer.get("FailedSOPSequence", []))
if stored != len(datasets) or failed:
    sys.exit(f"{stored} of {len(datasets)} stored, {failed} failed: {answer}")
