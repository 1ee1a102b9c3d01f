//! Values as text, for people.

use figment::value::Value;

/// The last parts of keys whose values are redacted.
const SECRET_KEYS: [&str; 3] = ["token", "password", "secret"];

/// Whether the value at a path must not be shown.
pub(super) fn is_secret(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|key| SECRET_KEYS.contains(&key))
}

/// A value as in a file.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Empty(..) => "(unset)".to_owned(),
        _ if is_secret(key) => "[redacted]".to_owned(),
        Value::Array(_, items) => {
            let items: Vec<_> = items.iter().map(|item| shown("", item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(..) => "{}".to_owned(),
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, char) => format!("{:?}", char.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, num) => {
            let whole = num.to_u128().map(|n| n.to_string()).or_else(|| num.to_i128().map(|n| n.to_string()));
            whole.or_else(|| num.to_f64().map(|n| n.to_string())).unwrap_or_default()
        }
    }
}
