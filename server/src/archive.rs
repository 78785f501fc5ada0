//! The entries of a zip, one after another, within limits: for uploads and for `tez triage`.
//!
//! A zip is the easiest way to hurt whoever unpacks it. Nothing here trusts what the archive says
//! of itself: bytes are counted as they are inflated, the central directory is walked and never
//! held in memory, and an entry's name is a label for people, never a path to write to.

use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use zip::CompressionMethod;
use zip::result::ZipError;
use zip::unstable::read::{ZipIterable, ZipIterableFiles};

/// How the local header of a zip entry begins (APPNOTE 4.3.7): a zip inside the zip.
const ZIP_MAGIC: &[u8; 4] = b"PK\x03\x04";
/// Longest name that is shown, characters.
const NAME_CHARS_MAX: usize = 200;

/// What a zip may not exceed. One entry is an object: `limits.object_bytes_max` is for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveLimits {
    /// Most entries of one zip, folders counted.
    pub entries_max: usize,
    /// Most bytes of all entries of one zip together, inflated.
    pub total_bytes_max: u64,
    /// Most inflated bytes for each byte of the zip, once they pass `ratio_free_bytes`. CT deflates
    /// 2 to 4 times, blank images up to 1000 times, bombs far more.
    pub ratio_max: u64,
    /// Inflated bytes that every zip may have, however small it is.
    pub ratio_free_bytes: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            entries_max: 20_000,
            total_bytes_max: 16 << 30,
            ratio_max: 100,
            ratio_free_bytes: 64 << 20,
        }
    }
}

/// Why an archive is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Its bytes cannot be read.
    #[error("the archive cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is no zip, or a broken one.
    #[error("the archive is not a zip, or a broken one: {0}")]
    Broken(String),
    /// More entries than the limit.
    #[error("the archive has {found} entries; at most {max} are taken (zip.entries_max)")]
    TooManyEntries {
        /// By its directory.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// One entry inflates to more than the limit.
    #[error("{name} in the archive inflates to more than {max} bytes (limits.object_bytes_max)")]
    EntryTooLarge {
        /// Which.
        name: String,
        /// The limit, bytes.
        max: u64,
    },
    /// Together the entries inflate to more than the limit, or than the archive's size explains.
    #[error(
        "the archive inflates to more than {max} bytes: a zip bomb, or more than is taken at once \
         (zip.total_bytes_max, zip.ratio_max)"
    )]
    TooLarge {
        /// The limit that was met, bytes.
        max: u64,
    },
}

/// Why one entry is left out; the others are still read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    /// Its name leads out of the folder it would be unpacked to.
    #[error("its name leads out of the archive")]
    UnsafeName,
    /// A symbolic link.
    #[error("it is a link, not a file")]
    Link,
    /// Encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// Compressed in a way other than deflate.
    #[error("it is compressed in a way that is not supported; use deflate or none")]
    UnsupportedCompression,
    /// A zip inside the zip.
    #[error("it is a zip inside the zip; send it by itself")]
    NestedArchive,
    /// Its header cannot be read.
    #[error("its header is broken")]
    Broken,
}

/// One entry that is not a folder.
pub struct Entry<'a> {
    /// Its name, for people: control characters replaced, shortened.
    pub name: String,
    /// Its bytes inflated, or why they are not to be had. A read fails on a wrong checksum and
    /// when a limit is met; the latter ends [`visit_entries`] with an [`ArchiveError`] whatever
    /// the visitor makes of it.
    pub body: Result<&'a mut dyn Read, EntryRefusal>,
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let refusal = self.body.as_ref().err();
        formatter
            .debug_struct("Entry")
            .field("name", &self.name)
            .field("refusal", &refusal)
            .finish_non_exhaustive()
    }
}

/// Gives each entry of the zip in `reader` that is not a folder to `visit`, in the order of its
/// directory. An entry may inflate to `entry_bytes_max`. Blocking.
///
/// # Errors
///
/// [`ArchiveError`] if the archive is broken or exceeds a limit; what `visit` gives.
pub fn visit_entries<R, E>(
    mut reader: R,
    limits: &ArchiveLimits,
    entry_bytes_max: u64,
    mut visit: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E>
where
    R: Read + Seek,
    E: From<ArchiveError>,
{
    let archive_bytes = reader.seek(SeekFrom::End(0)).map_err(ArchiveError::from)?;
    let mut archive = ZipIterable::try_new(reader, zip::read::Config::default()).map_err(broken)?;
    if archive.len() > limits.entries_max {
        return Err(E::from(ArchiveError::TooManyEntries {
            found: archive.len(),
            max: limits.entries_max,
        }));
    }
    let by_ratio = archive_bytes.saturating_mul(limits.ratio_max);
    let mut budget = Budget {
        entry_bytes_max,
        total_bytes_max: by_ratio
            .max(limits.ratio_free_bytes)
            .min(limits.total_bytes_max),
        total_bytes: 0,
        exceeded: None,
    };
    let files = archive.files().map_err(broken)?;
    while let Some(entry) = files.next() {
        let entry = entry.map_err(broken)?;
        if !entry.is_dir() {
            visit_entry(entry, files, &mut budget, &mut visit)?;
        }
    }
    Ok(())
}

fn visit_entry<R, E>(
    entry: zip::read::ZipFileEntry<'_>,
    files: &mut ZipIterableFiles<R>,
    budget: &mut Budget,
    visit: &mut impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E>
where
    R: Read + Seek,
    E: From<ArchiveError>,
{
    let name = shown(&entry.name().map_err(broken)?);
    if let Some(refusal) = refusal_by_header(&entry) {
        return visit(Entry {
            name,
            body: Err(refusal),
        });
    }
    let opened = entry.with_reader(files.reader_mut(), zip::read::ZipReadOptions::new());
    let Ok(mut file) = opened else {
        return visit(Entry {
            name,
            body: Err(EntryRefusal::Broken),
        });
    };
    let mut first = Vec::with_capacity(ZIP_MAGIC.len());
    let started = (&mut file).take(4).read_to_end(&mut first);
    let body = match started {
        Err(_) => Err(EntryRefusal::Broken),
        Ok(_) if first == ZIP_MAGIC => Err(EntryRefusal::NestedArchive),
        Ok(_) => Ok(()),
    };
    let mut counted = Counted {
        inner: first.as_slice().chain(file),
        name: name.clone(),
        entry_bytes: 0,
        budget,
    };
    let visited = visit(Entry {
        name,
        body: body.map(|()| &mut counted as &mut dyn Read),
    });
    match budget.exceeded.take() {
        Some(error) => Err(E::from(error)),
        None => visited,
    }
}

fn refusal_by_header(entry: &zip::read::ZipFileEntry<'_>) -> Option<EntryRefusal> {
    // `enclosed_name` would make an absolute name relative: such a name was never meant for us.
    let absolute = entry.name_raw().starts_with(b"/") || entry.name_raw().starts_with(b"\\");
    if absolute || entry.enclosed_name().is_none() {
        Some(EntryRefusal::UnsafeName)
    } else if entry.is_symlink() {
        Some(EntryRefusal::Link)
    } else if entry.encrypted() {
        Some(EntryRefusal::Encrypted)
    } else {
        match entry.compression() {
            CompressionMethod::Stored | CompressionMethod::Deflated => None,
            _ => Some(EntryRefusal::UnsupportedCompression),
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that map_err calls it in"
)]
fn broken(error: ZipError) -> ArchiveError {
    ArchiveError::Broken(error.to_string())
}

/// A name from outside, fit for a terminal and a log.
fn shown(name: &str) -> String {
    name.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .take(NAME_CHARS_MAX)
        .collect()
}

/// Inflated bytes so far, and which limit they met.
struct Budget {
    entry_bytes_max: u64,
    total_bytes_max: u64,
    total_bytes: u64,
    exceeded: Option<ArchiveError>,
}

/// Counts an entry's bytes as they come out, and stops at the limits.
struct Counted<'a, R> {
    inner: R,
    name: String,
    entry_bytes: u64,
    budget: &'a mut Budget,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.entry_bytes += count as u64;
        self.budget.total_bytes += count as u64;
        let exceeded = if self.entry_bytes > self.budget.entry_bytes_max {
            Some(ArchiveError::EntryTooLarge {
                name: self.name.clone(),
                max: self.budget.entry_bytes_max,
            })
        } else if self.budget.total_bytes > self.budget.total_bytes_max {
            Some(ArchiveError::TooLarge {
                max: self.budget.total_bytes_max,
            })
        } else {
            None
        };
        match exceeded {
            None => Ok(count),
            Some(error) => {
                let told = io::Error::other(error.to_string());
                self.budget.exceeded = Some(error);
                Err(told)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;

    use super::*;

    const ENTRY_BYTES_MAX: u64 = 1_000;

    /// What became of each entry: its length, or why it was left out.
    type Verdicts = Vec<(String, Result<usize, String>)>;

    fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(zip: Vec<u8>, limits: &ArchiveLimits) -> Result<Verdicts, ArchiveError> {
        let mut verdicts = Vec::new();
        visit_entries(Cursor::new(zip), limits, ENTRY_BYTES_MAX, |entry| {
            let verdict = entry
                .body
                .map_err(|refusal| refusal.to_string())
                .and_then(|body| {
                    let mut bytes = Vec::new();
                    body.read_to_end(&mut bytes)
                        .map_err(|error| error.to_string())
                });
            verdicts.push((entry.name, verdict));
            Ok::<(), ArchiveError>(())
        })?;
        Ok(verdicts)
    }

    fn small() -> ArchiveLimits {
        ArchiveLimits {
            entries_max: 3,
            total_bytes_max: 1_500,
            ..ArchiveLimits::default()
        }
    }

    #[test]
    fn files_come_in_order_with_their_bytes_and_folders_do_not() {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer
            .add_directory("a", SimpleFileOptions::default())
            .unwrap();
        writer
            .start_file("a/1", SimpleFileOptions::default())
            .unwrap();
        writer.write_all(b"DICM!").unwrap();
        writer
            .start_file("a/empty", SimpleFileOptions::default())
            .unwrap();
        let zip = writer.finish().unwrap().into_inner();
        let expected = vec![("a/1".to_owned(), Ok(5)), ("a/empty".to_owned(), Ok(0))];
        assert_eq!(read(zip, &small()).unwrap(), expected);
    }

    #[test]
    fn an_empty_zip_has_no_entries_and_what_is_no_zip_is_an_error() {
        assert_eq!(read(zip_of(&[]), &small()).unwrap(), Vec::new());
        for bytes in [Vec::new(), b"PK".to_vec(), vec![7; 5_000]] {
            let error = read(bytes, &small()).unwrap_err();
            assert!(matches!(error, ArchiveError::Broken(_)), "{error}");
        }
        let mut cut = zip_of(&[("a", &[1; 500])]);
        cut.truncate(cut.len() - 10);
        assert!(read(cut, &small()).is_err());
    }

    #[test]
    fn too_many_too_large_and_too_much_are_refused() {
        let four: Vec<(&str, &[u8])> = ["a", "b", "c", "d"]
            .map(|name| (name, b"x".as_slice()))
            .to_vec();
        let error = read(zip_of(&four), &small()).unwrap_err();
        assert!(
            matches!(error, ArchiveError::TooManyEntries { found: 4, max: 3 }),
            "{error}"
        );
        let big = zip_of(&[("big", &[0; 1_001])]);
        let error = read(big, &small()).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::EntryTooLarge {
                    max: ENTRY_BYTES_MAX,
                    ..
                }
            ),
            "{error}"
        );
        let error = read(zip_of(&[("a", &[0; 800]), ("b", &[0; 800])]), &small()).unwrap_err();
        assert!(
            matches!(error, ArchiveError::TooLarge { max: 1_500 }),
            "{error}"
        );
    }

    #[test]
    fn a_bomb_is_stopped_by_its_ratio_and_by_what_comes_out_not_by_what_it_says() {
        let bomb = zip_of(&[("bomb", &[0; 900])]);
        assert!((100..300).contains(&bomb.len()));
        let strict = ArchiveLimits {
            ratio_max: 2,
            ratio_free_bytes: 600,
            ..small()
        };
        let error = read(bomb.clone(), &strict).unwrap_err();
        assert!(
            matches!(error, ArchiveError::TooLarge { max: 600 }),
            "{error}"
        );
        for generous in [
            ArchiveLimits {
                ratio_max: 100,
                ..strict
            },
            ArchiveLimits {
                ratio_free_bytes: 900,
                ..strict
            },
        ] {
            assert_eq!(read(bomb.clone(), &generous).unwrap()[0].1, Ok(900));
        }
    }

    #[test]
    fn a_name_that_leads_out_and_a_zip_in_the_zip_are_left_out_and_the_rest_is_read() {
        let inner = zip_of(&[("x", b"y")]);
        let zip = zip_of(&[
            ("../../etc/passwd", b"p"),
            ("inner.dcm", &inner),
            ("good\u{7}", b"g"),
        ]);
        let verdicts = read(zip, &small()).unwrap();
        assert_eq!(verdicts[0].1, Err(EntryRefusal::UnsafeName.to_string()));
        assert_eq!(verdicts[1].1, Err(EntryRefusal::NestedArchive.to_string()));
        assert_eq!(verdicts[2], ("good\u{fffd}".to_owned(), Ok(1)));
    }

    #[test]
    fn an_encrypted_entry_and_an_unknown_compression_are_left_out_by_name() {
        let mut encrypted = zip_of(&[("e", b"12345")]);
        let mut lzma = encrypted.clone();
        let directory = |zip: &[u8]| {
            zip.windows(4)
                .position(|bytes| bytes == b"PK\x01\x02")
                .unwrap()
        };
        // APPNOTE 4.3.12: general purpose flags at offset 8, compression method at 10.
        let place = directory(&encrypted);
        encrypted[place + 8] |= 1;
        encrypted[6] |= 1;
        assert_eq!(
            read(encrypted, &small()).unwrap()[0].1,
            Err(EntryRefusal::Encrypted.to_string())
        );
        lzma[place + 10] = 14;
        lzma[8] = 14;
        let verdict = &read(lzma, &small()).unwrap()[0].1;
        assert_eq!(
            *verdict,
            Err(EntryRefusal::UnsupportedCompression.to_string())
        );
    }

    #[test]
    fn altered_bytes_fail_by_checksum() {
        let mut zip = zip_of(&[("a", b"0123456789")]);
        // Stored or deflated, the tenth byte after the local header of 30 bytes and the name is data.
        zip[35] ^= 0x10;
        let verdicts = read(zip, &small()).unwrap();
        assert!(verdicts[0].1.is_err(), "{verdicts:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), place in 0_usize..200, value: u8) {
            drop(read(bytes, &small()));
            let mut zip = zip_of(&[("a", b"0123456789"), ("b", &[7; 100])]);
            let place = place % zip.len();
            zip[place] = value;
            drop(read(zip, &small()));
        }
    }
}
