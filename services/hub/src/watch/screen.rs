//! The screen of `hub watch`: a header, the list, the events, a footer. Pure: a model in, cells out.

use hubspoke_protocol::InstanceState;
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

use super::bar;
use super::control::{Control, InputMode, ListItem};
use super::model::{FeedState, PastEvent, Row, WatchModel};
use crate::describe;
use crate::text::one_line;

/// Screens at least this wide show addresses.
const WIDE: u16 = 116;
/// Widest bar.
const MAX_BAR: usize = 40;
/// A narrower bar would show nothing.
const MIN_BAR: usize = 6;

/// Widths of the columns that vary. The bar gets what is left.
struct Columns {
    name: usize,
    addr: usize,
    bar: usize,
    /// Whether there is room for FLIGHT and for FLAPS.
    in_flight: bool,
    flaps: bool,
}

/// Width of the columns that are always there, with the space before each: the margin, STATE, UP, BEAT, REQ/S,
/// the space before the bar, SHARE.
const FIXED: usize = 1 + 9 + 5 + 5 + 8 + 1 + 8;
const MIN_NAME: usize = 12;
const IN_FLIGHT: usize = 7;
const FLAPS: usize = 6;

impl Columns {
    fn fit(list: &[ListItem<'_>], width: u16) -> Self {
        let longest = |of: fn(&Row) -> usize| {
            list.iter()
                .filter_map(|item| match item {
                    ListItem::Instance { row, .. } => Some(of(row)),
                    ListItem::Service { .. } => None,
                })
                .max()
                .unwrap_or(0)
        };
        let name = (longest(|row| row.view.info.id().chars().count()) + 2).clamp(MIN_NAME, 34);
        let addr = if width >= WIDE { longest(|row| row.view.info.addr.len()).clamp(8, 30) + 1 } else { 0 };
        // A narrow screen shortens ids rather than losing columns.
        let name = name.min(usize::from(width).saturating_sub(FIXED)).max(MIN_NAME);
        let mut rest = usize::from(width).saturating_sub(name + addr + FIXED);
        let mut take = |column: usize| {
            let fits = rest >= column;
            rest -= if fits { column } else { 0 };
            fits
        };
        let in_flight = take(IN_FLIGHT);
        let flaps = in_flight && take(FLAPS);
        Self { name, addr, bar: if rest < MIN_BAR { 0 } else { rest.min(MAX_BAR) }, in_flight, flaps }
    }
}

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &WatchModel, control: &Control, url: &str, now: Timestamp) {
    let list = control.list(model);
    let height = frame.area().height;
    let pane = if height >= 12 { (height / 3).clamp(4, 12) } else { 0 };
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(pane),
        Constraint::Length(1),
    ])
    .split(frame.area());
    let columns = Columns::fit(&list, frame.area().width);
    frame.render_widget(header(model, url, now), areas[0]);
    frame.render_widget(Line::from(column_titles(&columns)).style(Style::new().dim()), areas[1]);
    draw_list(frame, areas[2], model, control, &list, &columns, now);
    if pane > 0 {
        draw_pane(frame, areas[3], model, control, &list);
    }
    frame.render_widget(footer(control, now), areas[4]);
    if control.mode == InputMode::Help {
        draw_help(frame);
    }
}

fn header<'a>(model: &WatchModel, url: &'a str, now: Timestamp) -> Line<'a> {
    let mut spans = vec![Span::raw(" Hubspoke ").bold().reversed(), Span::raw(format!(" {url} "))];
    match &model.feed {
        FeedState::Connecting => spans.push("connecting…".yellow()),
        FeedState::Live => spans.push("live".green().bold()),
        FeedState::Stale { since, reason } => {
            let seconds = now.duration_since(*since).as_secs().max(0);
            let text = format!(" STALE: registry unreachable for {seconds} s ({}) ", one_line(reason, 60));
            spans.push(Span::styled(text, Style::new().fg(Color::White).bg(Color::Red).bold()));
        }
    }
    let present = model.rows.values().filter(|row| !row.is_removed());
    let services: std::collections::BTreeSet<_> = present.clone().map(|row| &row.view.info.name).collect();
    if model.feed != FeedState::Connecting {
        let instances = describe::count(present.count(), "instance");
        spans.push(Span::raw(format!("  {instances} of {}", describe::count(services.len(), "service"))));
    }
    if let Some(revision) = model.revision {
        spans.push(Span::raw(format!("  revision {revision}")).dim());
    }
    if let Some(protection) = &model.protection {
        if protection.held_back > 0 {
            let removals = describe::count(protection.held_back, "removal");
            spans.push(format!("  {removals} held back").yellow().bold());
        } else if !protection.enabled {
            spans.push("  self-protection off".yellow());
        }
    }
    Line::from(spans)
}

fn column_titles(columns: &Columns) -> String {
    let (name, addr, bar) = (columns.name, columns.addr, columns.bar);
    let addr = if addr > 0 { format!("{:<addr$}", " ADDRESS") } else { String::new() };
    // Without a bar, the title stands above the percentages.
    let (of_bar, of_percent) = if bar > 0 { ("SHARE", "") } else { ("", "SHARE") };
    let in_flight = if columns.in_flight { " FLIGHT" } else { "" };
    let flaps = if columns.flaps { " FLAPS" } else { "" };
    format!(
        " {:<name$}{addr} {:<8} {:>4} {:>4} {:>7} {of_bar:<bar$} {of_percent:>7}{in_flight}{flaps}",
        "SERVICE", "STATE", "UP", "BEAT", "REQ/S"
    )
}

fn draw_list(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &WatchModel,
    control: &Control,
    list: &[ListItem<'_>],
    columns: &Columns,
    now: Timestamp,
) {
    if list.is_empty() {
        let text = match (&model.feed, control.filter.is_empty()) {
            (FeedState::Connecting, _) => " waiting for the registry",
            (_, true) => " no instances are registered",
            (_, false) => " no instances match the filter; Esc clears it",
        };
        frame.render_widget(Line::from(text).dim(), area);
        return;
    }
    let selected = control.selected(list).unwrap_or(0);
    let height = usize::from(area.height);
    let first = (selected + 1).saturating_sub(height).min(list.len().saturating_sub(height));
    let lines = list.iter().enumerate().skip(first).take(height).map(|(at, item)| {
        let line = match item {
            ListItem::Service { name, present, rate } => service(name, *present, *rate, model, columns),
            ListItem::Instance { row, share, expected, .. } => instance(row, *share, *expected, columns, now),
        };
        if at == selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
    });
    frame.render_widget(Text::from(lines.collect::<Vec<_>>()), area);
}

fn service(
    name: &str,
    present: usize,
    rate: Option<f64>,
    model: &WatchModel,
    columns: &Columns,
) -> Line<'static> {
    let title = format!("{name} ({present})");
    let indent = columns.name + columns.addr + 9 + 5 + 5;
    let spark = bar::spark(model.rates(name), columns.bar.min(30));
    Line::from(vec![
        Span::raw(format!(" {title:<indent$}")).bold(),
        Span::raw(format!(" {:>7} ", rate.map_or("-".to_owned(), number))).bold(),
        Span::raw(spark).cyan(),
    ])
}

fn instance(
    row: &Row,
    share: Option<f64>,
    expected: f64,
    columns: &Columns,
    now: Timestamp,
) -> Line<'static> {
    let info = &row.view.info;
    let (name, addr) = (columns.name, columns.addr);
    let id = format!("   {:<width$}", one_line(info.id(), name - 2), width = name - 2);
    let addr = if addr > 0 {
        format!(" {:<width$}", one_line(&info.addr, addr - 1), width = addr - 1)
    } else {
        String::new()
    };
    let heartbeat = row.view.last_heartbeat.as_ref().map_or("-".to_owned(), |at| describe::age(at, now));
    // The last load of a removed instance no longer means anything.
    let rate = row.known_rate().map_or("-".to_owned(), number);
    let percent = share.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share));
    let bar = bar::share(share.unwrap_or(0.0), expected, columns.bar);
    let load = row.view.load.filter(|_| !row.is_removed());
    let in_flight = load.and_then(|load| load.in_flight).map_or("-".to_owned(), |count| count.to_string());
    let flaps = row.flaps();
    let color = color(row.view.state);
    let line = Line::from(vec![
        Span::raw(id + &addr),
        Span::styled(format!(" {:<8}", row.view.state), color),
        Span::raw(format!(" {:>4} {heartbeat:>4} {rate:>7} ", describe::age(&row.view.registered, now))),
        Span::styled(bar, color),
        Span::raw(format!(" {percent:>7}")),
        Span::raw(if columns.in_flight { format!(" {in_flight:>6}") } else { String::new() }),
        Span::styled(
            if columns.flaps { format!(" {flaps:>5}") } else { String::new() },
            if flaps > 0 { Style::new().yellow() } else { Style::new() },
        ),
    ]);
    if row.is_removed() { line.style(Style::new().dim()) } else { line }
}

fn color(state: InstanceState) -> Style {
    match state {
        InstanceState::Passing => Style::new().green(),
        InstanceState::Suspect => Style::new().yellow(),
        InstanceState::Draining => Style::new().blue(),
        InstanceState::Removed => Style::new().red(),
    }
}

/// A rate in at most seven columns.
fn number(rate: f64) -> String {
    if rate >= 1e6 {
        format!("{:.1}M", rate / 1e6)
    } else if rate >= 100.0 || rate == 0.0 {
        format!("{rate:.0}")
    } else {
        format!("{rate:.1}")
    }
}

/// The events, or the selected instance's history.
fn draw_pane(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &WatchModel,
    control: &Control,
    list: &[ListItem<'_>],
) {
    let selected = control.selected(list).map(|at| &list[at]);
    let (title, lines): (String, Vec<Line<'_>>) = match selected {
        Some(ListItem::Instance { row, .. }) if control.history => {
            let lines = row.view.reasons.iter().rev().map(|reason| {
                let trouble = describe::is_trouble(reason.kind);
                event_line(reason.at.parse().ok(), "", &reason.kind.to_string(), &reason.detail, trouble)
            });
            (
                format!(" History of {}/{} (UTC) ", row.view.info.name, one_line(row.view.info.id(), 40)),
                lines.collect(),
            )
        }
        _ => {
            let lines =
                model.events.iter().map(|PastEvent { at, subject, what, detail, trouble, .. }| {
                    event_line(Some(*at), subject, what, detail, *trouble)
                });
            (" Events (UTC) ".to_owned(), lines.collect())
        }
    };
    let block = Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(title);
    let height = usize::from(block.inner(area).height);
    let none = || vec![Line::from(" nothing yet").dim()];
    let lines = if lines.is_empty() { none() } else { lines.into_iter().take(height).collect() };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn event_line(
    at: Option<Timestamp>,
    subject: &str,
    what: &str,
    detail: &str,
    trouble: bool,
) -> Line<'static> {
    let time = at.map_or("?".to_owned(), |at| at.strftime("%H:%M:%S").to_string());
    let subject = if subject.is_empty() { String::new() } else { format!("{} ", one_line(subject, 60)) };
    let style = if trouble { Style::new().yellow() } else { Style::new() };
    Line::from(vec![
        Span::raw(format!(" {time} ")).dim(),
        Span::raw(subject),
        Span::styled(what.to_owned(), style),
        Span::raw(if detail.is_empty() { String::new() } else { format!(": {}", one_line(detail, 200)) })
            .dim(),
    ])
}

fn footer(control: &Control, now: Timestamp) -> Line<'static> {
    match &control.mode {
        InputMode::Filter => {
            Line::from(format!(" filter: {}▏  Enter keeps it, Esc clears it", control.filter)).bold()
        }
        InputMode::Confirm { target, drain } => {
            let what = if *drain { "drain" } else { "undrain" };
            Line::from(format!(" {what} {}? y/n", one_line(&target.to_string(), 80))).yellow().bold()
        }
        InputMode::Normal | InputMode::Help => {
            if let Some(notice) = control.notice(now) {
                return Line::from(format!(" {}", one_line(notice, 200))).yellow();
            }
            let filter = match control.filter.as_str() {
                "" => "filter".to_owned(),
                text => format!("filter: {text}"),
            };
            let arrow = if control.reverse { "↑" } else { "↓" };
            // A narrow terminal cuts off the end.
            let text = format!(
                " q quit  ? help  s sort: {}{arrow}  / {filter}  d drain  ↵ history  jk select",
                control.sort.name()
            );
            Line::from(text).dim()
        }
    }
}

/// Fits into 60 columns with its border.
const HELP: [&str; 12] = [
    "j k ↓ ↑    select an instance; PgDn PgUp by a page",
    "s r        sort by the next column, reverse the order",
    "/          filter by service, instance, address, state",
    "d          drain the selected instance, or undrain it",
    "Enter      show its history instead of the events",
    "Esc        leave the history, clear the filter",
    "q ctrl-c   quit",
    "",
    "REQ/S      requests/s between the last two heartbeats",
    "SHARE      of its service's requests in the last minute;",
    "           ┊ or ▓ marks an even share",
    "FLAPS      how often it failed and came back",
];
/// Widest line of the help, with its border and the space before the text.
const HELP_WIDTH: u16 = 60;

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (HELP_WIDTH.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let place = Rect::new(x, y, width, height);
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(
        Paragraph::new(HELP.map(|line| Line::from(format!(" {line}"))).to_vec()).block(block),
        place,
    );
}

#[cfg(test)]
mod tests;
