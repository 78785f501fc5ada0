//! Media types with parameters, as `Content-Type`, `Accept` and `Content-Disposition` write them
//! (RFC 9110 section 8.3.1, RFC 6266).

use std::collections::BTreeMap;

/// A value with parameters: `multipart/related; type="application/dicom"; boundary=x`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaType {
    /// What stands before the first semicolon, in lower case.
    pub essence: String,
    /// Parameters by lower-case name; the first of a name counts.
    pub parameters: BTreeMap<String, String>,
}

impl MediaType {
    /// Reads one header value; what cannot be read is left out.
    pub fn parse(text: &str) -> Self {
        let mut pieces = split_outside_quotes(text, ';').into_iter();
        let essence = pieces
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let mut parameters = BTreeMap::new();
        for (name, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            let name = name.trim().to_ascii_lowercase();
            parameters
                .entry(name)
                .or_insert_with(|| unquoted(value.trim()));
        }
        Self {
            essence,
            parameters,
        }
    }

    /// Reads a comma-separated list, such as `Accept`, best first by `q`; those with `q=0` are left out.
    pub fn parse_list(text: &str) -> Vec<Self> {
        let mut ranked: Vec<(f32, Self)> = split_outside_quotes(text, ',')
            .into_iter()
            .map(Self::parse)
            .map(|media| (media.quality(), media))
            .filter(|(quality, _)| *quality > 0.0)
            .collect();
        ranked.sort_by(|left, right| right.0.total_cmp(&left.0));
        ranked.into_iter().map(|(_, media)| media).collect()
    }

    /// The parameter `name`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    fn quality(&self) -> f32 {
        let quality = self
            .parameter("q")
            .and_then(|text| text.parse::<f32>().ok());
        quality.filter(|value| value.is_finite()).unwrap_or(1.0)
    }
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let separates = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        separates
    })
    .collect()
}

/// The text of a quoted string; only `\"` and `\\` are escapes, since some clients write Windows
/// paths unescaped.
fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(
        || value.to_owned(),
        |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_parameters_may_hold_separators() {
        let media = MediaType::parse(
            r#"Multipart/Related; Type="application/dicom"; boundary="a;b, \"c" ; x"#,
        );
        assert_eq!(media.essence, "multipart/related");
        assert_eq!(media.parameter("type"), Some("application/dicom"));
        assert_eq!(media.parameter("boundary"), Some(r#"a;b, "c"#));
        assert_eq!(media.parameters.len(), 2);
    }

    #[test]
    fn a_list_is_ordered_by_quality_and_leaves_out_what_is_refused() {
        let list = MediaType::parse_list("a/b;q=0.2, c/d, e/f;q=0, g/h;q=0.9");
        let essences: Vec<&str> = list.iter().map(|media| media.essence.as_str()).collect();
        assert_eq!(essences, ["c/d", "g/h", "a/b"]);
    }
}
