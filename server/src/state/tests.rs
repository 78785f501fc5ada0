//! The port on a real database in a scratch folder.
