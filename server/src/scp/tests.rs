//! Raw clients against a running provider.
