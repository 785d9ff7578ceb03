//! Replies where there can be none.

use mobula::Reply;

#[mobula::remote]
fn function(reply: Reply<u8>) {
    reply.send(1)
}

struct Actor;

#[mobula::remote]
impl Actor {
    fn new(reply: Reply<u8>) -> Self {
        reply.send(1);
        Actor
    }

    fn two(&self, first: Reply<u8>, second: Reply<u8>) {
        first.send(1);
        second.send(2)
    }

    fn returns(&self, reply: Reply<u8>) -> u8 {
        reply.send(1);
        1
    }

    fn borrows(&self, reply: Reply<&'static str>) {
        drop(reply)
    }

    #[remote(streaming)]
    fn streams(&self, reply: Reply<u8>) {
        reply.send(1)
    }

    #[remote(num_returns = 2)]
    fn splits(&self, reply: Reply<(u8, u8)>) {
        reply.send((1, 2))
    }
}

fn main() {}
