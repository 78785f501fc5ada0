//! The model card: what a network is, takes, gives and is meant for.
//!
//! A card is a TOML file beside its ONNX file. Nothing about a network is known in code: swapping
//! the two files swaps the model. An unknown field is an error, because a misspelt threshold that
//! is ignored would change findings silently.

#[cfg(test)]
mod document;

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use pipeline::prepare::InputContract;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::findings::{FindingKind, Probability};
use crate::report::ModelIdentity;

/// The card of the model inside the program.
const BUILT_IN_CARD: &str = include_str!("../weights/hemorrhage.toml");
/// The ONNX file of that card.
const BUILT_IN_MODEL: &[u8] = include_bytes!("../weights/hemorrhage.onnx");
/// How messages name the card of the model inside the program.
pub const BUILT_IN_NAME: &str = "(built-in)/hemorrhage.toml";

/// Longest card that is read, bytes.
const CARD_BYTES_MAX: u64 = 1 << 20;
/// Largest ONNX file that is read, bytes.
const MODEL_BYTES_MAX: u64 = 512 << 20;

/// What a network is, takes, gives and is meant for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Short name, goes into every result.
    pub name: String,
    /// Version, goes into every result.
    pub version: String,
    /// Name of the ONNX file beside the card.
    pub file: String,
    /// SHA-256 of that file, hexadecimal.
    pub sha256: String,
    /// Whether the weights were learnt from data. `false` means: for exercising the path only.
    pub trained: bool,
    /// What it may be used for.
    pub intended_use: String,
    /// What it cannot do; never empty.
    pub limits: Vec<String>,
    /// What it is known to get wrong, by example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_failures: Vec<String>,
    /// Whose data and work it stands on, and under which licence.
    pub credits: Vec<String>,
    /// How thresholds and calibration were chosen, and on what data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds_chosen: Option<String>,
    /// The tensor it takes.
    pub input: CardInput,
    /// The tensors it gives.
    pub outputs: CardOutputs,
    /// The study's probability is the mean of this many highest slab probabilities; 1 is the
    /// maximum. A study with fewer slabs takes all.
    pub pooled_slabs: usize,
    /// How much each of the two neighbours counts for a slab, against 1 for itself, when logits are
    /// averaged before anything else: bleeds span slabs. 0, or absent, leaves them apart.
    #[serde(default)]
    pub neighbour_weight: f64,
    /// One for each output channel, in channel order.
    pub findings: Vec<CardFinding>,
    /// How well it did, and how that was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<CardFigure>,
}

/// A figure that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFigure {
    /// Of what: "AUC by patient, intracranial hemorrhage".
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its 95 % interval; absent where none can be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Unit of the figure and its interval; absent for a plain number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// On how many cases.
    pub n: usize,
    /// What the cases are: "patients", "slices of 64 patients".
    pub of: String,
    /// How it was measured: the data, the split, the method of the interval, the command.
    pub how: String,
}

/// The tensor that a network takes: float32 `[n, channels, side_px, side_px]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardInput {
    /// Name in the ONNX graph.
    pub name: String,
    /// How the volume is brought into its form.
    pub contract: InputContract,
}

/// The tensors that a network gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardOutputs {
    /// Name of float32 `[n, findings, side_px, side_px]`: probability of each voxel.
    pub voxel_prob: String,
    /// Name of float32 `[n, findings]`: probability of each slab.
    pub slice_prob: String,
}

/// What one output channel is about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFinding {
    /// The question.
    pub kind: FindingKind,
    /// The study's probability from which the finding is present.
    pub threshold: f64,
    /// The voxel's probability from which it is marked.
    pub voxel_threshold: f64,
    /// Connected marks smaller than this are dropped as specks, mL.
    pub minimum_volume_ml: f64,
    /// Of volumes measured where the truth is known, 95 % lay between the measured one divided and
    /// multiplied by this; absent where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_factor: Option<f64>,
    /// How probabilities were calibrated; absent means they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// Platt scaling of the pooled probability `p`: `1 / (1 + exp(-(slope * logit(p) + offset)))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor on the logit; above 0, so that the order of studies stays.
    pub slope: f64,
    /// Added to the logit.
    pub offset: f64,
}

impl Calibration {
    /// The calibrated probability; 0 and 1 stay as they are.
    pub fn apply(&self, pooled: Probability) -> Probability {
        let odds = pooled.value() / (1.0 - pooled.value());
        let logit = self.slope * odds.ln() + self.offset;
        Probability::new(1.0 / (1.0 + (-logit).exp())).unwrap_or(pooled)
    }
}

/// Why a card or its ONNX file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The file is not there or cannot be read.
    #[error("cannot read {}: {source}; check `model.card`", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is longer than any card or model.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The file is not TOML, or a field is missing, unknown or of another type.
    #[error("{} is not a model card: {message}", path.display())]
    NotACard {
        /// Which file.
        path: PathBuf,
        /// What the parser says, with the line.
        message: String,
    },
    /// A field holds what cannot be.
    #[error("model card {}: {field} {problem}", path.display())]
    Invalid {
        /// Which card.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The ONNX file is not the one that the card describes.
    #[error(
        "{} is not the file its card describes: its SHA-256 is {found}, the card says {expected}; \
         fetch model and card again",
        path.display()
    )]
    Altered {
        /// Which file.
        path: PathBuf,
        /// By the card.
        expected: String,
        /// By the file.
        found: String,
    },
}

impl ModelCard {
    /// Reads and checks the card at `path`.
    ///
    /// # Errors
    ///
    /// [`CardError`] if it cannot be read, is no card, or holds what cannot be.
    pub fn load(path: &Path) -> Result<Self, CardError> {
        let bytes = read_at_most(path, CARD_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|error| CardError::NotACard {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// The card of the model inside the program, which runs where no other is named.
    ///
    /// # Errors
    ///
    /// None as long as this crate's tests pass.
    pub fn built_in() -> Result<Self, CardError> {
        Self::parse(Path::new(BUILT_IN_NAME), BUILT_IN_CARD)
    }

    /// Reads the ONNX file beside the card at `card_path` and checks its hash.
    ///
    /// # Errors
    ///
    /// [`CardError`] if it cannot be read or is another file than the card describes.
    pub fn read_model(&self, card_path: &Path) -> Result<Vec<u8>, CardError> {
        let path = card_path.with_file_name(&self.file);
        let bytes = read_at_most(&path, MODEL_BYTES_MAX)?;
        self.check_model(&path, &bytes)?;
        Ok(bytes)
    }

    /// The ONNX file of [`ModelCard::built_in`], its hash checked.
    ///
    /// # Errors
    ///
    /// None as long as this crate's tests pass.
    pub fn built_in_model(&self) -> Result<&'static [u8], CardError> {
        let path = Path::new(BUILT_IN_NAME).with_file_name(&self.file);
        self.check_model(&path, BUILT_IN_MODEL)?;
        Ok(BUILT_IN_MODEL)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CardError> {
        let card: Self = toml::from_str(text).map_err(|error| CardError::NotACard {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        card.check()
            .map_err(|(field, problem)| CardError::Invalid {
                path: path.to_owned(),
                field,
                problem,
            })?;
        Ok(card)
    }

    fn check_model(&self, path: &Path, model: &[u8]) -> Result<(), CardError> {
        let found = hexadecimal(&Sha256::digest(model));
        if found == self.sha256 {
            return Ok(());
        }
        Err(CardError::Altered {
            path: path.to_owned(),
            expected: self.sha256.clone(),
            found,
        })
    }

    /// The part of the card that goes into every result.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.name.clone(),
            version: self.version.clone(),
            sha256: self.sha256.clone(),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        for (field, text) in [
            ("name", &self.name),
            ("version", &self.version),
            ("intended_use", &self.intended_use),
            ("input.name", &self.input.name),
            ("outputs.voxel_prob", &self.outputs.voxel_prob),
            ("outputs.slice_prob", &self.outputs.slice_prob),
        ] {
            require(!text.trim().is_empty(), field, || "is empty".to_owned())?;
        }
        require(!self.limits.is_empty(), "limits", || {
            "names none: every model has some".to_owned()
        })?;
        require(self.pooled_slabs >= 1, "pooled_slabs", || {
            "is 0: at least one slab must count".to_owned()
        })?;
        require(
            (0.0..=10.0).contains(&self.neighbour_weight),
            "neighbour_weight",
            || format!("is {}; 0 to 10 is possible", self.neighbour_weight),
        )?;
        check_file_name(&self.file)?;
        check_hash(&self.sha256)?;
        check_contract(&self.input.contract)?;
        self.check_findings()?;
        let mut figures = self.figures.iter().enumerate();
        figures.try_for_each(|(index, figure)| check_figure(&format!("figures[{index}]"), figure))
    }

    fn check_findings(&self) -> Result<(), Problem> {
        require(!self.findings.is_empty(), "findings", || {
            "names none: a model must answer something".to_owned()
        })?;
        for (index, finding) in self.findings.iter().enumerate() {
            let field = format!("findings[{index}]");
            let doubled = self.findings[..index]
                .iter()
                .any(|other| other.kind == finding.kind);
            require(!doubled, &field, || {
                "repeats a kind that another channel has".to_owned()
            })?;
            check_finding(&field, finding)?;
        }
        Ok(())
    }
}

/// A field of the card and what is wrong with it.
type Problem = (String, String);

fn require(holds: bool, field: &str, problem: impl FnOnce() -> String) -> Result<(), Problem> {
    if holds {
        Ok(())
    } else {
        Err((field.to_owned(), problem()))
    }
}

/// A card must not lead to a file elsewhere.
fn check_file_name(file: &str) -> Result<(), Problem> {
    let bare = Path::new(file).file_name().is_some_and(|name| name == file);
    require(bare, "file", || {
        format!("is {file:?}; it must be the bare name of a file beside the card")
    })
}

fn check_hash(sha256: &str) -> Result<(), Problem> {
    let legal = sha256.len() == 64
        && sha256
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    require(legal, "sha256", || {
        "is not 64 lower-case hexadecimal digits".to_owned()
    })
}

fn check_contract(contract: &InputContract) -> Result<(), Problem> {
    let field = |name: &str| format!("input.contract.{name}");
    require(
        (0.5..=20.0).contains(&contract.slab_mm),
        &field("slab_mm"),
        || format!("is {} mm; 0.5 to 20 is possible", contract.slab_mm),
    )?;
    require(
        (16..=1024).contains(&contract.side_px),
        &field("side_px"),
        || format!("is {} pixels; 16 to 1024 is possible", contract.side_px),
    )?;
    require(
        (100.0..=500.0).contains(&contract.side_mm),
        &field("side_mm"),
        || format!("is {} mm; 100 to 500 is possible", contract.side_mm),
    )?;
    require(contract.neighbours <= 8, &field("neighbours"), || {
        format!("is {}; 0 to 8 is possible", contract.neighbours)
    })?;
    let windows_hold = (1..=8).contains(&contract.windows.len())
        && contract.windows.iter().all(|window| {
            window.low_hu < window.high_hu && (window.high_hu - window.low_hu).is_finite()
        });
    require(windows_hold, &field("windows"), || {
        "must be 1 to 8 ranges, each with low_hu below high_hu".to_owned()
    })
}

fn check_finding(field: &str, finding: &CardFinding) -> Result<(), Problem> {
    require(finding.kind != FindingKind::MidlineShift, field, || {
        "is midline_shift, which is measured in mm and cannot come from a probability map"
            .to_owned()
    })?;
    for (name, bound) in [
        ("threshold", finding.threshold),
        ("voxel_threshold", finding.voxel_threshold),
    ] {
        let possible = bound > 0.0 && bound <= 1.0;
        require(possible, &format!("{field}.{name}"), || {
            format!("is {bound}; above 0 and up to 1 is possible")
        })?;
    }
    require(
        (0.0..=100.0).contains(&finding.minimum_volume_ml),
        &format!("{field}.minimum_volume_ml"),
        || format!("is {} mL; 0 to 100 is possible", finding.minimum_volume_ml),
    )?;
    let factor = finding.volume_factor;
    require(
        factor.is_none_or(|factor| (1.0..=100.0).contains(&factor)),
        &format!("{field}.volume_factor"),
        || format!("is {factor:?}; 1 to 100 is possible"),
    )?;
    let calibrates = finding.calibration.is_none_or(|calibration| {
        calibration.slope > 0.0 && calibration.slope.is_finite() && calibration.offset.is_finite()
    });
    require(calibrates, &format!("{field}.calibration"), || {
        "needs a finite slope above 0 and a finite offset".to_owned()
    })
}

fn check_figure(field: &str, figure: &CardFigure) -> Result<(), Problem> {
    for (name, text) in [
        ("name", &figure.name),
        ("of", &figure.of),
        ("how", &figure.how),
    ] {
        let field = format!("{field}.{name}");
        require(!text.trim().is_empty(), &field, || "is empty".to_owned())?;
    }
    require(figure.n > 0, &format!("{field}.n"), || {
        "is 0: a figure stands on cases".to_owned()
    })?;
    require(figure.value.is_finite(), &format!("{field}.value"), || {
        "is no number".to_owned()
    })?;
    let holds = figure
        .interval
        .is_none_or(|[low, high]| low <= figure.value && figure.value <= high);
    require(holds, &format!("{field}.interval"), || {
        format!("does not hold the value {}", figure.value)
    })
}

fn read_at_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CardError> {
    let unreadable = |source| CardError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(CardError::TooLarge {
            path: path.to_owned(),
            bytes_max,
        });
    }
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests;
