//! Methods that a handle's own would hide.

struct Account;

#[mobula::remote]
impl Account {
    fn new() -> Self {
        Account
    }

    fn clone(&self) -> usize {
        1
    }

    fn to_owned(&self) {}

    fn r#into(&mut self) {}

    fn eq(&self, other: u8) -> bool {
        other == 1
    }

    fn borrow(&mut self, amount: u64) -> u64 {
        amount
    }

    fn hash(&self) {}

    fn deref(&self) {}

    fn type_id(&self) {}

    // Not these: they are not on the handle.
    #[remote(local)]
    fn borrow_mut(&mut self) -> &mut Self {
        self
    }

    fn try_into() {}
}

fn main() {}
