//! Files, folders and zips → the studies in them, and what was left out and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use models::analysis::StudyObjects;
use pipeline::content::ContentHasher;
use pipeline::header::read_object;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::patient;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::{Received, UnreadObject};
use rayon::prelude::*;
use tempfile::TempDir;

use super::progress::Bar;
use crate::archive::{ArchiveError, Entry, visit_entries};
use crate::config::Config;

/// Deepest folder that is looked into; ends a circle of mounted folders.
const FOLDER_DEPTH_MAX: usize = 64;
/// Most files of one call.
const FILES_MAX: usize = 200_000;
/// What files of DICOM objects are called, in small letters.
const OBJECT_EXTENSIONS: [&str; 4] = ["dcm", "dicom", "dic", "ima"];
/// How a zip begins; an empty one begins with its end record (APPNOTE 4.3.7, 4.3.16).
const ZIP_MAGICS: [[u8; 4]; 2] = [*b"PK\x03\x04", *b"PK\x05\x06"];

/// The studies found, in the order in which their first file was met.
pub(super) struct Input {
    /// The studies.
    pub(super) studies: Vec<Study>,
    /// What is no readable DICOM object.
    pub(super) left_out: Vec<LeftOut>,
    /// Holds what came out of zips for as long as it is needed.
    _unpacked: Vec<TempDir>,
}

/// One study's objects of one patient, in the order of their paths.
pub(super) struct Study {
    /// Study Instance UID.
    pub(super) uid: Uid,
    /// Names what is written of it: another one where patients share the Study Instance UID.
    pub(super) file_uid: Uid,
    /// Its objects.
    pub(super) instances: Vec<Instance>,
    /// Those of its objects that cannot be read.
    pub(super) unread: Vec<UnreadObject>,
    /// What is doubtful about it besides.
    pub(super) doubts: Vec<Reason>,
}

impl Study {
    fn new(uid: Uid) -> Self {
        Self {
            file_uid: uid.clone(),
            uid,
            instances: Vec::new(),
            unread: Vec::new(),
            doubts: Vec::new(),
        }
    }

    /// What there is of it, for the analysis.
    pub(super) fn objects(&self) -> StudyObjects<'_> {
        StudyObjects {
            study_uid: &self.uid,
            received: Received {
                instances: &self.instances,
                unread: &self.unread,
            },
            doubts: &self.doubts,
        }
    }
}

/// Something that was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The file, for a zip with the entry after a `!`.
    pub(super) name: String,
    /// Why.
    pub(super) why: String,
}

/// A file to read, and how to call it.
struct Candidate {
    path: PathBuf,
    name: String,
}

struct Gatherer<'a> {
    config: &'a Config,
    candidates: Vec<Candidate>,
    left_out: Vec<LeftOut>,
    unpacked: Vec<TempDir>,
}

/// Reads the headers of everything in `paths`: folders with all below them, zips with all inside.
///
/// # Errors
///
/// If a path is not there, cannot be read, is a broken or dangerous zip, or there are too many
/// files.
pub(super) fn gather(paths: &[PathBuf], config: &Config) -> anyhow::Result<Input> {
    let mut gatherer = Gatherer {
        config,
        candidates: Vec::new(),
        left_out: Vec::new(),
        unpacked: Vec::new(),
    };
    for path in paths {
        let metadata =
            fs::metadata(path).with_context(|| format!("cannot read {}", shown(path)))?;
        if metadata.is_dir() {
            gatherer.folder(path, 0)?;
        } else {
            gatherer.file(path)?;
        }
    }
    let mut headers = read_headers(&gatherer.candidates, &config.limits);
    gatherer.left_out.append(&mut headers.left_out);
    Ok(Input {
        studies: by_study(headers.objects),
        left_out: gatherer.left_out,
        _unpacked: gatherer.unpacked,
    })
}

impl Gatherer<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> anyhow::Result<()> {
        if depth > FOLDER_DEPTH_MAX {
            bail!(
                "{} lies more than {FOLDER_DEPTH_MAX} folders deep",
                shown(folder)
            );
        }
        let unreadable = || format!("cannot read the folder {}", shown(folder));
        let mut entries = fs::read_dir(folder)
            .with_context(unreadable)?
            .collect::<io::Result<Vec<_>>>()
            .with_context(unreadable)?;
        // The order of a folder is the file system's whim; results must not hang on it.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().with_context(unreadable)?;
            if kind.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if kind.is_symlink() && path.is_dir() {
                self.leave_out(
                    shown(&path),
                    &"it is a link to a folder; name the folder itself",
                );
            } else {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        match kind_of(path) {
            Ok(FileKind::Zip) => self.zip(path),
            Ok(FileKind::Other) => self.take(path.to_owned(), shown(path)),
            Err(why) => {
                self.leave_out(shown(path), &why);
                Ok(())
            }
        }
    }

    fn take(&mut self, path: PathBuf, name: String) -> anyhow::Result<()> {
        if self.candidates.len() == FILES_MAX {
            bail!("more than {FILES_MAX} files; name fewer at once");
        }
        self.candidates.push(Candidate { path, name });
        Ok(())
    }

    fn leave_out(&mut self, name: String, why: &impl ToString) {
        let why = why.to_string();
        self.left_out.push(LeftOut { name, why });
    }

    /// Unpacks a zip into a folder of its own, under names of our own.
    fn zip(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = shown(path);
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let config = self.config;
        let mut number = 0_usize;
        let mut take = |entry: Entry<'_>| -> anyhow::Result<()> {
            let entry_name = format!("{name}!{}", entry.name);
            let target = folder.path().join(format!("{number}.dcm"));
            number += 1;
            match entry.body {
                Err(refusal) => self.leave_out(entry_name, &refusal),
                Ok(body) => match unpack(body, &target)? {
                    Ok(()) => self.take(target, entry_name)?,
                    Err(error) => self.leave_out(entry_name, &error),
                },
            }
            Ok(())
        };
        let (limits, entry_bytes_max) = (config.zip, config.limits.object_bytes_max);
        let take = |entry: Entry<'_>| take(entry).map_err(ZipError::Ours);
        visit_entries(file, &limits, entry_bytes_max, take)
            .map_err(|error| match error {
                ZipError::Archive(error) => anyhow::Error::new(error),
                ZipError::Ours(error) => error,
            })
            .with_context(|| format!("cannot read the zip {name}"))?;
        self.unpacked.push(folder);
        Ok(())
    }
}

/// Why a zip is not read to its end.
enum ZipError {
    Archive(ArchiveError),
    Ours(anyhow::Error),
}

impl From<ArchiveError> for ZipError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// Writes an entry to `target`. The inner error is the entry's fault, the outer one ours.
fn unpack(body: &mut dyn Read, target: &Path) -> anyhow::Result<Result<(), io::Error>> {
    let unwritable = || format!("cannot write {}", target.display());
    let mut file = File::create(target).with_context(unwritable)?;
    let mut block = vec![0; 1 << 16];
    loop {
        let count = match body.read(&mut block) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error)),
        };
        io::Write::write_all(&mut file, &block[..count]).with_context(unwritable)?;
    }
}

enum FileKind {
    Zip,
    Other,
}

/// What a file is by its first bytes; the name is not asked.
fn kind_of(path: &Path) -> Result<FileKind, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        // Opening a pipe would wait for ever.
        return Err("it is neither a file nor a folder".to_owned());
    }
    let mut first = Vec::with_capacity(4);
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut first))
        .map_err(|error| error.to_string())?;
    let is_zip = ZIP_MAGICS.iter().any(|magic| first == magic);
    Ok(if is_zip {
        FileKind::Zip
    } else {
        FileKind::Other
    })
}

/// An object that was read, or one that could not be.
type Object = Result<Instance, Box<UnreadObject>>;

/// What the candidates are.
struct Headers {
    /// DICOM objects.
    objects: Vec<Object>,
    /// What is none, and what cannot be read.
    left_out: Vec<LeftOut>,
}

fn read_headers(candidates: &[Candidate], limits: &Limits) -> Headers {
    let bar = Bar::new("Reading headers", candidates.len());
    let results: Vec<Object> = candidates
        .par_iter()
        .map(|candidate| {
            let result = read_object(&candidate.path, limits);
            bar.step();
            result
        })
        .collect();
    let mut headers = Headers {
        objects: Vec::with_capacity(results.len()),
        left_out: Vec::new(),
    };
    for (candidate, result) in candidates.iter().zip(results) {
        if let Err(unread) = &result {
            headers.left_out.push(LeftOut {
                name: candidate.name.clone(),
                why: unread.reason.text.clone(),
            });
        }
        if result
            .as_ref()
            .err()
            .is_none_or(|one| counts(candidate, one))
        {
            headers.objects.push(result);
        }
    }
    headers
}

/// Whether what cannot be read is a DICOM object that a study may lack: by its bytes, or, where
/// they say nothing, by its name.
fn counts(candidate: &Candidate, unread: &UnreadObject) -> bool {
    let named = Path::new(&candidate.name)
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| OBJECT_EXTENSIONS.contains(&extension.to_lowercase().as_str()));
    unread.study_uid.is_some()
        || (unread.may_hold_slices() && (named || unread.reason.code != ReasonCode::NotDicom))
}

fn by_study(objects: Vec<Object>) -> Vec<Study> {
    let mut place_of_uid: BTreeMap<Uid, usize> = BTreeMap::new();
    let mut studies: Vec<Study> = Vec::new();
    // The same file named twice is one file; the same object in two files is the pipeline's to
    // judge.
    let mut seen = BTreeSet::new();
    let mut homes = BTreeMap::new();
    let only = only_study(&objects);
    for object in objects {
        let path = match &object {
            Ok(instance) => &instance.path,
            Err(unread) => &unread.path,
        };
        if !seen.insert(path.clone()) {
            continue;
        }
        let uid = match &object {
            Ok(instance) => instance.study_uid.clone(),
            Err(unread) => home_of(unread, only.as_ref(), &mut homes),
        };
        let place = *place_of_uid.entry(uid.clone()).or_insert_with(|| {
            studies.push(Study::new(uid));
            studies.len() - 1
        });
        match object {
            Ok(instance) => studies[place].instances.push(instance),
            Err(unread) => studies[place].unread.push(*unread),
        }
    }
    studies.into_iter().flat_map(by_patient).collect()
}

/// The study that all objects are of that name one: where there is no other, those that name none
/// are of it as well.
fn only_study(objects: &[Object]) -> Option<Uid> {
    let named = objects.iter().filter_map(|object| match object {
        Ok(instance) => Some(&instance.study_uid),
        Err(unread) => unread.study_uid.as_ref(),
    });
    let uids: BTreeSet<&Uid> = named.collect();
    let mut uids = uids.into_iter();
    uids.next().filter(|_| uids.next().is_none()).cloned()
}

/// Patients whose objects came under one Study Instance UID are studies of their own.
fn by_patient(study: Study) -> Vec<Study> {
    let patients = patient::by_patient(study.instances, study.unread);
    let doubts: Vec<Reason> = (patients.len() > 1)
        .then(|| patient::shared_study(&study.uid))
        .into_iter()
        .collect();
    patients
        .into_iter()
        .enumerate()
        .map(|(place, patient)| Study {
            uid: study.uid.clone(),
            file_uid: match place {
                0 => study.uid.clone(),
                _ => patient.identity.study_uid(&study.uid),
            },
            instances: patient.instances,
            unread: patient.unread,
            doubts: doubts.clone(),
        })
        .collect()
}

/// The study of what cannot be read; for what does not say, the `only` one there is, or one for all objects of a patient, with
/// a UID made from the first one's path.
fn home_of(unread: &UnreadObject, only: Option<&Uid>, homes: &mut BTreeMap<String, Uid>) -> Uid {
    let made = || {
        let mut hash = ContentHasher::new("");
        hash.update(unread.path.to_string_lossy().as_bytes());
        hash.finish().to_uid()
    };
    let stated = unread.study_uid.as_ref().or(only).cloned();
    stated.unwrap_or_else(|| {
        homes
            .entry(unread.study.whom())
            .or_insert_with(made)
            .clone()
    })
}

/// A path, fit for a terminal.
fn shown(path: &Path) -> String {
    path.display()
        .to_string()
        .chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(input: &Input) -> Vec<&str> {
        input
            .left_out
            .iter()
            .map(|left_out| left_out.name.rsplit('/').next().unwrap())
            .collect()
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        let Err(error) = gather(&[PathBuf::from("/nowhere/ct")], &Config::default()) else {
            panic!("a missing path was taken");
        };
        assert!(error.to_string().contains("/nowhere/ct"), "{error}");
    }

    #[test]
    fn what_was_cut_before_it_names_a_study_is_of_the_only_one_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dicom");
        fixtures::make("small_head", &path).unwrap();
        let whole = fs::read_dir(&path).unwrap().next().unwrap().unwrap();
        let bytes = fs::read(whole.path()).unwrap();
        fs::write(path.join("cut.dcm"), &bytes[..200]).unwrap();
        let input = gather(std::slice::from_ref(&path), &Config::default()).unwrap();
        assert_eq!(input.studies.len(), 1);
        assert_eq!(input.studies[0].unread.len(), 1);
        // Of two it is not known whose it is.
        fixtures::make("head", &folder.path().join("other")).unwrap();
        let input = gather(&[folder.path().to_owned()], &Config::default()).unwrap();
        assert_eq!(input.studies.len(), 3);
    }

    #[test]
    fn files_of_a_folder_and_of_a_zip_that_are_not_dicom_are_named_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/note.txt"), "no").unwrap();
        fs::write(folder.path().join("a.txt"), "no").unwrap();
        let mut zip = zip::ZipWriter::new(File::create(folder.path().join("c.bin")).unwrap());
        zip.start_file("x/inside.txt", zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(b"no").unwrap();
        zip.finish().unwrap();
        let input = gather(&[folder.path().to_owned()], &Config::default()).unwrap();
        assert_eq!(names(&input), ["a.txt", "note.txt", "inside.txt"]);
        assert!(input.left_out[2].name.contains("c.bin!x/inside.txt"));
        assert!(input.studies.is_empty());
    }

    #[test]
    fn a_zip_beyond_a_limit_of_the_settings_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.zip");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        for name in ["a", "b"] {
            zip.start_file(name, zip::write::SimpleFileOptions::default())
                .unwrap();
        }
        zip.finish().unwrap();
        let mut config = Config::default();
        assert_eq!(
            gather(std::slice::from_ref(&path), &config)
                .unwrap()
                .left_out
                .len(),
            2
        );
        config.zip.entries_max = 1;
        let error = gather(&[path], &config).err().unwrap();
        assert!(
            format!("{error:#}").contains("zip.entries_max"),
            "{error:#}"
        );
    }

    #[test]
    fn a_broken_zip_is_an_error_and_an_empty_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.zip");
        fs::write(&broken, b"PK\x03\x04 and then nothing").unwrap();
        assert!(gather(&[broken], &Config::default()).is_err());
        let empty = folder.path().join("empty.zip");
        zip::ZipWriter::new(File::create(&empty).unwrap())
            .finish()
            .unwrap();
        assert!(
            gather(&[empty], &Config::default())
                .unwrap()
                .studies
                .is_empty()
        );
    }
}
