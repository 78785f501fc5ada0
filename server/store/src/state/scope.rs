//! On whose behalf something is read.

/// Whose studies a person or a program may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of every site.
    All,
}

impl Scope {
    /// The statement that reads what this scope may see, of `all` without a limit.
    pub(super) fn of(self, all: &'static str) -> &'static str {
        match self {
            Self::All => all,
        }
    }
}
