//! Settings: a TOML file, overridden by `TEZ_…` in the environment; everything has a default.
