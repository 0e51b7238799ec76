"""The officer's store: commands, transitions and decisions, never readings."""
