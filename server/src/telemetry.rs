//! Logs and metrics. Neither ever carries a patient's name, date of birth or data set: studies
//! go by their internal number.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use models::report::StudyReport;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use store::receipt::Receipt;
use store::state::StudyState;

/// Upper edges of the histograms' buckets, seconds.
const SECONDS_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Errors are heard of every part of the program, unless the settings say otherwise. At level INFO
/// ONNX Runtime writes about a hundred lines at each start.
const ALWAYS: &str = "error,ort=warn";

/// What may be asked for.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `auto` (people on a terminal, JSON elsewhere), `human` or `json`.
    pub format: LogFormat,
    /// Least level that is logged, by part of the program, such as `info,server=debug`. ONNX Runtime
    /// is heard from `warn` on, unless `ort` is named here: it writes a hundred lines at each start.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
        }
    }
}

/// For whom log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// People on a terminal, JSON elsewhere.
    Auto,
    /// A line for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("log.filter {filter:?} is not a filter such as `info` or `info,server=debug`: {cause}")]
pub struct FilterError {
    /// The setting.
    filter: String,
    /// What is wrong with it.
    cause: tracing_subscriber::filter::ParseError,
}

/// Sends logs to standard error from now on. A second call changes nothing.
///
/// # Errors
///
/// [`FilterError`] if the setting cannot be read.
pub fn start_logs(config: &LogConfig) -> Result<(), FilterError> {
    let filter = filter(config)?;
    let people = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // An error only says that logs were started before, as tests in one process do.
    drop(if people {
        logs.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    });
    Ok(())
}

/// Says what is wrong with a `log.filter`. A word that is no level would be taken for the name of a
/// part of the program, and silence all others, errors too.
///
/// # Errors
///
/// The sentence.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let known = |level: &str| LEVELS.iter().any(|one| one.eq_ignore_ascii_case(level));
    let parts = filter.split(',').map(str::trim);
    // Within the brackets of a span anything may stand.
    let plain = parts.filter(|part| !part.contains(['[', ']', '{', '}', '"']));
    let levels = plain.map(|part| part.rsplit('=').next().unwrap_or(part).trim());
    match levels.into_iter().find(|level| !known(level)) {
        Some(word) => Err(format!(
            "is {filter:?}: {word:?} is no level. Write {} or, for one part of the program, \
             info,server=debug",
            LEVELS[1..].join(", ")
        )),
        None => Ok(()),
    }
}

/// What stands in the settings comes later, and so goes before [`ALWAYS`].
fn filter(config: &LogConfig) -> Result<EnvFilter, FilterError> {
    let text = format!("{ALWAYS},{}", config.filter);
    EnvFilter::try_new(text).map_err(|cause| FilterError {
        filter: config.filter.clone(),
        cause,
    })
}

/// Keeps the process's metrics from the first call on, and gives the handle that writes them out.
pub fn start_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let started = HANDLE.get_or_init(|| {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &SECONDS_BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another part of the process keeps the metrics; ours stay empty");
        }
        describe();
        handle
    });
    started.clone()
}

/// All metrics in the text form of Prometheus.
pub fn render_metrics() -> String {
    let handle = start_metrics();
    handle.run_upkeep();
    handle.render()
}

/// Tells how many studies stand in each state, and how many kept objects are damaged.
pub fn show_database(studies: &BTreeMap<StudyState, i64>, damages: i64) {
    for (state, count) in studies {
        gauge!("tez_studies", "state" => state.as_str()).set(*count as f64);
    }
    gauge!("tez_damaged_objects").set(damages as f64);
}

fn describe() {
    describe_counter!(
        "tez_objects_total",
        "Objects acknowledged, by what became of them."
    );
    describe_counter!(
        "tez_objects_unreadable_total",
        "Objects whose header cannot be read."
    );
    describe_counter!("tez_results_total", "Studies that came to an end, by how.");
    describe_gauge!("tez_studies", "Studies in the database, by state.");
    describe_gauge!(
        "tez_database_ok",
        "1 while the database takes what is written, else 0."
    );
    describe_counter!(
        "tez_scrub_objects_total",
        "Kept objects read again, by what was found: intact, damaged, missing."
    );
    describe_counter!("tez_scrub_bytes_total", "Bytes of kept objects read again.");
    describe_gauge!(
        "tez_scrub_round_ratio",
        "How much of the present round over all kept objects is done, 0 to 1."
    );
    describe_gauge!(
        "tez_scrub_last_finished_timestamp_seconds",
        "When a round over all kept objects last ended."
    );
    describe_gauge!(
        "tez_damaged_objects",
        "Kept objects known to be damaged or gone, until they are sent again."
    );
    describe_counter!(
        "tez_database_failures_total",
        "Failed tries to read or write the database, by why."
    );
    describe_gauge!("tez_queue_length", "Studies that wait for a worker.");
    describe_gauge!("tez_workers_busy", "Workers that analyse a study.");
    describe_histogram!("tez_stage_seconds", "Time of one stage of one study.");
    describe_histogram!(
        "tez_last_object_to_result_seconds",
        "From a study's last object to its result in the worklist."
    );
}

/// Counts an acknowledged object.
pub fn count_object(receipt: Receipt) {
    counter!("tez_objects_total", "receipt" => receipt.as_str()).increment(1);
}

/// Counts an object whose header cannot be read.
pub fn count_unreadable() {
    counter!("tez_objects_unreadable_total").increment(1);
}

/// Tells how many studies wait and how many are being analysed.
pub fn show_queue(waiting: usize, busy: usize) {
    gauge!("tez_queue_length").set(waiting as f64);
    gauge!("tez_workers_busy").set(busy as f64);
}

/// Counts a result and its times; `seconds` from the study's last object to now.
pub fn count_result(report: &StudyReport, state: &'static str, seconds: f64) {
    counter!("tez_results_total", "state" => state).increment(1);
    histogram!("tez_last_object_to_result_seconds").record(seconds);
    for (stage, milliseconds) in &report.timing_ms {
        histogram!("tez_stage_seconds", "stage" => stage.clone()).record(milliseconds / 1_000.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn metrics_count_objects_and_show_every_state() {
        start_metrics();
        count_object(Receipt::New);
        show_queue(3, 1);
        show_database(&BTreeMap::from([(StudyState::NotAnalysed, 2)]), 4);
        let text = render_metrics();
        for part in [
            "tez_objects_total{receipt=\"new\"} ",
            "tez_queue_length 3",
            "tez_studies{state=\"not_analysed\"} 2",
            "tez_damaged_objects 4",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// What is logged of ONNX Runtime's words, and of ours, with `filter` in the settings.
    fn logged(filter_setting: &str) -> String {
        let config = LogConfig {
            filter: filter_setting.to_owned(),
            ..LogConfig::default()
        };
        let (mut reader, writer) = std::io::pipe().unwrap();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter(&config).unwrap())
            .with_writer(std::sync::Mutex::new(writer))
            .finish();
        tracing::subscriber::with_default(logs, || {
            tracing::info!(target: "ort::logging", "node placed");
            tracing::warn!(target: "ort::logging", "node fell back");
            tracing::info!(target: "server::service", "stopping");
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn onnx_runtime_only_warns_unless_it_is_asked_for_more() {
        for setting in [LogConfig::default().filter.as_str(), "debug"] {
            let text = logged(setting);
            assert!(!text.contains("node placed"), "{setting}: {text}");
            assert!(text.contains("node fell back"), "{setting}: {text}");
            assert!(text.contains("stopping"), "{setting}: {text}");
        }
        assert!(logged("info,ort=info").contains("node placed"));
        assert!(!logged("info,ort=error").contains("node fell back"));
    }

    #[test]
    fn a_filter_that_is_none_is_an_error_that_names_the_setting() {
        let config = LogConfig {
            filter: "server=loudest".to_owned(),
            ..LogConfig::default()
        };
        let error = start_logs(&config).unwrap_err().to_string();
        assert!(error.contains("log.filter"), "{error}");
    }
}
