//! The user's choices: sort order, filter, selection, and answers to prompts. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hubspoke_protocol::InstanceState;
use jiff::{SignedDuration, Timestamp};

use super::model::{Row, RowKey, WatchModel, shares};
use crate::admin_client::InstanceRef;

/// Longest filter, in characters.
const MAX_FILTER: usize = 60;
/// How long the result of an action is shown.
const SHOW_NOTICE: SignedDuration = SignedDuration::from_secs(5);
/// Rows that PgDn and PgUp move by.
const PAGE: isize = 10;

/// The order of a service's instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    #[default]
    Name,
    Rate,
    InFlight,
    Age,
    State,
}

impl SortBy {
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
            Self::State => severity(b.view.state).cmp(&severity(a.view.state)),
        }
    }
}

fn in_flight(row: &Row) -> u64 {
    row.view.load.and_then(|load| load.in_flight).unwrap_or(0)
}

fn severity(state: InstanceState) -> u8 {
    match state {
        InstanceState::Passing => 0,
        InstanceState::Draining => 1,
        InstanceState::Suspect => 2,
        InstanceState::Removed => 3,
    }
}

/// The meaning of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum InputMode {
    #[default]
    Normal,
    /// They edit the filter.
    Filter,
    /// They answer a yes-or-no prompt.
    Confirm { target: InstanceRef, drain: bool },
    /// They close the help.
    Help,
}

/// An action for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserAction {
    Quit,
    Drain { target: InstanceRef, drain: bool },
}

/// The choices so far.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) sort: SortBy,
    pub(super) reverse: bool,
    pub(super) filter: String,
    pub(super) mode: InputMode,
    /// Show the selected instance's history instead of the events.
    pub(super) history: bool,
    selected: Option<RowKey>,
    notice: Option<(String, Timestamp)>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ListItem<'a> {
    Service {
        name: &'a str,
        present: usize,
        rate: Option<f64>,
    },
    /// `share` is of the service's requests over the last minute; `expected` is an even share.
    Instance {
        key: &'a RowKey,
        row: &'a Row,
        share: Option<f64>,
        expected: f64,
    },
}

impl<'a> ListItem<'a> {
    fn key(&self) -> Option<&'a RowKey> {
        match *self {
            Self::Instance { key, .. } => Some(key),
            Self::Service { .. } => None,
        }
    }
}

impl Control {
    /// The list to show: each service with its instances, filtered and sorted.
    pub(super) fn list<'a>(&self, model: &'a WatchModel) -> Vec<ListItem<'a>> {
        let mut services: BTreeMap<&str, Vec<(&RowKey, &Row)>> = BTreeMap::new();
        for (key, row) in &model.rows {
            services.entry(&key.0).or_default().push((key, row));
        }
        let mut list = Vec::new();
        for (name, mut rows) in services {
            let passing = rows.iter().filter(|(_, row)| row.view.state == InstanceState::Passing).count();
            let present = rows.iter().filter(|(_, row)| !row.is_removed()).count();
            let rate = rows.iter().filter_map(|(_, row)| row.known_rate()).reduce(|sum, rate| sum + rate);
            let shares = shares(&rows.iter().map(|(_, row)| *row).collect::<Vec<_>>());
            let shares: BTreeMap<&RowKey, Option<f64>> =
                rows.iter().map(|(key, _)| *key).zip(shares).collect();
            let expected = 1.0 / passing.max(1) as f64;
            rows.retain(|(_, row)| self.matches_filter(row));
            if rows.is_empty() {
                continue;
            }
            rows.sort_by(|(_, a), (_, b)| {
                let order = self.sort.compare(a, b);
                let order = if self.reverse { order.reverse() } else { order };
                a.is_removed().cmp(&b.is_removed()).then(order)
            });
            if self.reverse && self.sort == SortBy::Name {
                rows.reverse();
            }
            list.push(ListItem::Service { name, present, rate });
            list.extend(rows.into_iter().map(|(key, row)| {
                let share = shares.get(key).copied().flatten();
                ListItem::Instance { key, row, share, expected }
            }));
        }
        list
    }

    fn matches_filter(&self, row: &Row) -> bool {
        let info = &row.view.info;
        let text = format!("{}/{} {} {}", info.name, info.id(), info.addr, row.view.state);
        text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// The index of the selected instance; of the first one if none is selected, or the selected one is gone.
    pub(super) fn selected(&self, list: &[ListItem<'_>]) -> Option<usize> {
        let is_selected =
            |item: &ListItem<'_>| self.selected.is_some() && item.key() == self.selected.as_ref();
        let first = || list.iter().position(|item| item.key().is_some());
        list.iter().position(is_selected).or_else(first)
    }

    /// The result of an action, for as long as it is shown.
    pub(super) fn notice(&self, now: Timestamp) -> Option<&str> {
        let (text, at) = self.notice.as_ref()?;
        (now.duration_since(*at) < SHOW_NOTICE).then_some(text)
    }

    pub(super) fn notify(&mut self, text: String, now: Timestamp) {
        self.notice = Some((text, now));
    }

    /// Handles a key.
    pub(super) fn press(&mut self, key: KeyEvent, model: &WatchModel) -> Option<UserAction> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(UserAction::Quit);
        }
        match std::mem::take(&mut self.mode) {
            InputMode::Normal => self.normal(key.code, model),
            InputMode::Filter => {
                self.edit(key.code);
                None
            }
            InputMode::Confirm { target, drain } => {
                let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                yes.then_some(UserAction::Drain { target, drain })
            }
            InputMode::Help => None,
        }
    }

    fn normal(&mut self, code: KeyCode, model: &WatchModel) -> Option<UserAction> {
        match code {
            KeyCode::Char('q') => return Some(UserAction::Quit),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.mode = InputMode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = InputMode::Help,
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

    /// Edits the filter. `Enter` keeps it, `Esc` clears it.
    fn edit(&mut self, code: KeyCode) {
        self.mode = InputMode::Filter;
        match code {
            KeyCode::Enter => self.mode = InputMode::Normal,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = InputMode::Normal;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn ask_drain(&mut self, model: &WatchModel) {
        let list = self.list(model);
        let Some(ListItem::Instance { row, .. }) = self.selected(&list).map(|at| &list[at]) else { return };
        if row.is_removed() {
            return;
        }
        let info = &row.view.info;
        let target = InstanceRef { service: info.name.clone(), instance: info.id().to_owned() };
        self.mode = InputMode::Confirm { target, drain: row.view.state != InstanceState::Draining };
    }

    /// Moves the selection by `by` instances.
    fn select(&mut self, model: &WatchModel, by: isize) {
        let list = self.list(model);
        let keys: Vec<_> = list.iter().filter_map(ListItem::key).collect();
        let now = self.selected(&list).and_then(|at| list[at].key());
        let at = keys.iter().position(|key| Some(*key) == now);
        let Some(last) = keys.len().checked_sub(1) else { return };
        let to = at.unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = keys.get(to).map(|&key| key.clone());
    }
}

#[cfg(test)]
mod tests;
