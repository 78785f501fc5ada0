//! Is this volume a head, and how much of one? Asked of the pixels, not of the header.
