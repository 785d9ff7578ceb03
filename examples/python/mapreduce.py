"""Count the words of texts with mappers and reducers that are actors, as the texts come.

Each mapper reads articles one after the other and counts their words. Each reducer asks all mappers for the words that
begin with its letters, and adds the counts up. Run it with ``python examples/python/mapreduce.py``; ``--articles``
names a directory with texts, and ``--check`` compares with a count in one process.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mobula as ray

WORD = re.compile(r"\w+")
SAMPLE = [
    "The cat sat on the mat, and the dog sat by the door.",
    "A dog and a cat are animals; a mat and a door are not.",
    "The zebra ran. The yak did not: the yak sat.",
] * 40


def words(article: str) -> Counter[str]:
    """Count the words of an article."""
    return Counter(WORD.findall(article.lower()))


class Articles:
    """A stream of articles, which the process that reads it opens for itself."""

    def __init__(self, files: list[str], first: int, step: int) -> None:
        self.files, self.first, self.step = files, first, step

    def __iter__(self) -> Iterator[str]:
        if not self.files:
            yield from SAMPLE[self.first :: self.step]
        paragraphs = (part for file in self.files for part in read(file).split("\n\n") if part.strip())
        for number, paragraph in enumerate(paragraphs):
            if number % self.step == self.first:
                yield paragraph


def read(file: str) -> str:
    """Read a text, which is UTF-8, or else Latin-1."""
    data = Path(file).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@ray.remote
class Mapper:
    """Counts the words of its articles."""

    def __init__(self, title_stream: Articles) -> None:
        self.stream = iter(title_stream)
        self.counts: list[Counter[str]] = []
        self.is_over = False

    def get_range(self, article_index: int, keys: tuple[str, str]) -> list[tuple[str, int]] | None:
        """Return the counts of the words between the keys in one article; ``None`` behind the last."""
        while len(self.counts) <= article_index and not self.is_over:
            article = next(self.stream, None)
            if article is None:
                self.is_over = True
            else:
                self.counts.append(words(article))
        if article_index >= len(self.counts):
            return None
        return [item for item in self.counts[article_index].items() if keys[0] <= item[0] < keys[1]]


@ray.remote
class Reducer:
    """Adds up the counts of the words between two keys."""

    def __init__(self, keys: tuple[str, str], *mappers: ray.ActorHandle) -> None:
        self.mappers, self.keys = mappers, keys
        self.counts: Counter[str] = Counter()

    def next_reduce_result(self, article_index: int) -> bool:
        """Add the next article of each mapper. Return whether there was one."""
        parts = ray.get([mapper.get_range.remote(article_index, self.keys) for mapper in self.mappers])
        for part in parts:
            for word, count in part or ():
                self.counts[word] += count
        return any(part is not None for part in parts)

    def result(self) -> Counter[str]:
        """Return the counts so far."""
        return self.counts


def main() -> None:
    """Count, and print the most frequent words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--articles", type=Path, help="a directory with texts")
    parser.add_argument("--mappers", type=int, default=3)
    parser.add_argument("--reducers", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="compare with a count in one process")
    options = parser.parse_args()
    files = [str(file) for file in sorted(options.articles.iterdir()) if file.is_file()] if options.articles else []

    ray.init()
    began = time.perf_counter()
    streams = [Articles(files, number, options.mappers) for number in range(options.mappers)]
    # Every word is between two neighbours of these.
    letters = [chr(ord("a") + 26 * number // options.reducers) for number in range(1, options.reducers)]
    borders = ["", *letters, "\U0010ffff"]
    keys = list(itertools.pairwise(borders))
    mappers = [Mapper.remote(stream) for stream in streams]
    reducers = [Reducer.remote(key, *mappers) for key in keys]

    article_index = 0
    while any(ray.get([reducer.next_reduce_result.remote(article_index) for reducer in reducers])):
        article_index += 1
        if article_index % 1000 == 0:
            print(f"{article_index} articles of each mapper")
    counts: Counter[str] = Counter()
    for part in ray.get([reducer.result.remote() for reducer in reducers]):
        counts.update(part)
    print(f"{sum(counts.values())} words, {len(counts)} different, in {time.perf_counter() - began:.1f} s")
    for word, count in counts.most_common(10):
        print(f"{count:8} {word}")
    if options.check:
        expected: Counter[str] = Counter()
        for article in Articles(files, 0, 1):
            expected.update(words(article))
        if counts != expected:
            raise SystemExit("the counts differ from those of one process")
        print("the counts are those of one process")


if __name__ == "__main__":
    main()
