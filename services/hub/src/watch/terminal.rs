//! The terminal side of `hub watch`: the loop between stream, keys and screen. Whatever ends it, a panic or an
//! error too, the terminal is as it was before.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::control::{Action, Control};
use super::feed;
use super::model::Model;
use super::screen;
use crate::admin::Registry;
use crate::event_source::StreamUpdate;

/// The screen is drawn at most this often, however much happens.
const FRAME: Duration = Duration::from_millis(100);
/// Ages and rates are taken this often.
const SECOND: Duration = Duration::from_secs(1);

/// The terminal in its other screen; given back when dropped. A panic gives it back before it speaks
/// (`ratatui::try_init` sees to that).
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        ratatui::try_init().map(Self).context("this terminal can't be used; try hub watch --once")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Runs until `stop` is done or a key says so.
pub(super) async fn run(registry: &Registry, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut model = Model::default();
    let mut control = Control::default();
    let mut follow = registry.watch(None);
    let mut actions: JoinSet<String> = JoinSet::new();
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut stop = pin!(stop);
    let mut frames = interval(FRAME);
    let mut seconds = interval(SECOND);
    for ticks in [&mut frames, &mut seconds] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    }
    let mut stale = true;
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            said = follow.next() => {
                take(&mut model, said?);
                stale = true;
            }
            key = keys.next() => {
                let event = key.context("the terminal has gone away")??;
                if let Event::Key(key) = event {
                    match control.key(key, &model) {
                        Some(Action::Quit) => return Ok(()),
                        Some(Action::Drain { target, drain }) => {
                            let registry = registry.clone();
                            actions.spawn(async move {
                                match registry.drain(&target, drain).await {
                                    Ok(()) if drain => format!("{target} is draining"),
                                    Ok(()) => format!("{target} takes requests again"),
                                    Err(error) => format!("{target}: {error:#}"),
                                }
                            });
                        }
                        None => {}
                    }
                }
                draw(&mut screen, &model, &control, registry)?;
                stale = false;
            }
            Some(outcome) = actions.join_next() => {
                control.notify(outcome?, Timestamp::now());
                stale = true;
            }
            _ = seconds.tick() => {
                model.second(Timestamp::now());
                stale = true;
            }
            _ = frames.tick(), if stale => {
                draw(&mut screen, &model, &control, registry)?;
                stale = false;
            }
        }
    }
}

fn take(model: &mut Model, said: StreamUpdate) {
    let now = Timestamp::now();
    match said {
        StreamUpdate::Connected => model.open(now),
        StreamUpdate::Disconnected { reason: why } => model.away(why, now),
        StreamUpdate::Event(event) => match feed::read(&event) {
            Ok(Some(update)) => model.apply(update, now),
            Ok(None) => {}
            // What the registry says can't be read: what is shown is how it was.
            Err(error) => model.away(format!("{error:#}"), now),
        },
    }
}

fn draw(screen: &mut Screen, model: &Model, control: &Control, registry: &Registry) -> anyhow::Result<()> {
    let now = Timestamp::now();
    screen.0.draw(|frame| screen::draw(frame, model, control, registry.url(), now))?;
    Ok(())
}
