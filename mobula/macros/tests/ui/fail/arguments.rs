//! Arguments of another type than the function's: one error for each, at the argument.

use mobula::ObjectRef;

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn join(words: Vec<String>, with: String) -> String {
    words.join(&with)
}

struct Counter;

#[mobula::remote]
impl Counter {
    fn new(start: i64) -> Self {
        let _ = start;
        Counter
    }

    fn add(&self, by: i64) -> i64 {
        by
    }
}

fn main() {
    let one: i64 = 1;
    let text: ObjectRef<String> = join::remote(vec![], String::new());
    let _ = square::remote("1");
    let _ = square::remote(1.5);
    let _ = square::remote(&one);
    let _ = square::remote(text.clone());
    let _ = square::remote(&text);
    let _ = square::remote(Some(text));
    let _ = join::remote(vec!["a"], String::new());
    let _ = join::remote(vec![], ", ");
    let counter = Counter::remote("1");
    let _ = counter.add('1');
}
