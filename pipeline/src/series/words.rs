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
    "C+", "CE", "CECT", "CONTR", "CONT", "MDC", "MC", "KM", "PDC", "CIV", "INJ", "КУ",
];

/// Beginnings of such words.
const CONTRAST_STEMS: [&str; 8] = [
    "CONTRAST",
    "KONTRAST",
    "КОНТРАСТ",
    "ENHANCE",
    "INJECT",
    "INIEZ",
    "INYEC",
    "POSTCON",
];

/// Words for examinations that are never plain.
const VESSEL_WORDS: [&str; 12] = [
    "CTA", "CTV", "CTP", "CTAP", "TDMA", "PERF", "PCT", "PBV", "CBF", "CBV", "BOLUS", "КТА",
];

/// Beginnings of such words.
const VESSEL_STEMS: [&str; 14] = [
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
];

/// How many words a negation reaches over: `W/O INTRAVENOUS IODINATED CONTRAST`.
const NEGATION_REACH: usize = 3;

impl Words {
    /// Cuts `text` into words.
    pub(super) fn of(text: &str) -> Self {
        let upper = format!(" {} ", text.to_uppercase());
        let upper = upper.replace("W/O", " WO ").replace(" C- ", " NC ");
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
        match (is_contrast(word), negated) {
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
        "NC",
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
            "HEAD WITH AND WITHOUT CONTRAST CTA",
            "CT Kopf KM",
            "Venous phase",
            "Head W/ IV Contrast",
        ] {
            assert_eq!(contrast(text), ContrastWord::With, "{text}");
        }
    }

    #[test]
    fn negated_contrast_is_no_contrast() {
        for text in [
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
            "",
        ] {
            assert_eq!(contrast(text), ContrastWord::Silent, "{text}");
        }
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
