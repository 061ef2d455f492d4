"""The stateful test: a machine of rules, the ledger that it is held against, and who judges."""
