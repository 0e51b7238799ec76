"""The only places that put parts together, one module a process."""
