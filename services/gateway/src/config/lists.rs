//! Lists, which variables give as text.

use serde::{Deserialize, Deserializer};

/// A list, or comma-separated text.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(list(deserializer)?.unwrap_or_default())
}

/// The same, if there is one.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    let split = |text: String| {
        text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    Ok(Option::<ListOrText>::deserialize(deserializer)?.map(|value| match value {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => split(text),
    }))
}
