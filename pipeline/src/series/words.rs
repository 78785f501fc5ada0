//! What a series' free text says, in the languages of the hospitals it comes from.
//!
//! Text is cut into words first, so that `INSTANCE` holds no `CTA` and `POSTERIOR` no `POST`.

/// Text as upper-case words of letters, digits and `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(Vec<String>);

/// What a text says of contrast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContrastWord {
    /// Contrast was given.
    With,
    /// It was not.
    Without,
    /// Nothing.
    Silent,
}

/// Words that negate a word for contrast shortly after them: English, German, French, Spanish,
/// Italian, Portuguese, Dutch, Scandinavian, Polish, Czech, Russian.
const NEGATIONS: [&str; 25] = [
    "WO", "WITHOUT", "NON", "NO", "NOT", "NONE", "OHNE", "KEIN", "SANS", "SIN", "SENZA", "SEM",
    "ZONDER", "GEEN", "UTAN", "UDEN", "UTEN", "ILMAN", "BEZ", "БЕЗ", "НЕ", "НЕТ", "FARA", "FĂRĂ",
    "PRE",
];

/// Words that negate the very next word only: `before and after contrast` is with it.
const BEFORE: [&str; 2] = ["BEFORE", "ДО"];

/// Words that negate the word for contrast just before them: `CONTRAST: NONE`, `контраст жоқ`.
const NEGATIONS_AFTER: [&str; 11] = [
    "NONE", "NO", "NOT", "NIL", "OFF", "НЕТ", "НЕ", "ЖОҚ", "ЖОК", "YOQ", "EMAS",
];

/// Words that say by themselves that there is no contrast.
const PLAIN_WORDS: [&str; 14] = [
    "NCCT",
    "NECT",
    "NC",
    "NCE",
    "UNENHANCED",
    "NATIVE",
    "NATIV",
    "NATIVO",
    "NATIVNI",
    "NATYWNE",
    "NATIVA",
    "PLAIN",
    "BASAL",
    "NCHCT",
];

/// Beginnings of such words.
const PLAIN_STEMS: [&str; 6] = [
    "NONCON",
    "NATIVN",
    "НАТИВ",
    "БЕСКОНТРАСТ",
    "KONTRASTSIZ",
    "КОНТРАСТСЫЗ",
];

/// Words for contrast that a negation before them turns round.
const CONTRAST_WORDS: [&str; 12] = [
    "C+", "+C", "С+", "+С", "CE", "CECT", "CONTR", "MDC", "KM", "PDC", "CIV", "КУ",
];

/// Words that may mean contrast, and as often something else: `CONT` is also *continuous*, `INJ`
/// *injury*, `MC` *motion correction*, `POST` *posterior*. Alone they prove nothing.
const DOUBTFUL_CONTRAST_WORDS: [&str; 8] = [
    "CONT", "INJ", "MC", "POST", "DELAY", "DELAYED", "ART", "VEN",
];

/// Beginnings of such words.
const CONTRAST_STEMS: [&str; 10] = [
    "CONTRAST",
    "KONTRAST",
    "POSTKONTRAST",
    "КОНТРАСТ",
    "ПОСТКОНТРАСТ",
    "ENHANCE",
    "INJECT",
    "INIEZ",
    "INYEC",
    "POSTCON",
];

/// Words for examinations that are never plain.
const VESSEL_WORDS: [&str; 22] = [
    "DSA",
    "VPCT",
    "CTA",
    "CTV",
    "CTP",
    "CTAP",
    "TDMA",
    "PERF",
    "PCT",
    "PBV",
    "CBF",
    "CBV",
    "BOLUS",
    "КТА",
    "КТП",
    "MTT",
    "TTP",
    "TMAX",
    "PREMONITORING",
    "TRACKER",
    "SURESTART",
    "WILLIS",
];

/// Beginnings of such words.
const VESSEL_STEMS: [&str; 20] = [
    "VENOGRA",
    "ANGIO",
    "АНГИО",
    "PERFUS",
    "PERFUZ",
    "ПЕРФУЗ",
    "ARTERIA",
    "ARTERIE",
    "ARTERIO",
    "АРТЕРИАЛ",
    "VENOUS",
    "VENOS",
    "VENEUS",
    "ВЕНОЗН",
    "SMARTPREP",
    "БОЛЮС",
    "TESTBOLUS",
    "СОСУД",
    "ТАМЫР",
    "ВИЛЛИЗ",
];

/// Parts of such words, wherever they stand: `HeadAngio`, `CarotisAngio`.
const VESSEL_PARTS: [&str; 4] = ["ANGIO", "АНГИО", "PERFUSION", "ПЕРФУЗИ"];

/// Words for a localiser.
const LOCALIZER_WORDS: [&str; 10] = [
    "DUALSCANO",
    "SCOUT",
    "SCOUTS",
    "SCOUTVIEW",
    "SURVIEW",
    "SCANO",
    "TOPO",
    "PILOT",
    "SCANOGRAPHY",
    "DUALSCOUT",
];

/// Beginnings of such words.
const LOCALIZER_STEMS: [&str; 8] = [
    "LOCALIZER",
    "LOCALISER",
    "TOPOGRAM",
    "SCANOGRAM",
    "ТОПОГРАМ",
    "СКАНОГРАМ",
    "СКАУТ",
    "ЛОКАЛАЙЗЕР",
];

/// Words beside one for a localiser that make it what the slices were planned by.
const BY_LOCALIZER_AFTER: [&str; 8] = [
    "ALIGNED",
    "ALIGN",
    "ALIGNMENT",
    "BASED",
    "MATCHED",
    "PLANNED",
    "REF",
    "REFERENCED",
];
const BY_LOCALIZER_BEFORE: [&str; 8] = ["NO", "WITHOUT", "WO", "FROM", "TO", "BY", "БЕЗ", "ПО"];

/// Words for what is computed from slices, or pictured from them.
const DERIVED_WORDS: [&str; 19] = [
    "MPR",
    "MPRS",
    "MIP",
    "MIPS",
    "MINIP",
    "TMIP",
    "VRT",
    "SSD",
    "CPR",
    "REFORMAT",
    "REFORMATS",
    "REFORMATTED",
    "SCREENSAVE",
    "SCREENSHOT",
    "SUBTRACTION",
    "SUBTRACTED",
    "SUMMARY",
    "МПР",
    "РЕФОРМАТ",
];

/// Beginnings of such words.
const DERIVED_STEMS: [&str; 3] = ["RENDER", "SCREENSAV", "РЕНДЕР"];

/// Words that say with `DOSE` that it is a page about dose, and no slices.
const DOSE_PAGE_WORDS: [&str; 17] = [
    "REPORT",
    "INFO",
    "INFORMATION",
    "PAGE",
    "SHEET",
    "RECORD",
    "SUMMARY",
    "SR",
    "RDSR",
    "DLP",
    "CTDI",
    "CTDIVOL",
    "STRUCTURED",
    "TABLE",
    "LOG",
    "ОТЧЕТ",
    "ПРОТОКОЛ",
];

/// Words that leave `DOSE` the matter itself: `PATIENT DOSE`, `DOSE 999`.
const DOSE_COMPANIONS: [&str; 10] = [
    "DOSE",
    "PATIENT",
    "TOTAL",
    "EXAM",
    "SCAN",
    "CT",
    "RADIATION",
    "XRAY",
    "ДОЗА",
    "ДОЗЫ",
];

/// How many words a negation reaches over: `W/O INTRAVENOUS IODINATED CONTRAST`.
const NEGATION_REACH: usize = 3;

impl Words {
    /// Cuts `text` into words.
    pub(super) fn of(text: &str) -> Self {
        let upper = format!(" {} ", text.to_uppercase());
        // Uzbek writes `ko‘krak` with any of these signs; Russian writes `ё` or not.
        let upper: String = upper
            .chars()
            .filter(|character| !matches!(character, '\'' | '`' | '‘' | '’' | 'ʻ' | 'ʼ'))
            .map(|character| if character == 'Ё' { 'Е' } else { character })
            .collect();
        let upper = upper
            .replace("W/O", " WO ")
            .replace("(-)", " NONE ")
            .replace(" C- ", " NC ")
            .replace(" С- ", " NC ");
        Self(
            upper
                .split(|character: char| !character.is_alphanumeric() && character != '+')
                .filter(|word| !word.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
        )
    }

    /// Whether one of `words` is among them.
    pub(super) fn any(&self, words: &[&str]) -> bool {
        self.0.iter().any(|word| words.contains(&word.as_str()))
    }

    /// Whether a word begins with one of `stems`.
    pub(super) fn any_stem(&self, stems: &[&str]) -> bool {
        self.0.iter().any(|word| begins(word, stems))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words themselves.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether it is called a localiser; not where slices are only aligned to one.
    pub(super) fn names_localizer(&self) -> bool {
        self.0.iter().enumerate().any(|(index, word)| {
            let named = LOCALIZER_WORDS.contains(&word.as_str()) || begins(word, &LOCALIZER_STEMS);
            named
                && !self.is_any(index.checked_add(1), &BY_LOCALIZER_AFTER)
                && !self.is_any(index.checked_sub(1), &BY_LOCALIZER_BEFORE)
        })
    }

    /// Whether it is called something computed from slices, or a page about dose.
    ///
    /// `3D` alone is no such word: `AIDR 3D` is a way of reconstruction, and thin slices are named
    /// after what they are meant for.
    pub(super) fn names_derived(&self) -> bool {
        let screen_save = self
            .0
            .windows(2)
            .any(|pair| pair[0] == "SCREEN" && ["SAVE", "SHOT", "CAPTURE"].contains(&&*pair[1]));
        let volume_rendered = self.any(&["3D"]) && self.any(&["VR", "SURFACE", "COLOR", "COLOUR"]);
        self.any(&DERIVED_WORDS)
            || self.any_stem(&DERIVED_STEMS)
            || screen_save
            || volume_rendered
            || self.names_dose_page()
    }

    /// A page about dose; not `LOW DOSE`, `i-Dose` or `DOSE REDUCED`, which are ways to scan.
    fn names_dose_page(&self) -> bool {
        let of_dose = self.any(&["DOSE", "ДОЗА", "ДОЗЫ", "ДОЗЕ"]);
        let nothing_else = || {
            self.iter().all(|word| {
                DOSE_COMPANIONS.contains(&word) || word.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        of_dose && (self.any(&DOSE_PAGE_WORDS) || nothing_else())
            || self.any(&["DOSEREPORT", "DOSEINFO", "RDSR"])
    }

    /// Whether a word may mean contrast, but proves none.
    pub(super) fn may_mean_contrast(&self) -> bool {
        self.any(&DOUBTFUL_CONTRAST_WORDS)
    }

    fn is_any(&self, index: Option<usize>, words: &[&str]) -> bool {
        index
            .and_then(|index| self.0.get(index))
            .is_some_and(|word| words.contains(&word.as_str()))
    }

    /// Whether the word for contrast at `index` is denied by what follows it: `CONTRAST: NONE`, but
    /// not `CONTRAST NO 2`.
    fn denied_after(&self, index: usize) -> bool {
        let is_number = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
        self.is_any(index.checked_add(1), &NEGATIONS_AFTER)
            && !self.0.get(index + 2).is_some_and(is_number)
    }

    /// What the text says of contrast.
    pub(super) fn contrast(&self) -> ContrastWord {
        let mut found = ContrastWord::Silent;
        for (index, word) in self.0.iter().enumerate() {
            match self.contrast_at(index, word) {
                ContrastWord::With => return ContrastWord::With,
                ContrastWord::Without => found = ContrastWord::Without,
                ContrastWord::Silent => {}
            }
        }
        found
    }

    fn contrast_at(&self, index: usize, word: &str) -> ContrastWord {
        if PLAIN_WORDS.contains(&word) || begins(word, &PLAIN_STEMS) {
            return ContrastWord::Without;
        }
        let negated = self.0[index.saturating_sub(NEGATION_REACH)..index]
            .iter()
            .rev()
            .take_while(|before| !is_contrast(before))
            .any(|before| NEGATIONS.contains(&before.as_str()));
        let just_before = index.checked_sub(1).and_then(|before| self.0.get(before));
        let negated = negated || just_before.is_some_and(|word| BEFORE.contains(&word.as_str()));
        match (is_contrast(word), negated || self.denied_after(index)) {
            (true, false) => ContrastWord::With,
            (true, true) => ContrastWord::Without,
            // `HEAD W/O` leaves the rest unsaid.
            (false, _) if matches!(word, "WO" | "WITHOUT") => ContrastWord::Without,
            (false, _) => ContrastWord::Silent,
        }
    }
}

/// Whether `word` names contrast, or an examination that needs it.
fn is_contrast(word: &str) -> bool {
    CONTRAST_WORDS.contains(&word)
        || VESSEL_WORDS.contains(&word)
        || begins(word, &CONTRAST_STEMS)
        || begins(word, &VESSEL_STEMS)
        || VESSEL_PARTS.iter().any(|part| word.contains(part))
}

fn begins(word: &str, stems: &[&str]) -> bool {
    stems.iter().any(|stem| word.starts_with(stem))
}

/// Whether the value of Contrast/Bolus Agent (0018,0010) names an agent: many scanners write
/// `NONE` or `W/O` where the standard wants the attribute left out.
pub(super) fn names_an_agent(agent: &str) -> bool {
    let words = Words::of(agent);
    let denials = [
        "NONE", "NO", "NON", "WO", "WITHOUT", "N", "NA", "NIL", "NULL", "NEIN", "НЕТ", "БЕЗ", "0",
        "NC", "OHNE", "KEIN",
    ];
    !words.is_empty() && !words.any(&denials) && words.contrast() != ContrastWord::Without
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(text: &str) -> ContrastWord {
        Words::of(text).contrast()
    }

    #[test]
    fn words_for_contrast_are_known_in_several_languages() {
        for text in [
            "CTA HEAD",
            "CT ANGIO",
            "Angiographie",
            "HEAD C+",
            "AX POST CONTRAST",
            "Perfusion 5.0",
            "CT_CTA_0.75",
            "Schädel mit KM",
            "crâne avec injection",
            "con contraste",
            "con mdc",
            "с контрастом",
            "Артериальная фаза",
            "КТ-ангиография",
            "перфузия мозга",
            "W CONTRAST",
            "контрастпен",
            "kontrast bilan",
            "сосуды головы",
            "CONTRAST NO 2",
            "HEAD WITH AND WITHOUT CONTRAST CTA",
            "CT Kopf KM",
            "Venous phase",
            "Head W/ IV Contrast",
            "Постконтраст",
            "до и после контраста",
            "before and after contrast",
        ] {
            assert_eq!(contrast(text), ContrastWord::With, "{text}");
        }
    }

    #[test]
    fn negated_contrast_is_no_contrast() {
        for text in [
            "до контраста",
            "Head before CTA",
            "HEAD W/O CONTRAST",
            "W/O",
            "NON CONTRAST",
            "NON-CONTRAST HEAD",
            "NONCONTRAST",
            "without IV contrast",
            "CT HEAD WO CONTRAST",
            "Kopf ohne KM",
            "Schädel nativ",
            "sans injection",
            "sin contraste",
            "senza mdc",
            "sem contraste",
            "без контраста",
            "без внутривенного контрастирования",
            "нативная фаза",
            "NCCT",
            "HEAD C-",
            "NO CONTRAST",
            "NON ENHANCED",
            "unenhanced",
            "bez kontrastu",
            "zonder contrast",
            "PRE CONTRAST",
            "бесконтрастная",
            "CONTRAST: NONE",
            "контраст: нет",
            "контраст жоқ",
            "контрастсыз",
            "kontrast yo‘q",
            "kontrastsiz",
        ] {
            assert_eq!(contrast(text), ContrastWord::Without, "{text}");
        }
    }

    #[test]
    fn words_inside_other_words_say_nothing() {
        for text in [
            "INSTANCE",
            "OCTAVE",
            "POST FOSSA",
            "POSTERIOR FOSSA",
            "AX THIN BRAIN",
            "Head 5.0 H31s",
            "SUPERFICIAL",
            "RECONSTRUCTED",
            "голова",
            "SPIRAL HEAD",
            "STROKE",
            "CONT",
            "HEAD CONT 5.0",
            "HEAD INJ",
            "Brain MC",
            "",
        ] {
            assert_eq!(contrast(text), ContrastWord::Silent, "{text}");
        }
    }

    #[test]
    fn a_doubtful_word_is_noticed_and_proves_nothing() {
        for text in ["HEAD CONT 5.0", "HEAD INJ", "Brain MC", "POST FOSSA"] {
            assert!(Words::of(text).may_mean_contrast(), "{text}");
            assert_eq!(contrast(text), ContrastWord::Silent, "{text}");
        }
        assert!(!Words::of("CONTINUOUS INJURY").may_mean_contrast());
    }

    #[test]
    fn an_agent_that_is_a_denial_is_none() {
        for agent in [
            "",
            "NONE",
            "None",
            "NO",
            "W/O",
            "without",
            "NO CONTRAST",
            "нет",
            "N/A",
            "без контраста",
        ] {
            assert!(!names_an_agent(agent), "{agent}");
        }
        for agent in [
            "OMNIPAQUE 350",
            "IV",
            "Ultravist",
            "APPLIED",
            "CE",
            "Йогексол",
            "CONTRAST",
        ] {
            assert!(names_an_agent(agent), "{agent}");
        }
    }
}
