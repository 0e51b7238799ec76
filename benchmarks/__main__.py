"""All benchmarks, one after the other."""

import sys

from benchmarks import growth, idle, ladder, officer, start

if __name__ == "__main__":
    for benchmark in (start, officer, idle, growth, ladder):
        benchmark.main(sys.argv[1:])
