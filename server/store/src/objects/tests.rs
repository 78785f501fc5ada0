//! The store on a real folder.

use std::os::unix::fs::PermissionsExt;

use pipeline::content::ContentHasher;

use super::*;

const SYNTAX: &str = "1.2.840.10008.1.2.1";

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn limits() -> StoreLimits {
    StoreLimits {
        object_bytes_max: 1000,
        free_bytes_reserve: 0,
    }
}

fn write(store: &ObjectStore, body: &[u8]) -> Result<SealedObject, StoreError> {
    let mut writer = store.begin(b"head", &uid(SYNTAX))?;
    for part in body.chunks(7) {
        writer.write(part)?;
    }
    Ok(writer.seal())
}

fn objects_of(store: &ObjectStore) -> Vec<RecoveredObject> {
    let folders = (0..=u8::MAX).flat_map(|first| store.files(first).unwrap());
    folders
        .map(|path| RecoveredObject::at(&path).unwrap().unwrap())
        .collect()
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// A store in which `step` fails with `kind`.
fn failing(folder: &Path, step: Step, kind: io::ErrorKind) -> ObjectStore {
    let fault = move |now: Step| {
        if now == step {
            return Err(io::Error::from(kind));
        }
        Ok(())
    };
    ObjectStore::open_with_fault(folder, limits(), Box::new(fault)).unwrap()
}

#[test]
fn a_published_object_holds_head_and_body_verbatim_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert!(objects_of(&store).is_empty());
    let stored = write(&store, b"the data set")
        .unwrap()
        .publish(&uid("1.2.3"))
        .unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), b"headthe data set");
    assert_eq!(stored.bytes, 16);
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
    assert_eq!(
        store.stored(&uid("1.2.3"), stored.content).as_ref(),
        Some(&stored)
    );
    drop(store);

    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert_eq!(objects_of(&store).len(), 1);
    assert_eq!(objects_of(&store)[0].sop_instance_uid, uid("1.2.3"));
    assert_eq!(objects_of(&store)[0].object, stored);
}

#[test]
fn the_hash_is_of_syntax_and_body_not_of_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    let mut hasher = ContentHasher::new(SYNTAX);
    hasher.update(b"body");
    assert_eq!(write(&store, b"body").unwrap().content, hasher.finish());
}

#[test]
fn what_was_not_published_is_gone_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    // As if the process had been killed between write and rename.
    let mut sealed = write(&store, b"body").unwrap();
    sealed.incoming.keep = true;
    drop(sealed);
    assert_eq!(files_in(&folder.path().join("incoming")), 1);
    drop(store);

    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert!(objects_of(&store).is_empty());
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
}

/// A Part 10 head and a body, linked to both folders as when the run ends within the sync.
fn interrupt(folder: &Path, body_on_disk: &[u8]) -> PathBuf {
    let store = ObjectStore::open(folder, limits()).unwrap();
    let (class, instance) = (uid("1.2.840.10008.5.1.4.1.1.2"), uid("1.2.3"));
    let head = pipeline::header::part10_head(&class, &instance, &uid(SYNTAX));
    let mut writer = store.begin(&head, &uid(SYNTAX)).unwrap();
    writer.write(b"the whole body").unwrap();
    let mut sealed = writer.seal();
    let path = store.path_of(&instance, sealed.content);
    assert!(sealed.name(&path).unwrap());
    sealed.incoming.keep = true;
    fs::write(&path, [&head, body_on_disk].concat()).unwrap();
    path
}

#[test]
fn an_object_whose_sync_was_interrupted_is_kept_if_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = interrupt(folder.path(), b"the whole body");
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert_eq!(objects_of(&store).len(), 1);
    assert_eq!(objects_of(&store)[0].object.path, path);
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
}

#[test]
fn an_object_whose_sync_was_interrupted_is_removed_if_it_is_torn() {
    for on_disk in [&b"the whole"[..], b"", b"the whole bod\0"] {
        let folder = tempfile::tempdir().unwrap();
        let path = interrupt(folder.path(), on_disk);
        let store = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(objects_of(&store).is_empty());
        assert!(!path.try_exists().unwrap());
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
    }
}

#[test]
fn an_object_of_an_earlier_run_is_replaced_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    let publish = || {
        let sealed = write(&store, b"body").unwrap();
        sealed.publish(&uid("1.2.3")).unwrap()
    };
    let first = publish();
    assert_eq!(publish(), first);
    assert_eq!(fs::read(&first.path).unwrap(), b"headbody");
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
}

#[test]
fn a_dropped_object_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    drop(write(&store, b"body").unwrap());
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
}

#[test]
fn an_object_over_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert!(write(&store, &[0; 996]).is_ok());
    let error = write(&store, &[0; 997]).unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { limit_bytes: 1000 }),
        "{error}"
    );
}

#[test]
fn below_the_reserve_nothing_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        free_bytes_reserve: u64::MAX,
        ..limits()
    };
    let store = ObjectStore::open(folder.path(), limits).unwrap();
    let error = store.begin(b"", &uid(SYNTAX)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
}

#[test]
fn a_disk_that_fills_up_is_full_at_whichever_step() {
    for step in [Step::Create, Step::Write, Step::Publish, Step::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let store = failing(folder.path(), step, io::ErrorKind::StorageFull);
        let error = write(&store, b"body")
            .and_then(|sealed| sealed.publish(&uid("1.2.3")))
            .unwrap_err();
        assert!(
            matches!(error, StoreError::Full { .. }),
            "{step:?}: {error}"
        );
        assert_eq!(files_in(&folder.path().join("incoming")), 0, "{step:?}");
    }
}

#[test]
fn a_failed_sync_leaves_nothing_visible() {
    for step in [Step::Publish, Step::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let store = failing(folder.path(), step, io::ErrorKind::Other);
        let error = write(&store, b"body")
            .unwrap()
            .publish(&uid("1.2.3"))
            .unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        drop(store);
        let store = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(objects_of(&store).is_empty(), "{step:?}");
    }
}

#[test]
fn a_folder_is_used_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = ObjectStore::open(folder.path(), limits()).unwrap();
    let error = ObjectStore::open(folder.path(), limits()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_foreign_file_among_the_objects_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    drop(ObjectStore::open(folder.path(), limits()).unwrap());
    fs::write(folder.path().join("objects/ab/notes.txt"), "x").unwrap();
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    assert!(objects_of(&store).is_empty());
}

#[test]
fn folders_and_files_are_the_users_own_also_those_of_an_earlier_version() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = ObjectStore::open(&data, limits()).unwrap();
    let path = write(&store, b"body")
        .unwrap()
        .publish(&uid("1.2.3"))
        .unwrap()
        .path;
    drop(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let folders = [
        data.clone(),
        data.join("objects"),
        data.join("incoming"),
        path.parent().unwrap().to_owned(),
    ];
    for _ in 0..2 {
        assert_eq!(mode(&path), 0o600);
        for folder in &folders {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
        let open_to_all = fs::Permissions::from_mode(0o755);
        for path in &folders {
            fs::set_permissions(path, open_to_all.clone()).unwrap();
        }
        drop(ObjectStore::open(&data, limits()).unwrap());
    }
}

#[test]
fn a_damaged_and_a_lost_file_are_told_from_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = interrupt(folder.path(), b"the whole body");
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    let object = &objects_of(&store)[0].object;
    assert_eq!(store.condition(object), Condition::Intact);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(store.condition(object), Condition::Damaged);
    fs::write(&path, b"").unwrap();
    assert_eq!(store.condition(object), Condition::Damaged);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.condition(object), Condition::Missing);
}
