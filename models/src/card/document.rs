//! `docs/model-card.md`, made from the card of the model inside the program.

use std::path::Path;

use super::{CardFigure, CardFinding, ModelCard};

const HEAD: &str = "# Model card

Made from the card beside the weights by `cargo xtask docs`; a test
compares. It describes the model inside the program; `tez check` names the one that runs.
";

/// Digits after the point of a figure.
const DIGITS: usize = 3;

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
    format!("\n## {title}\n\n{}\n", lines.join("\n"))
}

fn paragraph(title: &str, text: &str) -> String {
    format!("\n## {title}\n\n{text}\n")
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn identity(card: &ModelCard) -> String {
    let trained = if card.trained {
        "learnt from data"
    } else {
        "**not trained**: fixed weights"
    };
    format!(
        "\n| | |\n|---|---|\n| name | {} |\n| version | {} |\n| weights | {trained} |\n| file | `{}` |\n\
         | SHA-256 | `{}` |\n",
        cell(&card.name),
        cell(&card.version),
        card.file,
        card.sha256
    )
}

fn finding(finding: &CardFinding) -> String {
    let calibration = finding.calibration.map_or_else(
        || "none".to_owned(),
        |platt| format!("slope {:.3}, offset {:.3}", platt.slope, platt.offset),
    );
    let factor = finding
        .volume_factor
        .map_or_else(|| "not known".to_owned(), |factor| format!("÷ × {factor}"));
    format!(
        "| {} | {} | {calibration} | {} | {} mL | {factor} |\n",
        finding.kind.label(),
        finding.threshold,
        finding.voxel_threshold,
        finding.minimum_volume_ml
    )
}

fn findings(card: &ModelCard) -> String {
    let rows: String = card.findings.iter().map(finding).collect();
    format!(
        "\n## What it answers\n\n\
         Each slab's logit is averaged with its neighbours', which count {} each against 1. A study's probability\n\
         is the mean of its highest slabs' (so many: {}), then calibrated (Platt). From\n\
         the threshold on the finding is present; voxels are marked from their own threshold on, and smaller\n\
         pieces are dropped. What a kind marks is marked as any hemorrhage too. A volume is likely (95 % of those whose truth is known) to lie between the measured\n\
         one divided and multiplied by the last column's factor.\n\n\
         | finding | present from | calibration | voxel marked from | pieces dropped below | volume, 95 % |\n\
         |---|---|---|---|---|---|\n{rows}",
        card.neighbour_weight, card.pooled_slabs
    )
}

fn input(card: &ModelCard) -> String {
    let contract = &card.input.contract;
    let windows: Vec<String> = contract
        .windows
        .iter()
        .map(|window| format!("{} to {} HU", window.low_hu, window.high_hu))
        .collect();
    format!(
        "\n## What it takes\n\n\
         Slabs of {} mm, {} × {} pixels over {} mm, centred on the head; neighbours on each side: {}; channels: {}.\n",
        contract.slab_mm,
        contract.side_px,
        contract.side_px,
        contract.side_mm,
        contract.neighbours,
        windows.join(", ")
    )
}

fn figure(figure: &CardFigure) -> String {
    let unit = figure.unit.as_ref().map(|unit| format!(" {unit}"));
    let interval = figure.interval.map_or_else(
        || "none".to_owned(),
        |[low, high]| format!("{low:.DIGITS$} to {high:.DIGITS$}"),
    );
    format!(
        "| {} | {:.DIGITS$}{} | {interval} | {} {} | {} |\n",
        cell(&figure.name),
        figure.value,
        cell(&unit.unwrap_or_default()),
        figure.n,
        cell(&figure.of),
        cell(&figure.how)
    )
}

fn figures(card: &ModelCard) -> String {
    if card.figures.is_empty() {
        return paragraph("Figures", "None were measured.");
    }
    let rows: String = card.figures.iter().map(figure).collect();
    format!(
        "\n## Figures\n\n| what | value | 95 % interval | on | how measured |\n|---|---|---|---|---|\n{rows}"
    )
}

fn document(card: &ModelCard) -> String {
    let chosen = card.thresholds_chosen.as_ref();
    [
        HEAD.to_owned(),
        identity(card),
        paragraph("Intended use", &card.intended_use),
        list("Limits", &card.limits),
        list("Known failures", &card.known_failures),
        figures(card),
        findings(card),
        chosen.map_or_else(String::new, |text| {
            paragraph("How thresholds were chosen", text)
        }),
        input(card),
        list("Data and credits", &card.credits),
    ]
    .concat()
}

#[test]
fn the_document_is_what_the_card_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/model-card.md");
    let made = document(&ModelCard::built_in().unwrap());
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == made,
        "docs/model-card.md is out of date: cargo xtask docs"
    );
}

#[test]
fn every_section_of_a_full_card_is_written() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let plain = ModelCard::load(&weights.join("bootstrap.toml")).unwrap();
    let card = ModelCard {
        known_failures: vec!["Misses films of blood.".to_owned()],
        thresholds_chosen: Some("At 0.95 of the positives.".to_owned()),
        figures: vec![CardFigure {
            name: "AUC by patient".to_owned(),
            value: 0.95,
            interval: Some([0.9, 0.98]),
            unit: None,
            n: 64,
            of: "patients".to_owned(),
            how: "5 folds | by patient".to_owned(),
        }],
        ..plain.clone()
    };
    let made = document(&card);
    for part in [
        "- Misses films of blood.",
        "At 0.95 of the positives.",
        "| AUC by patient | 0.950 | 0.900 to 0.980 | 64 patients | 5 folds \\| by patient |",
        "| intracranial hemorrhage | 0.5 | none | 0.5 | 0.5 mL | not known |",
    ] {
        assert!(made.contains(part), "{part}: {made}");
    }
    assert!(!document(&plain).contains("Known failures"));
}
