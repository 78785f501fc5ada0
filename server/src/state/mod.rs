//! What must outlive a restart, besides the objects: behind one narrow port.
