//! Whose objects are these? A Study Instance UID should name one patient's study; where senders
//! give it to two patients, they are never taken for one.

use crate::instance::{Instance, StudyHeader};
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;

/// Who a header says that the patient is, without what writers add or change: case, padding,
/// separators. Any part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    id: String,
    name: String,
    birth_date: String,
}

impl Identity {
    /// Of Patient ID (0010,0020), Patient's Name (0010,0010) and Patient's Birth Date (0010,0030).
    pub fn of(header: &StudyHeader) -> Self {
        Self {
            id: normal(&header.patient_id),
            name: normal(&header.patient_name),
            birth_date: normal(&header.patient_birth_date),
        }
    }

    /// Whether both may be one patient. An ID that is stated decides, unless name and birth date
    /// both speak against it, as where a site gives one ID to all who have none.
    pub fn may_be(&self, other: &Self) -> bool {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        let names_differ = differ(&self.name, &other.name);
        let dates_differ = differ(&self.birth_date, &other.birth_date);
        if differ(&self.id, &other.id) {
            return false;
        }
        let same_id = !self.id.is_empty() && self.id == other.id;
        let undated = self.birth_date.is_empty() && other.birth_date.is_empty();
        if same_id && !is_placeholder(&self.id) {
            !(names_differ && dates_differ)
        } else if same_id {
            !(names_differ && (dates_differ || undated))
        } else {
            !names_differ && !dates_differ
        }
    }

    /// Fills what is empty from `other`.
    pub fn complete_from(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.id, &other.id),
            (&mut self.name, &other.name),
            (&mut self.birth_date, &other.birth_date),
        ] {
            if ours.is_empty() {
                theirs.clone_into(ours);
            }
        }
    }

    fn parts_stated(&self) -> usize {
        let parts = [&self.id, &self.name, &self.birth_date];
        parts.iter().filter(|part| !part.is_empty()).count()
    }
}

/// Letters and digits in upper case: `IVANOV^IVAN` and `Ivanov Ivan^^` are one name.
fn normal(text: &str) -> String {
    // Of a name the first component group; the others spell it in other scripts (PS3.5 6.2.1.1).
    let group = text.split('=').find(|group| !group.trim().is_empty());
    group
        .unwrap_or_default()
        .chars()
        .filter(|one| one.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .collect()
}

/// IDs that stand for none.
fn is_placeholder(id: &str) -> bool {
    const WORDS: [&str; 10] = [
        "ANON",
        "ANONYMOUS",
        "ANONYMIZED",
        "ANONYMISED",
        "UNKNOWN",
        "NONE",
        "NA",
        "NOID",
        "NULL",
        "TEST",
    ];
    id.chars().all(|one| one == '0') || WORDS.contains(&id)
}

/// Parts `instances` by patient, in the order of each one's first object; who states most comes
/// first into the comparison, so that the order of arrival does not matter. An object that may be of
/// more than one of them is given to the first.
pub fn by_patient(instances: Vec<Instance>) -> Vec<Vec<Instance>> {
    let identities: Vec<Identity> = instances
        .iter()
        .map(|instance| Identity::of(&instance.study))
        .collect();
    let mut order: Vec<usize> = (0..instances.len()).collect();
    order.sort_by_key(|index| {
        (
            std::cmp::Reverse(identities[*index].parts_stated()),
            &instances[*index].sop_instance_uid,
        )
    });
    let mut patients: Vec<Identity> = Vec::new();
    let mut patient_of = vec![0; instances.len()];
    for index in order {
        let identity = &identities[index];
        let known = patients.iter().position(|patient| patient.may_be(identity));
        patient_of[index] = known.unwrap_or(patients.len());
        match known {
            Some(patient) => patients[patient].complete_from(identity),
            None => patients.push(identity.clone()),
        }
    }
    let mut parts: Vec<Vec<Instance>> = patients.iter().map(|_| Vec::new()).collect();
    for (instance, patient) in instances.into_iter().zip(patient_of) {
        parts[patient].push(instance);
    }
    parts
}

/// What is said of each study of `patients` patients that share `study_uid`.
pub fn shared_study(patients: usize, study_uid: &Uid) -> Option<Reason> {
    (patients > 1).then(|| {
        Reason::new(
            ReasonCode::SharedStudyUid,
            format!(
                "Study Instance UID {study_uid} is shared by {patients} patients; this is the study of \
                 one of them. Which object is whose goes by their headers alone: ask the sender."
            ),
        )
    })
}

/// The patient's age at the study, years, by Patient's Age (0010,1010) or else by birth date and
/// Study Date (0008,0020); `None` where neither is stated so that it can be read.
pub fn age_years(header: &StudyHeader) -> Option<f64> {
    stated_age_years(header.patient_age.trim()).or_else(|| {
        let days = |text: &str| -> Option<f64> {
            let part = |from: usize, to: usize| text.get(from..to)?.parse::<f64>().ok();
            Some(part(0, 4)? * 365.25 + (part(4, 6)? - 1.0) * 30.44 + part(6, 8)?)
        };
        let days_old = days(&header.study_date)? - days(&header.patient_birth_date)?;
        (days_old >= 0.0).then_some(days_old / 365.25)
    })
}

/// Of an age string (AS, PS3.5 section 6.2): `052Y`, `011M`, `003W`, `010D`.
fn stated_age_years(text: &str) -> Option<f64> {
    let unit = text.chars().last()?;
    let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
    match unit.to_ascii_uppercase() {
        'Y' => Some(number),
        'M' => Some(number / 12.0),
        'W' => Some(number * 7.0 / 365.25),
        'D' => Some(number / 365.25),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::tests::head_series;

    fn header(id: &str, name: &str, birth_date: &str) -> StudyHeader {
        StudyHeader {
            patient_id: id.to_owned(),
            patient_name: name.to_owned(),
            patient_birth_date: birth_date.to_owned(),
            ..StudyHeader::default()
        }
    }

    fn same(a: (&str, &str, &str), b: (&str, &str, &str)) -> bool {
        let [a, b] = [a, b].map(|(id, name, date)| Identity::of(&header(id, name, date)));
        assert_eq!(a.may_be(&b), b.may_be(&a));
        a.may_be(&b)
    }

    #[test]
    fn one_patient_written_in_two_ways_is_one() {
        for (a, b) in [
            (("17", "IVANOV^IVAN", ""), ("17 ", "Ivanov^Ivan^^", "")),
            (("17", "IVANOV^IVAN", ""), ("17", "ИВАНОВ^ИВАН", "")),
            (("17", "A", "19600101"), ("17", "A", "19600102")),
            (("17", "A", "19600101"), ("17", "", "")),
            (("17", "A", "19600101"), ("", "a", "")),
            (("", "A", ""), ("", "A", "19600101")),
            (("", "", ""), ("", "", "")),
            (("0", "A", ""), ("0", "A", "")),
        ] {
            assert!(same(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn two_patients_are_never_one() {
        for (a, b) in [
            (("17", "A", ""), ("18", "A", "")),
            (("17", "A", "19600101"), ("17", "B", "19700101")),
            (("", "A", ""), ("", "B", "")),
            (("", "A", "19600101"), ("17", "A", "19700101")),
            (("0", "A", ""), ("0", "B", "")),
            (("UNKNOWN", "A", ""), ("unknown", "B", "")),
            (("ANON", "A", "19600101"), ("ANON", "B", "19600102")),
        ] {
            assert!(!same(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn objects_are_parted_by_patient_whatever_their_order() {
        let mut instances = head_series(1, 6);
        for (index, instance) in instances.iter_mut().enumerate() {
            let (id, name) = [("1", "A"), ("2", "B"), ("", "B")][index % 3];
            instance.study = header(id, name, "");
        }
        let sizes = |instances: &[Instance]| {
            let parts = by_patient(instances.to_vec());
            let mut sizes: Vec<(String, usize)> = parts
                .iter()
                .map(|part| (part[0].study.patient_name.clone(), part.len()))
                .collect();
            sizes.sort();
            sizes
        };
        let expected = [("A".to_owned(), 2), ("B".to_owned(), 4)];
        assert_eq!(sizes(&instances), expected);
        instances.reverse();
        assert_eq!(sizes(&instances), expected);
        assert_eq!(by_patient(Vec::new()).len(), 0);
    }

    #[test]
    fn ages_are_read_as_written_or_from_dates() {
        let aged = |age: &str, born: &str| {
            age_years(&StudyHeader {
                patient_age: age.to_owned(),
                patient_birth_date: born.to_owned(),
                study_date: "20260115".to_owned(),
                ..StudyHeader::default()
            })
            .map(|years| (10.0 * years).round())
        };
        assert_eq!(aged("052Y", ""), Some(520.0));
        assert_eq!(aged("006M", ""), Some(5.0));
        assert_eq!(aged("010D", "19600101"), Some(0.0));
        assert_eq!(aged("", "20160115"), Some(100.0));
        assert_eq!(aged("", "20270115"), None);
        assert_eq!(aged("", ""), None);
        assert_eq!(aged("Y", "x"), None);
    }
}
