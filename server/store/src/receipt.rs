//! How an object came, and what became of it.

/// The road by which an object came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// C-STORE.
    Dimse,
    /// STOW-RS.
    Stow,
    /// `POST /api/v1/uploads`.
    Upload,
}

impl Channel {
    /// The road's name in the database, in metrics and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dimse => "dimse",
            Self::Stow => "stow",
            Self::Upload => "upload",
        }
    }
}

/// What became of an acknowledged object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is new.
    New,
    /// Its UID and content were here already; nothing was written twice.
    Duplicate,
    /// Its UID was here with other content; kept apart and reported.
    Conflict,
    /// Its UID and content were here already, but the file was damaged or gone: this copy took its
    /// place.
    Mended,
}

impl Receipt {
    /// Its name in the database, in metrics and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Mended => "mended",
        }
    }
}
