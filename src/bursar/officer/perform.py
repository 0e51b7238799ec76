"""This is about deeds: one match from action to effect. Nothing here decides.

An effect on the kernel comes back as an outcome event with the action's id; `hands` knows which lane it runs in.
"""

import logging
from typing import assert_never

from bursar.model import actions
from bursar.model.actions import Action
from bursar.officer.hands import Hands

log = logging.getLogger("bursar.officer")

Performed = (
    actions.Shape
    | actions.Place
    | actions.Freeze
    | actions.Thaw
    | actions.Kill
    | actions.Examine
    | actions.Relieve
    | actions.Signal
    | actions.SetOomScores
    | actions.Remove
    | actions.Reclaim
    | actions.Recapture
    | actions.Warn
    | actions.LeaveWord
    | actions.Mark
    | actions.OpenOutput
    | actions.DropOutput
    | actions.Announce
    | actions.Answer
    | actions.Refuse
    | actions.Record
    | actions.Watch
    | actions.WatchDisk
    | actions.Apply
    | actions.Shutdown
)


def perform(action: Performed, hands: Hands) -> None:
    """Do what *action* says."""
    match action:  # the frequent ones first
        case actions.Answer():
            hands.answer(action)
        case actions.Refuse():
            hands.refuse(action)
        case actions.Record():
            hands.record(action)
        case actions.Announce():
            hands.announce(action)
        case actions.Watch():
            hands.watch(action)
        case actions.Shape():
            hands.shape(action)
        case actions.Place():
            hands.place(action)
        case actions.Freeze():
            hands.freeze(action)
        case actions.Thaw():
            hands.thaw(action)
        case actions.Kill():
            hands.kill(action)
        case actions.Examine():
            hands.examine(action)
        case actions.Relieve():
            hands.relieve(action)
        case actions.Signal():
            hands.signal(action)
        case actions.SetOomScores():
            hands.set_oom_scores(action)
        case actions.Remove():
            hands.remove(action)
        case actions.Reclaim():
            hands.reclaim(action)
        case actions.Recapture():
            hands.recapture(action)
        case actions.LeaveWord():
            hands.leave_word(action)
        case actions.Warn():
            hands.warn(action)
        case actions.Mark():
            hands.mark(action)
        case actions.OpenOutput():
            hands.open_output(action)
        case actions.DropOutput():
            hands.drop_output(action)
        case actions.WatchDisk():
            hands.watch_disk(action)
        case actions.Apply():
            hands.apply(action)
        case actions.Shutdown():
            hands.shutdown()
        case _:
            assert_never(action)


def perform_all(batch: list[Action], hands: Hands) -> None:
    """Do a whole batch in its order, then let the journal commit it. What breaks one action keeps no other from being done."""
    for action in batch:
        try:
            perform(action, hands)  # type: ignore[arg-type]  # every Action is one of Performed: tests/officer/test_perform.py
        except Exception:
            log.exception("not performed: %s", action)
    hands.batch_done()
