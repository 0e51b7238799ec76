"""All benchmarks, one after the other."""

import sys

from benchmarks import bombs, growth, idle, kill, ladder, officer, recovery, start

if __name__ == "__main__":
    for benchmark in (start, officer, idle, growth, recovery, ladder, kill, bombs):
        benchmark.main(sys.argv[1:])
