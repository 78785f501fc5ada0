//! Instances → the state of a study, and whether its stack is provably whole.
