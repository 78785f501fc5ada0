"""Sends every file of a folder over one association with pynetdicom's API. usage: send_pynetdicom.py PORT FOLDER"""

import sys
from pathlib import Path

import pydicom
from pynetdicom import AE

port, folder = int(sys.argv[1]), Path(sys.argv[2])
datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
ae = AE(ae_title="PYNETDICOM")
for sop_class, syntax in sorted({(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}):
    ae.add_requested_context(sop_class, syntax)
association = ae.associate("127.0.0.1", port, ae_title="TEZ")
if not association.is_established:
    sys.exit("the association was not accepted")
for dataset in datasets:
    status = association.send_c_store(dataset)
    if not status or status.Status != 0x0000:
        sys.exit(f"{dataset.SOPInstanceUID}: {status}")
association.release()
