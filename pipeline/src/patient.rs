//! Whose objects are these? A Study Instance UID should name one patient's study; where senders
//! give it to two patients, they are never taken for one.

use crate::content::ContentHasher;
use crate::instance::{Instance, StudyHeader};
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;
use crate::unread::UnreadObject;

/// Who a header says that the patient is, without what writers add or change: case, padding,
/// separators. Any part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    id: String,
    name: String,
    birth_date: String,
}

impl Identity {
    /// Of Patient ID (0010,0020), Patient's Name (0010,0010) and Patient's Birth Date (0010,0030).
    pub fn of(header: &StudyHeader) -> Self {
        Self::stated(
            &header.patient_id,
            &header.patient_name,
            &header.patient_birth_date,
        )
    }

    /// Of an ID, a name and a birth date as they were written.
    pub fn stated(id: &str, name: &str, birth_date: &str) -> Self {
        Self {
            id: normal(id),
            name: normal_name(name),
            birth_date: normal(birth_date),
        }
    }

    /// A UID for a row of this patient's, where `study_uid` is another's too.
    pub fn study_uid(&self, study_uid: &Uid) -> Uid {
        let mut hasher = ContentHasher::new(study_uid.as_str());
        for part in [&self.id, &self.name, &self.birth_date] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        hasher.finish().to_uid()
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
            !(names_differ && (dates_differ || are_strangers(&self.name, &other.name)))
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

/// Letters and digits in upper case.
fn normal(text: &str) -> String {
    first_group(text)
        .chars()
        .filter(|one| one.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .collect()
}

/// The words of a name in upper case and in order of the alphabet: `IVANOV^IVAN` and `Ivan Ivanov`
/// are one name.
fn normal_name(text: &str) -> String {
    let mut words: Vec<String> = first_group(text)
        .split(|one: char| !one.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_uppercase)
        .collect();
    words.sort();
    words.join(" ")
}

/// Of a name the first component group; the others spell it in other scripts (PS3.5 6.2.1.1).
fn first_group(text: &str) -> &str {
    let mut groups = text.split('=');
    groups
        .find(|group| !group.trim().is_empty())
        .unwrap_or_default()
}

/// Whether two names are of one script and have no word in common: somebody who marries or is
/// written with an initial keeps one.
fn are_strangers(a: &str, b: &str) -> bool {
    let is_ascii = str::is_ascii;
    let shared = a
        .split(' ')
        .any(|word| b.split(' ').any(|other| word == other));
    is_ascii(a) == is_ascii(b) && !shared
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

/// The objects of one patient.
#[derive(Debug, Default)]
pub struct PatientObjects {
    /// Whom they name.
    pub identity: Identity,
    /// Those that were read.
    pub instances: Vec<Instance>,
    /// Those that could not be.
    pub unread: Vec<UnreadObject>,
}

/// Parts a study's objects by patient. Who states most comes first into the comparison, so that the
/// order of arrival does not matter. An object that may be of more than one of them is given to the
/// first; one that cannot be read and does not say whose it is may be anybody's, and counts for each.
pub fn by_patient(instances: Vec<Instance>, unread: Vec<UnreadObject>) -> Vec<PatientObjects> {
    let patients = Patients::of(
        instances
            .iter()
            .map(|one| &one.study)
            .chain(unread.iter().map(|one| &one.study)),
    );
    let mut parts: Vec<PatientObjects> = patients
        .0
        .iter()
        .map(|identity| PatientObjects {
            identity: identity.clone(),
            ..PatientObjects::default()
        })
        .collect();
    for instance in instances {
        let part = patients.place_of(&Identity::of(&instance.study));
        parts[part].instances.push(instance);
    }
    for object in unread {
        let identity = Identity::of(&object.study);
        if identity.parts_stated() > 0 {
            parts[patients.place_of(&identity)].unread.push(object);
        } else {
            for part in &mut parts {
                part.unread.push(object.clone());
            }
        }
    }
    parts
}

/// Patients that are told apart, in an order that does not depend on that of their objects.
struct Patients(Vec<Identity>);

impl Patients {
    fn of<'a>(headers: impl Iterator<Item = &'a StudyHeader>) -> Self {
        let mut stated: Vec<Identity> = Vec::new();
        for header in headers {
            let identity = Identity::of(header);
            if !stated.contains(&identity) {
                stated.push(identity);
            }
        }
        stated.sort_by(|a, b| {
            let key = |one: &Identity| (std::cmp::Reverse(one.parts_stated()), one.clone());
            key(a).cmp(&key(b))
        });
        let mut patients: Vec<Identity> = Vec::new();
        for identity in stated {
            match patients.iter_mut().find(|known| known.may_be(&identity)) {
                Some(known) => known.complete_from(&identity),
                None => patients.push(identity),
            }
        }
        Self(patients)
    }

    fn place_of(&self, identity: &Identity) -> usize {
        let may_be = |known: &Identity| known.may_be(identity);
        self.0.iter().position(may_be).unwrap_or(0)
    }
}

/// What is said of the study of each of several patients that share `study_uid`.
pub fn shared_study(study_uid: &Uid) -> Reason {
    Reason::new(
        ReasonCode::SharedStudyUid,
        format!(
            "Study Instance UID {study_uid} is shared by several patients; this is the study of one of \
             them. Which object is whose goes by their headers alone: ask the sender."
        ),
    )
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
            (("17", "IVANOVA^ANNA", ""), ("17", "PETROVA^ANNA", "")),
            (("", "IVANOV^IVAN", ""), ("", "Ivan Ivanov", "")),
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
            (("17", "IVANOV^IVAN", ""), ("17", "PETROVA^ANNA", "")),
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
            let parts = by_patient(instances.to_vec(), Vec::new());
            let mut sizes: Vec<(String, usize)> = parts
                .iter()
                .map(|part| {
                    let first = &part.instances[0];
                    (first.study.patient_name.clone(), part.instances.len())
                })
                .collect();
            sizes.sort();
            sizes
        };
        let expected = [("A".to_owned(), 2), ("B".to_owned(), 4)];
        assert_eq!(sizes(&instances), expected);
        instances.reverse();
        assert_eq!(sizes(&instances), expected);
        assert_eq!(by_patient(Vec::new(), Vec::new()).len(), 0);
    }

    #[test]
    fn what_cannot_be_read_counts_for_whom_it_names_or_for_all() {
        let mut instances = head_series(1, 2);
        instances[0].study = header("1", "A", "");
        instances[1].study = header("2", "B", "");
        let reason = Reason::new(ReasonCode::Truncated, "It is cut.");
        let mut named = UnreadObject::unknown("a".into(), reason.clone());
        named.study = header("2", "", "");
        let unknown = UnreadObject::unknown("b".into(), reason.clone());
        let mut third = UnreadObject::unknown("c".into(), reason);
        third.study = header("3", "", "");
        let parts = by_patient(instances, vec![named, unknown, third]);
        let mut sizes: Vec<[usize; 2]> = parts
            .iter()
            .map(|part| [part.instances.len(), part.unread.len()])
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [[0, 2], [1, 1], [1, 2]]);
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
