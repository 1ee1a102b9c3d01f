use hubspoke_protocol::{ProtectionView, ReasonKind};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::tests::{at, catalog, change, heartbeat, instance};
use super::*;
use crate::admin_client::InstanceRef;
use crate::catalog_update::CatalogUpdate;

const URL: &str = "http://127.0.0.1:20000";

fn screen(model: &WatchModel, control: &Control, width: u16, height: u16, now: Timestamp) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, control, URL, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn model() -> WatchModel {
    let mut model = WatchModel::default();
    let list =
        vec![instance("log", 1, 0), instance("log", 2, 0), instance("log", 3, 0), instance("visit", 1, 0)];
    model.connected(at(10));
    model.apply(catalog(list.clone()), at(10));
    for (instance, requests) in list.iter().zip([150, 200, 150, 500]) {
        model.apply(heartbeat(instance, 15, requests, requests / 100), at(15));
    }
    model.tick(at(15));
    model.apply(change(instance("log", 4, 0), 16, ReasonKind::Registered, ""), at(16));
    model
}

#[test]
fn a_screen_of_eighty_columns() {
    let lines = screen(&model(), &Control::default(), 80, 16, at(17));
    assert_eq!(
        lines,
        [
            " Hubspoke  http://127.0.0.1:20000 live  5 instances of 2 services  revision 1.6",
            " SERVICE      STATE      UP BEAT   REQ/S SHARE                      FLIGHT FLAPS",
            " log (4)                             100                  █",
            "   log-1      passing   17s   2s    30.0 █████████▓▊         30.0 %      1     0",
            "   log-2      passing   17s   2s    40.0 █████████▓████▍     40.0 %      2     0",
            "   log-3      passing   17s   2s    30.0 █████████▓▊         30.0 %      1     0",
            "   log-4      passing   17s   7s       -          ┊                      0     0",
            " visit (1)                           100                  █",
            "   visit-1    passing   17s   2s     100 ██████████████████ 100.0 %      5     0",
            "",
            " Events (UTC) ──────────────────────────────────────────────────────────────────",
            " 08:00:16 log/log-4 registered",
            " 08:00:00 log/log-1 registered",
            " 08:00:00 log/log-2 registered",
            " 08:00:00 log/log-3 registered",
            " q quit  ? help  s sort: name↓  / filter  d drain  ↵ history  jk select",
        ]
    );
}

#[test]
fn an_unreachable_registry_shows_in_the_header_and_the_events() {
    let mut model = model();
    model.disconnected("Connection refused".to_owned(), at(20));
    let lines = screen(&model, &Control::default(), 120, 16, at(32));
    assert!(lines[0].contains("STALE: registry unreachable for 12 s (Connection refused)"), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("08:00:20 registry unreachable: Connection refused")),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.contains("log-1")), "the last known state is still shown");
    let nothing = screen(&WatchModel::default(), &Control::default(), 80, 16, at(0));
    assert!(nothing[0].contains("connecting…") && nothing[2].contains("waiting for the registry"));
}

#[test]
fn the_last_load_of_a_removed_instance_is_not_shown() {
    let mut model = model();
    model.apply(change(instance("log", 1, 150), 18, ReasonKind::Removed, ""), at(18));
    let lines = screen(&model, &Control::default(), 64, 16, at(19));
    assert_eq!(lines[6], "   log-1      removed   19s   9s       -               -     0");
}

#[test]
fn wide_screens_show_addresses() {
    let lines = screen(&model(), &Control::default(), 120, 16, at(17));
    assert!(lines[3].contains("   log-1      127.0.0.1:4001 passing"), "{lines:#?}");
}

#[test]
fn narrow_screens_have_no_bars() {
    let lines = screen(&model(), &Control::default(), 64, 16, at(17));
    assert_eq!(lines[1], " SERVICE      STATE      UP BEAT   REQ/S    SHARE FLIGHT FLAPS");
    assert_eq!(lines[3], "   log-1      passing   17s   2s    30.0   30.0 %      1     0");
}

#[test]
fn prompts_notices_history_and_help() {
    let model = model();
    let footer = |control: &Control| screen(&model, control, 100, 16, at(17))[15].clone();
    let mut control = Control::default();
    assert!(footer(&control).starts_with(" q quit  ? help  s sort: name↓"));
    control.filter = "log".to_owned();
    assert!(footer(&control).contains("filter: log"));
    control.mode = InputMode::Filter;
    assert!(footer(&control).starts_with(" filter: log▏"));
    let target = InstanceRef { service: "log".to_owned(), instance: "log-1".to_owned() };
    control.mode = InputMode::Confirm { target, drain: true };
    assert_eq!(footer(&control), " drain log/log-1? y/n");
    control.mode = InputMode::Normal;
    control.notify("log/log-1 is draining".to_owned(), at(16));
    assert_eq!(footer(&control), " log/log-1 is draining");
    control.history = true;
    let lines = screen(&model, &control, 100, 16, at(17));
    assert!(lines.iter().any(|line| line.contains("History of log/log-1")), "{lines:#?}");
}

#[test]
fn the_help_fits_from_sixty_columns() {
    let mut control = Control::default();
    control.mode = InputMode::Help;
    for width in 60..=130 {
        let lines = screen(&model(), &control, width, 20, at(17));
        for text in HELP {
            let shown = lines.iter().any(|line| line.contains(&format!("│ {text}")) && line.contains('│'));
            assert!(shown, "{width}: {text}: {lines:#?}");
        }
    }
    let lines = screen(&model(), &Control::default(), 60, 20, at(17));
    assert!(lines.last().unwrap().starts_with(" q quit  ? help"), "{lines:#?}");
    assert!(
        HELP.iter().all(|line| line.chars().count() <= usize::from(HELP_WIDTH) - 4),
        "one column is free at the right"
    );
}

#[test]
fn sixty_columns_have_room_for_a_whole_id() {
    let mut model = WatchModel::default();
    let mut one = instance("visit", 1, 0);
    one.info.id = Some("visit-65c17c09a97370b9".to_owned());
    model.connected(at(10));
    model.apply(catalog(vec![one]), at(10));
    let lines = screen(&model, &Control::default(), 62, 16, at(17));
    assert_eq!(lines[1], " SERVICE                  STATE      UP BEAT   REQ/S    SHARE");
    assert_eq!(lines[3], "   visit-65c17c09a97370b9 passing   17s   7s       -");
    let lines = screen(&model, &Control::default(), 60, 16, at(17));
    assert_eq!(lines[1], " SERVICE                 STATE      UP BEAT   REQ/S    SHARE");
    assert_eq!(lines[3], "   visit-65c17c09a97370… passing   17s   7s       -");
}

#[test]
fn held_back_removals_and_untrusted_text() {
    let mut model = model();
    let mut odd = instance("log", 9, 0);
    odd.info.id = Some("\x1b[2J\x07evil\nid".to_owned());
    model.apply(change(odd, 17, ReasonKind::HeldBack, "a\x1b[31mb\nc"), at(17));
    model.apply(
        CatalogUpdate::Protection(ProtectionView { enabled: true, until: None, held_back: 3 }),
        at(17),
    );
    let lines = screen(&model, &Control::default(), 120, 20, at(17));
    assert!(lines[0].contains("3 removals held back"), "{lines:#?}");
    assert!(lines.concat().chars().all(|c| !c.is_control()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("suspect: a [31mb c")), "{lines:#?}");
}

#[test]
fn the_selected_line_is_always_visible() {
    let mut model = WatchModel::default();
    model.connected(at(10));
    model.apply(catalog((1..=100).map(|n| instance("log", n, 0)).collect()), at(10));
    let mut control = Control::default();
    for _ in 0..100 {
        let lines = screen(&model, &control, 80, 14, at(17));
        let list = control.list(&model);
        let ListItem::Instance { row, .. } = &list[control.selected(&list).unwrap()] else { panic!() };
        let shown = format!("   {} ", row.view.info.id());
        assert!(lines.iter().any(|line| line.starts_with(&shown)), "{shown}: {lines:#?}");
        let down = crossterm::event::KeyEvent::from(crossterm::event::KeyCode::Down);
        control.press(down, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_size_works(width in 1_u16..200, height in 1_u16..60) {
        let lines = screen(&model(), &Control::default(), width, height, at(17));
        prop_assert_eq!(lines.len(), usize::from(height));
        let mut help = Control::default();
        help.mode = InputMode::Help;
        screen(&model(), &help, width, height, at(17));
    }
}
