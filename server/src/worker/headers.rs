//! The headers of a study's objects.

use std::path::PathBuf;
use std::sync::Arc;

use pipeline::header::read_object;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::unread::{Received, UnreadObject};

/// The headers of a study's objects, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Those that were read.
    pub instances: Arc<Vec<Instance>>,
    /// What is known of those that could not be.
    pub unread: Arc<Vec<UnreadObject>>,
}

impl Headers {
    /// All of them, for the analysis.
    pub fn received(&self) -> Received<'_> {
        Received {
            instances: &self.instances,
            unread: &self.unread,
        }
    }
}

/// The headers of `paths`, until they exceed the limit of a study, and what was `refused`.
pub fn read_headers(paths: &[PathBuf], refused: Vec<UnreadObject>, limits: &Limits) -> Headers {
    let (mut instances, mut unread) = (Vec::new(), refused);
    let mut counted = 0;
    for path in paths {
        match read_object(path, limits) {
            Ok(instance) if counted <= limits.study_instances_max => {
                counted += instance.counted();
                instances.push(instance);
            }
            Err(object) if unread.len() <= limits.study_instances_max => unread.push(*object),
            // More than the limit is seen to be more by the one above it.
            Ok(_) | Err(_) => {}
        }
    }
    Headers {
        instances: Arc::new(instances),
        unread: Arc::new(unread),
    }
}
