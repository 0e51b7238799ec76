"""All benchmarks, one after the other."""

import sys

from benchmarks import bombs, disk, growth, idle, kill, ladder, officer, recovery, start

if __name__ == "__main__":
    for benchmark in (start, officer, idle, growth, recovery, ladder, disk, kill, bombs):
        benchmark.main(sys.argv[1:])
