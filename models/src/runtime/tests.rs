//! The runtime with the bootstrap network, and cards and networks that do not fit.

use pipeline::volume::{Grid, PatientPoint};

use super::*;

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights")
}

fn library() -> Library {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/onnxruntime/libonnxruntime.so");
    Library::load(&path).expect("these tests need ONNX Runtime: run `cargo xtask setup` first")
}

fn bootstrap(threads: usize) -> Network {
    Network::load(&library(), &weights().join("bootstrap.toml"), threads).unwrap()
}

/// Loads the bootstrap network with a card in which `from` became `to`.
fn load_with_card(from: &str, to: &str) -> Result<Network, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let card = fs::read_to_string(weights().join("bootstrap.toml")).unwrap();
    assert!(card.contains(from), "the bootstrap card has no {from:?}");
    fs::write(folder.path().join("card.toml"), card.replacen(from, to, 1)).unwrap();
    fs::copy(
        weights().join("bootstrap.onnx"),
        folder.path().join("bootstrap.onnx"),
    )
    .unwrap();
    Network::load(&library(), &folder.path().join("card.toml"), 1)
}

/// A round skull of `slabs` slabs with brain of 30 HU and, in slab 5, a disc of 70 HU.
fn head_with_bleed(slabs: usize) -> ModelInput {
    let scaled =
        |hounsfield: f32, low: f32, high: f32| ((hounsfield - low) / (high - low)).clamp(0.0, 1.0);
    let tensor = Array4::from_shape_fn((slabs, 6, 256, 256), |(slab, channel, row, column)| {
        let shown = (slab + channel / 2).saturating_sub(1).min(slabs - 1);
        let radius_px =
            |centre: f32| ((row as f32 - centre).powi(2) + (column as f32 - 128.0).powi(2)).sqrt();
        let hounsfield = match radius_px(128.0) {
            outside if outside > 90.0 => -1000.0,
            skull if skull > 80.0 => 1000.0,
            _ if (4..=6).contains(&shown) && radius_px(100.0) < 20.0 => 70.0,
            _ => 30.0,
        };
        if channel % 2 == 0 {
            scaled(hounsfield, -20.0, 100.0)
        } else {
            scaled(hounsfield, -900.0, 2300.0)
        }
    });
    ModelInput {
        tensor,
        grid: Grid {
            origin_mm: PatientPoint([-115.0, -115.0, 0.0]),
            directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            spacing_mm: [230.0 / 256.0, 230.0 / 256.0, 5.0],
            size: [256, 256, slabs],
        },
    }
}

#[test]
fn the_bootstrap_network_answers_where_the_dense_disc_is_and_nowhere_else() {
    let raw = bootstrap(1).run(&head_with_bleed(11)).unwrap();
    assert!(raw.slice_prob[[5, 0]] > 0.8, "{}", raw.slice_prob);
    assert!(raw.slice_prob[[0, 0]] < 1e-6, "{}", raw.slice_prob);
    assert!(raw.voxel_prob[[5, 0, 100, 128]] > 0.9);
    assert!(raw.voxel_prob[[5, 0, 170, 128]] < 1e-6);
}

#[test]
fn one_and_two_threads_and_any_cut_into_runs_give_the_same_numbers() {
    let shipped = |threads| Network::built_in(&library(), threads).unwrap();
    let input = head_with_bleed(11);
    let one = shipped(1).run(&input).unwrap();
    let two = shipped(2).run(&input).unwrap();
    assert!(one == two, "the number of threads changed the output");
    let last = ModelInput {
        tensor: input.tensor.slice(s![10.., .., .., ..]).to_owned(),
        ..input
    };
    let alone = shipped(1).run(&last).unwrap();
    assert!(alone.slice_prob.row(0) == one.slice_prob.row(10));
}

#[test]
fn nan_from_the_network_is_a_failed_run_and_not_a_normal() {
    let mut input = head_with_bleed(2);
    input.tensor.fill(f32::NAN);
    let error = bootstrap(1).run(&input).unwrap_err();
    assert!(
        matches!(error, InferenceError::NotAProbability { .. }),
        "{error}"
    );
    assert_eq!(error.reason().code, ReasonCode::InferenceFailed);
}

#[test]
fn a_tensor_of_another_form_is_outside_the_contract() {
    let mut input = head_with_bleed(2);
    input.tensor = Array4::zeros((2, 4, 256, 256));
    let error = bootstrap(1).run(&input).unwrap_err();
    assert_eq!(error.reason().code, ReasonCode::OutsideModelContract);
    input.tensor = Array4::zeros((0, 6, 256, 256));
    let error = bootstrap(1).run(&input).unwrap_err();
    assert_eq!(error.reason().code, ReasonCode::OutsideModelContract);
}

#[test]
fn a_missing_or_foreign_library_is_an_error_that_says_the_cure() {
    for path in [
        PathBuf::from("/nowhere/libonnxruntime.so"),
        weights().join("bootstrap.toml"),
    ] {
        let error = Library::load(&path).unwrap_err();
        assert_eq!(error.reason().code, ReasonCode::InferenceLibraryMissing);
        let text = error.to_string();
        assert!(
            text.contains(path.to_str().unwrap()) || text.contains("already uses"),
            "{text}"
        );
    }
}

#[test]
fn the_network_inside_the_program_is_the_one_of_the_weights_folder() {
    let built_in = Network::built_in(&library(), 1).unwrap();
    let beside = Network::load(&library(), &weights().join("hemorrhage.toml"), 1).unwrap();
    assert_eq!(built_in.card(), beside.card());
}

#[test]
fn the_first_place_that_is_there_is_taken_and_without_any_the_first_is_named() {
    let place = library().path().to_owned();
    let nowhere = PathBuf::from("/nowhere/libonnxruntime.so");
    let found = Library::load_first(&[nowhere.clone(), place.clone()]).unwrap();
    assert_eq!(found.path(), place);
    let error = Library::load_first(&[nowhere]).unwrap_err().to_string();
    assert!(error.contains("/nowhere/libonnxruntime.so"), "{error}");
    assert!(Library::load_first(&[]).is_err());
}

#[test]
fn the_library_is_loaded_once_and_no_other_after_it() {
    let first = library();
    assert_eq!(first.path(), library().path());
    let error = Library::load(&weights().join("bootstrap.onnx")).unwrap_err();
    assert!(
        matches!(error, LoadError::LibraryAlreadyLoaded { .. }),
        "{error}"
    );
}

#[test]
fn a_card_that_disagrees_with_its_network_is_refused_and_says_where() {
    let second_kind = "minimum_volume_ml = 0.5\n[[findings]]\nkind = \"mass_effect\"\n\
         threshold = 0.5\nvoxel_threshold = 0.5\nminimum_volume_ml = 0.5\n";
    for (from, to, tensor) in [
        ("name = \"slabs\"", "name = \"image\"", "image"),
        ("neighbours = 1", "neighbours = 2", "slabs"),
        ("side_px = 256", "side_px = 128", "slabs"),
        (
            "voxel_prob = \"voxel_prob\"",
            "voxel_prob = \"mask\"",
            "mask",
        ),
        (
            "slice_prob = \"slice_prob\"",
            "slice_prob = \"voxel_prob\"",
            "voxel_prob",
        ),
        ("minimum_volume_ml = 0.5\n", second_kind, "voxel_prob"),
    ] {
        let error = load_with_card(from, to).unwrap_err();
        assert!(matches!(error, LoadError::Contract { .. }), "{to}: {error}");
        assert!(error.to_string().contains(tensor), "{to}: {error}");
        assert_eq!(error.reason().code, ReasonCode::ModelUnavailable);
    }
}

#[test]
fn a_file_that_is_no_network_is_refused_by_onnx_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let card = fs::read_to_string(weights().join("bootstrap.toml")).unwrap();
    let hash = ModelCard::load(&weights().join("bootstrap.toml"))
        .unwrap()
        .sha256;
    // SHA-256 of the four bytes "none".
    let of_none = "140bedbf9c3f6d56a9846d2ba7088798683f4da0c248231336e6a05679e4fdfe";
    fs::write(
        folder.path().join("card.toml"),
        card.replacen(&hash, of_none, 1),
    )
    .unwrap();
    fs::write(folder.path().join("bootstrap.onnx"), "none").unwrap();
    let error = Network::load(&library(), &folder.path().join("card.toml"), 1).unwrap_err();
    assert!(matches!(error, LoadError::Session { .. }), "{error}");
}
