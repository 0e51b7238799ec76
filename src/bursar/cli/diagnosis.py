"""What `bursar doctor` says: the probe of this machine (a process of its own), and the officer, if one answers."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bursar import __version__
from bursar.cli.question import ask, on_one_line
from bursar.cli.tables import print_table
from bursar.errors import BursarError, NoOfficer

PROBE_S = 30.0


def diagnose() -> dict[str, Any]:
    """The probe's report with `officer` beside it: what it says of itself, or why there is none."""
    found = probe()
    try:
        officer = ask("hello", revive=False)
    except BursarError as problem:
        answers = not isinstance(problem, NoOfficer)
        return found | {"officer": {"answers": answers, "because": str(problem)}}
    # A running officer has its tree, whatever we ourselves may do.
    findings = [finding for finding in found["findings"] if not found["because"] or found["because"] not in finding["what"]]
    return found | {"contains": True, "because": None, "host": officer["host"], "findings": findings, "officer": {"answers": True, **officer}}


def probe() -> dict[str, Any]:
    """What app.doctor sees. Raises BursarError when it fails."""
    done = subprocess.run([sys.executable, "-m", "bursar.app.doctor"], capture_output=True, text=True, timeout=PROBE_S, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as problem:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise BursarError(f"this machine could not be examined: {said[0]}") from problem
    return found


def print_diagnosis(found: Mapping[str, Any]) -> None:
    """For people: the officer, the table of dimensions, each finding with its command."""
    officer = found["officer"]
    if not officer["answers"]:
        print(f"officer    {on_one_line(officer['because'])}")
    elif "pid" in officer:
        differs = "" if officer["version"] == __version__ else f"; this command is version {__version__}"
        print(f"officer    version {on_one_line(officer['version'])}, pid {officer['pid']}{differs}")
        for trouble in officer.get("troubles") or ():
            print(f"           {on_one_line(trouble)}")
    else:
        print(f"officer    answers, but: {on_one_line(officer['because'])}")
    print(f"host       {found['host'] or 'none that can hold agents'}")
    print("contains   yes" if found["contains"] else f"contains   no: {on_one_line(found['because'])}")
    if found["kept"]:
        print()
        print_table(("DIMENSION", "KEPT", "BY"), [[row["dimension"], row["how"], row["by"]] for row in found["kept"]])
    for finding in found["findings"]:
        print(f"\n{on_one_line(finding['what'])}\n  {finding['repair']}")
    print("\nA process of the officer's own user, and root, can leave its cgroup: bursar contains accidents, not intent, unless agents run as another user.")
