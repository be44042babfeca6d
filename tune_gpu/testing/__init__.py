"""Conformance tests that ship: whoever writes a kind of service, a searcher or a target of `promote` runs them. They need pytest."""
