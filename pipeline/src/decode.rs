//! Pixel data → Hounsfield units, one frame at a time, on all cores.
