use hubspoke_protocol::ReasonKind;

#[test]
fn the_page_has_the_same_words_for_reasons_as_the_log_and_the_command_line() {
    let script = include_str!("../../page/events.js");
    let table = script.split_once("const WORDS = {").unwrap().1.split_once("};").unwrap().0;
    let mut kinds = 0;
    for (kind, words) in table.lines().filter_map(|line| line.split_once(": ")) {
        let kind = format!("\"{}\"", kind.trim().trim_matches('"'));
        // The others are events of the page itself.
        if let Ok(kind) = serde_json::from_str::<ReasonKind>(&kind) {
            assert_eq!(words.trim_end_matches(',').trim_matches('"'), kind.to_string());
            kinds += 1;
        }
    }
    assert_eq!(kinds, 10);
}
