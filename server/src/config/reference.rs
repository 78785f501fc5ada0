//! `docs/config.md`, made from the settings' types, their comments and their defaults.

use std::path::Path;

use serde_json::Value;

use super::known_settings;

/// Section, type, and the file that declares it. Sections stand in the order of the document.
const SECTIONS: [(&str, &str, &str); 11] = [
    ("", "Config", include_str!("../config.rs")),
    ("log", "LogConfig", include_str!("../telemetry.rs")),
    ("dicom", "ScpConfig", include_str!("../scp/config.rs")),
    (
        "dicom.allow",
        "AllowedPeer",
        include_str!("../scp/config.rs"),
    ),
    ("http", "HttpConfig", include_str!("../http/config.rs")),
    ("storage", "StorageConfig", include_str!("sections.rs")),
    ("database", "DatabaseConfig", include_str!("sections.rs")),
    ("model", "ModelConfig", include_str!("sections.rs")),
    ("assembly", "AssemblyConfig", include_str!("sections.rs")),
    (
        "limits",
        "Limits",
        include_str!("../../../pipeline/src/limits.rs"),
    ),
    ("zip", "ArchiveLimits", include_str!("../archive.rs")),
];

const HEAD: &str = "# Settings

Made from the types by `cargo xtask docs`; a test compares.

No setting is needed. `tez serve --config FILE` reads a TOML file; the environment goes before it:
`dicom.bind` is `TEZ_DICOM__BIND`, `data_dir` is `TEZ_DATA_DIR`, lists of words are separated by
commas. Tables with free keys and lists of tables are set in the file only. `TEZ_CONFIG` names the
file itself. A setting that Tez does not know is an error that names the nearest one.

Tez has no login yet and binds to loopback: before it is bound to another address, see who can reach
it there.
";

/// A field of a settings type: its name and its comment in one line.
fn fields(source: &str, type_name: &str) -> Vec<(String, String)> {
    let opening = format!("pub struct {type_name} {{");
    let body = source.lines().skip_while(|line| *line != opening).skip(1);
    let mut comment = Vec::new();
    let mut is_setting = true;
    let mut found = Vec::new();
    for line in body.take_while(|line| *line != "}").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
        } else if line == "#[serde(skip)]" {
            is_setting = false;
        } else if let Some((name, _)) = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(':'))
        {
            let meaning = std::mem::take(&mut comment).join(" ");
            if std::mem::replace(&mut is_setting, true) {
                found.push((name.to_owned(), meaning));
            }
        }
    }
    assert!(
        !found.is_empty(),
        "{type_name} has no fields where it was looked for"
    );
    found
}

fn default_text(value: Option<&Value>) -> String {
    match value {
        None => "must be set".to_owned(),
        Some(Value::Null) => "unset".to_owned(),
        Some(Value::Array(items)) if items.iter().any(Value::is_object) => {
            let tables: Vec<String> = items.iter().map(inline_table).collect();
            format!("`[{}]`", tables.join(", "))
        }
        Some(value) => format!("`{value}`"),
    }
}

fn inline_table(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let fields: Vec<String> = fields
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    format!("{{ {} }}", fields.join(", "))
}

fn reference() -> String {
    let known = known_settings();
    let mut text = HEAD.to_owned();
    for (section, type_name, source) in SECTIONS {
        let mut path = section.split('.').filter(|part| !part.is_empty());
        let defaults = path.try_fold(&known, |at, part| at.get(part));
        if !section.is_empty() {
            let brackets = if section == "dicom.allow" {
                ("[[", "]]")
            } else {
                ("[", "]")
            };
            text += &["\n## `", brackets.0, section, brackets.1, "`\n"].concat();
        }
        text.push_str("\n| setting | default | meaning |\n|---|---|---|\n");
        for (name, meaning) in fields(source, type_name) {
            let default = defaults.and_then(|table| table.get(&name));
            if default.is_some_and(|value| value.is_object() && section.is_empty()) {
                continue;
            }
            let meaning = meaning.replace('|', "\\|").replace("[`HttpConfig::", "[`");
            let default = default_text(default);
            text += &["| `", &name, "` | ", &default, " | ", &meaning, " |\n"].concat();
        }
    }
    text
}

#[test]
fn the_reference_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let made = reference();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == made,
        "docs/config.md is out of date: cargo xtask docs"
    );
}

#[test]
fn every_known_setting_stands_in_the_reference() {
    let made = reference();
    for (key, _) in super::leaves(&known_settings(), "") {
        let name = key.rsplit('.').next().unwrap();
        assert!(made.contains(&format!("| `{name}` |")), "{key}");
    }
}
