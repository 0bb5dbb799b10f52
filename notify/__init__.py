"""Pure routing and messages; `send` is the only module that imports apprise."""
