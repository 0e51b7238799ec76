"""Decisions. Pure: no clock, file, socket, thread, log or randomness; same state and events, same actions.

Read `machine.handle` first. Chapters (admission, starting, ending, restraining, resizing, calling, observing,
recovery) answer events; settling (expiry, queue, enforce) follows once per batch. `life` and `ledger` are the sole
writers of life and of amounts.
"""
