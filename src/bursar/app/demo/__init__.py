"""`bursar demo`: one fleet of agents, first without bursar and then with it, on this machine's own kernel."""
