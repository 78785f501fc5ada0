//! ONNX Runtime, found and loaded at run time.
