//! Text of a header → characters, by what Specific Character Set (0008,0005) declares, or, where
//! the bytes cannot be that, by what they are.
//!
//! Scanners of the region write Russian in Windows-1251 and declare Latin-1, nothing, or a
//! misspelt word. In Latin-1 such text has words without one plain letter, which no language
//! written in Latin letters has; real Latin-1 names keep theirs.

use std::fmt;

use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use encoding_rs::{Encoding, IBM866, ISO_8859_5, KOI8_R, WINDOWS_1251};
use serde::{Deserialize, Serialize};

/// Encodings of Russian that are told apart; of equals the first is taken.
const CYRILLIC: [&Encoding; 4] = [WINDOWS_1251, ISO_8859_5, KOI8_R, IBM866];
/// What a letter of Russian text scores at least, on average: real text has about 1.4.
const CYRILLIC_SCORE_MIN: f64 = 0.6;
/// The ten most frequent letters of Russian, then those of the middle.
const FREQUENT: &str = "оеаинтсрвл";
const USUAL: &str = "кмдпуяыьгзбч";

/// How text is read whose character set is not declared, or is not what its bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FallbackCharset(Option<&'static Encoding>);

/// Why a text names no character set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no character set: write auto, or a name such as windows-1251, koi8-r or iso-8859-5"
)]
pub struct CharsetError(String);

impl TryFrom<String> for FallbackCharset {
    type Error = CharsetError;

    fn try_from(text: String) -> Result<Self, CharsetError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        match Declared::of_code(&text) {
            Declared::Named(encoding) => Ok(Self(Some(encoding))),
            Declared::Cyrillic => Ok(Self(Some(ISO_8859_5))),
            Declared::Latin1 => Ok(Self(Some(encoding_rs::WINDOWS_1252))),
            Declared::Nothing | Declared::Standard(_) => Err(CharsetError(text)),
        }
    }
}

impl From<FallbackCharset> for String {
    fn from(charset: FallbackCharset) -> Self {
        charset.to_string()
    }
}

impl fmt::Display for FallbackCharset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("auto"),
            Some(encoding) => formatter.write_str(&encoding.name().to_lowercase()),
        }
    }
}

/// What an object declares.
#[derive(Clone, Debug, PartialEq)]
enum Declared {
    /// Nothing, or a word that nobody knows.
    Nothing,
    /// ISO 8859-1.
    Latin1,
    /// ISO 8859-5.
    Cyrillic,
    /// Another set of the standard.
    Standard(SpecificCharacterSet),
    /// A set that the standard does not have.
    Named(&'static Encoding),
}

impl Declared {
    /// Of several sets (PS3.5 section 6.1.2.5) the first beyond ASCII names the one that the
    /// escapes switch to; its decoder knows the escapes.
    fn of_codes(codes: &[String]) -> Self {
        codes
            .iter()
            .map(|code| Self::of_code(code))
            .find(|declared| *declared != Self::Nothing)
            .unwrap_or(Self::Nothing)
    }

    /// By letters and digits alone: `ISO_IR 144`, `ISO-IR-144` and `ISO 2022 IR 144` are one.
    fn of_code(code: &str) -> Self {
        let bare: String = code
            .to_uppercase()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let number = ["ISO2022IR", "ISOIR"]
            .iter()
            .find_map(|prefix| bare.strip_prefix(prefix));
        let part = bare.strip_prefix("ISO8859").and_then(registration);
        match (number.or(part), bare.as_str()) {
            (Some("6"), _) | (None, "" | "ASCII") => Self::Nothing,
            (Some("100"), _) | (None, "LATIN1") => Self::Latin1,
            (Some("144"), _) => Self::Cyrillic,
            // dicom-encoding has no decoder for Latin-5.
            (Some("148"), _) => Self::named("iso-8859-9"),
            (Some("58"), _) => Self::named("gb2312"),
            (Some(number), _) => SpecificCharacterSet::from_code(&format!("ISO_IR {number}"))
                .map_or(Self::Nothing, Self::Standard),
            (None, "GB18030") => Self::named("gb18030"),
            (None, bare) => match bare.strip_prefix("WIN").or(bare.strip_prefix("CP")) {
                Some(page) => Self::named(&format!("windows-{}", page.trim_start_matches("DOWS"))),
                None => Self::named(code.trim()),
            },
        }
    }

    fn named(label: &str) -> Self {
        Encoding::for_label(label.as_bytes()).map_or(Self::Nothing, |encoding| {
            if encoding == ISO_8859_5 {
                Self::Cyrillic
            } else {
                Self::Named(encoding)
            }
        })
    }
}

/// The ISO-IR number of a part of ISO 8859.
fn registration(part: &str) -> Option<&'static str> {
    Some(match part {
        "1" => "100",
        "2" => "101",
        "3" => "109",
        "4" => "110",
        "5" => "144",
        "6" => "127",
        "7" => "126",
        "8" => "138",
        "9" => "148",
        _ => return None,
    })
}

/// Reads the texts of one object.
pub(super) struct TextReader {
    declared: Declared,
    fallback: FallbackCharset,
    /// What its texts are that are unlike Latin letters; `None` where they are nothing known.
    cyrillic: Option<&'static Encoding>,
}

impl TextReader {
    /// A reader for an object that declares `codes` and has the texts `values`.
    pub(super) fn new<'a>(
        codes: &[String],
        values: impl Iterator<Item = &'a [u8]>,
        fallback: FallbackCharset,
    ) -> Self {
        let declared = Declared::of_codes(codes);
        let unlike: Vec<&[u8]> = values
            .filter(|bytes| std::str::from_utf8(bytes).is_err())
            .filter(|bytes| LetterCount::of(bytes).is_unlike_latin())
            .collect();
        Self {
            cyrillic: cyrillic_of(&unlike.join(&b' '), &declared),
            declared,
            fallback,
        }
    }

    /// The text, without padding.
    pub(super) fn read(&self, bytes: &[u8]) -> String {
        without_escapes(&self.decode(bytes))
            .trim_matches(['\0', ' '])
            .to_owned()
    }

    fn decode(&self, bytes: &[u8]) -> String {
        if let Declared::Standard(set) = &self.declared
            && let Ok(text) = set.decode(bytes)
            && is_possible(&text, bytes)
        {
            return text;
        }
        // Text of other sets is hardly ever UTF-8 by chance: each letter beyond ASCII would have to
        // be followed by the right signs.
        if let Ok(text) = std::str::from_utf8(bytes) {
            return text.to_owned();
        }
        match self.single_byte(bytes) {
            Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            None => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }
    }

    /// How bytes that are neither a set of the standard nor UTF-8 are read; `None` for Latin-1.
    fn single_byte(&self, bytes: &[u8]) -> Option<&'static Encoding> {
        let latin = LetterCount::of(bytes).is_latin();
        match &self.declared {
            Declared::Named(encoding) => Some(encoding),
            Declared::Cyrillic => Some(self.cyrillic.unwrap_or(ISO_8859_5)),
            Declared::Nothing => self.fallback.0.or(self.cyrillic.filter(|_| !latin)),
            Declared::Latin1 | Declared::Standard(_) if latin => None,
            Declared::Latin1 | Declared::Standard(_) => {
                self.cyrillic.and(self.fallback.0).or(self.cyrillic)
            }
        }
    }
}

/// Whether `text`, which a decoder of the standard's sets made of `bytes`, can be meant: controls of
/// the upper half are in no text, and what it cannot decode that decoder writes as `\\ooo`.
fn is_possible(text: &str, bytes: &[u8]) -> bool {
    let controls = text.chars().any(|one| ('\u{80}'..='\u{9F}').contains(&one));
    let parts = bytes.split(|byte| *byte == b'\\').count();
    !controls && text.split('\\').count() <= parts
}

/// Letters of the words that have any beyond ASCII.
#[derive(Clone, Copy, Debug, Default)]
struct LetterCount {
    plain: usize,
    beyond: usize,
}

impl LetterCount {
    fn of(bytes: &[u8]) -> Self {
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || !byte.is_ascii();
        bytes
            .split(|byte| !is_letter(byte))
            .filter(|word| !word.is_ascii())
            .fold(Self::default(), |sum, word| {
                let plain = word.iter().filter(|byte| byte.is_ascii()).count();
                Self {
                    plain: sum.plain + plain,
                    beyond: sum.beyond + word.len() - plain,
                }
            })
    }

    /// Words such as `Müller` and `José`, or none at all.
    fn is_latin(self) -> bool {
        4 * self.plain > self.beyond || self.beyond == 0
    }

    /// Words with hardly a plain letter: no Latin-1, and enough to tell what it is.
    fn is_unlike_latin(self) -> bool {
        self.beyond >= 2 && !self.is_latin()
    }
}

/// Which encoding makes Russian of `bytes`, if one does. What is declared goes first.
fn cyrillic_of(bytes: &[u8], declared: &Declared) -> Option<&'static Encoding> {
    let letters = LetterCount::of(bytes).beyond;
    let declared = [ISO_8859_5]
        .into_iter()
        .filter(|_| *declared == Declared::Cyrillic);
    let mut best = None;
    let mut best_score = 0.0;
    for encoding in declared.chain(CYRILLIC) {
        let score = russian_score(&encoding.decode_without_bom_handling(bytes).0);
        if score > best_score {
            (best, best_score) = (Some(encoding), score);
        }
    }
    best.filter(|_| best_score >= CYRILLIC_SCORE_MIN * letters as f64)
}

/// How much `text` is like Russian: by the frequency of its letters, and because neither signs nor
/// capitals stand inside words.
fn russian_score(text: &str) -> f64 {
    let mut score = 0.0;
    let mut before = ' ';
    for character in text.chars() {
        score += letter_score(character);
        if before.is_lowercase() && character.is_uppercase() {
            score -= 3.0;
        }
        before = character;
    }
    score
}

fn letter_score(character: char) -> f64 {
    let small = character.to_lowercase().next().unwrap_or(character);
    match small {
        _ if small.is_ascii() => 0.0,
        _ if FREQUENT.contains(small) => 2.0,
        _ if USUAL.contains(small) => 1.0,
        'а'..='я' | 'ё' | 'і' | 'ї' | 'є' => 0.0,
        'ѐ'..='џ' => -1.0,
        _ => -3.0,
    }
}

/// Takes out ISO 2022 escape sequences that a single-byte decoder let through, and controls.
fn without_escapes(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1B}' {
            // Intermediate bytes 0x20–0x2F, then one final byte.
            let _final = characters.by_ref().find(|byte| !(' '..='/').contains(byte));
        } else if !character.is_control() || character == '\0' {
            clean.push(character);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader makes of `values` under `declared`.
    fn read_all(declared: &str, values: &[&[u8]]) -> Vec<String> {
        let codes: Vec<String> = declared.split('\\').map(str::to_owned).collect();
        let reader = TextReader::new(&codes, values.iter().copied(), FallbackCharset::default());
        values.iter().map(|value| reader.read(value)).collect()
    }

    fn encoded(encoding: &'static Encoding, text: &str) -> Vec<u8> {
        let (bytes, _, unmappable) = encoding.encode(text);
        assert!(!unmappable, "{text} in {}", encoding.name());
        bytes.into_owned()
    }

    const UNDECLARED: [&str; 7] = [
        "",
        "ISO_IR 6",
        "ISO_IR 100",
        "ISO_IR_100",
        "ISO 2022 IR 100",
        "ISO-8859-1",
        "RUSSIAN",
    ];

    #[test]
    fn russian_in_any_of_its_encodings_is_read_where_latin_1_or_nothing_is_declared() {
        let texts = [
            "Образцов^Пример",
            "ОБРАЗЦОВА^ЕЛЕНА^ИВАНОВНА",
            "Голова с контрастом",
            "голова без контраста 5 мм",
            "Областная клиническая больница №2",
            "КТ головного мозга",
            "Ли^Ян",
            "Щукин^Юрий",
        ];
        for declared in UNDECLARED {
            for encoding in [WINDOWS_1251, KOI8_R, IBM866, encoding_rs::UTF_8] {
                // The letter № is not in every one of them.
                let fits = |text: &&str| !encoding.encode(text).2;
                let texts: Vec<&str> = texts.iter().copied().filter(fits).collect();
                let bytes: Vec<_> = texts.iter().map(|text| encoded(encoding, text)).collect();
                let values: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
                let read = read_all(declared, &values);
                assert_eq!(read, texts, "{declared:?} {}", encoding.name());
            }
        }
    }

    #[test]
    fn one_russian_text_among_latin_ones_is_enough() {
        for text in [
            "Голова с контрастом",
            "ГОЛОВА",
            "голова",
            "Иванов^Иван",
            "Ким^Анна",
        ] {
            for encoding in [WINDOWS_1251, ISO_8859_5, KOI8_R] {
                let bytes = encoded(encoding, text);
                let read = read_all("ISO_IR 100", &[b"CT HEAD 5.0", &bytes, b"GE MEDICAL"]);
                assert_eq!(
                    read,
                    ["CT HEAD 5.0", text, "GE MEDICAL"],
                    "{}",
                    encoding.name()
                );
            }
        }
    }

    #[test]
    fn names_in_latin_letters_stay_as_they_are_declared() {
        for name in [
            "Müller^Jürgen",
            "Søren^Kierkegård",
            "José^Núñez",
            "Ñúñez^Íñigo",
            "Jäääär^Öö",
            "Schädel mit KM",
            "crâne avec injection",
            "Ängström^Åsa",
            "MÜLLER^JÖRG",
            "Éva^Ágnes",
            "5,0 mm² 90°",
            "Þór^Ægir",
            "à jeun",
            "Ø",
            "Île de la Cité",
        ] {
            let bytes: Vec<u8> = name
                .chars()
                .map(|c| u8::try_from(u32::from(c)).unwrap())
                .collect();
            for declared in [
                "",
                "ISO_IR 100",
                "ISO_IR_100",
                "ISO 2022 IR 100",
                "ISO-8859-1",
            ] {
                assert_eq!(read_all(declared, &[&bytes]), [name], "{declared:?}");
            }
        }
        let polish = encoded(encoding_rs::ISO_8859_2, "Łukasz^Żółć");
        assert_eq!(read_all("ISO_IR 101", &[&polish]), ["Łukasz^Żółć"]);
        let greek = encoded(encoding_rs::ISO_8859_7, "Παπαδόπουλος");
        assert_eq!(read_all("ISO_IR 126", &[&greek]), ["Παπαδόπουλος"]);
        let turkish = encoded(encoding_rs::WINDOWS_1254, "Işık^Ömer");
        assert_eq!(read_all("ISO_IR 148", &[&turkish]), ["Işık^Ömer"]);
    }

    #[test]
    fn a_cyrillic_declaration_is_understood_however_it_is_spelt_and_also_where_it_is_wrong() {
        for declared in [
            "ISO_IR 144",
            "ISO-IR 144",
            "ISO_IR_144",
            "ISO IR 144",
            "iso_ir 144",
            "ISO 2022 IR 144",
            "\\ISO 2022 IR 144",
            "ISO8859-5",
            "ISO_8859-5",
        ] {
            for text in [
                "Образцов^Пример",
                "Голова с контрастом",
                "ЦОЙ",
                "Эл^Яна",
                "Я",
            ] {
                let right = encoded(ISO_8859_5, text);
                assert_eq!(read_all(declared, &[&right]), [text], "{declared}");
            }
            let wrong = encoded(WINDOWS_1251, "Образцов^Пример");
            assert_eq!(
                read_all(declared, &[&wrong]),
                ["Образцов^Пример"],
                "{declared}"
            );
        }
        for declared in [
            "windows-1251",
            "WINDOWS-1251",
            "CP1251",
            "cp-1251",
            "Win1251",
            "WINDOWS_1251",
        ] {
            for text in ["Образцов^Пример", "Я", "Œ"] {
                let (bytes, _, unmappable) = WINDOWS_1251.encode(text);
                if !unmappable {
                    assert_eq!(read_all(declared, &[&bytes]), [text], "{declared}");
                }
            }
        }
        let koi8 = encoded(KOI8_R, "ёж");
        assert_eq!(read_all("KOI8-R", &[&koi8]), ["ёж"]);
    }

    #[test]
    fn a_set_of_the_standard_that_the_bytes_cannot_be_gives_way() {
        let utf8 = "Образцов".as_bytes();
        for declared in ["ISO_IR 100", "ISO_IR 144", "ISO_IR 101", "ISO_IR 127", ""] {
            assert_eq!(read_all(declared, &[utf8]), ["Образцов"], "{declared}");
        }
        let not_utf8 = encoded(WINDOWS_1251, "Образцов");
        assert_eq!(read_all("ISO_IR 192", &[&not_utf8]), ["Образцов"]);
    }

    #[test]
    fn the_setting_decides_where_nothing_is_declared() {
        let charset = FallbackCharset::try_from("windows-1251".to_owned()).unwrap();
        let bytes = encoded(WINDOWS_1251, "Я");
        let reader = TextReader::new(&[], [bytes.as_slice()].into_iter(), charset);
        assert_eq!(reader.read(&bytes), "Я");
        let latin = ["ISO_IR 100".to_owned()];
        let reader = TextReader::new(&latin, [&b"M\xFCller"[..]].into_iter(), charset);
        assert_eq!(reader.read(b"M\xFCller"), "Müller");
    }

    #[test]
    fn a_setting_is_written_as_it_is_read_and_a_wrong_one_is_refused_with_the_right_ones() {
        for name in ["auto", "windows-1251", "koi8-r", "iso-8859-5", "utf-8"] {
            let charset = FallbackCharset::try_from(name.to_owned()).unwrap();
            assert_eq!(String::from(charset), name);
        }
        assert_eq!(
            FallbackCharset::try_from("CP1251".to_owned()),
            FallbackCharset::try_from("windows-1251".to_owned())
        );
        for name in ["", "cyrillic please", "ISO_IR 6"] {
            let error = FallbackCharset::try_from(name.to_owned()).unwrap_err();
            assert!(error.to_string().contains("windows-1251"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_and_no_declaration_make_it_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            declared in "[A-Z0-9_ \\\\-]{0,20}",
        ) {
            drop(read_all(&declared, &[&bytes]));
        }

        #[test]
        fn plain_text_is_read_as_it_stands(text in "[!-~]{0,40}") {
            proptest::prop_assert_eq!(read_all("ISO_IR 100", &[text.as_bytes()]), [text]);
        }
    }
}
