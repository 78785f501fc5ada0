//! What happens to studies, told to whoever listens.
