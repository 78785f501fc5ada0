//! The intake from both sides of its door.
