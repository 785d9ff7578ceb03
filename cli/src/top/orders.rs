//! The orders of a person. A thread of its own carries them out, so that a session that does not answer freezes no
//! screen.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mobula_runtime::control;
use mobula_runtime::logs::{LogCursor, LogLine, LogStream, Logs};
use mobula_runtime::state::Observer;

use crate::stack::Stacks;
use crate::table::printable;

/// The time between two reads of a log that is followed.
const FOLLOW: Duration = Duration::from_millis(250);

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Kill a process or an actor. The text is an argument of `mobula kill`.
    Kill(String),
    /// Cancel a call.
    Cancel(String),
    /// Show the stack of a process.
    Stack(u32),
    /// Show the log of a process from now on.
    Follow(u32),
    Unfollow,
}

/// The outcome of an order.
#[derive(Debug)]
pub(super) enum Answer {
    Said(String),
    Text {
        title: String,
        text: String,
    },
    /// New lines of the log that is followed.
    Lines {
        pid: u32,
        lines: Vec<String>,
    },
}

/// The thread that carries orders out.
#[derive(Debug)]
pub(super) struct Orders {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
}

impl Orders {
    pub(super) fn start(socket: PathBuf) -> Self {
        let (orders, received) = unbounded();
        let (answering, answers) = unbounded();
        let carry_out = move || {
            Carrier { logs: Logs::of_session(&socket), socket, answering, follows: None }.run(&received)
        };
        // The thread ends when the channel closes. If it waits for a stopped session, it ends with the program.
        let _ = std::thread::Builder::new().name("orders".to_owned()).spawn(carry_out);
        Self { orders, answers }
    }

    pub(super) fn give(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    pub(super) fn answers(&self) -> impl Iterator<Item = Answer> {
        self.answers.try_iter()
    }
}

struct Carrier {
    socket: PathBuf,
    logs: Logs,
    answering: Sender<Answer>,
    follows: Option<(u32, LogCursor)>,
}

impl Carrier {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match &self.follows {
                Some(_) => match orders.recv_timeout(FOLLOW) {
                    Ok(order) => Some(order),
                    Err(error) if error.is_timeout() => None,
                    Err(_) => return,
                },
                None => match orders.recv() {
                    Ok(order) => Some(order),
                    Err(_) => return,
                },
            };
            match order {
                Some(Order::Follow(pid)) => self.follows = Some((pid, LogCursor::default())),
                Some(Order::Unfollow) => self.follows = None,
                Some(order) => {
                    let answer =
                        self.carry_out(order).unwrap_or_else(|error| Answer::Said(error.to_string()));
                    let _ = self.answering.send(answer);
                }
                None => {}
            }
            self.look_at_log();
        }
    }

    fn carry_out(&self, order: Order) -> Result<Answer, Box<dyn std::error::Error>> {
        let observer = Observer::connect(&self.socket)?;
        match order {
            Order::Kill(target) => {
                let Ok(parsed) = target.parse();
                control::kill(&observer, &parsed, false)?;
                Ok(Answer::Said(format!("killed {target}")))
            }
            Order::Cancel(task) => {
                let Ok(parsed) = task.parse();
                control::cancel(&observer, &parsed, false, true)?;
                Ok(Answer::Said(format!("cancelled {task}")))
            }
            Order::Stack(pid) => {
                let stacks = Stacks::of(&observer.look()?, pid, true)?;
                Ok(Answer::Text { title: format!("stack of process {pid}"), text: stacks.to_text() })
            }
            Order::Follow(_) | Order::Unfollow => Ok(Answer::Said(String::new())),
        }
    }

    fn look_at_log(&mut self) {
        let Some((pid, cursor)) = &mut self.follows else { return };
        let pid = *pid;
        match self.logs.read(cursor, |of| of == pid) {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => {
                let lines = lines.iter().map(line).collect();
                let _ = self.answering.send(Answer::Lines { pid, lines });
            }
            Err(error) => {
                let why = format!("the log cannot be read: {error}");
                let _ = self.answering.send(Answer::Said(why));
                self.follows = None;
            }
        }
    }
}

fn line(LogLine { stream, function, text, .. }: &LogLine) -> String {
    let text = printable(&String::from_utf8_lossy(text));
    match stream {
        LogStream::Notice => format!("[{text}]"),
        _ => format!("({function}) {text}"),
    }
}
