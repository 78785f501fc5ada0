//! The answer to STOW-RS: the Store Instances Response Module (PS3.18 annex I.2), as DICOM JSON
//! (PS3.18 annex F) or as the Native DICOM Model in XML (PS3.19 annex A).

use axum::http::StatusCode;
use pipeline::uid::Uid;
use serde_json::{Map, Value, json};

/// Why an instance was not stored: Failure Reason (0008,1197), PS3.18 table I.2-2 and, for
/// instances that are there with other content, PS3.7 annex C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// A disk or a limit is full.
    OutOfResources,
    /// It belongs to another study than the one in the path.
    OtherStudy,
    /// The bytes are not DICOM, or lack identifiers.
    CannotUnderstand,
    /// Another instance with this UID is there already.
    DuplicateInstance,
    /// Something failed inside.
    ProcessingFailure,
}

impl FailureReason {
    /// The value of (0008,1197).
    pub fn code(self) -> u16 {
        match self {
            Self::OutOfResources => 0xA700,
            Self::OtherStudy => 0xA901,
            Self::CannotUnderstand => 0xC000,
            Self::DuplicateInstance => 0x0111,
            Self::ProcessingFailure => 0x0110,
        }
    }
}

/// What became of one part of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instance {
    /// It is on disk and synced.
    Stored {
        /// SOP class.
        class: Uid,
        /// SOP instance.
        instance: Uid,
    },
    /// It was not stored, or not in the place of the instance that it names.
    Failed {
        /// SOP class and SOP instance; `None` where its bytes do not tell.
        identity: Option<(Uid, Uid)>,
        /// Why.
        reason: FailureReason,
    },
}

impl Instance {
    fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }
}

/// The status of the whole (PS3.18 table 10.5.3-1): all, some or none were stored.
pub fn status(instances: &[Instance]) -> StatusCode {
    let stored = instances
        .iter()
        .filter(|instance| instance.is_stored())
        .count();
    if stored == instances.len() && stored > 0 {
        StatusCode::OK
    } else if stored > 0 {
        StatusCode::ACCEPTED
    } else {
        StatusCode::CONFLICT
    }
}

/// The response data set, for rendering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StowResponse(Vec<Element>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Element {
    tag: &'static str,
    keyword: &'static str,
    value: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Uid(String),
    /// A URL without a value: type 2 attributes may be empty.
    NoUrl,
    Number(u16),
    Items(Vec<Vec<Element>>),
}

impl StowResponse {
    /// Says what became of `instances`.
    ///
    /// Retrieve URL (0008,1190), type 2 on both levels, stays empty: Tez has no WADO-RS yet, and a
    /// URL that leads nowhere would say otherwise.
    pub fn new(instances: &[Instance]) -> Self {
        let mut sequences = [
            ("00081198", "FailedSOPSequence", Vec::new()),
            ("00081199", "ReferencedSOPSequence", Vec::new()),
            ("0008119A", "OtherFailuresSequence", Vec::new()),
        ];
        for instance in instances {
            let (sequence, item) = item(instance);
            sequences[sequence].2.push(item);
        }
        let filled = sequences
            .into_iter()
            .filter(|(_, _, items)| !items.is_empty());
        let filled =
            filled.map(|(tag, keyword, items)| element(tag, keyword, Content::Items(items)));
        Self(std::iter::once(no_url()).chain(filled).collect())
    }

    /// As `application/dicom+json`: one object (PS3.18 section F.2).
    pub fn to_json(&self) -> Value {
        json_of(&self.0)
    }

    /// As `application/dicom+xml`.
    pub fn to_xml(&self) -> String {
        let inner = xml_of(&self.0);
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <NativeDicomModel xml:space=\"preserve\">{inner}</NativeDicomModel>\n"
        )
    }
}

/// Which of the three sequences, and the item.
fn item(instance: &Instance) -> (usize, Vec<Element>) {
    match instance {
        Instance::Stored { class, instance } => {
            let mut item = reference(class, instance);
            item.push(no_url());
            (1, item)
        }
        Instance::Failed {
            identity: Some((class, instance)),
            reason,
        } => {
            let mut item = reference(class, instance);
            item.push(failure(*reason));
            (0, item)
        }
        Instance::Failed {
            identity: None,
            reason,
        } => (2, vec![failure(*reason)]),
    }
}

fn reference(class: &Uid, instance: &Uid) -> Vec<Element> {
    vec![
        element(
            "00081150",
            "ReferencedSOPClassUID",
            Content::Uid(class.to_string()),
        ),
        element(
            "00081155",
            "ReferencedSOPInstanceUID",
            Content::Uid(instance.to_string()),
        ),
    ]
}

fn failure(reason: FailureReason) -> Element {
    element("00081197", "FailureReason", Content::Number(reason.code()))
}

fn element(tag: &'static str, keyword: &'static str, value: Content) -> Element {
    Element {
        tag,
        keyword,
        value,
    }
}

fn no_url() -> Element {
    element("00081190", "RetrieveURL", Content::NoUrl)
}

fn json_of(elements: &[Element]) -> Value {
    let members: Map<String, Value> = elements
        .iter()
        .map(|element| {
            let value = match &element.value {
                Content::Uid(uid) => json!({"vr": "UI", "Value": [uid]}),
                Content::NoUrl => json!({"vr": "UR"}),
                Content::Number(number) => json!({"vr": "US", "Value": [number]}),
                Content::Items(items) => {
                    let items: Vec<Value> = items.iter().map(|item| json_of(item)).collect();
                    json!({"vr": "SQ", "Value": items})
                }
            };
            (element.tag.to_owned(), value)
        })
        .collect();
    Value::Object(members)
}

fn xml_of(elements: &[Element]) -> String {
    let texts: Vec<String> = elements.iter().map(xml_element).collect();
    texts.concat()
}

fn xml_element(element: &Element) -> String {
    let Element {
        tag,
        keyword,
        value,
    } = element;
    let (vr, inner) = match value {
        Content::Uid(uid) => ("UI", xml_value(uid)),
        Content::NoUrl => ("UR", String::new()),
        Content::Number(number) => ("US", xml_value(&number.to_string())),
        Content::Items(items) => ("SQ", xml_items(items)),
    };
    format!(
        "<DicomAttribute tag=\"{tag}\" vr=\"{vr}\" keyword=\"{keyword}\">{inner}</DicomAttribute>"
    )
}

fn xml_items(items: &[Vec<Element>]) -> String {
    let numbered = items.iter().zip(1..);
    let texts: Vec<String> = numbered
        .map(|(item, number): (_, usize)| {
            format!("<Item number=\"{number}\">{}</Item>", xml_of(item))
        })
        .collect();
    texts.concat()
}

fn xml_value(value: &str) -> String {
    // UIDs and numbers: nothing that XML would need escaped.
    format!("<Value number=\"1\">{value}</Value>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn stored() -> Instance {
        Instance::Stored {
            class: uid("1.1"),
            instance: uid("1.2"),
        }
    }

    fn failed(identity: Option<(Uid, Uid)>) -> Instance {
        Instance::Failed {
            identity,
            reason: FailureReason::CannotUnderstand,
        }
    }

    #[test]
    fn the_status_says_all_some_or_none() {
        assert_eq!(status(&[stored()]), StatusCode::OK);
        assert_eq!(status(&[stored(), failed(None)]), StatusCode::ACCEPTED);
        assert_eq!(status(&[failed(None)]), StatusCode::CONFLICT);
        assert_eq!(status(&[]), StatusCode::CONFLICT);
    }

    #[test]
    fn json_holds_each_instance_in_the_sequence_it_belongs_to() {
        let identity = Some((uid("1.1"), uid("1.9")));
        let response = StowResponse::new(&[stored(), failed(identity), failed(None)]);
        assert_eq!(
            response.to_json(),
            json!({
                "00081190": {"vr": "UR"},
                "00081198": {"vr": "SQ", "Value": [{
                    "00081150": {"vr": "UI", "Value": ["1.1"]},
                    "00081155": {"vr": "UI", "Value": ["1.9"]},
                    "00081197": {"vr": "US", "Value": [49152]}}]},
                "00081199": {"vr": "SQ", "Value": [{
                    "00081150": {"vr": "UI", "Value": ["1.1"]},
                    "00081155": {"vr": "UI", "Value": ["1.2"]},
                    "00081190": {"vr": "UR"}}]},
                "0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [49152]}}]},
            })
        );
    }

    #[test]
    fn xml_nests_items_in_their_sequence() {
        let text = StowResponse::new(&[stored()]).to_xml();
        assert!(text.contains(
            "<DicomAttribute tag=\"00081199\" vr=\"SQ\" keyword=\"ReferencedSOPSequence\"><Item number=\"1\">\
             <DicomAttribute tag=\"00081150\" vr=\"UI\" keyword=\"ReferencedSOPClassUID\"><Value number=\"1\">1.1</Value>"
        ));
    }
}
