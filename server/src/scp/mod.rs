//! The DICOM storage provider.
