//! Conway's game of life on a board that wraps around, as actors: each has a strip of the board.
//!
//! In each generation, an actor needs the edges of its two neighbours, and returns its own. The driver passes the edges
//! on as references, for many generations at once, so that no actor waits for the driver; an actor begins as soon as
//! the edges of its neighbours are there. On a terminal the driver shows the generations as they come; with `--watch`
//! it draws them.

use std::io::{IsTerminal, Write, stdout};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mobula::prelude::*;
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};

/// Cells of one row: 1 where one lives.
type Row = Vec<u8>;

/// The first and the last row of a strip.
type Edges = (Row, Row);

/// Keeps some rows of the board.
struct Strip {
    rows: Vec<Row>,
}

#[mobula::remote]
impl Strip {
    fn new(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    fn edges(&self) -> Edges {
        (self.rows[0].clone(), self.rows[self.rows.len() - 1].clone())
    }

    /// The next generation, with the edges of the strips above and below. Returns the strip's own new edges.
    fn step(&mut self, above: Edges, below: Edges) -> Edges {
        let height = self.rows.len();
        let row = |number: usize| match number {
            0 => &above.1,
            number if number <= height => &self.rows[number - 1],
            _ => &below.0,
        };
        self.rows =
            (1..=height).map(|number| next_row(row(number - 1), row(number), row(number + 1))).collect();
        self.edges()
    }

    fn rows(&self) -> Vec<Row> {
        self.rows.clone()
    }
}

/// Lets cells live and die, each strip of the board in a process of its own.
#[derive(Parser)]
struct Options {
    /// Cells from left to right.
    #[arg(long, value_name = "CELLS", default_value_t = 1024)]
    width: usize,

    /// Cells from top to bottom.
    #[arg(long, value_name = "CELLS", default_value_t = 1024)]
    height: usize,

    /// The number of actors. Each has a strip of the board.
    #[arg(long, value_name = "N", default_value = "4")]
    strips: NonZeroUsize,

    /// The number of generations.
    #[arg(long, value_name = "N", default_value_t = 200)]
    generations: usize,

    /// Draw the upper left part of the board in the terminal, as it changes.
    #[arg(long)]
    watch: bool,

    /// Compute the last generation again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let height = options.height.max(options.strips.get());
    let first: Vec<Row> = (0..height).map(|row| first_row(row, options.width.max(1))).collect();
    let started = Instant::now();
    let strips = live(&first, options)?;
    let last = mobula::get(strips.iter().map(|strip| strip.rows()))?.concat();
    let seconds = started.elapsed().as_secs_f64();
    let alive: usize = last.iter().flatten().map(|cell| usize::from(*cell)).sum();
    print(&format!("{} generations in {seconds:.3} s: {alive} cells live\n", options.generations))?;
    if options.check {
        check(first, &last, options.generations)?;
        print(&format!("check: cells {}: ok\n", height * options.width.max(1)))?;
    }
    Ok(())
}

/// The most generations under way: the driver is this far ahead of the actors.
const AHEAD: usize = 32;

fn live(first: &[Row], options: &Options) -> mobula::Result<Vec<ActorHandle<Strip>>> {
    let count = options.strips.get();
    let begin = |strip: usize| strip * first.len() / count;
    let strips: Vec<_> =
        (0..count).map(|strip| Strip::remote(first[begin(strip)..begin(strip + 1)].to_vec())).collect();
    let mut edges: Vec<ObjectRef<Edges>> = strips.iter().map(|strip| strip.edges()).collect();
    let bar = progress_bar(options.generations, "generations");
    let mut under_way = std::collections::VecDeque::new();
    for generation in 0..options.generations {
        edges = (0..count)
            .map(|strip| strips[strip].step(&edges[(strip + count - 1) % count], &edges[(strip + 1) % count]))
            .collect();
        under_way.push_back(edges.clone());
        if options.watch && stdout().is_terminal() {
            draw(generation, &mobula::get(strips.iter().map(|strip| strip.rows()))?.concat());
        } else if under_way.len() > AHEAD
            && let Some(oldest) = under_way.pop_front()
        {
            mobula::wait(&oldest, count, None)?;
        }
        bar.inc(1);
    }
    mobula::get(&edges)?;
    Ok(strips)
}

/// Draws two rows of cells in one line of text, from the upper left corner of the terminal on.
fn draw(generation: usize, rows: &[Row]) {
    const BLOCKS: [char; 4] = [' ', '▀', '▄', '█'];
    let mut text = format!("\x1b[H\x1b[2Kgeneration {generation}\n");
    for pair in rows.chunks(2).take(30) {
        text += "\x1b[2K";
        let lower = |column: usize| pair.get(1).map_or(0, |row| row[column]);
        text.extend(
            (0..pair[0].len().min(100))
                .map(|column| BLOCKS[usize::from(pair[0][column] | lower(column) << 1)]),
        );
        text.push('\n');
    }
    let mut stdout = stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    std::thread::sleep(Duration::from_millis(40));
}

// ---- the game ----

/// A row of the first generation: some cells live, in a pseudo-random order.
fn first_row(row: usize, width: usize) -> Row {
    let hash = |column: usize| {
        let mixed = ((row * 0x1_0001 + column) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 60
    };
    (0..width).map(|column| u8::from(hash(column) < 5)).collect()
}

/// A row of the next generation, from three of this one.
fn next_row(above: &[u8], own: &[u8], below: &[u8]) -> Row {
    let width = own.len();
    let cell = |column: usize| {
        let (left, right) = ((column + width - 1) % width, (column + 1) % width);
        let neighbours =
            [above, own, below].iter().map(|row| row[left] + row[column] + row[right]).sum::<u8>();
        // The sum includes the cell itself.
        u8::from(neighbours == 3 || neighbours == 4 && own[column] == 1)
    };
    (0..width).map(cell).collect()
}

/// Plays the game once more, cell by cell on the whole board.
fn check(mut board: Vec<Row>, last: &[Row], generations: usize) -> Outcome {
    let (height, width) = (board.len() as isize, board[0].len() as isize);
    for _ in 0..generations {
        let before = board.clone();
        let lives = |row: isize, column: isize| {
            before[row.rem_euclid(height) as usize][column.rem_euclid(width) as usize] == 1
        };
        for (row, cells) in (0..).zip(&mut board) {
            for (column, cell) in (0..).zip(cells) {
                let around = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)];
                let neighbours =
                    around.iter().filter(|(down, right)| lives(row + down, column + right)).count();
                *cell = u8::from(neighbours == 3 || neighbours == 2 && lives(row, column));
            }
        }
    }
    if board != last {
        return Err("check failed: the board of the actors differs from that of one process".into());
    }
    Ok(())
}
