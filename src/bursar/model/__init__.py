"""The nouns. Frozen msgspec structs, integers with units in their names."""
