//! A header that was read, as bytes to be kept beside its object.

use std::path::Path;

use super::Instance;
use crate::header::FallbackCharset;
use crate::sealed::{self, SealError};

const KIND: sealed::Kind = *b"TEZ-HEAD";
/// To be raised when the same object gives another header than before: when a field is added, or
/// read in another way. Kept headers are then read from their files again.
const VERSION: u32 = 1;
/// A header of 10,000 frames has some 5 MiB.
const JSON_BYTES_MAX: u64 = 64 << 20;

impl Instance {
    /// All but the path as bytes: deflated JSON, sealed ([`crate::sealed`]). Some 1.1 KiB for
    /// a slice. `fallback` is the setting by which its texts were read.
    pub fn to_bytes(&self, fallback: FallbackCharset) -> Vec<u8> {
        // All keys are texts, so this does not fail; if it did, the bytes would be refused by who
        // reads them.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let deflated = sealed::deflated(&json);
        sealed::seal(
            KIND,
            VERSION,
            &[&mark(fallback), deflated.as_slice()].concat(),
        )
    }

    /// Reads what [`Self::to_bytes`] gave, for the object in the Part 10 file at `path`.
    ///
    /// # Errors
    ///
    /// [`SealError`] for anything else: cut, altered, of another version, foreign, or read with
    /// another `fallback`. The header is then to be read from the file.
    pub fn from_bytes(
        bytes: &[u8],
        path: &Path,
        fallback: FallbackCharset,
    ) -> Result<Self, SealError> {
        let payload = sealed::open(KIND, VERSION, bytes)?;
        let payload = payload
            .strip_prefix(&mark(fallback))
            .ok_or(SealError::OtherSetting)?;
        let json = sealed::inflated(payload, JSON_BYTES_MAX).ok_or(SealError::Damaged)?;
        let instance: Self = serde_json::from_slice(&json).map_err(|_| SealError::Damaged)?;
        Ok(Self {
            path: path.to_path_buf(),
            ..instance
        })
    }
}

/// Tells settings of the fallback apart.
fn mark(fallback: FallbackCharset) -> [u8; 8] {
    let hash = blake3::hash(fallback.to_string().as_bytes());
    let [mark, ..] = hash.as_bytes().as_chunks().0 else {
        return [0; 8];
    };
    *mark
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::instance::FrameHeader;
    use crate::study::tests::fixture;
    use crate::testing;

    fn latin() -> FallbackCharset {
        FallbackCharset::default()
    }

    #[test]
    fn a_header_that_was_read_by_another_fallback_is_read_again() {
        let instance = testing::instance("1.2.3.4", 7, 9);
        let other = FallbackCharset::try_from("koi8-r".to_owned()).unwrap();
        let back = Instance::from_bytes(&instance.to_bytes(latin()), &instance.path, other);
        assert_eq!(back, Err(SealError::OtherSetting));
    }

    #[test]
    fn every_header_of_the_catalogue_reads_back_as_it_was() {
        let names = [
            "small_head",
            "enhanced_ct",
            "deflated",
            "padded_circle",
            "tilt",
            "scale_per_slice",
        ];
        for name in names {
            let (_folder, instances) = fixture(name);
            for instance in instances {
                let bytes = instance.to_bytes(latin());
                let frames = instance.frames.len();
                assert!(bytes.len() < 1_200 + 60 * frames, "{name}: {}", bytes.len());
                let back = Instance::from_bytes(&bytes, &instance.path, latin()).unwrap();
                assert_eq!(back, instance);
            }
        }
    }

    #[test]
    fn a_cut_or_altered_header_is_refused() {
        let (_folder, instances) = fixture("small_head");
        let bytes = instances[0].to_bytes(latin());
        let path = Path::new("object");
        for end in 0..bytes.len() {
            assert!(Instance::from_bytes(&bytes[..end], path, latin()).is_err());
            let mut altered = bytes.clone();
            altered[end] ^= 0x10;
            assert!(Instance::from_bytes(&altered, path, latin()).is_err());
        }
    }

    fn frame() -> impl Strategy<Value = FrameHeader> {
        let finite = || any::<f64>().prop_filter("finite", |number| number.is_finite());
        let number = || proptest::option::of(finite());
        let moment = (1900_i16..2100, 1_i8..13, 1_i8..29, 0_i32..1_000_000_000);
        (
            proptest::option::of([finite(), finite(), finite()]),
            (number(), number(), number()),
            proptest::option::of(any::<i64>()),
            proptest::option::of(moment),
            any::<String>(),
            proptest::option::of(any::<bool>()),
        )
            .prop_map(
                |(position_mm, numbers, instance_number, moment, text, contrast)| FrameHeader {
                    position_mm,
                    rescale_slope: numbers.0,
                    rescale_intercept: numbers.1,
                    thickness_mm: numbers.2,
                    instance_number,
                    acquired: moment.and_then(|(year, month, day, nanosecond)| {
                        DateTime::new(year, month, day, 1, 2, 3, nanosecond).ok()
                    }),
                    kernel: text.clone(),
                    image_type: vec![text],
                    contrast_administered: contrast,
                    ..FrameHeader::default()
                },
            )
    }

    proptest! {
        #[test]
        fn any_header_reads_back_as_it_was(
            frames in proptest::collection::vec(frame(), 0..4),
            (name, description) in any::<(String, String)>(),
            padding in proptest::option::of(any::<i32>()),
            offset in proptest::option::of(any::<u64>()),
        ) {
            let mut instance = testing::instance("1.2.3.4", 7, 9);
            instance.frames = frames;
            instance.study.patient_name = name;
            instance.series.series_description = description;
            let pixels = instance.pixels.as_mut().unwrap();
            pixels.padding_value = padding;
            pixels.native_offset = offset;
            instance.path = "somewhere".into();
            let back = Instance::from_bytes(&instance.to_bytes(latin()), &instance.path, latin());
            prop_assert_eq!(back, Ok(instance));
        }
    }
}
