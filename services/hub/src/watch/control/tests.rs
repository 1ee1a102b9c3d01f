use hubspoke_protocol::ReasonKind;

use super::super::model::tests::{at, catalog, change, heartbeat, instance};
use super::*;

fn model() -> WatchModel {
    let mut model = WatchModel::default();
    let list =
        vec![instance("log", 1, 0), instance("log", 2, 0), instance("log", 3, 0), instance("visit", 1, 0)];
    model.connected(at(10));
    model.apply(catalog(list.clone()), at(10));
    for (instance, requests) in list.iter().zip([50, 200, 250, 500]) {
        model.apply(heartbeat(instance, 15, requests, requests / 100), at(15));
    }
    model
}

fn press(control: &mut Control, model: &WatchModel, keys: &str) -> Option<UserAction> {
    let mut action = None;
    for c in keys.chars() {
        let code = match c {
            '↵' => KeyCode::Enter,
            '⎋' => KeyCode::Esc,
            '←' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            c => KeyCode::Char(c),
        };
        action = control.press(KeyEvent::new(code, KeyModifiers::NONE), model);
    }
    action
}

/// The listed services and instance ids.
fn listed(control: &Control, model: &WatchModel) -> Vec<String> {
    let name = |item: &ListItem<'_>| match item {
        ListItem::Service { name, .. } => (*name).to_owned(),
        ListItem::Instance { row, .. } => row.view.info.id().to_owned(),
    };
    control.list(model).iter().map(name).collect()
}

fn selected(control: &Control, model: &WatchModel) -> String {
    let list = control.list(model);
    listed(control, model)[control.selected(&list).unwrap()].clone()
}

#[test]
fn instances_are_sorted_within_their_service() {
    let (model, mut control) = (model(), Control::default());
    assert_eq!(listed(&control, &model), ["log", "log-1", "log-2", "log-3", "visit", "visit-1"]);
    press(&mut control, &model, "r");
    assert_eq!(listed(&control, &model)[..4], ["log", "log-3", "log-2", "log-1"]);
    press(&mut control, &model, "rs");
    assert_eq!(control.sort, SortBy::Rate);
    assert_eq!(listed(&control, &model)[..4], ["log", "log-3", "log-2", "log-1"]);
    press(&mut control, &model, "ssss");
    assert_eq!(control.sort, SortBy::Name);
}

#[test]
fn a_filter_does_not_change_shares() {
    let (model, mut control) = (model(), Control::default());
    press(&mut control, &model, "/log-2↵");
    let list = control.list(&model);
    assert_eq!(list.len(), 2);
    let ListItem::Instance { share, expected, .. } = list[1] else { panic!("{list:?}") };
    assert_eq!((share, expected), (Some(0.4), 1.0 / 3.0));
    let ListItem::Service { present, rate, .. } = list[0] else { panic!("{list:?}") };
    assert_eq!((present, rate), (3, Some(100.0)));
}

#[test]
fn the_filter_is_edited_kept_and_cleared() {
    let (model, mut control) = (model(), Control::default());
    press(&mut control, &model, "/VISITx←");
    assert_eq!(control.mode, InputMode::Filter);
    assert_eq!(listed(&control, &model), ["visit", "visit-1"]);
    press(&mut control, &model, "↵");
    assert_eq!((&control.mode, control.filter.as_str()), (&InputMode::Normal, "VISIT"));
    press(&mut control, &model, "⎋");
    assert_eq!(listed(&control, &model).len(), 6);
    press(&mut control, &model, "/4003");
    assert_eq!(listed(&control, &model), ["log", "log-3"]);
    press(&mut control, &model, "⎋/zzz");
    assert!(listed(&control, &model).is_empty());
    assert_eq!(press(&mut control, &model, "↵d"), None);
    press(&mut control, &model, "⎋/q");
    assert_eq!(control.filter, "q", "letters are not commands here");
}

#[test]
fn the_selection_skips_services_and_stays_in_the_list() {
    let (model, mut control) = (model(), Control::default());
    assert_eq!(selected(&control, &model), "log-1");
    press(&mut control, &model, "jj↓");
    assert_eq!(selected(&control, &model), "visit-1");
    press(&mut control, &model, "jjj");
    assert_eq!(selected(&control, &model), "visit-1");
    press(&mut control, &model, "k↑");
    assert_eq!(selected(&control, &model), "log-2");
    press(&mut control, &model, "G");
    assert_eq!(selected(&control, &model), "visit-1");
    press(&mut control, &model, "gj");
    assert_eq!(selected(&control, &model), "log-2");
    // It stays on its instance when the order changes.
    press(&mut control, &model, "r");
    assert_eq!(selected(&control, &model), "log-2");
    press(&mut control, &WatchModel::default(), "jkGg");
}

#[test]
fn draining_asks_first() {
    let (mut model, mut control) = (model(), Control::default());
    let target = InstanceRef { service: "log".to_owned(), instance: "log-2".to_owned() };
    assert_eq!(press(&mut control, &model, "jd"), None);
    assert_eq!(control.mode, InputMode::Confirm { target: target.clone(), drain: true });
    assert_eq!(press(&mut control, &model, "n"), None);
    assert_eq!(control.mode, InputMode::Normal);
    assert_eq!(
        press(&mut control, &model, "dy"),
        Some(UserAction::Drain { target: target.clone(), drain: true })
    );
    model.apply(change(instance("log", 2, 0), 20, ReasonKind::Draining, ""), at(20));
    assert_eq!(press(&mut control, &model, "dy"), Some(UserAction::Drain { target, drain: false }));
    model.apply(change(instance("log", 2, 0), 30, ReasonKind::Removed, ""), at(30));
    assert_eq!(press(&mut control, &model, "Gd"), None);
    press(&mut control, &model, "n");
    assert_eq!(listed(&control, &model)[3], "log-2", "a removed instance is the last of its service");
}

#[test]
fn q_and_ctrl_c_quit() {
    let (model, mut control) = (model(), Control::default());
    assert_eq!(press(&mut control, &model, "q"), Some(UserAction::Quit));
    press(&mut control, &model, "/");
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(control.press(ctrl_c, &model), Some(UserAction::Quit));
}
