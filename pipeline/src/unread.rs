//! Received objects that cannot be read: they count, for a slice may be among them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::header::is_ct_image;
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, StudyHeader};
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;

/// Root of everything that the standard defines.
const STANDARD_ROOT: &str = "1.2.840.10008.";
/// How far two statements of one slice's place may lie apart, mm: what writing them anew rounds.
const SAME_PLACE_MM: f64 = 0.01;

/// A received object that cannot be read to its end: what stood before the fault, and the fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadObject {
    /// SOP Instance UID of the data set, or else of the file meta group.
    pub sop_instance_uid: Option<Uid>,
    /// SOP Class UID of the data set, or else of the file meta group.
    pub sop_class_uid: Option<Uid>,
    /// Transfer syntax of the stored bytes.
    pub transfer_syntax_uid: Option<Uid>,
    /// Study Instance UID (0020,000D).
    pub study_uid: Option<Uid>,
    /// Series Instance UID (0020,000E).
    pub series_uid: Option<Uid>,
    /// The file.
    pub path: PathBuf,
    /// Who and what: for the worklist, never for a model.
    pub study: StudyHeader,
    /// Image Position (Patient) (0020,0032), mm.
    pub position_mm: Option<[f64; 3]>,
    /// Instance Number (0020,0013).
    pub instance_number: Option<i64>,
    /// Why it cannot be read.
    pub reason: Reason,
}

impl UnreadObject {
    /// An object of which nothing is known but its file and the fault.
    pub fn unknown(path: PathBuf, reason: Reason) -> Self {
        Self {
            sop_instance_uid: None,
            sop_class_uid: None,
            transfer_syntax_uid: None,
            study_uid: None,
            series_uid: None,
            path,
            study: StudyHeader::default(),
            position_mm: None,
            instance_number: None,
            reason,
        }
    }

    /// An object that could be read, and was not taken for another reason, still to be named.
    pub fn refused(instance: &Instance) -> Self {
        let reason = Reason::new(ReasonCode::UnreadObjects, "It was not taken.");
        Self {
            sop_instance_uid: Some(instance.sop_instance_uid.clone()),
            sop_class_uid: Some(instance.sop_class_uid.clone()),
            transfer_syntax_uid: Some(instance.transfer_syntax_uid.clone()),
            study_uid: Some(instance.study_uid.clone()),
            series_uid: Some(instance.series_uid.clone()),
            study: instance.study.clone(),
            ..Self::unknown(instance.path.clone(), reason)
        }
    }

    /// Whether slices of a CT may be in it: not where its class is one of the standard's that holds
    /// none, for then the result would be the same had it been read.
    pub fn may_hold_slices(&self) -> bool {
        self.sop_class_uid
            .as_ref()
            .is_none_or(|class| is_ct_image(class) || !class.as_str().starts_with(STANDARD_ROOT))
    }

    /// Whether `instance` is the same object, come once more and whole: it has the same UID, and
    /// nothing that was read here speaks of another slice.
    fn came_again_as(&self, instance: &Instance) -> bool {
        let frame = instance.frames.first();
        let differ = |(a, b): (f64, f64)| (a - b).abs() > SAME_PLACE_MM;
        let place = frame.and_then(|frame| frame.position_mm);
        let lies_elsewhere = self
            .position_mm
            .zip(place)
            .is_some_and(|(own, other)| own.into_iter().zip(other).any(differ));
        let number = frame.and_then(|frame| frame.instance_number);
        let is_other_number = self
            .instance_number
            .zip(number)
            .is_some_and(|(own, other)| own != other);
        self.sop_instance_uid.as_ref() == Some(&instance.sop_instance_uid)
            && !lies_elsewhere
            && !is_other_number
    }
}

/// What a study consists of: the objects that were read, and those that could not be.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Objects that were read.
    pub instances: &'a [Instance],
    /// Objects that were not.
    pub unread: &'a [UnreadObject],
}

impl<'a> From<&'a [Instance]> for Received<'a> {
    fn from(instances: &'a [Instance]) -> Self {
        Self {
            instances,
            unread: &[],
        }
    }
}

impl<'a> From<&'a Vec<Instance>> for Received<'a> {
    fn from(instances: &'a Vec<Instance>) -> Self {
        Self::from(instances.as_slice())
    }
}

impl<'a> Received<'a> {
    /// The unread objects in which slices may be that are nowhere else: what came once more and
    /// whole is not missing.
    pub fn missing(self) -> Vec<&'a UnreadObject> {
        let mut by_uid: BTreeMap<&Uid, Vec<&Instance>> = BTreeMap::new();
        if self.unread.is_empty() {
            return Vec::new();
        }
        for instance in self.instances {
            by_uid
                .entry(&instance.sop_instance_uid)
                .or_default()
                .push(instance);
        }
        let came_again = |unread: &UnreadObject| {
            unread
                .sop_instance_uid
                .as_ref()
                .and_then(|uid| by_uid.get(uid))
                .is_some_and(|same| same.iter().any(|one| unread.came_again_as(one)))
        };
        self.unread
            .iter()
            .filter(|unread| unread.may_hold_slices() && !came_again(unread))
            .collect()
    }

    /// What is to be said of [`Received::missing`]; `None` where nothing is.
    ///
    /// Such a study is never analysed as a whole.
    pub fn missing_reason(self) -> Option<Reason> {
        let missing = self.missing();
        let first = missing.first()?;
        let named = match (&first.sop_instance_uid, missing.len()) {
            (Some(uid), 1) => format!("object {uid}"),
            (Some(uid), _) => format!("the first is object {uid}"),
            (None, _) => "its name is not known".to_owned(),
        };
        // Beside others they were filed with them, whatever can be read of them now.
        let filed = !self.instances.is_empty() || missing.iter().any(|one| one.study_uid.is_some());
        let homeless = if filed {
            ""
        } else {
            " They do not say which study they belong to, so another study of this list may lack \
             slices: look there, and at the sender."
        };
        let text = format!(
            "{} of {} objects could not be read, so slices may be missing; {named}: {}{homeless}",
            missing.len(),
            self.instances.len() + missing.len(),
            first.reason.text
        );
        Some(Reason::new(ReasonCode::UnreadObjects, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::StackPlan;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn cut(sop_instance_uid: &str) -> UnreadObject {
        UnreadObject {
            sop_instance_uid: Some(uid(sop_instance_uid)),
            sop_class_uid: Some(uid("1.2.840.10008.5.1.4.1.1.2")),
            study_uid: Some(uid("1.2.1")),
            ..UnreadObject::unknown(
                PathBuf::from("cut"),
                Reason::new(ReasonCode::Truncated, "It is cut."),
            )
        }
    }

    fn slices() -> Vec<Instance> {
        StackPlan::axial(8, 1.0, &[0.0, 5.0, 10.0])
            .write(|_| 0.0)
            .instances
            .clone()
    }

    fn reason(instances: &[Instance], unread: &[UnreadObject]) -> Option<Reason> {
        Received { instances, unread }.missing_reason()
    }

    #[test]
    fn a_slice_that_cannot_be_read_is_counted_and_named_with_its_fault() {
        let reason = reason(&slices(), &[cut("1.9")]).unwrap();
        assert_eq!(reason.code, ReasonCode::UnreadObjects);
        for part in ["1 of 4 objects", "object 1.9", "It is cut."] {
            assert!(reason.text.contains(part), "{}", reason.text);
        }
        assert_eq!(Received::from(&slices()).missing_reason(), None);
    }

    #[test]
    fn what_came_again_whole_is_not_missing_but_another_slice_of_its_name_is() {
        let slices = slices();
        let mut again = cut(slices[1].sop_instance_uid.as_str());
        assert_eq!(reason(&slices, &[again.clone()]), None);
        again.position_mm = slices[1].frames[0].position_mm;
        again.instance_number = slices[1].frames[0].instance_number;
        assert_eq!(reason(&slices, &[again.clone()]), None);
        let mut elsewhere = again.clone();
        elsewhere.position_mm = slices[2].frames[0].position_mm;
        assert!(reason(&slices, &[elsewhere]).is_some());
        let mut other_number = again;
        other_number.instance_number = Some(77);
        assert!(reason(&slices, &[other_number]).is_some());
    }

    #[test]
    fn an_object_that_holds_no_slices_by_its_class_counts_only_where_the_class_is_not_known() {
        for (class, counts) in [
            (None, true),
            (Some("1.2.840.10008.5.1.4.1.1.2.1"), true),
            (Some("1.3.12.2.1107.5.9.1"), true),
            (Some("1.2.840.10008.5.1.4.1.1.88.67"), false),
            (Some("1.2.840.10008.5.1.4.1.1.11.1"), false),
            (Some("1.2.840.10008.1.3.10"), false),
        ] {
            let mut unread = cut("1.9");
            unread.sop_class_uid = class.map(uid);
            assert_eq!(reason(&slices(), &[unread]).is_some(), counts, "{class:?}");
        }
    }

    #[test]
    fn objects_without_a_study_say_so() {
        let mut unread = cut("1.9");
        unread.study_uid = None;
        let text = reason(&[], &[unread]).unwrap().text;
        assert!(text.contains("which study they belong to"), "{text}");
    }
}
