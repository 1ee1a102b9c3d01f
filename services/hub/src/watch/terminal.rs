//! `hub watch` on a terminal: the loop between stream, keys and screen. The terminal is restored however it
//! ends, also after an error or a panic.

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

use super::control::{Control, UserAction};
use super::model::WatchModel;
use super::screen;
use crate::admin_client::AdminClient;
use crate::catalog_update::CatalogUpdate;
use crate::event_source::StreamUpdate;

/// Minimum time between two frames, however much happens.
const FRAME: Duration = Duration::from_millis(100);
/// How often ages and rates change.
const TICK: Duration = Duration::from_secs(1);

/// The terminal in its alternate screen, restored when dropped. On a panic, `ratatui::try_init`'s hook
/// restores it before the message is printed.
struct AlternateScreen(DefaultTerminal);

impl AlternateScreen {
    fn enter() -> anyhow::Result<Self> {
        ratatui::try_init().map(Self).context("can't use this terminal; try `hub watch --once`")
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Runs until `stop` is done or the user quits.
pub(super) async fn run(registry: &AdminClient, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut model = WatchModel::default();
    let mut control = Control::default();
    let mut stream = registry.watch(None);
    let mut actions: JoinSet<String> = JoinSet::new();
    let mut screen = AlternateScreen::enter()?;
    let mut keys = EventStream::new();
    let mut stop = pin!(stop);
    let mut frames = interval(FRAME);
    let mut ticks = interval(TICK);
    for timer in [&mut frames, &mut ticks] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    }
    let mut changed = true;
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            update = stream.next() => {
                apply(&mut model, update?);
                changed = true;
            }
            key = keys.next() => {
                let event = key.context("the terminal is gone")??;
                if let Event::Key(key) = event {
                    match control.press(key, &model) {
                        Some(UserAction::Quit) => return Ok(()),
                        Some(UserAction::Drain { target, drain }) => {
                            let registry = registry.clone();
                            actions.spawn(async move {
                                match registry.drain(&target, drain).await {
                                    Ok(()) if drain => format!("{target} is draining"),
                                    Ok(()) => format!("{target} is no longer draining"),
                                    Err(error) => format!("{target}: {error:#}"),
                                }
                            });
                        }
                        None => {}
                    }
                }
                draw(&mut screen, &model, &control, registry)?;
                changed = false;
            }
            Some(result) = actions.join_next() => {
                control.notify(result?, Timestamp::now());
                changed = true;
            }
            _ = ticks.tick() => {
                model.tick(Timestamp::now());
                changed = true;
            }
            _ = frames.tick(), if changed => {
                draw(&mut screen, &model, &control, registry)?;
                changed = false;
            }
        }
    }
}

fn apply(model: &mut WatchModel, update: StreamUpdate) {
    let now = Timestamp::now();
    match update {
        StreamUpdate::Connected => model.connected(now),
        StreamUpdate::Disconnected { reason } => model.disconnected(reason, now),
        StreamUpdate::Event(event) => match CatalogUpdate::parse(&event) {
            Ok(Some(update)) => model.apply(update, now),
            Ok(None) => {}
            // An event that can't be read leaves the model out of date.
            Err(error) => model.disconnected(format!("{error:#}"), now),
        },
    }
}

fn draw(
    screen: &mut AlternateScreen,
    model: &WatchModel,
    control: &Control,
    registry: &AdminClient,
) -> anyhow::Result<()> {
    let now = Timestamp::now();
    screen.0.draw(|frame| screen::draw(frame, model, control, registry.url(), now))?;
    Ok(())
}
