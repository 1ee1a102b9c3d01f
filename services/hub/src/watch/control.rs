//! What the person at the keys has asked for: order, filter, selection, and questions that wait for an answer. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hubspoke_protocol::InstanceState;
use jiff::{SignedDuration, Timestamp};

use super::model::{Key, Model, Row, shares};
use crate::admin::Target;
use crate::status;

/// Longest filter, in characters.
const MAX_FILTER: usize = 60;
/// How long the outcome of an action is shown.
const SHOW_NOTICE: SignedDuration = SignedDuration::from_secs(5);
/// Rows of one page.
const PAGE: isize = 10;

/// What to sort a service's instances by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Rate,
    InFlight,
    Age,
    State,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Name, Self::Rate, Self::InFlight, Self::Age, Self::State];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "requests/s",
            Self::InFlight => "in flight",
            Self::Age => "age",
            Self::State => "state",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).map_or(0, |at| at + 1);
        Self::ALL[at % Self::ALL.len()]
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        match self {
            Self::Name => Ordering::Equal,
            Self::Rate => b.rate().total_cmp(&a.rate()),
            Self::InFlight => in_flight(b).cmp(&in_flight(a)),
            Self::Age => a.view.registered.cmp(&b.view.registered),
            Self::State => gravity(b.view.state).cmp(&gravity(a.view.state)),
        }
    }
}

fn in_flight(row: &Row) -> u64 {
    row.view.load.map_or(0, |load| load.in_flight)
}

fn gravity(state: InstanceState) -> u8 {
    match state {
        InstanceState::Passing => 0,
        InstanceState::Draining => 1,
        InstanceState::Suspect => 2,
        InstanceState::Removed => 3,
    }
}

/// What the keys do at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    /// Text goes to the filter.
    Filter,
    /// A yes is waited for.
    Confirm { target: Target, drain: bool },
    /// The keys are explained.
    Help,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Drain { target: Target, drain: bool },
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Whether the selected instance's history is shown instead of the events.
    pub(super) history: bool,
    selected: Option<Key>,
    notice: Option<(String, Timestamp)>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line<'a> {
    Service {
        name: &'a str,
        present: usize,
        rate: f64,
    },
    /// `share` of the service's requests over the last minute, and what it would be if all were even.
    Instance {
        key: &'a Key,
        row: &'a Row,
        share: Option<f64>,
        expected: f64,
    },
}

impl Control {
    /// The list as it is to be shown.
    pub(super) fn list<'a>(&self, model: &'a Model) -> Vec<Line<'a>> {
        let mut services: BTreeMap<&str, Vec<(&Key, &Row)>> = BTreeMap::new();
        for (key, row) in &model.rows {
            services.entry(&key.0).or_default().push((key, row));
        }
        let mut list = Vec::new();
        for (name, mut rows) in services {
            let passing = rows.iter().filter(|(_, row)| row.view.state == InstanceState::Passing).count();
            let present = rows.iter().filter(|(_, row)| !row.is_removed()).count();
            let rate = rows.iter().map(|(_, row)| row.rate()).sum();
            let shares = shares(&rows.iter().map(|(_, row)| *row).collect::<Vec<_>>());
            let shares: BTreeMap<&Key, Option<f64>> = rows.iter().map(|(key, _)| *key).zip(shares).collect();
            let expected = 1.0 / passing.max(1) as f64;
            rows.retain(|(_, row)| self.shows(row));
            if rows.is_empty() {
                continue;
            }
            rows.sort_by(|(_, a), (_, b)| {
                let order = self.sort.compare(a, b);
                let order = if self.reverse { order.reverse() } else { order };
                a.is_removed().cmp(&b.is_removed()).then(order)
            });
            if self.reverse && self.sort == Sort::Name {
                rows.reverse();
            }
            list.push(Line::Service { name, present, rate });
            list.extend(rows.into_iter().map(|(key, row)| {
                let share = shares.get(key).copied().flatten();
                Line::Instance { key, row, share, expected }
            }));
        }
        list
    }

    fn shows(&self, row: &Row) -> bool {
        let info = &row.view.info;
        let text = format!("{}/{} {} {}", info.name, info.id(), info.addr, status::state(row.view.state));
        text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// The selected line; the first instance where none is, or where it is gone.
    pub(super) fn selected(&self, list: &[Line<'_>]) -> Option<usize> {
        let is = |line: &Line<'_>| matches!(line, Line::Instance { key, .. } if Some(*key) == self.selected.as_ref());
        let first = |line: &Line<'_>| matches!(line, Line::Instance { .. });
        list.iter().position(is).or_else(|| list.iter().position(first))
    }

    /// The outcome of an action, for a while.
    pub(super) fn notice(&self, now: Timestamp) -> Option<&str> {
        let (text, at) = self.notice.as_ref()?;
        (now.duration_since(*at) < SHOW_NOTICE).then_some(text)
    }

    pub(super) fn notify(&mut self, text: String, now: Timestamp) {
        self.notice = Some((text, now));
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Action::Quit);
        }
        match std::mem::take(&mut self.mode) {
            Mode::Normal => self.normal(key.code, model),
            Mode::Filter => {
                self.edit(key.code);
                None
            }
            Mode::Confirm { target, drain } => {
                let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                yes.then_some(Action::Drain { target, drain })
            }
            Mode::Help => None,
        }
    }

    fn normal(&mut self, code: KeyCode, model: &Model) -> Option<Action> {
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('d') => self.ask_drain(model),
            KeyCode::Enter => self.history = !self.history,
            KeyCode::Esc if self.history => self.history = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.select(model, 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(model, -1),
            KeyCode::PageDown => self.select(model, PAGE),
            KeyCode::PageUp => self.select(model, -PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.select(model, isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.select(model, isize::MAX),
            _ => {}
        }
        None
    }

    /// A key while the filter is written. `Enter` keeps it, `Esc` clears it.
    fn edit(&mut self, code: KeyCode) {
        self.mode = Mode::Filter;
        match code {
            KeyCode::Enter => self.mode = Mode::Normal,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Normal;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn ask_drain(&mut self, model: &Model) {
        let list = self.list(model);
        let Some(Line::Instance { row, .. }) = self.selected(&list).map(|at| &list[at]) else { return };
        if row.is_removed() {
            return;
        }
        let info = &row.view.info;
        let target = Target { service: info.name.clone(), instance: info.id().to_owned() };
        self.mode = Mode::Confirm { target, drain: row.view.state != InstanceState::Draining };
    }

    /// Moves the selection by so many instances.
    fn select(&mut self, model: &Model, by: isize) {
        let list = self.list(model);
        let keys = || {
            list.iter().filter_map(|line| match line {
                Line::Instance { key, .. } => Some(*key),
                Line::Service { .. } => None,
            })
        };
        let now = self.selected(&list).map(|at| &list[at]);
        let at = keys()
            .position(|key| matches!(now, Some(Line::Instance { key: selected, .. }) if *selected == key));
        let Some(last) = keys().count().checked_sub(1) else { return };
        let to = at.unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = keys().nth(to).cloned();
    }
}

#[cfg(test)]
mod tests;
