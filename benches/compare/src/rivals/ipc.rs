//! ipc-channel, as Servo uses it: messages over sockets, a system call and a wake-up each way.

use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use crate::peer::{self, Failure, budget, check, error, median_of};
use crate::side::Side;

type Message = [u8; 32];
/// The other process's first message: the way to send to it, and the way to hear from it.
type Hello = (IpcSender<(Message, Message)>, IpcReceiver<(Message, Message)>);

/// The side of ipc-channel. `there-and-back PAUSE_US BUDGET`: 64 bytes, with a pause before each.
pub(crate) fn serve() -> Result<(), Failure> {
    let (server, name) = IpcOneShotServer::<Hello>::new()?;
    let _other = Side::peer(&["ipc-echo", &name])?;
    let (_, (sender, receiver)) = server.accept().map_err(|error| Failure::Error(error.to_string()))?;
    let mut number = 0_u8;
    peer::serve(|words| match *words {
        ["there-and-back", pause_us, time] => {
            let pause = Duration::from_micros(pause_us.parse()?);
            median_of(budget(time)?, || {
                std::thread::sleep(pause);
                number = number.wrapping_add(1);
                let message = ([number; 32], [7; 32]);
                let start = Instant::now();
                sender.send(message).map_err(|error| Failure::Error(error.to_string()))?;
                let back = receiver.recv().map_err(|error| Failure::Error(error.to_string()))?;
                let taken = start.elapsed().as_secs_f64();
                check(back == message, "ipc-channel gives back another message")?;
                Ok(taken)
            })
        }
        ["rest"] => Ok(0.0),
        _ => error("no such work"),
    })
}

/// The other process: sends back every message.
pub(crate) fn echo(name: &str) -> Result<(), Failure> {
    let (to_here, here) = ipc::channel()?;
    let (there, from_there) = ipc::channel()?;
    let server = IpcSender::<Hello>::connect(name.to_owned())?;
    server.send((to_here, from_there)).map_err(|error| Failure::Error(error.to_string()))?;
    while let Ok(message) = here.recv() {
        if there.send(message).is_err() {
            break;
        }
    }
    Ok(())
}
