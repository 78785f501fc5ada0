//! The model card: what a network is, takes, gives and is meant for.
