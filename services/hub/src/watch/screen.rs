//! The screen of `hub watch`: a head, the list, a pane of what has happened, a foot. Pure: a model in, cells out.

use hubspoke_protocol::InstanceState;
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

use super::bar;
use super::control::{Control, Line as Entry, Mode};
use super::model::{Link, Model, Row, said};
use crate::status;
use crate::text::one_line;

/// From this width on, addresses are shown.
const WIDE: u16 = 116;
/// Longest bar.
const MAX_BAR: usize = 40;
/// Below this a bar says nothing.
const MIN_BAR: usize = 6;

/// Columns of the list, but for the bar, which has what is left.
struct Columns {
    name: usize,
    addr: usize,
    bar: usize,
}

/// All but name, address and bar, with the spaces before them: the margin, STATE, UP, BEAT, REQ/S, the space before the
/// bar, SHARE, FLIGHT, FLAPS.
const FIXED: usize = 1 + 9 + 5 + 5 + 8 + 1 + 8 + 7 + 6;

impl Columns {
    fn of(list: &[Entry<'_>], width: u16) -> Self {
        let longest = |of: fn(&Row) -> usize| {
            list.iter()
                .filter_map(|entry| match entry {
                    Entry::Instance { row, .. } => Some(of(row)),
                    Entry::Service { .. } => None,
                })
                .max()
                .unwrap_or(0)
        };
        let name = (longest(|row| row.view.info.id().chars().count()) + 2).clamp(12, 34);
        let addr = if width >= WIDE { longest(|row| row.view.info.addr.len()).clamp(8, 30) + 1 } else { 0 };
        let rest = usize::from(width).saturating_sub(name + addr + FIXED);
        Self { name, addr, bar: if rest < MIN_BAR { 0 } else { rest.min(MAX_BAR) } }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, control: &Control, url: &str, now: Timestamp) {
    let list = control.list(model);
    let room = frame.area().height;
    let pane = if room >= 12 { (room / 3).clamp(4, 12) } else { 0 };
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(pane),
        Constraint::Length(1),
    ])
    .split(frame.area());
    let columns = Columns::of(&list, frame.area().width);
    frame.render_widget(head(model, url, now), areas[0]);
    frame.render_widget(Line::from(titles(&columns)).style(Style::new().dim()), areas[1]);
    draw_list(frame, areas[2], model, control, &list, &columns, now);
    if pane > 0 {
        draw_pane(frame, areas[3], model, control, &list);
    }
    frame.render_widget(foot(control, now), areas[4]);
    if control.mode == Mode::Help {
        draw_help(frame);
    }
}

fn head<'a>(model: &Model, url: &'a str, now: Timestamp) -> Line<'a> {
    let mut spans = vec![Span::raw(" Hubspoke ").bold().reversed(), Span::raw(format!(" {url} "))];
    match &model.link {
        Link::Connecting => spans.push("connecting…".yellow()),
        Link::Live => spans.push("live".green().bold()),
        Link::Away { since, why } => {
            let seconds = now.duration_since(*since).as_secs().max(0);
            let text = format!(" STALE: registry away for {seconds} s ({}) ", one_line(why, 60));
            spans.push(Span::styled(text, Style::new().fg(Color::White).bg(Color::Red).bold()));
        }
    }
    let present = model.rows.values().filter(|row| !row.is_removed());
    let services: std::collections::BTreeSet<_> = present.clone().map(|row| &row.view.info.name).collect();
    let (present, services) = (present.count(), services.len());
    if model.link != Link::Connecting {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let text =
            format!("  {present} instance{} of {services} service{}", plural(present), plural(services));
        spans.push(Span::raw(text));
    }
    if let Some(revision) = model.revision {
        spans.push(Span::raw(format!("  revision {revision}")).dim());
    }
    if let Some(protection) = &model.protection {
        if protection.held_back > 0 {
            spans.push(format!("  {} removals held back", protection.held_back).yellow().bold());
        } else if !protection.enabled {
            spans.push("  self-protection off".yellow());
        }
    }
    Line::from(spans)
}

fn titles(columns: &Columns) -> String {
    let (name, addr, bar) = (columns.name, columns.addr, columns.bar);
    let addr = if addr > 0 { format!("{:<addr$}", " ADDRESS") } else { String::new() };
    // Without a bar, the percentages have the title to themselves.
    let (of_bar, of_percent) = if bar > 0 { ("SHARE", "") } else { ("", "SHARE") };
    format!(
        " {:<name$}{addr} {:<8} {:>4} {:>4} {:>7} {of_bar:<bar$} {of_percent:>7} {:>6} {:>5}",
        "SERVICE", "STATE", "UP", "BEAT", "REQ/S", "FLIGHT", "FLAPS"
    )
}

fn draw_list(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    control: &Control,
    list: &[Entry<'_>],
    columns: &Columns,
    now: Timestamp,
) {
    if list.is_empty() {
        let text = match (&model.link, control.filter.is_empty()) {
            (Link::Connecting, _) => " waiting for the registry",
            (_, true) => " no instance is registered",
            (_, false) => " nothing matches the filter; Esc clears it",
        };
        frame.render_widget(Line::from(text).dim(), area);
        return;
    }
    let selected = control.selected(list).unwrap_or(0);
    let height = usize::from(area.height);
    let first = (selected + 1).saturating_sub(height).min(list.len().saturating_sub(height));
    let lines = list.iter().enumerate().skip(first).take(height).map(|(at, entry)| {
        let line = match entry {
            Entry::Service { name, present, rate } => heading(name, *present, *rate, model, columns),
            Entry::Instance { row, share, expected, .. } => instance(row, *share, *expected, columns, now),
        };
        if at == selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
    });
    frame.render_widget(Text::from(lines.collect::<Vec<_>>()), area);
}

fn heading(name: &str, present: usize, rate: f64, model: &Model, columns: &Columns) -> Line<'static> {
    let title = format!("{name} ({present})");
    let indent = columns.name + columns.addr + 9 + 5 + 5;
    let spark = bar::spark(model.history(name), columns.bar.min(30));
    Line::from(vec![
        Span::raw(format!(" {title:<indent$}")).bold(),
        Span::raw(format!(" {:>7} ", number(rate))).bold(),
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
    let beat = row.view.last_heartbeat.as_ref().map_or("-".to_owned(), |at| status::age(at, now));
    // What one that is gone last told says nothing any more.
    let rate = row.samples.rate().filter(|_| !row.is_removed()).map_or("-".to_owned(), number);
    let percent = share.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share));
    let bar = bar::share(share.unwrap_or(0.0), expected, columns.bar);
    let load = row.view.load.filter(|_| !row.is_removed());
    let in_flight = load.map_or("-".to_owned(), |load| load.in_flight.to_string());
    let flaps = row.flaps();
    let colour = colour(row.view.state);
    let line = Line::from(vec![
        Span::raw(id + &addr),
        Span::styled(format!(" {:<8}", status::state(row.view.state)), colour),
        Span::raw(format!(" {:>4} {beat:>4} {rate:>7} ", status::age(&row.view.registered, now))),
        Span::styled(bar, colour),
        Span::raw(format!(" {percent:>7} {in_flight:>6} ")),
        Span::styled(format!("{flaps:>5}"), if flaps > 0 { Style::new().yellow() } else { Style::new() }),
    ]);
    if row.is_removed() { line.style(Style::new().dim()) } else { line }
}

fn colour(state: InstanceState) -> Style {
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

/// What has happened, or the selected instance's history.
fn draw_pane(frame: &mut Frame<'_>, area: Rect, model: &Model, control: &Control, list: &[Entry<'_>]) {
    let selected = control.selected(list).map(|at| &list[at]);
    let (title, lines): (String, Vec<Line<'_>>) = match selected {
        Some(Entry::Instance { row, .. }) if control.history => {
            let lines = row.view.reasons.iter().rev().map(|reason| {
                let (what, grave) = said(reason.kind);
                happening(reason.at.parse().ok(), "", what, &reason.detail, grave)
            });
            (
                format!(" History of {}/{} (UTC) ", row.view.info.name, one_line(row.view.info.id(), 40)),
                lines.collect(),
            )
        }
        _ => {
            let lines = model.happenings.iter().map(|happening_of| {
                let of = happening_of;
                happening(Some(of.at), &of.whom, &of.what, &of.detail, of.grave)
            });
            (" Events (UTC) ".to_owned(), lines.collect())
        }
    };
    let block = Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(title);
    let room = usize::from(block.inner(area).height);
    let empty = || vec![Line::from(" nothing yet").dim()];
    let lines = if lines.is_empty() { empty() } else { lines.into_iter().take(room).collect() };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn happening(at: Option<Timestamp>, whom: &str, what: &str, detail: &str, grave: bool) -> Line<'static> {
    let time = at.map_or("?".to_owned(), |at| at.strftime("%H:%M:%S").to_string());
    let whom = if whom.is_empty() { String::new() } else { format!("{} ", one_line(whom, 60)) };
    let style = if grave { Style::new().yellow() } else { Style::new() };
    Line::from(vec![
        Span::raw(format!(" {time} ")).dim(),
        Span::raw(whom),
        Span::styled(what.to_owned(), style),
        Span::raw(if detail.is_empty() { String::new() } else { format!(": {}", one_line(detail, 200)) })
            .dim(),
    ])
}

fn foot(control: &Control, now: Timestamp) -> Line<'static> {
    match &control.mode {
        Mode::Filter => {
            Line::from(format!(" filter: {}▏  Enter keeps it, Esc clears it", control.filter)).bold()
        }
        Mode::Confirm { target, drain } => {
            let what = if *drain { "drain" } else { "undrain" };
            Line::from(format!(" {what} {}? y/n", one_line(&target.to_string(), 80))).yellow().bold()
        }
        Mode::Normal | Mode::Help => {
            if let Some(notice) = control.notice(now) {
                return Line::from(format!(" {}", one_line(notice, 200))).yellow();
            }
            let filter = match control.filter.as_str() {
                "" => "filter".to_owned(),
                text => format!("filter: {text}"),
            };
            let arrow = if control.reverse { "↑" } else { "↓" };
            let text = format!(
                " q quit  jk select  s sort: {}{arrow}  / {filter}  d drain  ↵ history  ? help",
                control.sort.name()
            );
            Line::from(text).dim()
        }
    }
}

const HELP: [&str; 12] = [
    "j k ↓ ↑ PgDn PgUp   select an instance",
    "s, r                next order, the other way round",
    "/                   filter by service, instance, address, state",
    "d                   drain the selected instance, or undrain it",
    "Enter               its history instead of the events",
    "Esc                 leave the history, clear the filter",
    "q, ctrl-c           quit",
    "",
    "REQ/S   requests per second between the last two heartbeats",
    "SHARE   of the service's requests over the last minute;",
    "        ┊ or ▓ is where an even share ends",
    "FLAPS   came back after it was thought dead",
];

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (64.min(area.width), (HELP.len() as u16 + 2).min(area.height));
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
