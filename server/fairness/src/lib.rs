//! What one sender may take of a listener, so that the others are served as well.
//!
//! [`places`] bounds what one address may hold at once, [`pace`] how slowly a sender may bring its
//! bytes. Both are needed by every listener, whatever its protocol, and know none.

pub mod pace;
pub mod places;
