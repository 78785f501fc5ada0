//! What the header says for and against one stack.

use crate::header::is_ct_image;
use crate::instance::{Instance, SeriesHeader};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};

use super::kernel::{Sharpness, sharpness};
use super::stacks::FrameStack;
use super::words::{ContrastWord, Words, names_an_agent};
use super::{Object, Slice};

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
#[derive(Clone, Debug, Default)]
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

/// What the header of one slice says, by itself.
#[derive(Clone, Debug)]
pub(super) struct SliceVerdict {
    /// Whether it is an original CT slice at all.
    is_slice: bool,
    findings: Findings,
}

impl SliceVerdict {
    fn of(slice: Slice<'_>) -> Self {
        let mut findings = Findings::default();
        let is_slice = judge_modality(&mut findings, slice.instance)
            && judge_image_type(&mut findings, slice.instance, slice.image_type());
        if is_slice {
            judge_contrast(&mut findings, slice);
            judge_body_part(&mut findings, &slice.instance.series);
        }
        Self { is_slice, findings }
    }

    /// Whether both are refused for the same, or neither is.
    pub(super) fn same_refusals(&self, other: &Self) -> bool {
        let codes = |verdict: &Self| -> Vec<ReasonCode> {
            let refusals = verdict.findings.refusals.iter();
            refusals.map(|reason| reason.code).collect()
        };
        codes(self) == codes(other)
    }
}

/// Verdicts on slices, one for each kind of header among them.
#[derive(Debug, Default)]
pub(super) struct HeaderKinds<'a> {
    known: Vec<(Slice<'a>, SliceVerdict)>,
}

/// So many kinds are looked through; a series has few.
const KINDS_LOOKED_THROUGH: usize = 8;

impl<'a> HeaderKinds<'a> {
    /// What the header of `slice` says.
    pub(super) fn verdict(&mut self, slice: Slice<'a>) -> &SliceVerdict {
        let recent = self.known.len().saturating_sub(KINDS_LOOKED_THROUGH);
        let known = self.known[recent..]
            .iter()
            .position(|(known, _)| same_kind(known, &slice));
        let index = known.map_or(self.known.len(), |found| recent + found);
        if index == self.known.len() {
            self.known.push((slice, SliceVerdict::of(slice)));
        }
        &self.known[index].1
    }
}

fn same_kind(a: &Slice<'_>, b: &Slice<'_>) -> bool {
    let contrast = |slice: &Slice<'_>| slice.frame().and_then(|frame| frame.contrast_administered);
    let lossy = |slice: &Slice<'_>| slice.instance.pixels.as_ref().map(|pixels| pixels.lossy);
    a.instance.series == b.instance.series
        && a.instance.sop_class_uid == b.instance.sop_class_uid
        && a.image_type() == b.image_type()
        && contrast(a) == contrast(b)
        && lossy(a) == lossy(b)
}

impl HeaderVerdict {
    /// Judges a stack by what its slices' headers share, and by the geometry of all.
    pub(super) fn of_stack(stack: &FrameStack<'_>, limits: &Limits) -> Self {
        let SliceVerdict {
            is_slice,
            mut findings,
        } = stack.verdict.clone();
        if is_slice {
            remark_lossy(&mut findings, stack);
            judge_direction(&mut findings, stack);
            judge_thickness(&mut findings, stack);
            judge_count(&mut findings, stack, limits);
        }
        let sharpness = stack.slices.first().map_or(Sharpness::Unknown, |placed| {
            judge_kernel(&mut findings, placed.slice)
        });
        Self {
            refusals: findings.refusals,
            remarks: findings.remarks,
            sharpness,
        }
    }

    /// Judges a series without any frame that has a place in the patient.
    pub(super) fn without_stack(objects: &[Object<'_>]) -> Self {
        let mut findings = Findings::default();
        if let Some(Object { instance, .. }) = objects.first()
            && judge_modality(&mut findings, instance)
            && judge_image_type(&mut findings, instance, &instance.series.image_type)
        {
            findings.refuse(
                ReasonCode::MissingGeometry,
                format!(
                    "None of {} objects has a usable position, orientation and pixel spacing.",
                    objects.len()
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
    } else if value(0) != "ORIGINAL" && value(0) != "DERIVED" {
        let text = format!("Image Type (0008,0008) is {named}, not ORIGINAL.");
        findings.remark(ReasonCode::Derived, text);
    }
}

/// Whatever Image Type says: some writers compress without a word in the header.
fn remark_lossy(findings: &mut Findings, stack: &FrameStack<'_>) {
    let is_lossy = |instance: &Instance| instance.pixels.as_ref().is_some_and(|one| one.lossy);
    let mut slices = stack.slices.iter();
    if slices.any(|one| is_lossy(one.slice.instance)) {
        findings.remark(
            ReasonCode::Derived,
            "Lossy compression: densities may be a few Hounsfield units off.",
        );
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
fn judge_contrast(findings: &mut Findings, slice: Slice<'_>) {
    let series = &slice.instance.series;
    let administered = slice.frame().and_then(|frame| frame.contrast_administered);
    let by_series = Words::of(&series.series_description).contrast();
    let by_protocol = Words::of(&series.protocol_name).contrast();
    let found_in = if administered == Some(true) {
        "Contrast/Bolus Agent Administered (0018,9342) is YES"
    } else if administered.is_none() && names_an_agent(&series.contrast_agent) {
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

fn judge_kernel(findings: &mut Findings, slice: Slice<'_>) -> Sharpness {
    let kernel = slice.kernel();
    let found = sharpness(kernel, &slice.instance.series.series_description);
    match found {
        Sharpness::Sharp => findings.refuse(
            ReasonCode::BoneKernel,
            format!("A sharp kernel, made for bone: {kernel:?}."),
        ),
        Sharpness::Unknown if findings.refusals.is_empty() => findings.remark(
            ReasonCode::BoneKernel,
            format!("Convolution Kernel (0018,1210) {kernel:?} is not known to be soft."),
        ),
        Sharpness::Unknown | Sharpness::Soft => {}
    }
    found
}
