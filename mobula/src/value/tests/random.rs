//! Random values of every kind of carrier, in random nesting, come back as they went, from the heap and from the store.

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use mobula_client::Client;
use serde::{Deserialize, Serialize};

use super::seed::{Random, for_each_seed};
use super::store::{Store, get, put};
use super::{from_heap, payload};
use crate::value::{Arrow, Bytes, BytesMut, Tensor, TensorMut, encode};

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Tree {
    Leaf(i64),
    Text(String),
    Bytes(Bytes),
    Tensor(Tensor<f32>),
    Numbers(Arrow<ArrayRef>),
    Table(Arrow<RecordBatch>),
    Branch(Vec<Tree>),
    Pair(Box<(Option<Tree>, Tree)>),
}

#[test]
fn random_values_come_back() {
    let store = Store::start();
    for_each_seed(300, |mut random| {
        let tree = random.tree(&store, 4);
        let back: Tree = from_heap_or_store(&store, &tree);
        assert_eq!(back, tree);
        let again = put(&store, &vec![back.clone(), tree.clone()]);
        assert_eq!(get::<Vec<Tree>>(&store, &again).unwrap(), [tree, back]);
    });
}

fn from_heap_or_store(client: &Client, tree: &Tree) -> Tree {
    let object = put(client, tree);
    let stored: Tree = get(client, &object).unwrap();
    assert_eq!(encode(&stored).unwrap().copied_bytes(), 0, "what lies in the store is copied again");
    if encode(tree).unwrap().references().is_empty() {
        assert_eq!(from_heap::<Tree>(payload(tree)).unwrap(), stored);
    }
    stored
}

impl Random {
    fn tree(&mut self, client: &Client, depth: usize) -> Tree {
        match self.below(if depth == 0 { 8 } else { 11 }) {
            0 => Tree::Leaf(self.next() as i64),
            1 => Tree::Text("é".repeat(self.below(50))),
            2 => {
                let bytes = Bytes::from(vec![self.next() as u8; self.below(300)]);
                let start = self.below(bytes.len() + 1);
                Tree::Bytes(bytes.slice(start..))
            }
            3 => {
                let mut bytes = BytesMut::create_in(client, self.below(300)).unwrap();
                bytes.fill(self.next() as u8);
                let bytes = bytes.seal();
                let end = self.below(bytes.len() + 1);
                Tree::Bytes(bytes.slice(..end))
            }
            4 => {
                let shape: Vec<usize> = (0..self.below(4)).map(|_| self.below(5)).collect();
                let elements = (0..shape.iter().product()).map(|_| self.next() as f32).collect();
                Tree::Tensor(Tensor::from_shape_vec(&shape, elements).unwrap())
            }
            5 => {
                let shape: Vec<usize> = (0..self.below(4)).map(|_| self.below(5)).collect();
                let mut tensor = TensorMut::zeros_in(client, &shape).unwrap();
                tensor.as_mut_slice().iter_mut().for_each(|element| *element = self.next() as f32);
                Tree::Tensor(tensor.seal())
            }
            6 => Tree::Numbers(self.array(20).into()),
            7 => {
                let rows = self.below(20);
                let columns: Vec<_> = ["a", "b", "c"].map(|name| (name, self.array(rows))).into();
                let batch =
                    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)));
                let batch = batch.unwrap();
                let start = self.below(rows + 1);
                Tree::Table(batch.slice(start, self.below(rows - start + 1)).into())
            }
            8 | 9 => Tree::Branch((0..self.below(4)).map(|_| self.tree(client, depth - 1)).collect()),
            _ => {
                let first = (self.below(2) == 0).then(|| self.tree(client, depth - 1));
                Tree::Pair(Box::new((first, self.tree(client, depth - 1))))
            }
        }
    }

    /// The last `length` elements of some array.
    fn array(&mut self, length: usize) -> ArrayRef {
        let skipped = self.below(20);
        let present: Vec<bool> = (0..skipped + length).map(|_| self.below(4) != 0).collect();
        let present = present.into_iter();
        let array: ArrayRef = match self.below(3) {
            0 => Arc::new(present.map(|present| present.then(|| self.next() as i64)).collect::<Int64Array>()),
            1 => {
                Arc::new(present.map(|present| present.then(|| self.below(2) == 0)).collect::<BooleanArray>())
            }
            _ => Arc::new(
                present.map(|present| present.then(|| "x".repeat(self.below(9)))).collect::<StringArray>(),
            ),
        };
        array.slice(skipped, length)
    }
}
