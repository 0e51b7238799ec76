"""All benchmarks, one after the other."""

import sys

from benchmarks import growth, idle, officer, start

if __name__ == "__main__":
    for benchmark in (start, officer, idle, growth):
        benchmark.main(sys.argv[1:])
