//! Values of the wrong kind, in a user's words: before the types are filled, whose own messages
//! speak of structs and integers.

use serde_json::Value;

/// The first value of `given` that cannot be what its default in `known` is: its setting, and what
/// is wrong with it.
pub(super) fn misfit(given: &Value, known: &Value) -> Option<(String, String)> {
    misfit_below(given, known, "")
}

fn misfit_below(given: &Value, known: &Value, path: &str) -> Option<(String, String)> {
    let found = |problem: String| Some((path.to_owned(), problem));
    match (known, given) {
        _ if path == "log.format" => {
            let forms = ["auto", "human", "json"];
            let is_known = given.as_str().is_some_and(|text| forms.contains(&text));
            (!is_known).then(|| {
                let problem = format!("is {given}; {} is possible", forms.join(", "));
                (path.to_owned(), problem)
            })
        }
        // Has no default, so nothing tells that it is a number.
        _ if path == "model.workers" => found(number_problem(false, given)?),
        // A table with free keys: quiet times by sender.
        (Value::Object(known), Value::Object(given)) if known.is_empty() => {
            given.iter().find_map(|(key, value)| {
                let problem = number_problem(true, value)?;
                Some((super::join(path, key), problem))
            })
        }
        (Value::Object(known), Value::Object(given)) => given.iter().find_map(|(key, value)| {
            let known = known.get(key)?;
            misfit_below(value, known, &super::join(path, key))
        }),
        (Value::Object(_), other) => {
            let section = path.rsplit('.').next().unwrap_or_default();
            found(format!(
                "is {other}; it is a section, with its settings below the line [{section}]"
            ))
        }
        (Value::Array(items), given) if items.iter().any(Value::is_object) => senders(given, path),
        (Value::Array(_), Value::Array(items)) => match items.iter().find(|item| !item.is_string())
        {
            Some(item) => found(format!(
                "holds {item}; it is a list of words, each in quotes"
            )),
            None => None,
        },
        (Value::Array(_), other) => found(format!(
            "is {other}; it is a list of words, such as [\"one\", \"two\"]"
        )),
        (Value::Bool(_), other) if !is_truth(other) => {
            found(format!("is {other}; true or false is possible"))
        }
        (Value::Number(number), other) => {
            let problem = number_problem(number.is_f64(), other)?;
            found(problem)
        }
        (Value::String(_), Value::Object(_) | Value::Array(_) | Value::Null) => {
            found(format!("is {given}; it is one text, in quotes"))
        }
        (Value::Bool(_) | Value::String(_) | Value::Null, _) => None,
    }
}

/// From the environment everything comes as text.
fn is_truth(value: &Value) -> bool {
    value.is_boolean()
        || value
            .as_str()
            .is_some_and(|text| text.parse::<bool>().is_ok())
}

fn number_problem(may_be_broken: bool, value: &Value) -> Option<String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let whole = |number: f64| number >= 0.0 && number.fract().abs() < f64::EPSILON;
    match number {
        Some(_) if may_be_broken => None,
        Some(number) if whole(number) => None,
        _ if may_be_broken => Some(format!("is {value}; a number is possible")),
        _ => Some(format!(
            "is {value}; a whole number, 0 or more, is possible"
        )),
    }
}

/// `dicom.allow`: the one list of tables.
fn senders(given: &Value, path: &str) -> Option<(String, String)> {
    const HOW: &str = "write for each sender\n\n    [[dicom.allow]]\n    ae_title = \"CT1\"     \
                       # or \"*\" for any\n    address = \"10.1.2.3\"  # or a block of them, such \
                       as \"10.1.0.0/16\"\n";
    let problem = match given {
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            sender_problem(item).map(|problem| format!("entry {} {problem}; {HOW}", index + 1))
        }),
        other => Some(format!("is {other}; {HOW}")),
    };
    problem.map(|problem| (path.to_owned(), problem))
}

fn sender_problem(item: &Value) -> Option<String> {
    let Value::Object(fields) = item else {
        return Some(format!("is {item}"));
    };
    let known = ["ae_title", "address"];
    if let Some(missing) = known.iter().find(|name| !fields.contains_key(**name)) {
        return Some(format!("has no {missing}"));
    }
    if let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Some(format!("has {unknown}, which is not a setting"));
    }
    let address = fields.get("address").and_then(Value::as_str);
    let Some(address) = address else {
        return Some("has an address that is no text".to_owned());
    };
    let range = address.parse::<crate::scp::AddressRange>();
    range.err().map(|error| format!("has the address {error}"))
}
