//! Cards that are whole, and cards with a fault.

use super::*;

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights")
}

fn bootstrap_text() -> String {
    fs::read_to_string(weights().join("bootstrap.toml")).unwrap()
}

fn load_text(text: &str) -> Result<ModelCard, CardError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.toml");
    fs::write(&path, text).unwrap();
    ModelCard::load(&path)
}

fn error_after(from: &str, to: &str) -> String {
    let text = bootstrap_text();
    assert!(text.contains(from), "the bootstrap card has no {from:?}");
    load_text(&text.replacen(from, to, 1))
        .unwrap_err()
        .to_string()
}

#[test]
fn the_bootstrap_card_describes_the_file_beside_it_and_claims_no_training() {
    let path = weights().join("bootstrap.toml");
    let card = ModelCard::load(&path).unwrap();
    assert!(!card.trained);
    assert!(
        card.findings
            .iter()
            .all(|finding| finding.calibration.is_none())
    );
    assert_eq!(card.input.contract.channels(), 6);
    card.read_model(&path).unwrap();
}

#[test]
fn the_card_inside_the_program_is_that_of_the_weights_and_tells_how_well_they_did() {
    let path = weights().join("hemorrhage.toml");
    let card = ModelCard::load(&path).unwrap();
    let model = card.read_model(&path).unwrap();
    let built_in = ModelCard::built_in().unwrap();
    assert_eq!(built_in, card);
    assert_eq!(built_in.built_in_model().unwrap(), model);
    assert!(card.trained && !card.figures.is_empty() && !card.known_failures.is_empty());
    let kinds: Vec<FindingKind> = card.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, FindingKind::ALL[..6]);
    for finding in &card.findings {
        assert!(finding.calibration.is_some(), "{:?}", finding.kind);
    }
    assert!(card.findings[0].volume_factor.is_some());
}

#[test]
fn a_missing_card_is_named_with_its_path() {
    let error = ModelCard::load(Path::new("/nowhere/card.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/card.toml"), "{error}");
}

#[test]
fn an_altered_model_is_refused_with_both_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.toml");
    fs::write(&path, bootstrap_text()).unwrap();
    let mut model = fs::read(weights().join("bootstrap.onnx")).unwrap();
    model[100] ^= 1;
    fs::write(folder.path().join("bootstrap.onnx"), model).unwrap();
    let card = ModelCard::load(&path).unwrap();
    let error = card.read_model(&path).unwrap_err();
    assert!(matches!(error, CardError::Altered { .. }), "{error}");
    assert!(error.to_string().contains(&card.sha256));
}

#[test]
fn an_unknown_field_is_an_error_that_names_it() {
    let error = error_after("pooled_slabs", "tresholds = 1\npooled_slabs");
    assert!(error.contains("tresholds"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (from, to, field) in [
        (
            "file = \"bootstrap.onnx\"",
            "file = \"../bootstrap.onnx\"",
            "file",
        ),
        ("pooled_slabs = 1", "pooled_slabs = 0", "pooled_slabs"),
        ("\nthreshold = ", "\nthreshold = 1", "findings[0].threshold"),
        ("slab_mm = 5.0", "slab_mm = nan", "slab_mm"),
        ("high_hu = 100.0", "high_hu = -30.0", "windows"),
        ("sha256 = \"", "sha256 = \"Z", "sha256"),
        (
            "kind = \"intracranial_hemorrhage\"",
            "kind = \"midline_shift\"",
            "midline_shift",
        ),
    ] {
        let error = error_after(from, to);
        assert!(error.contains(field), "{to}: {error}");
    }
}

const FIGURE: &str = "
[[figures]]
name = \"AUC by patient\"
value = 0.9
interval = [0.8, 0.95]
n = 64
of = \"patients\"
how = \"5-fold cross-validation by patient\"
";

#[test]
fn figures_say_on_what_they_stand() {
    let text = bootstrap_text() + FIGURE;
    assert_eq!(load_text(&text).unwrap().figures[0].n, 64);
    for (from, to, field) in [
        ("n = 64", "n = 0", "figures[0].n"),
        ("value = 0.9", "value = 0.7", "figures[0].interval"),
        ("value = 0.9", "value = nan", "figures[0].value"),
        ("of = \"patients\"", "of = \" \"", "figures[0].of"),
        ("of = \"patients\"", "off = \"patients\"", "off"),
    ] {
        let error = load_text(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(field), "{to}: {error}");
    }
}

#[test]
fn a_trained_card_that_is_shipped_says_all_that_a_reader_must_know() {
    let mut cards = 0;
    for entry in fs::read_dir(weights()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cards += 1;
        let card = ModelCard::load(&path).unwrap();
        let told = !card.figures.is_empty()
            && !card.known_failures.is_empty()
            && !card.credits.is_empty()
            && card.thresholds_chosen.is_some();
        assert!(told || !card.trained, "{}", path.display());
    }
    assert!(cards > 0);
}

#[test]
fn calibration_moves_the_middle_and_keeps_the_ends() {
    let probability = |value| Probability::new(value).unwrap();
    let identity = Calibration {
        slope: 1.0,
        offset: 0.0,
    };
    assert!((identity.apply(probability(0.3)).value() - 0.3).abs() < 1e-12);
    let shifted = Calibration {
        slope: 2.0,
        offset: 1.0,
    };
    // logit(0.5) = 0, so the offset alone remains: 1 / (1 + e^-1).
    assert!((shifted.apply(probability(0.5)).value() - 0.731_058_578_630_005).abs() < 1e-12);
    for end in [0.0, 1.0] {
        assert!((shifted.apply(probability(end)).value() - end).abs() < 1e-12);
    }
}
