//! Settings: a TOML file, overridden by `TEZ_…` in the environment; everything has a default.
//!
//! The one place that reads the environment. A setting that Tez does not know is an error, with
//! the nearest one that it does: a misspelt limit or allow-list that is ignored would be worse
//! than a service that does not start. `docs/config.md` is made from the types below.

use std::path::{Path, PathBuf};

use ::config::{Environment, File, FileFormat};
use pipeline::limits::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod sections;
mod shape;

pub use sections::{AssemblyConfig, DatabaseConfig, ModelConfig, StorageConfig};

use crate::archive::ArchiveLimits;
use crate::http::HttpConfig;
use crate::scp::{ScpConfig, check_ae_title};
use crate::telemetry::{self, LogConfig};
use store::objects::StoreLimits;

/// No setting, but the settings file itself, which the command line reads.
const FILE_VARIABLE: &str = "TEZ_CONFIG";
/// Longest quiet time, seconds.
const QUIET_SECONDS_MAX: f64 = 3_600.0;
/// Most worker threads.
const WORKERS_MAX: usize = 64;

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of everything that Tez keeps: objects, database, spooled uploads.
    pub data_dir: PathBuf,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The DICOM listener.
    pub dicom: ScpConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The disk.
    pub storage: StorageConfig,
    /// Where studies, results and what is known of objects are kept.
    pub database: DatabaseConfig,
    /// Which model runs, and with how many workers.
    pub model: ModelConfig,
    /// When a study counts as received.
    pub assembly: AssemblyConfig,
    /// What the pipeline refuses to exceed.
    pub limits: Limits,
    /// What a zip may not exceed.
    pub zip: ArchiveLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            log: LogConfig::default(),
            dicom: ScpConfig::default(),
            http: HttpConfig::default(),
            storage: StorageConfig::default(),
            database: DatabaseConfig::default(),
            model: ModelConfig::default(),
            assembly: AssemblyConfig::default(),
            limits: Limits::default(),
            zip: ArchiveLimits::default(),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error(transparent)]
    Malformed(#[from] ::config::ConfigError),
    /// A setting that had another name or form before.
    #[error("{place}: {key} is not a setting any more: {cure}")]
    Moved {
        /// The file, or "environment".
        place: String,
        /// The setting.
        key: &'static str,
        /// What to write instead.
        cure: &'static str,
    },
    /// A setting that Tez does not know.
    #[error("{place}: {key} is not a setting{}", suggestion(nearest.as_deref()))]
    Unknown {
        /// The file, or "environment".
        place: String,
        /// The setting.
        key: String,
        /// The known one that is most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("{key} {problem}")]
    Invalid {
        /// The setting.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean {key}?"))
}

impl Config {
    /// Reads `file`, if given, then the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the file cannot be read, or a setting is unknown or impossible.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let text = file
            .map(|path| {
                std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
                    path: path.to_owned(),
                    cause,
                })
            })
            .transpose()?;
        let name = file.map_or_else(String::new, |path| path.display().to_string());
        let variables = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::read(&name, &text.unwrap_or_default(), variables)
    }

    /// Reads settings from the TOML `text` of the file `name`, then from `variables`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a setting is unknown or impossible.
    pub fn read(
        name: &str,
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let known = known_settings();
        let file = File::from_str(text, FileFormat::Toml);
        let environment = environment(variables, &known);
        refuse_unknown(name, &tree(file.clone())?, &known)?;
        refuse_unknown("environment", &tree(environment.clone())?, &known)?;
        let merged = ::config::Config::builder()
            .add_source(file)
            .add_source(environment)
            .build()?;
        let given: Value = merged.clone().try_deserialize()?;
        if let Some((key, problem)) = shape::misfit(&given, &known) {
            return Err(ConfigError::Invalid { key, problem });
        }
        refuse_places(&given)?;
        let mut config: Self = merged.try_deserialize()?;
        config.check(&given)?;
        config.limits.fallback_charset = config.dicom.fallback_charset;
        Ok(config)
    }

    /// What the object store refuses to exceed.
    pub fn store_limits(&self) -> StoreLimits {
        StoreLimits {
            object_bytes_max: self.limits.object_bytes_max,
            free_bytes_reserve: self.storage.free_bytes_reserve,
        }
    }

    /// `given` are the settings that were set.
    fn check(&self, given: &Value) -> Result<(), ConfigError> {
        let section = |key: &str, checked: Result<(), String>| {
            checked.map_err(|problem| ConfigError::Invalid {
                key: key.to_owned(),
                problem,
            })
        };
        refuse_zeros(given)?;
        section("[dicom]", self.dicom.check())?;
        section("[http]", self.http.check())?;
        section("database.url", self.database.check())?;
        section("log.filter", telemetry::check_filter(&self.log.filter))?;
        require(
            self.dicom.bind.port() == 0 || self.dicom.bind != self.http.bind,
            "dicom.bind",
            || {
                format!(
                    "and http.bind are both {}; give them two ports",
                    self.http.bind
                )
            },
        )?;
        let limits = &self.limits;
        require(
            limits.slices_min <= limits.slices_max,
            "limits.slices_min",
            || format!("is more than limits.slices_max, {}", limits.slices_max),
        )?;
        self.check_assembly()?;
        let workers = self.model.workers.unwrap_or(1);
        require(
            (1..=WORKERS_MAX).contains(&workers),
            "model.workers",
            || format!("is {workers}; 1 to {WORKERS_MAX} is possible"),
        )
    }

    fn check_assembly(&self) -> Result<(), ConfigError> {
        check_quiet("assembly.quiet_seconds", self.assembly.quiet_seconds)?;
        for (sender, &seconds) in &self.assembly.quiet_seconds_by_sender {
            let key = "assembly.quiet_seconds_by_sender";
            check_ae_title("the sender", sender).map_err(|problem| ConfigError::Invalid {
                key: format!("{key}:"),
                problem,
            })?;
            check_quiet(&format!("{key}.{sender}"), seconds)?;
        }
        Ok(())
    }
}

/// Settings for which 0 means something.
const MAY_BE_0: [&str; 7] = [
    "assembly.quiet_seconds",
    "dicom.object_bytes_per_second_min",
    "dicom.stop_seconds_max",
    "http.upload_bytes_per_second_min",
    "storage.decoded_bytes_max",
    "storage.free_bytes_reserve",
    "storage.scrub_bytes_per_second",
];

/// A limit of 0 lets nothing through.
fn refuse_zeros(given: &Value) -> Result<(), ConfigError> {
    let is_zero = |value: &Value| match value {
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|number| number.abs() < f64::EPSILON),
        Value::String(text) => text.trim() == "0",
        _ => false,
    };
    let zero = leaves(given, "").into_iter().find(|(key, value)| {
        let free = key.starts_with("assembly.quiet_seconds_by_sender.");
        !free && is_limit(key) && !MAY_BE_0.contains(&key.as_str()) && is_zero(value)
    });
    match zero {
        None => Ok(()),
        Some((key, _)) => Err(ConfigError::Invalid {
            problem: "is 0, so that nothing could be taken; leave the line out for the default"
                .to_owned(),
            key,
        }),
    }
}

/// Whether the default of `key` is a number, or could be one.
fn is_limit(key: &str) -> bool {
    let known = known_settings();
    let mut path = key.split('.');
    path.try_fold(&known, |at, part| at.get(part))
        .is_some_and(|value| value.is_number() || value.is_null())
}

/// The two addresses, whose own messages would not say how one is written.
fn refuse_places(given: &Value) -> Result<(), ConfigError> {
    for (section, port) in [("dicom", 11112), ("http", 8080)] {
        let Some(text) = given.get(section).and_then(|table| table.get("bind")) else {
            continue;
        };
        let text = text
            .as_str()
            .map_or_else(|| text.to_string(), str::to_owned);
        let key = format!("{section}.bind");
        require(text.parse::<std::net::SocketAddr>().is_ok(), &key, || {
            let address = match text.parse::<std::net::IpAddr>() {
                Ok(address) => std::net::SocketAddr::new(address, port).to_string(),
                Err(_) => format!("127.0.0.1:{port}"),
            };
            format!("is {text:?}; write an IP address and a port together, such as \"{address}\"")
        })?;
    }
    Ok(())
}

fn check_quiet(key: &str, seconds: f64) -> Result<(), ConfigError> {
    require((0.0..=QUIET_SECONDS_MAX).contains(&seconds), key, || {
        format!("is {seconds} seconds; 0 to {QUIET_SECONDS_MAX} is possible")
    })
}

fn require(holds: bool, key: &str, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        key: key.to_owned(),
        problem: problem(),
    })
}

/// Every setting with its default; `null` for those that are unset.
fn known_settings() -> Value {
    serde_json::to_value(Config::default()).unwrap_or_default()
}

/// `TEZ_DICOM__BIND=127.0.0.1:11113` → `dicom.bind`; lists are separated by commas.
fn environment(variables: impl Iterator<Item = (String, String)>, known: &Value) -> Environment {
    let ours = variables.filter(|(key, _)| key.starts_with("TEZ_") && key != FILE_VARIABLE);
    let mut source = Environment::with_prefix("TEZ")
        .prefix_separator("_")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .source(Some(ours.collect()));
    // Without any list key, every value would be taken for a list.
    source = source.with_list_parse_key("no.such.list");
    for (key, value) in leaves(known, "") {
        if value.is_array() {
            source = source.with_list_parse_key(&key);
        }
    }
    source
}

fn tree(source: impl ::config::Source + Send + Sync + 'static) -> Result<Value, ConfigError> {
    let only = ::config::Config::builder().add_source(source).build()?;
    Ok(only.try_deserialize()?)
}

/// Settings of earlier versions, and what stands for them now.
const MOVED: [(&str, &str, &str, &str); 1] = [(
    "dicom",
    "port",
    "dicom.port",
    "address and port stand together in dicom.bind, such as \"127.0.0.1:11112\" \
     (TEZ_DICOM__BIND in the environment)",
)];

fn refuse_unknown(place: &str, given: &Value, known: &Value) -> Result<(), ConfigError> {
    for (section, name, key, cure) in MOVED {
        if given
            .get(section)
            .is_some_and(|table| table.get(name).is_some())
        {
            let place = place.to_owned();
            return Err(ConfigError::Moved { place, key, cure });
        }
    }
    let known_keys: Vec<String> = leaves(known, "").into_iter().map(|(key, _)| key).collect();
    match unknown_key(given, known, "") {
        None => Ok(()),
        Some(key) => Err(ConfigError::Unknown {
            place: place.to_owned(),
            nearest: nearest(&key, &known_keys),
            key,
        }),
    }
}

/// The first key of `given` that `known` lacks. An empty table in `known` takes any key.
fn unknown_key(given: &Value, known: &Value, path: &str) -> Option<String> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else {
        return None;
    };
    if known.is_empty() {
        return None;
    }
    given.iter().find_map(|(key, value)| {
        let path = join(path, key);
        match known.get(key) {
            None => Some(path),
            Some(known) => unknown_key(value, known, &path),
        }
    })
}

/// Every setting below `path` that is not a section, in order of name.
fn leaves<'a>(value: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    match value {
        Value::Object(fields) if !fields.is_empty() => fields
            .iter()
            .flat_map(|(key, value)| leaves(value, &join(path, key)))
            .collect(),
        _ => vec![(path.to_owned(), value)],
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The known key most like `key`, unless none is like it.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let likeness = |other: &String| strsim::jaro_winkler(key, other);
    known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) > 0.7)
        .cloned()
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::read("tez.toml", text, owned)
    }

    fn error(text: &str, variables: &[(&str, &str)]) -> String {
        read(text, variables).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        assert_eq!(read("", &[("PATH", "/bin")]).unwrap(), Config::default());
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let text = "data_dir = \"/file\"\n[assembly]\nquiet_seconds = 9\n[model]\nworkers = 2";
        let config = read(
            text,
            &[
                ("TEZ_ASSEMBLY__QUIET_SECONDS", "0.5"),
                ("TEZ_DATA_DIR", "/env"),
                ("TEZ_CONFIG", "x"),
            ],
        )
        .unwrap();
        assert!((config.assembly.quiet_seconds - 0.5).abs() < 1e-9);
        assert_eq!(config.data_dir, Path::new("/env"));
        assert_eq!(config.model.workers, Some(2));
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it_its_place_and_the_nearest() {
        assert_eq!(
            error("[assembly]\nquiet_second = 9", &[]),
            "tez.toml: assembly.quiet_second is not a setting; did you mean assembly.quiet_seconds?"
        );
        assert_eq!(
            error("", &[("TEZ_MODEL__CARDS", "x")]),
            "environment: model.cards is not a setting; did you mean model.card?"
        );
        assert_eq!(error("zzz = 1", &[]), "tez.toml: zzz is not a setting");
    }

    /// Each text is an error that holds the other one.
    fn refused(texts: &[(&str, &str)]) {
        for (text, part) in texts {
            let error = error(text, &[]);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_impossible_value_is_an_error_that_names_its_setting() {
        refused(&[
            (
                "[assembly]\nquiet_seconds = -1",
                "assembly.quiet_seconds is -1",
            ),
            (
                "[assembly.quiet_seconds_by_sender]\nCT1 = 1e9",
                "assembly.quiet_seconds_by_sender.CT1",
            ),
            ("[model]\nworkers = 0", "model.workers is 0"),
            ("[model]\nworkers = \"many\"", "model.workers"),
            (
                "[assembly]\nopen_studies_max = 0",
                "assembly.open_studies_max is 0",
            ),
            (
                "[limits]\nobject_bytes_max = 0",
                "limits.object_bytes_max is 0",
            ),
            ("[zip]\nentries_max = 0", "zip.entries_max is 0"),
            ("[http]\nupload_files_max = 0", "http.upload_files_max is 0"),
            ("[http]\nlisteners_max = 0", "http.listeners_max is 0"),
            (
                "[dicom]\nassociations_max = -3",
                "a whole number, 0 or more",
            ),
            ("[dicom]\nassociations_max = 9999", "1 to 256 is possible"),
            (
                "[dicom]\nae_title = \"\"",
                "[dicom] ae_title is \"\": it is empty",
            ),
            ("[dicom]\nae_title = \"A\\\\B\"", "no backslash"),
            (
                "[dicom]\nae_title = \"TEZ_OF_THE_HOSPITAL\"",
                "it has 19 characters",
            ),
            (
                "[[dicom.allow]]\nae_title = \"SEVENTEEN_LETTERS\"\naddress = \"10.0.0.1\"",
                "it has 17 characters",
            ),
        ]);
    }

    #[test]
    fn an_impossible_sender_address_name_or_level_is_an_error_that_says_what_to_write() {
        refused(&[
            (
                "[dicom]\nallow = [\"CT1\"]",
                "entry 1 is \"CT1\"; write for each sender",
            ),
            (
                "[[dicom.allow]]\nae_title = \"CT1\"",
                "entry 1 has no address; write for each sender",
            ),
            (
                "[[dicom.allow]]\nae_title = \"CT1\"\naddress = \"pacs\"",
                "\"pacs\" is not an address such as 10.1.2.3",
            ),
            (
                "[dicom]\naccept_any_called_ae = \"maybe\"",
                "true or false is possible",
            ),
            ("dicom = 3", "dicom is 3; it is a section"),
            ("[dicom]\nbind = \"0.0.0.0\"", "such as \"0.0.0.0:11112\""),
            ("[http]\nbind = 8080", "such as \"127.0.0.1:8080\""),
            ("[http]\nbind = \"127.0.0.1:11112\"", "give them two ports"),
            ("[http]\nhosts_allowed = \"tez.example\"", "a list of words"),
            (
                "[http]\nhosts_allowed = [\"https://tez.example:8443/\"]",
                "write the name alone: \"tez.example\"",
            ),
            (
                "[http]\nhosts_allowed = [\"tez.example:8080\"]",
                "write the name alone: \"tez.example\"",
            ),
            (
                "[http]\norigins_allowed = [\"portal.example\"]",
                "https://portal.example",
            ),
            (
                "[http]\norigins_allowed = [\"https://portal.example/tez\"]",
                "https://portal.example",
            ),
            ("[log]\nfilter = \"warning\"", "\"warning\" is no level"),
            (
                "[log]\nfilter = \"info,server=loud\"",
                "\"loud\" is no level",
            ),
            (
                "[limits]\nslices_max = 2",
                "limits.slices_min is more than limits.slices_max, 2",
            ),
            ("[log]\nformat = \"loud\"", "log.format"),
        ]);
    }

    #[test]
    fn the_port_of_dicom_as_it_was_set_before_is_an_error_that_says_what_to_write() {
        for error in [
            error("[dicom]\nport = 104", &[]),
            error("", &[("TEZ_DICOM__PORT", "104")]),
        ] {
            assert!(
                error.contains("dicom.port is not a setting any more"),
                "{error}"
            );
            assert!(error.contains("dicom.bind"), "{error}");
        }
    }

    #[test]
    fn words_of_the_programming_language_are_not_the_users() {
        for text in [
            "[dicom]\nallow = [3]",
            "[dicom]\nassociations_max = []",
            "[dicom.allow]\nae_title = \"CT1\"\naddress = \"10.0.0.1\"",
            "[http]\nidle_seconds_max = \"long\"",
            "[storage]\nfree_bytes_reserve = 1.5",
            "[limits]\nslices_max = true",
            "[log]\nformat = \"loud\"",
            "[model]\nworkers = \"many\"",
            "[assembly.quiet_seconds_by_sender]\nCT1 = \"long\"",
            "[zip]\nratio_max = -1",
        ] {
            let error = error(text, &[]);
            for word in [
                "variant",
                "struct",
                "sequence",
                "usize",
                "u64",
                "integer",
                "invalid type",
            ] {
                assert!(!error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn ports_addresses_titles_and_lists_can_come_from_the_environment() {
        let config = read(
            "[[dicom.allow]]\nae_title = \"CT1\"\naddress = \"10.0.0.0/8\"",
            &[
                ("TEZ_DICOM__BIND", "127.0.0.1:104"),
                ("TEZ_DICOM__AE_TITLE", "123"),
                ("TEZ_HTTP__BIND", "0.0.0.0:80"),
                ("TEZ_HTTP__HOSTS_ALLOWED", "a.example,b.example"),
                ("TEZ_LIMITS__SLICES_MAX", "500"),
                ("TEZ_ZIP__RATIO_MAX", "7"),
            ],
        )
        .unwrap();
        assert_eq!(config.dicom.bind.port(), 104);
        assert_eq!(config.dicom.ae_title, "123");
        assert_eq!(config.dicom.allow.len(), 1);
        assert_eq!(config.http.bind.to_string(), "0.0.0.0:80");
        assert_eq!(config.http.hosts_allowed, ["a.example", "b.example"]);
        assert_eq!(config.limits.slices_max, 500);
        assert_eq!(config.zip.ratio_max, 7);
    }

    #[test]
    fn a_sender_may_have_its_own_quiet_time() {
        let text = "[assembly.quiet_seconds_by_sender]\nSLOW_CT = 30";
        let assembly = read(text, &[]).unwrap().assembly;
        assert_eq!(assembly.quiet_time("SLOW_CT"), Duration::from_secs(30));
        assert_eq!(assembly.quiet_time("CT1"), Duration::from_secs(5));
    }
}
