//! Convolution Kernel (0018,1210) → soft, sharp, or not known. The makers share no naming.

use super::words::Words;

/// How sharp a reconstruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sharpness {
    /// Made for brain and other soft tissue.
    Soft,
    /// A name that is not known, or one between soft and sharp.
    Unknown,
    /// Made for bone, ear or lung: too noisy for brain.
    Sharp,
}

/// GE, United Imaging, Hitachi and plain words.
const SOFT_WORDS: [&str; 12] = [
    "STANDARD", "STAND", "STD", "STD+", "SOFT", "SOFT+", "SMOOTH", "BRAIN", "NEURO", "CEREBRUM",
    "HEAD", "UA",
];
const SHARP_WORDS: [&str; 17] = [
    "BONE", "BONEPLUS", "BONE+", "EDGE", "EDGE+", "LUNG", "DETAIL", "SHARP", "VSHARP", "ULTRA",
    "EAR", "PETROUS", "KNOCHEN", "HUESO", "OSSO", "OSSEUX", "BOT",
];
const SHARP_STEMS: [&str; 5] = ["КОСТ", "BONEPL", "KOST", "HIRES", "LUNGE"];

/// What a description says of bone. Shorter than the kernels' own list: there `ULTRA` is a sharp
/// kernel, in a description it is a low dose.
const SHARP_DESCRIPTION_WORDS: [&str; 16] = [
    "BONE", "BONES", "BONEPLUS", "BONE+", "EDGE", "LUNG", "SHARP", "EAR", "PETROUS", "KNOCHEN",
    "HUESO", "OSSO", "OSSEUX", "OSSEUSE", "BOT", "BN",
];
/// Bone in Uzbek and Kazakh; behind the word for head it is the skull.
const BONE_UNLESS_SKULL: [&str; 4] = ["SUYAK", "СҮЙЕК", "СУЙЕК", "СУЯК"];
const HEAD_BEFORE_BONE: [&str; 2] = ["BOSH", "БАС"];

/// Philips letters; `EB`, `EC`, `YD`, `YE` and the bare `D`, `E`, `L` are edge-enhancing.
const PHILIPS_SOFT: [&str; 7] = ["UA", "UB", "UC", "A", "B", "YA", "YB"];
const PHILIPS_SHARP: [&str; 8] = ["D", "E", "L", "EB", "EC", "YD", "YE", "YC"];

/// How sharp `kernel` is; `description` is asked where the kernel's name says nothing.
pub(super) fn sharpness(kernel: &str, description: &str) -> Sharpness {
    // Later values are strengths of an iterative reconstruction, such as Siemens' `Hr40h\3`.
    let name = kernel
        .split('\\')
        .next()
        .unwrap_or_default()
        .trim()
        .to_uppercase();
    let by_name = by_name(&name);
    if by_name == Sharpness::Unknown {
        return by_description(&Words::of(description));
    }
    by_name
}

/// Bone by its words, or the name of a kernel among them, such as `Head 1.0 H60s`.
fn by_description(words: &Words) -> Sharpness {
    let mut before = "";
    let mut says_bone = words.any(&SHARP_DESCRIPTION_WORDS) || words.any_stem(&SHARP_STEMS);
    let mut named = Sharpness::Unknown;
    for word in words.iter() {
        says_bone |= BONE_UNLESS_SKULL.contains(&word) && !HEAD_BEFORE_BONE.contains(&before);
        if named == Sharpness::Unknown {
            named = kernel_within(word);
        }
        before = word;
    }
    if says_bone { Sharpness::Sharp } else { named }
}

/// Letters of Siemens' kernels; others before two digits are too often something else.
const KERNEL_LETTERS: [&str; 14] = [
    "H", "HR", "HV", "HF", "HC", "B", "BR", "BV", "BF", "J", "Q", "QR", "U", "UR",
];

fn kernel_within(word: &str) -> Sharpness {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    match letters_and_number(word) {
        Some(("FC", number)) if digits == 2 => toshiba(number),
        Some((letters, number)) if digits == 2 && KERNEL_LETTERS.contains(&letters) => {
            siemens(number)
        }
        Some(_) | None => Sharpness::Unknown,
    }
}

fn by_name(name: &str) -> Sharpness {
    let words = Words::of(name);
    if words.any(&SHARP_WORDS) || words.any_stem(&SHARP_STEMS) || PHILIPS_SHARP.contains(&name) {
        return Sharpness::Sharp;
    }
    if words.any(&SOFT_WORDS) || PHILIPS_SOFT.contains(&name) {
        return Sharpness::Soft;
    }
    match letters_and_number(name) {
        Some(("FC", number)) => toshiba(number),
        Some((letters, number)) if letters.len() <= 2 => siemens(number),
        Some(_) | None => Sharpness::Unknown,
    }
}

/// Canon and Toshiba: the tens name the purpose.
fn toshiba(number: u32) -> Sharpness {
    match number / 10 {
        2 | 4 | 6 => Sharpness::Soft,
        3 | 5 | 8 => Sharpness::Sharp,
        _ => Sharpness::Unknown,
    }
}

/// Siemens: letters for the body part and method, then a number that grows with sharpness.
fn siemens(number: u32) -> Sharpness {
    match number {
        10..50 => Sharpness::Soft,
        60..100 => Sharpness::Sharp,
        _ => Sharpness::Unknown,
    }
}

/// `H31S` → (`H`, 31); `FC26` → (`FC`, 26).
fn letters_and_number(name: &str) -> Option<(&str, u32)> {
    let digits = name.find(|character: char| character.is_ascii_digit())?;
    let (letters, rest) = name.split_at(digits);
    let end = rest
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(rest.len());
    let number = rest[..end].parse().ok()?;
    (!letters.is_empty() && letters.bytes().all(|letter| letter.is_ascii_uppercase()))
        .then_some((letters, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_names_are_known() {
        for kernel in [
            "STANDARD", "SOFT", "STD+", "H31s", "H40f", "Hr38h\\3", "Hr40", "J40s\\2", "B30f",
            "Qr40", "UA", "UB", "UC", "FC21", "FC26", "FC68", "H_SOFT_B", "Br40d",
        ] {
            assert_eq!(sharpness(kernel, ""), Sharpness::Soft, "{kernel}");
        }
        for kernel in [
            "BONE",
            "BONEPLUS",
            "EDGE",
            "LUNG",
            "DETAIL",
            "H60s",
            "H70h",
            "Hr64",
            "B70f",
            "J70h\\3",
            "YD",
            "EB",
            "D",
            "E",
            "FC30",
            "FC35",
            "FC81",
            "B_SHARP_C",
        ] {
            assert_eq!(sharpness(kernel, ""), Sharpness::Sharp, "{kernel}");
        }
        for kernel in ["", "X", "H50s", "FC13", "CUSTOM7", "123", "ÄÖ"] {
            assert_eq!(sharpness(kernel, ""), Sharpness::Unknown, "{kernel}");
        }
    }

    #[test]
    fn a_description_speaks_only_where_the_kernel_does_not() {
        assert_eq!(sharpness("", "AX BONE 2.5"), Sharpness::Sharp);
        assert_eq!(sharpness("", "Кость"), Sharpness::Sharp);
        assert_eq!(sharpness("H31s", "BONE WINDOW"), Sharpness::Soft);
        assert_eq!(sharpness("", "BONEY"), Sharpness::Unknown);
        assert_eq!(sharpness("", "Head 1.0 H60s"), Sharpness::Sharp);
        assert_eq!(sharpness("", "Head 5.0 Hr38"), Sharpness::Soft);
        assert_eq!(sharpness("", "HEAD ULTRA LOW DOSE"), Sharpness::Unknown);
        assert_eq!(sharpness("", "бас сүйек"), Sharpness::Unknown);
        assert_eq!(sharpness("", "сүйек терезесі"), Sharpness::Sharp);
    }
}
