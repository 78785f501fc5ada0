//! Series descriptions as scanners' presets and sites write them, with the verdict that each must
//! get. Made up in the makers' manner; none was taken from a patient or a list.

use crate::limits::Limits;
use crate::reason::ReasonCode;

use super::candidates;
use super::tests::head_series;

/// What a description makes of a series that is a plain head by everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Plain,
    Contrast,
    Localizer,
    Derived,
    OtherBody,
    Bone,
}

use Verdict::{Bone, Contrast, Derived, Localizer, OtherBody, Plain};

const GE: &[(&str, Verdict)] = &[
    ("HEAD W/O 5.0", Plain),
    ("Ax Head 5mm", Plain),
    ("AXIAL BRAIN STD", Plain),
    ("HEAD HELICAL 2.5", Plain),
    ("BRAIN W/O ASIR 40", Plain),
    ("5mm STD HEAD", Plain),
    ("Thin Brain .625", Plain),
    ("POST FOSSA", Plain),
    ("HEAD CONT 5.0", Plain),
    ("HEAD TRAUMA INJ", Plain),
    ("AX HEAD ASIR-V 50%", Plain),
    ("Head Low Dose Peds Protocol Off", Plain),
    ("Stroke NCCT", Plain),
    ("HEAD SCOUT ALIGNED", Plain),
    ("3D HEAD .625", Plain),
    ("SmartPrep Series", Contrast),
    ("CTA HEAD/NECK", Contrast),
    ("HEAD W CONTRAST", Contrast),
    ("AX C+ HEAD", Contrast),
    ("Post Contrast Brain", Contrast),
    ("CTP Perfusion 5mm", Contrast),
    ("COW CTA .625", Contrast),
    ("SCOUT", Localizer),
    ("Lateral Scout", Localizer),
    ("Scouts AP+LAT", Localizer),
    ("Dose Report", Derived),
    ("DOSE REPORT 999", Derived),
    ("Screen Save", Derived),
    ("COR MPR HEAD", Derived),
    ("3D VR Skull Color", Derived),
    ("Sag Reformat", Derived),
    ("HEAD BONE PLUS .625", Bone),
    ("2.5 BONE", Bone),
    ("CHEST W/O 5.0", OtherBody),
    ("ABDOMEN PELVIS 5MM", OtherBody),
    ("C-SPINE CERVICAL 2.5", OtherBody),
];

const SIEMENS: &[(&str, Verdict)] = &[
    ("Head 5.0 H31s", Plain),
    ("Head 4.8 Hr40 S3", Plain),
    ("HeadSeq 5.0 H30s", Plain),
    ("NativeHead 3.0 J40s 2", Plain),
    ("Schädel nativ 5.0 Hr38", Plain),
    ("Neuro 1.0 J30s SAFIRE", Plain),
    ("Kopf ohne KM 4.0", Plain),
    ("Head CARE Dose4D 5.0", Plain),
    ("Brain ADMIRE 3 Hr36", Plain),
    ("DE_Head Average 3.0", Plain),
    ("HeadRoutine 0.6 Q30", Plain),
    ("Schädelbasis 3.0 J37s", Plain),
    ("CT Kopf Spirale", Plain),
    ("Head LowDose 5.0", Plain),
    ("Schädel mit KM", Contrast),
    ("CarotisAngio 0.75 H20f", Contrast),
    ("CT_CTA_0.75", Contrast),
    ("NeuroVPCT 10.0 Perfusion", Contrast),
    ("TestBolus 10.0", Contrast),
    ("PreMonitoring 10.0", Contrast),
    ("Head ICP Monitoring", Plain),
    ("Tête os et parties molles", Plain),
    ("Head KM venös", Contrast),
    ("Topogram 0.6 T20f", Localizer),
    ("Topogramm lat", Localizer),
    ("Topogram 512", Localizer),
    ("Patient Protocol Dose Info", Derived),
    ("MPR Cor 3.0", Derived),
    ("MIP axial 10", Derived),
    ("VRT Schädel", Derived),
    ("BoneSubtracted MIP", Derived),
    ("Head 1.0 H60s", Bone),
    ("Knochen 0.75", Bone),
    ("Schädel 0.75 J70h 2", Bone),
    ("Head 2.0 Hr64", Bone),
    ("Thorax 5.0 B31f", OtherBody),
    ("HWS 2.0 B30s", OtherBody),
    ("LWS 3.0", OtherBody),
    ("Becken 5.0", OtherBody),
];

const PHILIPS: &[(&str, Verdict)] = &[
    ("Brain 5.0", Plain),
    ("Cranium i-Dose", Plain),
    ("Cranium iDose (4)", Plain),
    ("HEAD iDose4 5mm", Plain),
    ("Brain DoseRight 3.0", Plain),
    ("BRAIN, iDose (3)", Plain),
    ("HELICAL HEAD 3/3", Plain),
    ("Head UB 5mm", Plain),
    ("O-MAR Brain", Plain),
    ("Crâne sans injection 5mm", Plain),
    ("Cerebro sin contraste", Plain),
    ("Testa senza mdc", Plain),
    ("Cranium Low Dose", Plain),
    ("Brain MC", Plain),
    ("IMR Brain Routine", Plain),
    ("Head Angio 0.9", Contrast),
    ("Crâne avec injection", Contrast),
    ("Cerebro con contraste", Contrast),
    ("Testa con mdc", Contrast),
    ("Tracker", Contrast),
    ("Brain Perfusion JOG", Contrast),
    ("Surview", Localizer),
    ("DualSurview Scout", Localizer),
    ("Surview 180", Localizer),
    ("Dose Info", Derived),
    ("Dose Sheet", Derived),
    ("MIP COW", Derived),
    ("Volume Rendering", Derived),
    ("CPR left", Derived),
    ("BONE 1.0 YD", Bone),
    ("Inner ear 0.67", Bone),
    ("Hueso 1mm", Bone),
    ("LUNG 1.0 CHEST", Bone),
    ("Chest iDose 3mm", OtherBody),
    ("Lumbar spine", OtherBody),
];

const CANON: &[(&str, Verdict)] = &[
    ("Brain 5.0 AIDR 3D", Plain),
    ("Brain 5.0 AIDR3D Std", Plain),
    ("Head 0.5 CE", Contrast),
    ("HEAD LOW DOSE 5.0", Plain),
    ("Head Vol. 0.5 AIDR 3D MILD", Plain),
    ("Brain SUREExposure 5.0", Plain),
    ("AiCE Brain 1.0", Plain),
    ("FIRST Brain 0.5", Plain),
    ("Head Helical 5.0 FC26", Plain),
    ("BRAIN STROKE 5.0 FC68", Plain),
    ("HEAD DOSE REDUCED", Plain),
    ("DOSE REDUCED HEAD", Plain),
    ("Head 4D DSA", Contrast),
    ("Brain NC 5.0", Plain),
    ("SEMAR Brain 0.5", Plain),
    ("Head CTA 0.5", Contrast),
    ("CE Brain", Contrast),
    ("SureStart", Contrast),
    ("CBP Brain Perf 4D", Contrast),
    ("Arterial Phase 0.5", Contrast),
    ("Scano", Localizer),
    ("Scanogram AP", Localizer),
    ("DualScano", Localizer),
    ("CE(-) Brain 5.0", Plain),
    ("Brain 3D", Plain),
    ("Dose Summary", Derived),
    ("Exposure Summary", Derived),
    ("MPR 5.0 Sag", Derived),
    ("MinIP", Derived),
    ("Bone 0.5 FC30", Bone),
    ("Head 0.5 FC81", Bone),
    ("Lung 1.0 FC52", Bone),
    ("Neck 3.0", OtherBody),
    ("Shoulder 2.0", OtherBody),
];

const HITACHI_FUJI: &[(&str, Verdict)] = &[
    ("Head Normal 5mm", Plain),
    ("HEAD Intelli IP Lv3", Plain),
    ("Brain Volume 0.625", Plain),
    ("Head Standard 31", Plain),
    ("CEREBRUM 8mm", Plain),
    ("Base of skull 2.5mm", Plain),
    ("Head IPV Low Noise", Plain),
    ("predict Head", Plain),
    ("Head contrast(-)", Plain),
    ("Head plain", Plain),
    ("Head CE(+)", Contrast),
    ("Head Enhance", Contrast),
    ("CT Angio Head", Contrast),
    ("S-Scan Scanogram", Localizer),
    ("Scanogram", Localizer),
    ("Dose Report Page", Derived),
    ("3D Surface", Derived),
    ("Head Bone 1.25mm", Bone),
    ("Abdomen 5mm", OtherBody),
    ("Kidney 5mm", OtherBody),
];

const UNITED_IMAGING: &[(&str, Verdict)] = &[
    ("Head Axial 5.0mm Soft", Plain),
    ("Head 1.0mm KARL 3D", Plain),
    ("Brain KARL 5 B_SOFT_B", Plain),
    ("Head H_SOFT_B 5.00", Plain),
    ("Stroke Head Routine", Plain),
    ("Head Low-Dose KARL", Plain),
    ("Head uDose 5.0", Plain),
    ("Head Helical thin", Plain),
    ("Head CTA Arterial", Contrast),
    ("Head Enhanced 5.0", Contrast),
    ("Head Non-Enhanced 5.0", Plain),
    ("Perfusion_Head Tmax", Contrast),
    ("Bolus Tracking", Contrast),
    ("Scout", Localizer),
    ("Topogram_Lat", Localizer),
    ("Dose Report SR", Derived),
    ("Head VRT", Derived),
    ("Head Bone Sharp 1.0", Bone),
    ("Chest Routine 5.0", OtherBody),
    ("Coronary 75%", OtherBody),
];

const NEUSOFT_SAMSUNG: &[(&str, Verdict)] = &[
    ("Head Routine 5.0", Plain),
    ("HEAD ClearView 50%", Plain),
    ("Head spiral 5mm F20", Plain),
    ("Infant Head Low Dose", Plain),
    ("Head O-Dose 5.0", Plain),
    ("Brain Seq 8.0", Plain),
    ("BodyTom Head 5mm", Plain),
    ("NL Head Axial 5x1.25", Plain),
    ("Portable Brain Axial", Plain),
    ("Trauma Head 2.5", Plain),
    ("HeadAngio bolus", Contrast),
    ("Head with contrast 5mm", Contrast),
    ("CT Venography head", Contrast),
    ("Brain CBF", Contrast),
    ("Surview 0.6", Localizer),
    ("Scout AP", Localizer),
    ("Pilot", Localizer),
    ("Dose Record", Derived),
    ("Patient Dose", Derived),
    ("DOSE", Derived),
    ("SSD skull", Derived),
    ("Temporal Bone 0.6", Bone),
    ("Head Petrous 1.0", Bone),
    ("Pelvis 5mm", OtherBody),
    ("Knee 1mm", OtherBody),
];

/// Kazakhstan, Russia, Uzbekistan.
const SITES: &[(&str, Verdict)] = &[
    ("Голова 5.0", Plain),
    ("Головной мозг без контраста", Plain),
    ("КТ ГМ нативно", Plain),
    ("Череп 3.0 мягкотканный", Plain),
    ("ОГМ б/к", Plain),
    ("Инсульт нативная фаза", Plain),
    ("Голова низкодозовая", Plain),
    ("Голова 120 кВ 5 мм", Plain),
    ("Мозг без в/в контрастирования", Plain),
    ("Голова по топограмме", Plain),
    ("Мозг бесконтрастное", Plain),
    ("Контраст: нет, голова", Plain),
    ("Бас миы 5 мм", Plain),
    ("Бас миы контрастсыз", Plain),
    ("Бас сүйек 3.0", Plain),
    ("Ми контраст жоқ", Plain),
    ("Инсульт бас миы", Plain),
    ("Bosh miya 5 mm", Plain),
    ("Bosh miya kontrastsiz", Plain),
    ("Bosh miya kontrast yo‘q", Plain),
    ("Bosh suyagi 3 mm", Plain),
    ("Golova nativ", Plain),
    ("Golovnoy mozg bez kontrasta", Plain),
    ("Голова с контрастом", Contrast),
    ("Голова с КУ", Contrast),
    ("Головной мозг контрастирование", Contrast),
    ("КТ-ангиография сосудов головы", Contrast),
    ("Артериальная фаза", Contrast),
    ("Венозная фаза голова", Contrast),
    ("Перфузия головного мозга", Contrast),
    ("КТА брахиоцефальных", Contrast),
    ("Сосуды Виллизиева круга", Contrast),
    ("Болюс", Contrast),
    ("С+ голова", Contrast),
    ("Бас миы контрастпен", Contrast),
    ("Ми тамырлары ангиография", Contrast),
    ("Bosh miya kontrast bilan", Contrast),
    ("Bosh miya angiografiya", Contrast),
    ("Golova s kontrastom", Contrast),
    ("Топограмма", Localizer),
    ("Топограмма бок", Localizer),
    ("Сканограмма", Localizer),
    ("Обзорная топограмма", Localizer),
    ("Topogramma", Localizer),
    ("Отчет о дозе", Derived),
    ("Отчёт о дозе", Derived),
    ("Доза", Derived),
    ("МПР корональная", Derived),
    ("3D рендеринг черепа", Derived),
    ("Голова кость 1.0", Bone),
    ("Костное окно", Bone),
    ("Кости черепа 0.75", Bone),
    ("Сүйек терезесі", Bone),
    ("Suyak 1 mm", Bone),
    ("Грудная клетка", OtherBody),
    ("ОГК нативно", OtherBody),
    ("Легкие 1.5", OtherBody),
    ("Брюшная полость", OtherBody),
    ("Шейный отдел позвоночника", OtherBody),
    ("Малый таз", OtherBody),
    ("Кеуде қуысы", OtherBody),
    ("Өкпе 1.5 мм", OtherBody),
    ("Ko‘krak qafasi", OtherBody),
    ("Qorin bo'shlig'i", OtherBody),
    ("Umurtqa pog‘onasi", OtherBody),
];

const ALL: [(&str, &[(&str, Verdict)]); 8] = [
    ("GE", GE),
    ("Siemens", SIEMENS),
    ("Philips", PHILIPS),
    ("Canon", CANON),
    ("Hitachi and Fuji", HITACHI_FUJI),
    ("United Imaging", UNITED_IMAGING),
    ("Neusoft and Samsung", NEUSOFT_SAMSUNG),
    ("sites", SITES),
];

/// The verdict on a head series of which nothing but `description` speaks for or against it.
fn verdict(description: &str) -> Result<Verdict, Vec<ReasonCode>> {
    let mut instances = head_series(1, 30);
    for instance in &mut instances {
        instance.series.series_description = description.to_owned();
        instance.series.body_part = String::new();
        instance.series.kernel = String::new();
    }
    let candidates = candidates(&instances, &Limits::default()).list;
    let refusals = candidates[0].refusals.iter();
    let codes: Vec<ReasonCode> = refusals.map(|reason| reason.code).collect();
    match codes.first() {
        None => Ok(Plain),
        Some(ReasonCode::Contrast) => Ok(Contrast),
        Some(ReasonCode::Localizer) => Ok(Localizer),
        Some(ReasonCode::Derived) => Ok(Derived),
        // A lung kernel is as sharp as one for bone; either refuses.
        Some(ReasonCode::OtherBodyPart) if codes.contains(&ReasonCode::BoneKernel) => Ok(Bone),
        Some(ReasonCode::OtherBodyPart) => Ok(OtherBody),
        Some(ReasonCode::BoneKernel) => Ok(Bone),
        Some(_) => Err(codes),
    }
}

#[test]
fn every_description_gets_its_verdict() {
    let mut wrong = Vec::new();
    for (vendor, descriptions) in ALL {
        for (description, wanted) in descriptions {
            let found = verdict(description);
            if found != Ok(*wanted) {
                wrong.push(format!(
                    "{vendor}: {description:?} is {found:?}, not {wanted:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_more_than_two_hundred_and_each_stands_once() {
    let mut all: Vec<&str> = ALL
        .iter()
        .flat_map(|(_, descriptions)| descriptions.iter().map(|(text, _)| *text))
        .collect();
    assert!(all.len() >= 200, "{}", all.len());
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "some stand twice");
}
