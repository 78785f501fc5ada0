//! What Tez can say about a study besides its findings: one vocabulary, so that the result, the
//! worklist, HL7 and the documentation say the same thing in the same word.

use serde::{Deserialize, Serialize};

/// A word of the vocabulary. On the wire in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    // Objects.
    /// The bytes are not a DICOM object.
    NotDicom,
    /// The object ends before it should.
    Truncated,
    /// The sender broke off, and what it sent cannot be shown to be all.
    SenderBrokeOff,
    /// A limit of the service was exceeded.
    LimitExceeded,
    /// An identifier is missing or is not a UID.
    BadIdentifier,
    /// The same SOP Instance UID came with other content.
    ConflictingDuplicate,
    /// The same object came more than once.
    Duplicate,
    /// Objects of the study could not be read, or were not taken.
    UnreadObjects,
    /// A kept object's file is damaged or gone.
    DamagedFile,

    // Series.
    /// No series of the study can be analysed.
    NoUsableSeries,
    /// Not a CT image.
    NotCt,
    /// A localiser (scout, topogram).
    Localizer,
    /// Derived: a reformat, projection, screenshot or dose page.
    Derived,
    /// Slices are not axial.
    NotAxial,
    /// A bone or other sharp kernel.
    BoneKernel,
    /// Contrast was given: an angiogram, perfusion or enhanced scan.
    Contrast,
    /// By its header another part of the body.
    OtherBodyPart,
    /// By its pixels not a head.
    NotHead,
    /// Slices thinner or thicker than 0.4–10 mm.
    SliceThicknessOutOfRange,
    /// Another series of the study suits better.
    AnotherSeriesPreferred,
    /// This series was analysed.
    Chosen,
    /// Slices lie over each other and were told apart by their headers.
    PartedByHeader,
    /// Slices with other pixels lie over each other, and nothing tells them apart.
    OverlappingSlices,
    /// The Study Instance UID is shared by more than one patient.
    SharedStudyUid,

    // Geometry and pixels.
    /// Too few slices for a volume.
    TooFewSlices,
    /// More slices than the limit.
    TooManySlices,
    /// Position, orientation or pixel spacing is missing or is not a number.
    MissingGeometry,
    /// Direction cosines are not unit vectors at a right angle; they were made so.
    InexactDirections,
    /// Positions or pixel spacing make a head of a size that no head has.
    ImplausibleSize,
    /// Slices of one series point different ways.
    MixedOrientations,
    /// Slices of one series differ in rows, columns or pixel spacing.
    MixedMatrix,
    /// Two slices lie at the same place.
    DuplicateSlice,
    /// Slices are missing.
    MissingSlices,
    /// Gaps between slices differ; resampled.
    UnevenSpacing,
    /// The gantry was tilted; rectified.
    GantryTilt,
    /// The tilt that the header names is not the one that the positions show.
    TiltTagDisagrees,
    /// Instance numbers do not follow the positions.
    InstanceNumbersOutOfOrder,
    /// The pixel data cannot be decoded.
    UndecodablePixels,
    /// The pixel data has another size than rows, columns and frames say.
    WrongPixelSize,
    /// The decoded pixels are such as no CT scanner makes.
    ImplausiblePixels,
    /// The transfer syntax is not supported.
    UnsupportedTransferSyntax,
    /// Rescale values are missing or are not Hounsfield units.
    NotHounsfield,
    /// The stack does not span the head.
    IncompleteHead,
    /// Noise hides small or faint blood.
    Noise,
    /// Metal throws streaks over the brain.
    MetalArtefact,
    /// The head moved between slices.
    Motion,
    /// Slices do not reach from above the vertex to the skull base, or cannot be shown to.
    CoverageNotProven,

    // Analysis.
    /// ONNX Runtime's library is missing or unusable.
    InferenceLibraryMissing,
    /// The model or its card is missing, altered or unusable.
    ModelUnavailable,
    /// The volume or the patient is outside what the model was made for.
    OutsideModelContract,
    /// The model's run failed.
    InferenceFailed,
    /// The analysis took longer than it may.
    AnalysisTimedOut,
    /// The process that analysed the study died.
    WorkerDied,
    /// An internal fault; the log has more.
    InternalFault,
}

/// A word with a sentence: what, where, and where there is one, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people. Never holds a patient's name.
    pub text: String,
}

impl Reason {
    /// Joins a code and a sentence.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}
