//! `mobula top`: a session in a terminal, live.
//!
//! [`Live`] takes the figures on a thread of its own, and another thread carries out orders. So the screen answers keys
//! even while a session does not answer. [`app`] has the state of the screen and the effects of keys, without a
//! terminal; [`draw`] draws it.

mod app;
mod draw;
mod orders;
mod rows;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::app::{App, Key};
use self::draw::Theme;
use self::orders::Orders;
use crate::live::{Live, Session, Update};
use crate::session::{Look, explain};

/// The longest wait for a key before the screen is drawn again.
const TICK: Duration = Duration::from_millis(50);
/// The longest wait for the first two samples, for --json.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows a session live: running and waiting calls, the rates and times of functions, the queues of actors, and the use
/// of the store.
///
/// Keys sort and filter the rows, follow a log, show a stack, cancel and kill: ? lists them. The variable NO_COLOR
/// turns colours off. With --json, the command prints one sample, with rates over one interval, and ends.
#[derive(Debug, clap::Args)]
pub(crate) struct TopCommand {
    /// Seconds between two samples.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    look: Look,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 0.5".to_owned())?;
    let is_possible = (0.1..=3600.0).contains(&seconds);
    is_possible.then_some(seconds).ok_or_else(|| "expected 0.1 to 3600 seconds".to_owned())
}

impl TopCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let socket = self.look.socket()?;
        let interval = Duration::from_secs_f64(self.interval);
        let live = Live::start(socket.clone(), interval).map_err(|error| explain(&socket, error))?;
        if self.look.is_json() {
            let look = second_look(&live)?.look.ok_or("the session does not answer")?;
            return self.look.show(&look.sample, String::new);
        }
        if !stdout().is_terminal() {
            return Err(
                "top needs a terminal: `mobula list workers` and `mobula top --json` print once".into()
            );
        }
        let mut terminal = ratatui::try_init()?;
        let shown = show(&mut terminal, &live, &mut App::new(self.interval), &Orders::start(socket));
        ratatui::try_restore()?;
        shown
    }
}

/// The second sample, which has rates.
fn second_look(live: &Live) -> Result<Update, Box<dyn Error>> {
    let first = live.wait(0, PATIENCE).ok_or("the session does not answer")?;
    match &first.session {
        Session::Running => Ok(live.wait(first.number, PATIENCE).ok_or("the session does not answer")?),
        Session::Silent(why) | Session::Ended(why) => Err(why.clone().into()),
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    live: &Live,
    app: &mut App,
    orders: &Orders,
) -> Result<(), Box<dyn Error>> {
    let theme = Theme::of_environment();
    let (mut seen, mut is_changed, mut drawn) = (None, true, Instant::now());
    loop {
        let update = live.latest();
        if seen != Some(update.number) && !app.is_paused() {
            seen = Some(update.number);
            app.update(update.session, update.look.as_ref().map(|look| &look.sample), live.history());
            is_changed = true;
        }
        for answer in orders.answers() {
            app.answered(answer);
            is_changed = true;
        }
        if is_changed || drawn.elapsed() > Duration::from_secs(1) {
            terminal.draw(|frame| draw::draw(frame, app, &theme))?;
            (is_changed, drawn) = (false, Instant::now());
        }
        if !event::poll(TICK)? {
            continue;
        }
        is_changed = true;
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match app.key(key) {
                Key::Quit => return Ok(()),
                Key::Order(order) => orders.give(order),
                Key::Interval(seconds) => live.set_interval(Duration::from_secs_f64(seconds)),
                Key::Nothing => {}
            },
            _ => {}
        }
    }
}
