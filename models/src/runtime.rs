//! ONNX Runtime, found and loaded at run time: the only file that names `ort`.
//!
//! The library is not linked: Tez starts without it, and every study then ends as not analysed
//! with [`ReasonCode::InferenceLibraryMissing`]. `ORT_DYLIB_PATH` is never read, because `ort`
//! panics on that road; [`Library::load`] takes a path and gives an error.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, Array4, ArrayViewD, ArrayViewMut, Axis, Dimension, s};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, TensorRef};
use pipeline::prepare::ModelInput;
use pipeline::reason::{Reason, ReasonCode};

use crate::card::{BUILT_IN_NAME, CardError, ModelCard};
use crate::report::ModelIdentity;

/// Slabs given to the network at once: bounds the memory of one run (a U-Net of 2 million
/// parameters takes some 20 MB a slab at 256 x 256).
const SLABS_PER_RUN: usize = 4;

/// The one library of this process. ONNX Runtime allows one environment, and `ort` keeps the first
/// library it loads for good.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// ONNX Runtime, loaded. Clones are the same library.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
    environment: Environment,
}

/// A network, ready to run: its card and its session. One for each worker.
#[derive(Debug)]
pub struct Network {
    card: ModelCard,
    session: Session,
}

/// What a network says of one study, every number checked to lie in 0–1.
#[derive(Clone, Debug, PartialEq)]
pub struct RawOutput {
    /// Axes: slab (feet to head), finding in the card's order, row, column.
    pub voxel_prob: Array4<f32>,
    /// Axes: slab, finding.
    pub slice_prob: Array2<f32>,
}

/// Why no network can be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The shared library is missing, of another kind, or too old.
    #[error(
        "cannot load ONNX Runtime from {}: {message}; set `model.library` to libonnxruntime.so of \
         version 1.24 or later, or, in a checkout, run `cargo xtask setup`",
        path.display()
    )]
    Library {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// Another library was loaded before.
    #[error(
        "this process already uses ONNX Runtime from {}, so it cannot load {}",
        loaded.display(),
        wanted.display()
    )]
    LibraryAlreadyLoaded {
        /// The one in use.
        loaded: PathBuf,
        /// The one asked for.
        wanted: PathBuf,
    },
    /// The card or the ONNX file.
    #[error(transparent)]
    Card(#[from] CardError),
    /// ONNX Runtime cannot use the file.
    #[error("ONNX Runtime refuses the model of card {}: {message}", card.display())]
    Session {
        /// Its card.
        card: PathBuf,
        /// What ONNX Runtime says.
        message: String,
    },
    /// The graph has other inputs or outputs than the card says.
    #[error("the model of card {} is not as its card says: {difference}", card.display())]
    Contract {
        /// The card.
        card: PathBuf,
        /// Which tensor differs, and how.
        difference: String,
    },
}

impl LoadError {
    /// The same for a study's result.
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::Library { .. } | Self::LibraryAlreadyLoaded { .. } => {
                ReasonCode::InferenceLibraryMissing
            }
            Self::Card(_) | Self::Session { .. } | Self::Contract { .. } => {
                ReasonCode::ModelUnavailable
            }
        };
        Reason::new(code, self.to_string())
    }
}

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// The tensor is not of the card's form.
    #[error("the prepared tensor is {found:?}; the model takes {expected}")]
    WrongInput {
        /// Its shape.
        found: Vec<usize>,
        /// The card's.
        expected: String,
    },
    /// ONNX Runtime failed.
    #[error("ONNX Runtime failed: {message}")]
    Run {
        /// What it says.
        message: String,
    },
    /// An output has another shape than the card says.
    #[error("output {output} is {found:?} where {expected:?} was due")]
    WrongOutput {
        /// Which.
        output: String,
        /// Its shape.
        found: Vec<usize>,
        /// By the card.
        expected: Vec<usize>,
    },
    /// A number is NaN, infinite or outside 0–1.
    #[error("output {output} holds {value} at {index:?}, which is not a probability")]
    NotAProbability {
        /// Which output.
        output: String,
        /// Where: slab of this run, finding, then row and column if there are any.
        index: Vec<usize>,
        /// The number as text.
        value: String,
    },
}

impl InferenceError {
    /// The same for a study's result.
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::WrongInput { .. } => ReasonCode::OutsideModelContract,
            Self::Run { .. } | Self::WrongOutput { .. } | Self::NotAProbability { .. } => {
                ReasonCode::InferenceFailed
            }
        };
        Reason::new(code, self.to_string())
    }
}

impl Library {
    /// Loads ONNX Runtime's shared library from `path`, or gives the one loaded before from there.
    ///
    /// # Errors
    ///
    /// [`LoadError::Library`] if there is none that can be used, [`LoadError::LibraryAlreadyLoaded`]
    /// if this process uses another.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let failed = |message: String| LoadError::Library {
            path: path.to_owned(),
            message,
        };
        let wanted = fs::canonicalize(path).map_err(|error| failed(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            return library.if_from(wanted);
        }
        let environment = ort::init_from(&wanted)
            .map_err(|error| failed(error.to_string()))?
            .with_name("tez")
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let library = Self {
            path: wanted,
            environment,
        };
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// Loads the first of `places` that is there. With none there, the error names the first.
    ///
    /// # Errors
    ///
    /// As [`Library::load`].
    pub fn load_first(places: &[PathBuf]) -> Result<Self, LoadError> {
        if let Some(there) = places.iter().find(|place| fs::metadata(place).is_ok()) {
            return Self::load(there);
        }
        let (first, others) = places.split_first().ok_or_else(|| LoadError::Library {
            path: PathBuf::from("libonnxruntime.so"),
            message: "no place to look for it was named".to_owned(),
        })?;
        let nor = |place: &PathBuf| format!(", nor {}", place.display());
        let others: String = others.iter().map(nor).collect();
        Err(LoadError::Library {
            path: first.clone(),
            message: format!("it is not there{others}"),
        })
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn if_from(&self, wanted: PathBuf) -> Result<Self, LoadError> {
        if self.path == wanted {
            Ok(self.clone())
        } else {
            Err(LoadError::LibraryAlreadyLoaded {
                loaded: self.path.clone(),
                wanted,
            })
        }
    }
}

impl Network {
    /// Loads the network of the card at `card_path`: hash, tensor names, types and shapes checked.
    ///
    /// `threads` are those of one run. In a server take 1 and several networks: more threads
    /// are slower under load.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the card, its file or the two together cannot be used.
    pub fn load(library: &Library, card_path: &Path, threads: usize) -> Result<Self, LoadError> {
        let card = ModelCard::load(card_path)?;
        // The session is made of the bytes that were hashed, so no swap of the file comes between.
        let model = card.read_model(card_path)?;
        Self::of_bytes(library, card_path, card, (&model, threads))
    }

    /// Loads the network inside the program, which runs where no other is named.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if ONNX Runtime cannot use it.
    pub fn built_in(library: &Library, threads: usize) -> Result<Self, LoadError> {
        let card = ModelCard::built_in()?;
        let model = card.built_in_model()?;
        Self::of_bytes(library, Path::new(BUILT_IN_NAME), card, (model, threads))
    }

    fn of_bytes(
        library: &Library,
        card_path: &Path,
        card: ModelCard,
        (model, threads): (&[u8], usize),
    ) -> Result<Self, LoadError> {
        let session = open_session(&library.environment, model, threads).map_err(|message| {
            LoadError::Session {
                card: card_path.to_owned(),
                message,
            }
        })?;
        check_outlets(&card, &session).map_err(|difference| LoadError::Contract {
            card: card_path.to_owned(),
            difference,
        })?;
        Ok(Self { card, session })
    }

    /// What it is.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// The part of the card that goes into every result.
    pub fn identity(&self) -> ModelIdentity {
        self.card.identity()
    }

    /// Runs over all slabs of `input`, a few at a time.
    ///
    /// # Errors
    ///
    /// [`InferenceError`] if the tensor is not of the card's form, the run fails, or it gives
    /// anything but probabilities.
    pub fn run(&mut self, input: &ModelInput) -> Result<RawOutput, InferenceError> {
        self.check_input(input)?;
        let (slabs, findings, side) = (
            input.tensor.len_of(Axis(0)),
            self.card.findings.len(),
            self.card.input.contract.side_px,
        );
        let mut output = RawOutput {
            voxel_prob: Array4::zeros((slabs, findings, side, side)),
            slice_prob: Array2::zeros((slabs, findings)),
        };
        for first in (0..slabs).step_by(SLABS_PER_RUN) {
            let end = (first + SLABS_PER_RUN).min(slabs);
            self.run_slabs(input, first..end, &mut output)?;
        }
        Ok(output)
    }

    fn check_input(&self, input: &ModelInput) -> Result<(), InferenceError> {
        let contract = &self.card.input.contract;
        let (channels, side) = (contract.channels(), contract.side_px);
        let found = input.tensor.shape();
        if found[0] >= 1 && found[1..] == [channels, side, side] {
            return Ok(());
        }
        Err(InferenceError::WrongInput {
            found: found.to_vec(),
            expected: format!("[at least 1, {channels}, {side}, {side}]"),
        })
    }

    /// Writes what the network says of `slabs` to their places in `output`.
    fn run_slabs(
        &mut self,
        input: &ModelInput,
        slabs: Range<usize>,
        output: &mut RawOutput,
    ) -> Result<(), InferenceError> {
        let failed = |error: ort::Error| InferenceError::Run {
            message: error.to_string(),
        };
        let shown = input.tensor.slice(s![slabs.clone(), .., .., ..]);
        let shown = shown.as_standard_layout();
        let tensor = TensorRef::from_array_view(shown.view()).map_err(failed)?;
        let names = &self.card.outputs;
        let found = self
            .session
            .run(ort::inputs![self.card.input.name.as_str() => tensor])
            .map_err(failed)?;
        let voxels = output.voxel_prob.slice_mut(s![slabs.clone(), .., .., ..]);
        copy_output(&found, &names.voxel_prob, voxels)?;
        let slices = output.slice_prob.slice_mut(s![slabs, ..]);
        copy_output(&found, &names.slice_prob, slices)
    }
}

/// `ort`'s builder errors carry the builder and cannot cross threads, so they become text here.
fn open_session(
    environment: &Environment,
    model: &[u8],
    threads: usize,
) -> Result<Session, String> {
    Session::builder(environment)
        .map_err(|error| error.to_string())?
        .with_intra_threads(threads)
        .map_err(|error| error.to_string())?
        // Waiting threads that spin take the core from the next study.
        .with_intra_op_spinning(false)
        .map_err(|error| error.to_string())?
        .with_deterministic_compute(true)
        .map_err(|error| error.to_string())?
        .commit_from_memory(model)
        .map_err(|error| error.to_string())
}

fn check_outlets(card: &ModelCard, session: &Session) -> Result<(), String> {
    let side = card.input.contract.side_px;
    let findings = card.findings.len();
    if session.inputs().len() != 1 {
        return Err(format!("it has {} inputs, not one", session.inputs().len()));
    }
    let input = &card.input.name;
    check_outlet(
        session.inputs(),
        input,
        &[card.input.contract.channels(), side, side],
    )?;
    let (voxels, slices) = (&card.outputs.voxel_prob, &card.outputs.slice_prob);
    check_outlet(session.outputs(), voxels, &[findings, side, side])?;
    check_outlet(session.outputs(), slices, &[findings])
}

/// Checks that one of `outlets` is called `name` and is float32 `[any, sizes…]`.
fn check_outlet(outlets: &[Outlet], name: &str, sizes: &[usize]) -> Result<(), String> {
    let outlet = outlets
        .iter()
        .find(|outlet| outlet.name() == name)
        .ok_or_else(|| {
            let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
            format!("it has no tensor {name:?}, only {names:?}")
        })?;
    if outlet.dtype().tensor_type() != Some(TensorElementType::Float32) {
        return Err(format!("{name} is {}, not float32", outlet.dtype()));
    }
    let shape: Vec<i64> = outlet
        .dtype()
        .tensor_shape()
        .map(|shape| shape.to_vec())
        .unwrap_or_default();
    // ONNX gives -1 for a size that is open, which the number of slabs must be.
    let open_count = shape.first() == Some(&-1);
    let rest = shape.iter().skip(1).map(|size| usize::try_from(*size).ok());
    if open_count && rest.eq(sizes.iter().map(|size| Some(*size))) {
        Ok(())
    } else {
        Err(format!(
            "{name} is {shape:?}; the card needs [-1, then {sizes:?}]"
        ))
    }
}

/// Copies the output `name` to its place, its shape and its numbers checked.
fn copy_output<D: Dimension>(
    outputs: &ort::session::SessionOutputs<'_>,
    name: &str,
    mut place: ArrayViewMut<'_, f32, D>,
) -> Result<(), InferenceError> {
    let failed = |message: String| InferenceError::Run { message };
    let output = outputs
        .get(name)
        .ok_or_else(|| failed(format!("it gave no output {name}")))?;
    let array = output
        .try_extract_array::<f32>()
        .map_err(|error| failed(error.to_string()))?;
    if array.shape() != place.shape() {
        return Err(InferenceError::WrongOutput {
            output: name.to_owned(),
            found: array.shape().to_vec(),
            expected: place.shape().to_vec(),
        });
    }
    check_probabilities(name, &array)?;
    place.assign(
        &array
            .into_dimensionality::<D>()
            .expect("as many axes: the shapes are equal"),
    );
    Ok(())
}

/// A NaN compares false with every threshold: unchecked, it would turn into "no finding".
fn check_probabilities(output: &str, array: &ArrayViewD<'_, f32>) -> Result<(), InferenceError> {
    // Where it is matters only if there is one: indices would take a quarter of the inference's time, and an early end
    // several times that of a whole pass, which the compiler turns into vector instructions.
    let is_one = |value: &f32| (0.0..=1.0).contains(value);
    if array.iter().fold(true, |all, value| all & is_one(value)) {
        return Ok(());
    }
    let odd = array
        .indexed_iter()
        .find(|(_, value)| !is_one(value))
        .map(|(index, value)| (index.slice().to_vec(), *value));
    match odd {
        None => Ok(()),
        Some((index, value)) => Err(InferenceError::NotAProbability {
            output: output.to_owned(),
            index,
            value: value.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
