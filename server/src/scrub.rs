//! The slow reading of everything that is kept: is it still what was received?
//!
//! A disk may lose a file or turn its bits, and nobody would know before the study is needed. So
//! every object is read again in its turn, slowly, and held against the hash in its name; and every
//! object that the database knows has to be there. What is found is told (log, metrics, `/readyz`,
//! the study's row, the list of problems) until the object is sent again, which mends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use metrics::{counter, gauge};
use pipeline::reason::{Reason, ReasonCode};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::clock::Clock;
use store::objects::{Condition, ObjectStore, RecoveredObject, told_by_name};
use store::state::{Durability, KnownObject, Problem, State, StateError};

/// From the start of one round to that of the next, unless the reading takes longer.
const ROUND_TIME_MIN: Duration = Duration::from_hours(24);
/// Pause after the database or the disk failed.
const FAILURE_PAUSE: Duration = Duration::from_mins(1);

/// What the reading works with.
#[derive(Clone, Debug)]
pub struct Scrubber {
    /// What is read.
    pub store: ObjectStore,
    /// What is known of it.
    pub state: State,
    /// The time.
    pub clock: Clock,
    /// How fast it is read, bytes each second; 0: not at all.
    pub bytes_per_second: u64,
}

/// Reads round after round until `shutdown` says true.
pub async fn run(scrubber: Scrubber, mut shutdown: watch::Receiver<bool>) {
    if scrubber.bytes_per_second == 0 {
        return;
    }
    let rounds = async {
        loop {
            let started = scrubber.clock.monotonic();
            let pause = match scrubber.round().await {
                Ok(()) => ROUND_TIME_MIN,
                Err(error) => {
                    tracing::warn!(%error, "the kept objects could not be compared with their hashes");
                    scrubber.clock.monotonic().saturating_sub(started) + FAILURE_PAUSE
                }
            };
            scrubber.clock.sleep_until(started + pause).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        // A sender that is gone stops the service as well.
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the object folder cannot be read: {0}")]
    Disk(#[from] std::io::Error),
    #[error("the reading panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Scrubber {
    async fn round(&self) -> Result<(), RoundError> {
        for first in 0..=u8::MAX {
            self.folder(first).await?;
            gauge!("tez_scrub_round_ratio").set(f64::from(first) / f64::from(u8::MAX));
        }
        let at = self.clock.now().as_second();
        gauge!("tez_scrub_last_finished_timestamp_seconds").set(at as f64);
        let damages = self.state.objects().damages().await?;
        tracing::info!(damages, "all kept objects were compared with their hashes");
        Ok(())
    }

    /// Everything below `objects/<first as two digits>/`.
    async fn folder(&self, first: u8) -> Result<(), RoundError> {
        // Known objects are listed before their files: what comes in between is not missed.
        let mut known: BTreeMap<PathBuf, KnownObject> =
            self.state.objects().in_folder(first).await?;
        let store = self.store.clone();
        for path in spawn_blocking(move || store.files(first)).await?? {
            let row = known.remove(&path);
            if let Some(object) = RecoveredObject::at(&path)? {
                self.read(object, row).await?;
            }
        }
        for (path, row) in known {
            if !row.is_damaged {
                self.tell(path, Some(&row), Condition::Missing).await?;
            }
            counter!("tez_scrub_objects_total", "found" => "missing").increment(1);
        }
        Ok(())
    }

    async fn read(
        &self,
        object: RecoveredObject,
        row: Option<KnownObject>,
    ) -> Result<(), RoundError> {
        let path = object.object.path.clone();
        let started = self.clock.monotonic();
        let bytes = object.object.bytes;
        let store = self.store.clone();
        let condition = spawn_blocking(move || store.condition(&object.object)).await?;
        counter!("tez_scrub_objects_total", "found" => condition.as_str()).increment(1);
        counter!("tez_scrub_bytes_total").increment(bytes);
        let was_damaged = row.as_ref().is_some_and(|row| row.is_damaged);
        match condition {
            Condition::Intact if was_damaged => self.state.mended(&[path]).await?,
            Condition::Intact => {}
            Condition::Damaged | Condition::Missing if was_damaged => {}
            Condition::Damaged | Condition::Missing => {
                self.tell(path, row.as_ref(), condition).await?;
            }
        }
        let seconds = bytes as f64 / self.bytes_per_second as f64;
        let pause = Duration::try_from_secs_f64(seconds).unwrap_or(FAILURE_PAUSE);
        self.clock.sleep_until(started + pause).await;
        Ok(())
    }

    async fn tell(
        &self,
        path: PathBuf,
        row: Option<&KnownObject>,
        condition: Condition,
    ) -> Result<(), RoundError> {
        let what = match condition {
            Condition::Missing => "is gone from the disk",
            Condition::Intact | Condition::Damaged => "is damaged on the disk",
        };
        let text = format!(
            "The file of this object {what}. Send the study again: that puts the object in its \
             place. Then see how the disk is: others may follow."
        );
        tracing::error!(file = %path.display(), "a kept object {what}; send its study again");
        let sop_instance_uid = row
            .map(|row| row.sop_instance_uid.clone())
            .or_else(|| told_by_name(&path).map(|(uid, _)| uid));
        let problem = Problem {
            at: self.clock.now(),
            study_uid: row.and_then(|row| row.study_uid.clone()),
            sop_instance_uid,
            path: Some(path),
            peer: String::new(),
            reason: Reason::new(ReasonCode::DamagedFile, text),
        };
        let mut transaction = self.state.begin(Durability::Process).await?;
        transaction.add_damage(&problem, condition.as_str()).await?;
        Ok(transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pipeline::uid::Uid;

    use super::*;
    use store::objects::StoreLimits;
    use store::receipt::Receipt;
    use store::state::{Changes, ObjectRow, Scope};

    use crate::testing::open_state;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    /// Three objects on disk and in the database, of study 1.9.
    async fn scene(folder: &std::path::Path) -> (Scrubber, Vec<PathBuf>) {
        let limits = StoreLimits {
            free_bytes_reserve: 0,
            ..StoreLimits::default()
        };
        let store = ObjectStore::open(folder, limits).unwrap();
        let syntax = uid("1.2.840.10008.1.2.1");
        let mut rows = Vec::new();
        for name in ["1.1", "1.2", "1.3"].map(uid) {
            let head =
                pipeline::header::part10_head(&uid("1.2.840.10008.5.1.4.1.1.2"), &name, &syntax);
            let mut writer = store.begin(&head, &syntax).unwrap();
            writer.write(name.as_str().as_bytes()).unwrap();
            let object = writer.seal().publish(&name).unwrap();
            rows.push(ObjectRow {
                path: object.path,
                content: object.content,
                sop_instance_uid: name,
                sop_class_uid: None,
                transfer_syntax_uid: None,
                study_uid: Some(uid("1.9")),
                series_uid: None,
                bytes: object.bytes,
                received_at: jiff::Timestamp::UNIX_EPOCH,
                arrival: 0,
                channel: None,
                peer: String::new(),
                receipt: Receipt::New,
                refusal: None,
            });
        }
        let paths = rows.iter().map(|row| row.path.clone()).collect();
        let state = open_state(folder).await;
        let study = store::state::StudyRow::new(uid("1.9"), 1, jiff::Timestamp::UNIX_EPOCH);
        let changes = Changes {
            objects: rows,
            studies: vec![study],
            ..Changes::default()
        };
        state.write(&changes).await.unwrap();
        let scrubber = Scrubber {
            store,
            state,
            clock: Clock::system(),
            bytes_per_second: u64::MAX,
        };
        (scrubber, paths)
    }

    #[tokio::test]
    async fn a_damaged_and_a_lost_file_are_told_once_and_forgotten_when_they_are_mended() {
        let folder = tempfile::tempdir().unwrap();
        let (scrubber, paths) = scene(folder.path()).await;
        scrubber.round().await.unwrap();
        assert_eq!(scrubber.state.objects().damages().await.unwrap(), 0);

        let whole = fs::read(&paths[0]).unwrap();
        let mut turned = whole.clone();
        *turned.last_mut().unwrap() ^= 1;
        fs::write(&paths[0], &turned).unwrap();
        fs::remove_file(&paths[1]).unwrap();
        for _ in 0..2 {
            scrubber.round().await.unwrap();
            assert_eq!(scrubber.state.objects().damages().await.unwrap(), 2);
            let study = scrubber
                .state
                .studies()
                .details(Scope::All, &uid("1.9"))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(study.study.damaged_objects, 2);
            assert_eq!(study.problems.len(), 2, "told once");
            let text = &study.problems[0].reason.text;
            assert!(text.contains("Send the study again"), "{text}");
        }
        fs::write(&paths[0], &whole).unwrap();
        scrubber.round().await.unwrap();
        assert_eq!(scrubber.state.objects().damages().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_rate_of_0_reads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut scrubber, _) = scene(folder.path()).await;
        scrubber.bytes_per_second = 0;
        let (_stop, stopping) = watch::channel(false);
        run(scrubber, stopping).await;
    }
}
