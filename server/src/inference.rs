//! Where the inference library and the model are looked for.

use std::path::PathBuf;

use models::runtime::{Library, LoadError, Network};

use crate::config::ModelConfig;

/// The library's name beside the program and in the cache of `cargo xtask setup`.
const LIBRARY_NAME: &str = "libonnxruntime.so";

/// Loads a network as `config` says; each call gives one with a session of its own.
///
/// # Errors
///
/// [`LoadError`], which names what is missing and the cure.
pub fn load_network(config: &ModelConfig) -> Result<Network, LoadError> {
    let library = Library::load_first(&library_places(config))?;
    match &config.card {
        Some(card) => Network::load(&library, card, config.threads_per_run()),
        None => Network::built_in(&library, config.threads_per_run()),
    }
}

/// Where ONNX Runtime's library is looked for, in order: where `model.library` says and nowhere
/// else; or beside the program, then in the cache of a checkout.
pub fn library_places(config: &ModelConfig) -> Vec<PathBuf> {
    if let Some(library) = &config.library {
        return vec![library.clone()];
    }
    let beside_program = std::env::current_exe()
        .ok()
        .map(|program| program.with_file_name(LIBRARY_NAME));
    let in_cache = PathBuf::from(".cache/onnxruntime").join(LIBRARY_NAME);
    beside_program.into_iter().chain([in_cache]).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_library_that_is_set_is_the_only_place() {
        let config = ModelConfig {
            library: Some(PathBuf::from("/opt/libonnxruntime.so")),
            ..ModelConfig::default()
        };
        assert_eq!(
            library_places(&config),
            [Path::new("/opt/libonnxruntime.so")]
        );
        let error = load_network(&config).unwrap_err().to_string();
        assert!(error.contains("/opt/libonnxruntime.so"), "{error}");
    }

    #[test]
    fn unset_it_is_looked_for_beside_the_program_then_in_the_cache() {
        let places = library_places(&ModelConfig::default());
        assert_eq!(places.len(), 2);
        assert!(places[0].is_absolute());
        assert_eq!(places[1], Path::new(".cache/onnxruntime/libonnxruntime.so"));
    }
}
