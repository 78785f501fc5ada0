//! What the header says for and against one stack.

use crate::instance::{Instance, SeriesHeader};
use crate::intake::is_ct_image;
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};

use super::kernel::{Sharpness, sharpness};
use super::stacks::{FrameStack, image_type};
use super::words::{ContrastWord, Words, names_an_agent};

/// Thinner or thicker slices are not looked at, mm.
const THICKNESS_MM: std::ops::RangeInclusive<f64> = 0.4..=10.0;
/// What rounding in a header may add to that, mm.
const THICKNESS_TOLERANCE_MM: f64 = 0.011;
/// Slices whose normal is further from the body's axis are not axial. Gantries tilt to 30°.
const AXIAL_COSINE_MIN: f64 = 0.766;

/// Values of Image Type (0008,0008) that name something computed from slices.
const DERIVED_TYPES: [&str; 13] = [
    "MPR",
    "MIP",
    "MINIP",
    "MIN",
    "MAX",
    "VRT",
    "VR",
    "SSD",
    "REFORMATTED",
    "PROJECTION",
    "SUBTRACTION",
    "SCREEN",
    "PROT",
];

const HEAD_WORDS: [&str; 42] = [
    "HEAD",
    "BRAIN",
    "SKULL",
    "CRANIUM",
    "CRANIAL",
    "CEREBRAL",
    "CEREBRUM",
    "NEURO",
    "HEADNECK",
    "ENCEPHALON",
    "TETE",
    "TÊTE",
    "CRANE",
    "CRÂNE",
    "CEREBRO",
    "CABEZA",
    "CRANEO",
    "CRÁNEO",
    "TESTA",
    "CRANIO",
    "CABECA",
    "CABEÇA",
    "KOPF",
    "SCHAEDEL",
    "SCHÄDEL",
    "HOOFD",
    "GLOWA",
    "NCCT",
    "STROKE",
    "CEREB",
    "HD",
    "ГМ",
    "ОГМ",
    "МИ",
    "МИЫ",
    "BOSH",
    "MIYA",
    "GOLOVA",
    "GOLOVY",
    "MOZG",
    "MOZGA",
    "CEREBELLUM",
];
const HEAD_STEMS: [&str; 9] = [
    "ГОЛОВ",
    "МОЗГ",
    "ЧЕРЕП",
    "БАС",
    "МИЯ",
    "ИНСУЛЬТ",
    "КРАНИ",
    "NEUROCRAN",
    "GOLOVN",
];
const OTHER_BODY_WORDS: [&str; 57] = [
    "NECK",
    "CHEST",
    "THORAX",
    "LUNG",
    "LUNGS",
    "HEART",
    "CARDIAC",
    "CORONARY",
    "ABDOMEN",
    "PELVIS",
    "SPINE",
    "CSPINE",
    "TSPINE",
    "LSPINE",
    "CERVICAL",
    "LUMBAR",
    "KNEE",
    "HIP",
    "FOOT",
    "HAND",
    "ANKLE",
    "WRIST",
    "ELBOW",
    "SHOULDER",
    "LEG",
    "ARM",
    "EXTREMITY",
    "LIVER",
    "KIDNEY",
    "KIDNEYS",
    "COLON",
    "AORTA",
    "HALS",
    "BECKEN",
    "COU",
    "BASSIN",
    "CUELLO",
    "TORAX",
    "TÓRAX",
    "CTSPINE",
    "WHOLEBODY",
    "BREAST",
    "LWS",
    "HWS",
    "BWS",
    "SINUS",
    "SINUSES",
    "ОГК",
    "ОБП",
    "ОМТ",
    "ШОП",
    "ППН",
    "ТАЗ",
    "KOKRAK",
    "BOYIN",
    "OPKA",
    "QORIN",
];
const OTHER_BODY_STEMS: [&str; 20] = [
    "ABDOM",
    "GRUDN",
    "ГРУД",
    "ЛЕГК",
    "БРЮШ",
    "ШЕЯ",
    "ШЕИ",
    "ШЕЙН",
    "ПОЗВОН",
    "ТАЗА",
    "ПОЧК",
    "ПЕЧЕН",
    "СЕРДЦ",
    "КОЛЕН",
    "КЕУДЕ",
    "ӨКПЕ",
    "МОЙЫН",
    "ОМЫРТҚ",
    "UMURTQ",
    "КОНЕЧНОСТ",
];

/// The header's word on one stack.
#[derive(Clone, Debug)]
pub(super) struct HeaderVerdict {
    pub(super) refusals: Vec<Reason>,
    pub(super) remarks: Vec<Reason>,
    pub(super) sharpness: Sharpness,
}

/// Gathers reasons on either side.
#[derive(Debug, Default)]
struct Findings {
    refusals: Vec<Reason>,
    remarks: Vec<Reason>,
}

impl Findings {
    fn refuse(&mut self, code: ReasonCode, text: impl Into<String>) {
        self.refusals.push(Reason::new(code, text));
    }

    fn remark(&mut self, code: ReasonCode, text: impl Into<String>) {
        self.remarks.push(Reason::new(code, text));
    }
}

impl HeaderVerdict {
    /// Judges a stack by the header of its middle slice, and by the geometry of all.
    pub(super) fn of_stack(stack: &FrameStack<'_>, limits: &Limits) -> Self {
        let mut findings = Findings::default();
        // A stack is made of at least one frame.
        let middle = stack.slices[stack.slices.len() / 2].slice;
        let series = &middle.instance.series;
        if judge_modality(&mut findings, middle.instance)
            && judge_image_type(&mut findings, middle.instance, image_type(middle))
        {
            judge_direction(&mut findings, stack);
            judge_contrast(&mut findings, series);
            judge_body_part(&mut findings, series);
            judge_thickness(&mut findings, stack);
            judge_count(&mut findings, stack, limits);
        }
        let sharpness = judge_kernel(&mut findings, series);
        Self {
            refusals: findings.refusals,
            remarks: findings.remarks,
            sharpness,
        }
    }

    /// Judges a series without any frame that has a place in the patient.
    pub(super) fn without_stack(instances: &[&Instance]) -> Self {
        let mut findings = Findings::default();
        if let Some(instance) = instances.first()
            && judge_modality(&mut findings, instance)
            && judge_image_type(&mut findings, instance, &instance.series.image_type)
        {
            findings.refuse(
                ReasonCode::MissingGeometry,
                format!(
                    "None of {} objects has a usable position, orientation and pixel spacing.",
                    instances.len()
                ),
            );
        }
        Self {
            refusals: findings.refusals,
            remarks: findings.remarks,
            sharpness: Sharpness::Unknown,
        }
    }
}

/// Whether it is a CT image at all.
fn judge_modality(findings: &mut Findings, instance: &Instance) -> bool {
    let modality = instance.series.modality.as_str();
    let ct_class = is_ct_image(&instance.sop_class_uid);
    // An empty Modality is illegal, but the SOP class says the same.
    let ct_modality = modality == "CT" || (modality.is_empty() && ct_class);
    if !ct_modality {
        let text = format!("Modality (0008,0060) is {modality:?}, not CT.");
        findings.refuse(ReasonCode::NotCt, text);
    } else if instance.pixels.is_none() {
        findings.refuse(ReasonCode::NotCt, "Objects without an image.");
    } else if !ct_class {
        let text = format!(
            "Not a CT image object but SOP class {}.",
            instance.sop_class_uid
        );
        findings.refuse(ReasonCode::Derived, text);
    }
    findings.refusals.is_empty()
}

/// Whether it is original and a slice (PS3.3 C.8.2.1.1.1, C.8.15.2.1.1).
fn judge_image_type(findings: &mut Findings, instance: &Instance, values: &[String]) -> bool {
    let named = values.join("\\").to_uppercase();
    let words = Words::of(&named);
    let description = Words::of(&instance.series.series_description);
    let value = |index: usize| values.get(index).map_or("", String::as_str);
    let lossy = instance.pixels.as_ref().is_some_and(|pixels| pixels.lossy);
    if words.names_localizer() || description.names_localizer() {
        findings.refuse(ReasonCode::Localizer, "A localiser, not slices.");
    } else if words.any(&DERIVED_TYPES) || words.names_derived() || value(1) == "SECONDARY" {
        let text = format!("Computed from slices: Image Type (0008,0008) is {named}.");
        findings.refuse(ReasonCode::Derived, text);
    } else if value(0) == "DERIVED" && !(lossy && value(2) == "AXIAL") {
        let text = format!("Derived, not original: Image Type (0008,0008) is {named}.");
        findings.refuse(ReasonCode::Derived, text);
    } else if description.names_derived() {
        let text = "Computed from slices, by its Series Description (0008,103E).";
        findings.refuse(ReasonCode::Derived, text);
    }
    if findings.refusals.is_empty() {
        remark_image_type(findings, values, &named);
    }
    findings.refusals.is_empty()
}

fn remark_image_type(findings: &mut Findings, values: &[String], named: &str) {
    let value = |index: usize| values.get(index).map_or("", String::as_str);
    if values.is_empty() {
        findings.remark(
            ReasonCode::Derived,
            "Image Type (0008,0008) is missing: whether the slices are original is not stated.",
        );
    } else if value(0) == "DERIVED" {
        findings.remark(
            ReasonCode::Derived,
            "Lossy compression: densities may be a few Hounsfield units off.",
        );
    } else if value(0) != "ORIGINAL" {
        let text = format!("Image Type (0008,0008) is {named}, not ORIGINAL.");
        findings.remark(ReasonCode::Derived, text);
    }
}

fn judge_direction(findings: &mut Findings, stack: &FrameStack<'_>) {
    let cosine = stack.normal[2].abs();
    if cosine < AXIAL_COSINE_MIN {
        let angle_deg = cosine.min(1.0).acos().to_degrees();
        let text = format!("The slices stand {angle_deg:.0}° from axial; up to 40° is taken.");
        findings.refuse(ReasonCode::NotAxial, text);
    }
}

/// The series' own words go before the protocol's, which one study's plain and contrast series
/// share.
fn judge_contrast(findings: &mut Findings, series: &SeriesHeader) {
    let by_series = Words::of(&series.series_description).contrast();
    let by_protocol = Words::of(&series.protocol_name).contrast();
    let found_in = if names_an_agent(&series.contrast_agent) {
        "Contrast/Bolus Agent (0018,0010) names an agent"
    } else {
        match (by_series, by_protocol) {
            (ContrastWord::With, _) => "its Series Description (0008,103E) says so",
            (ContrastWord::Silent, ContrastWord::With) => {
                "its Protocol Name (0018,1030) says so and the series does not say otherwise"
            }
            (ContrastWord::Without, _) | (ContrastWord::Silent, ContrastWord::Without) => return,
            (ContrastWord::Silent, ContrastWord::Silent) => {
                return remark_doubtful_contrast(findings, series);
            }
        }
    };
    findings.refuse(
        ReasonCode::Contrast,
        format!("Contrast was given, or vessels or perfusion were scanned: {found_in}."),
    );
}

fn remark_doubtful_contrast(findings: &mut Findings, series: &SeriesHeader) {
    let told = &series.series_description;
    if Words::of(told).may_mean_contrast() {
        let text = format!(
            "Series Description (0008,103E) is {told:?}, which may mean contrast; the pixels show \
             none that is seen."
        );
        findings.remark(ReasonCode::Contrast, text);
    }
}

fn judge_body_part(findings: &mut Findings, series: &SeriesHeader) {
    let stated = Words::of(&series.body_part);
    let head = |words: &Words| words.any(&HEAD_WORDS) || words.any_stem(&HEAD_STEMS);
    let other = |words: &Words| words.any(&OTHER_BODY_WORDS) || words.any_stem(&OTHER_BODY_STEMS);
    if head(&stated) {
        return;
    }
    if other(&stated) {
        let text = format!("Body Part Examined (0018,0015) is {}.", series.body_part);
        findings.refuse(ReasonCode::OtherBodyPart, text);
    } else if stated.is_empty() {
        let told = Words::of(&format!(
            "{} {}",
            series.series_description, series.protocol_name
        ));
        if other(&told) && !head(&told) {
            findings.refuse(
                ReasonCode::OtherBodyPart,
                "Series Description and Protocol Name speak of another part of the body.",
            );
        }
    } else {
        let text = format!(
            "Body Part Examined (0018,0015) is {:?}; the pixels decide whether it is a head.",
            series.body_part
        );
        findings.remark(ReasonCode::OtherBodyPart, text);
    }
}

fn judge_thickness(findings: &mut Findings, stack: &FrameStack<'_>) {
    let Some(thickness_mm) = stack.thickness_mm() else {
        return;
    };
    let near = thickness_mm.clamp(*THICKNESS_MM.start(), *THICKNESS_MM.end());
    if (thickness_mm - near).abs() > THICKNESS_TOLERANCE_MM {
        findings.refuse(
            ReasonCode::SliceThicknessOutOfRange,
            format!(
                "Slices are {thickness_mm:.2} mm thick; {} to {} mm are taken.",
                THICKNESS_MM.start(),
                THICKNESS_MM.end()
            ),
        );
    }
}

fn judge_count(findings: &mut Findings, stack: &FrameStack<'_>, limits: &Limits) {
    let count = stack.places();
    if count < limits.slices_min {
        let text = format!("{count} slices; a volume needs {}.", limits.slices_min);
        findings.refuse(ReasonCode::TooFewSlices, text);
    } else if stack.slices.len() > limits.slices_max {
        let text = format!(
            "{} slices; the limit is {}.",
            stack.slices.len(),
            limits.slices_max
        );
        findings.refuse(ReasonCode::TooManySlices, text);
    }
}

fn judge_kernel(findings: &mut Findings, series: &SeriesHeader) -> Sharpness {
    let found = sharpness(&series.kernel, &series.series_description);
    match found {
        Sharpness::Sharp => findings.refuse(
            ReasonCode::BoneKernel,
            format!("A sharp kernel, made for bone: {:?}.", series.kernel),
        ),
        Sharpness::Unknown if findings.refusals.is_empty() => findings.remark(
            ReasonCode::BoneKernel,
            format!(
                "Convolution Kernel (0018,1210) {:?} is not known to be soft.",
                series.kernel
            ),
        ),
        Sharpness::Unknown | Sharpness::Soft => {}
    }
    found
}
