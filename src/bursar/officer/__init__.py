"""The daemon around the machine: sense → (core decides) → perform → outcome → record → answer.

Read `loop.Officer` first. One asyncio loop that never blocks; what may block runs in lanes.
"""
