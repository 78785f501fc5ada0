//! The stages of the core, one by one, on 32 thick and 300 thin slices of 512².
//!
//! `cargo bench -p benches`; with `-- --test` each runs once, unmeasured.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use models::analysis::{StudyObjects, Watch, analyse};
use models::card::ModelCard;
use models::runtime::{Library, Network};
use pipeline::decode::Decoding;
use pipeline::header::read_instance;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::prepare::prepare;
use pipeline::series::candidates;
use pipeline::volume::build;

const STUDIES: [&str; 2] = ["thick32", "thin300"];

/// A study on disk, made once.
struct Study {
    name: &'static str,
    files: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

fn study(name: &'static str) -> Study {
    let folder = tempfile::tempdir().expect("a scratch folder");
    Study {
        name,
        files: fixtures::make(name, folder.path()).expect("a fixture"),
        _folder: folder,
    }
}

fn headers(files: &[PathBuf]) -> Vec<Instance> {
    let limits = Limits::default();
    files
        .iter()
        .map(|file| read_instance(file, &limits).expect("a header"))
        .collect()
}

fn network() -> Network {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let library = Library::load(&workspace.join(".cache/onnxruntime/libonnxruntime.so"))
        .expect("ONNX Runtime: run `cargo xtask setup`");
    Network::built_in(&library, 1).expect("the model inside the program")
}

fn stages(criterion: &mut Criterion) {
    let limits = Limits::default();
    let contract = ModelCard::built_in()
        .expect("the card inside the program")
        .input
        .contract;
    let mut network = network();
    let watch = Watch {
        elapsed_ms: &|| 0.0,
        entered: &|_| {},
    };
    for study in STUDIES.map(study) {
        let instances = headers(&study.files);
        let ranked = candidates(&instances, &limits).list;
        let slices = &ranked.first().expect("a series").slices;
        let (volume, _) = build(slices, Decoding::afresh(&limits)).expect("a volume");
        let input = prepare(&volume, &contract).expect("a tensor");
        let objects = StudyObjects {
            study_uid: &instances.first().expect("an instance").study_uid,
            received: (&instances).into(),
            doubts: &[],
        };

        let mut group = criterion.benchmark_group(study.name);
        group.sample_size(10);
        group.bench_function("header scan", |bencher| {
            bencher.iter(|| headers(black_box(&study.files)));
        });
        group.bench_function("series choice", |bencher| {
            bencher.iter(|| candidates(black_box(&instances), &limits).list.len());
        });
        group.bench_function("decode to volume", |bencher| {
            bencher.iter(|| build(black_box(slices), Decoding::afresh(&limits)).expect("a volume"));
        });
        group.bench_function("prepare", |bencher| {
            bencher.iter(|| prepare(black_box(&volume), &contract).expect("a tensor"));
        });
        group.bench_function("decode to prepared", |bencher| {
            bencher.iter(|| {
                let (volume, _) =
                    build(black_box(slices), Decoding::afresh(&limits)).expect("a volume");
                prepare(&volume, &contract).expect("a tensor")
            });
        });
        group.bench_function("inference, one thread", |bencher| {
            bencher.iter(|| network.run(black_box(&input)).expect("an answer"));
        });
        group.bench_function("whole analysis", |bencher| {
            bencher.iter(|| {
                analyse(
                    black_box(objects),
                    Ok(&mut network),
                    Decoding::afresh(&limits),
                    watch,
                )
            });
        });
        group.finish();
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
