"""All benchmarks, one after the other."""

import sys

from benchmarks import bombs, growth, idle, ladder, officer, start

if __name__ == "__main__":
    for benchmark in (start, officer, idle, growth, ladder, bombs):
        benchmark.main(sys.argv[1:])
