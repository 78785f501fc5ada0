//! Studies of the catalogue through the shipped network, for the tests of this crate.

use std::path::Path;

use pipeline::decode::Decoding;
use pipeline::header::read_instance;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use pipeline::unread::Received;

use crate::analysis::{Analysis, Stage, StudyObjects, Watch, analyse};
use crate::runtime::{Library, Network};

/// The instances of the fixture `name`, in order. Their files live until the end of
/// the test, in the folder that is given with them.
pub(crate) fn study(name: &str) -> (tempfile::TempDir, Vec<Instance>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = fixtures::make(name, folder.path()).unwrap();
    let limits = Limits::default();
    let read = |path| read_instance(path, &limits).unwrap();
    let instances = paths.iter().map(|path| read(path)).collect();
    (folder, instances)
}

/// `instances` again, two hours later in another series.
pub(crate) fn later(instances: &[Instance]) -> Vec<Instance> {
    let mut again = instances.to_vec();
    for (index, instance) in again.iter_mut().enumerate() {
        instance.sop_instance_uid = Uid::new(&format!("1.2.826.{index}")).unwrap();
        instance.series_uid = Uid::new("1.2.826").unwrap();
        instance.series.series_number = Some(99);
        let acquired = &mut instance.frames[0].acquired;
        *acquired = acquired.map(|at| at.with().hour(at.hour() + 2).build().unwrap());
    }
    again
}

/// The shipped network.
pub(crate) fn network(threads: usize) -> Network {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/onnxruntime/libonnxruntime.so");
    let library =
        Library::load(&path).expect("these tests need ONNX Runtime: run `cargo xtask setup` first");
    Network::built_in(&library, threads).unwrap()
}

pub(crate) fn run(instances: &[Instance], network: Result<&mut Network, &Reason>) -> Analysis {
    run_with(
        instances,
        network,
        Decoding::afresh(&Limits::default()),
        &|_| {},
    )
}

pub(crate) fn run_with(
    instances: &[Instance],
    network: Result<&mut Network, &Reason>,
    decoding: Decoding<'_>,
    entered: &(dyn Fn(Stage) + Sync),
) -> Analysis {
    let uid = instances.first().map_or_else(
        || Uid::new("1.2.3").unwrap(),
        |instance| instance.study_uid.clone(),
    );
    let watch = Watch {
        elapsed_ms: &|| 0.0,
        entered,
    };
    let study = StudyObjects {
        study_uid: &uid,
        received: Received::from(instances),
        doubts: &[],
    };
    analyse(study, network, decoding, watch)
}
